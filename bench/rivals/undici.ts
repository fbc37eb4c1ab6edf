/**
 * The cheapest proxy that can be made of Node's own server and undici: `dispatch`, which hands over
 * heads and chunks without a stream in between.
 */
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import { Pool, type Dispatcher } from "undici";
import {
  addedToRequest,
  CONNECTIONS_MAX,
  logWhenSent,
  originByHost,
  refuse,
  requestId,
  serve,
  withoutHopByHop,
} from "./node-rival.ts";

const poolByHost = new Map(
  [...originByHost].map(([host, origin]) => [
    host,
    new Pool(origin, { connections: CONNECTIONS_MAX, pipelining: 1 }),
  ]),
);

serve({
  onRequest(request, response) {
    const id = requestId();
    logWhenSent(request, response, id);
    const pool = poolByHost.get(request.headers.host ?? "");
    if (pool === undefined) return refuse(response, 404);
    pool.dispatch(
      {
        path: request.url ?? "/",
        method: (request.method ?? "GET") as Dispatcher.HttpMethod,
        headers: headersOf(request, id),
        body: request.method === "GET" ? null : request,
      },
      relay(response, id),
    );
  },
  onUpgrade(request, socket, head) {
    const pool = poolByHost.get(request.headers.host ?? "");
    if (pool === undefined) return void socket.destroy();
    socket.on("error", () => socket.destroy());
    void tunnel(pool, request, { socket, head });
  },
});

function headersOf(request: IncomingMessage, id: string): IncomingHttpHeaders {
  const added = addedToRequest(request, { id, via: "undici" });
  return { ...withoutHopByHop(request.headers), ...added };
}

function relay(response: ServerResponse, id: string): Dispatcher.DispatchHandler {
  return {
    onRequestStart(controller) {
      response.on("drain", () => controller.resume());
      response.once("close", () => {
        if (!response.writableFinished) controller.abort(new Error("the client is gone"));
      });
    },
    onResponseStart(_controller, status, headers) {
      const own = { via: "1.1 undici", "x-request-id": id };
      response.writeHead(status, { ...withoutHopByHop(headers), ...own });
    },
    onResponseData(controller, chunk) {
      if (!response.write(chunk)) controller.pause();
    },
    onResponseEnd: () => void response.end(),
    onResponseError: () => refuse(response, 502),
  };
}

async function tunnel(
  pool: Pool,
  request: IncomingMessage,
  client: { readonly socket: Duplex; readonly head: Buffer },
): Promise<void> {
  try {
    const { socket: machine, headers } = await pool.upgrade({
      path: request.url ?? "/",
      headers: headersOf(request, requestId()),
      protocol: "websocket",
    });
    const lines = Object.entries(headers).map(([name, value]) => `${name}: ${String(value)}\r\n`);
    client.socket.write(`HTTP/1.1 101 Switching Protocols\r\n${lines.join("")}\r\n`);
    machine.on("error", () => client.socket.destroy());
    client.socket.on("close", () => machine.destroy());
    if (client.head.length > 0) machine.write(client.head);
    client.socket.pipe(machine).pipe(client.socket);
  } catch {
    // The load generator counts what was not upgraded.
    client.socket.destroy();
  }
}
