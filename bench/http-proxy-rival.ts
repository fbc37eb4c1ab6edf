/**
 * http-proxy 1.18 as its users run it: keep-alive towards one upstream, X-Forwarded headers on.
 *
 * Argument: port of the upstream. Prints its own port on standard output once it listens.
 */
import { Agent, createServer } from "node:http";
import { createRequire } from "node:module";
import type { AddressInfo } from "node:net";
import type { IncomingMessage, ServerResponse } from "node:http";

/** What is used of the package, which brings no types. */
interface HttpProxy {
  createProxyServer(options: { target: string; agent: Agent; xfwd: boolean }): {
    web(request: IncomingMessage, response: ServerResponse): void;
    on(event: "error", listener: () => void): void;
  };
}

const { createProxyServer } = createRequire(import.meta.url)("http-proxy") as HttpProxy;
const proxy = createProxyServer({
  target: `http://127.0.0.1:${process.argv[2]}`,
  agent: new Agent({ keepAlive: true, maxSockets: 64 }),
  xfwd: true,
});
// The load generator counts what was not answered.
proxy.on("error", () => undefined);
const server = createServer((request, response) => proxy.web(request, response));
server.listen(0, "127.0.0.1", () => {
  process.stdout.write(`${(server.address() as AddressInfo).port}\n`);
});
process.on("SIGTERM", () => process.exit(0));
