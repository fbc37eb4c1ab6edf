/**
 * http-proxy 1.18 as a rival: `web` and `ws` with an agent that keeps connections. It sets
 * X-Forwarded-* itself (`xfwd`).
 */
import { Agent, type IncomingMessage, type ServerResponse } from "node:http";
import { createRequire } from "node:module";
import type { Duplex } from "node:stream";
import {
  CONNECTIONS_MAX,
  type Forward,
  forwardOf,
  forwardOfUpgrade,
  refuse,
  serve,
} from "./node-rival.ts";

/** What is used of the package, which brings no types. */
interface HttpProxy {
  createProxyServer(options: { agent: Agent }): {
    web(request: IncomingMessage, response: ServerResponse, options: Forward): void;
    ws(request: IncomingMessage, socket: Duplex, head: Buffer, options: Forward): void;
    on(event: "error", listener: (error: Error, request: unknown, response: unknown) => void): void;
  };
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
    const forward = forwardOf(request, response, "http-proxy");
    if (forward !== null) proxy.web(request, response, forward);
  },
  onUpgrade(request, socket, head) {
    const forward = forwardOfUpgrade(request, socket, "http-proxy");
    if (forward !== null) proxy.ws(request, socket, head, forward);
  },
});

function isResponse(value: unknown): value is ServerResponse {
  return typeof value === "object" && value !== null && "writeHead" in value;
}
