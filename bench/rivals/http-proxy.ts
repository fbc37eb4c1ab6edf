/**
 * http-proxy 1.18 as a rival: `web` and `ws` with an agent that keeps connections. It sets
 * X-Forwarded-* itself (`xfwd`).
 */
import { Agent, type IncomingMessage, type ServerResponse } from "node:http";
import { createRequire } from "node:module";
import type { Duplex } from "node:stream";
import {
  addedToRequest,
  CONNECTIONS_MAX,
  logWhenSent,
  originByHost,
  refuse,
  requestId,
  serve,
} from "./node-rival.ts";

/** What is used of the package, which brings no types. */
interface HttpProxy {
  createProxyServer(options: { agent: Agent }): {
    web(request: IncomingMessage, response: ServerResponse, options: Options): void;
    ws(request: IncomingMessage, socket: Duplex, head: Buffer, options: Options): void;
    on(event: "error", listener: (error: Error, request: unknown, response: unknown) => void): void;
  };
}

interface Options {
  readonly target: string;
  readonly headers: Readonly<Record<string, string>>;
}

const { createProxyServer } = createRequire(import.meta.url)("http-proxy") as HttpProxy;
const proxy = createProxyServer({
  agent: new Agent({ keepAlive: true, maxFreeSockets: CONNECTIONS_MAX }),
});
proxy.on("error", (_error, _request, response) => {
  // The load generator counts what was not answered with 200.
  if (isResponse(response)) refuse(response, 502);
  else (response as Duplex | undefined)?.destroy();
});

serve({
  onRequest(request, response) {
    const id = requestId();
    logWhenSent(request, response, id);
    const target = originByHost.get(request.headers.host ?? "");
    if (target === undefined) return refuse(response, 404);
    response.setHeader("via", "1.1 http-proxy");
    response.setHeader("x-request-id", id);
    proxy.web(request, response, {
      target,
      headers: addedToRequest(request, { id, via: "http-proxy" }),
    });
  },
  onUpgrade(request, socket, head) {
    const target = originByHost.get(request.headers.host ?? "");
    if (target === undefined) return void socket.destroy();
    proxy.ws(request, socket, head, {
      target,
      headers: addedToRequest(request, { id: requestId(), via: "http-proxy" }),
    });
  },
});

function isResponse(value: unknown): value is ServerResponse {
  return typeof value === "object" && value !== null && "writeHead" in value;
}
