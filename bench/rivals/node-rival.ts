/**
 * What the rivals that run in Node have in common, so that they do what Patina does: a Host map, the
 * same added headers, a buffered access log, HTTP and HTTPS.
 *
 * Their argument is a `NodeRivalSpec` as JSON. They print their two ports as JSON once they listen.
 */
import { randomUUID } from "node:crypto";
import { createWriteStream, readFileSync, type WriteStream } from "node:fs";
import {
  createServer,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type ServerResponse,
} from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo, Server } from "node:net";
import type { Duplex } from "node:stream";

/** What a rival is started with. */
export interface NodeRivalSpec {
  readonly getUpstream: number;
  readonly postUpstream: number;
  readonly logFile: string;
  readonly certFile: string;
  readonly keyFile: string;
}

/** The argument of this process. */
export const spec = JSON.parse(process.argv[2] ?? "{}") as NodeRivalSpec;

/** Host -> origin of the machine. */
export const originByHost: ReadonlyMap<string, string> = new Map([
  ["get.bench", `http://127.0.0.1:${spec.getUpstream}`],
  ["post.bench", `http://127.0.0.1:${spec.postUpstream}`],
]);

/** Upstream connections that are kept, as with every rival. */
export const CONNECTIONS_MAX = 128;

/** Lines go to the file in batches, at the latest after a second. */
class BufferedLog {
  readonly #file: WriteStream;
  #lines: string[] = [];

  constructor(path: string) {
    this.#file = createWriteStream(path);
    setInterval(() => this.#flush(), 1_000).unref();
  }

  write(fields: object): void {
    this.#lines.push(JSON.stringify(fields));
    if (this.#lines.length >= LINES_MAX) this.#flush();
  }

  #flush(): void {
    if (this.#lines.length === 0) return;
    this.#file.write(`${this.#lines.join("\n")}\n`);
    this.#lines = [];
  }
}

const log = new BufferedLog(spec.logFile);

/** One access log line when the response has been sent. Call it before anything else. */
export function logWhenSent(request: IncomingMessage, response: ServerResponse, id: string): void {
  const startMs = performance.now();
  // The request has none any more once its client is gone.
  const { socket } = request;
  response.once("close", () => {
    log.write({
      time: new Date().toISOString(),
      id,
      client: socket.remoteAddress,
      method: request.method,
      host: request.headers.host,
      target: request.url,
      status: response.statusCode,
      bytesOut: socket.bytesWritten,
      durationMs: performance.now() - startMs,
    });
  });
}

/** A fresh request id. */
export function requestId(): string {
  return randomUUID();
}

/** The headers that are added to a request. */
export function addedToRequest(
  request: IncomingMessage,
  parts: { readonly id: string; readonly via: string },
): Record<string, string> {
  const { socket } = request;
  return {
    "x-forwarded-for": socket.remoteAddress ?? "",
    "x-forwarded-proto": "encrypted" in socket ? "https" : "http",
    "x-forwarded-port": String(socket.localPort),
    "x-forwarded-host": request.headers.host ?? "",
    via: `1.1 ${parts.via}`,
    "x-request-id": parts.id,
  };
}

/** Headers of a message without those that concern one connection only. */
export function withoutHopByHop(headers: IncomingHttpHeaders): IncomingHttpHeaders {
  const kept: IncomingHttpHeaders = {};
  for (const name in headers) if (!HOP_BY_HOP.has(name)) kept[name] = headers[name];
  return kept;
}

/** How a rival answers. */
export interface Handlers {
  onRequest(request: IncomingMessage, response: ServerResponse): void;
  onUpgrade?(request: IncomingMessage, socket: Duplex, head: Buffer): void;
}

/** Listens for HTTP and HTTPS, then says on which ports. */
export function serve(handlers: Handlers): void {
  const options = { keepAliveTimeout: 3_600_000, noDelay: true };
  const plain = createServer(options, handlers.onRequest);
  const secure = createTlsServer({ ...options, ...certificate() }, handlers.onRequest);
  for (const server of [plain, secure]) {
    if (handlers.onUpgrade) server.on("upgrade", handlers.onUpgrade);
  }
  announce(plain, secure);
}

/** The certificate as Node's servers take it. */
export function certificate(): { readonly cert: Buffer; readonly key: Buffer } {
  return { cert: readFileSync(spec.certFile), key: readFileSync(spec.keyFile) };
}

/** Binds both servers and prints their ports. */
export function announce(plain: Server, secure: Server): void {
  plain.listen({ port: 0, host: "127.0.0.1", backlog: BACKLOG }, () => {
    secure.listen({ port: 0, host: "127.0.0.1", backlog: BACKLOG }, () => {
      tellPorts(portOf(plain), portOf(secure));
    });
  });
}

/** Prints the ports, and ends this process when asked to. */
export function tellPorts(port: number, tlsPort: number): void {
  process.on("SIGTERM", () => process.exit(0));
  process.stdout.write(`${JSON.stringify({ port, tlsPort })}\n`);
}

/** Where a request goes, and what it is sent with. */
export interface Forward {
  readonly target: string;
  readonly headers: Readonly<Record<string, string>>;
}

/**
 * What proxies that take a target and headers do with a request before they take over: log it, put
 * our headers into the answer. Null = answered with 404, its host is nobody's.
 */
export function forwardOf(
  request: IncomingMessage,
  response: ServerResponse,
  via: string,
): Forward | null {
  const id = requestId();
  logWhenSent(request, response, id);
  const target = originByHost.get(request.headers.host ?? "");
  if (target === undefined) {
    refuse(response, 404);
    return null;
  }
  response.setHeader("via", `1.1 ${via}`);
  response.setHeader("x-request-id", id);
  return { target, headers: addedToRequest(request, { id, via }) };
}

/** The same for an upgrade. Null = cut off, its host is nobody's. */
export function forwardOfUpgrade(
  request: IncomingMessage,
  socket: Duplex,
  via: string,
): Forward | null {
  const target = originByHost.get(request.headers.host ?? "");
  if (target === undefined) {
    socket.destroy();
    return null;
  }
  return { target, headers: addedToRequest(request, { id: requestId(), via }) };
}

/** Ends a request that no host of the map is meant by, or whose upstream failed. */
export function refuse(response: ServerResponse, status: number): void {
  if (response.headersSent) response.destroy();
  else response.writeHead(status, { "content-length": 0 }).end();
}

function portOf(server: Server): number {
  return (server.address() as AddressInfo).port;
}

const LINES_MAX = 256;
const BACKLOG = 4096;
const HOP_BY_HOP: ReadonlySet<string> = new Set([
  "connection",
  "keep-alive",
  "proxy-authenticate",
  "proxy-authorization",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
]);
