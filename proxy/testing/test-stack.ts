/**
 * What end-to-end tests start, and its end: proxies, clients and upstreams on free ports of
 * 127.0.0.1, closed in reverse order.
 */
import { once } from "node:events";
import { createServer as createHttpServer, type RequestListener } from "node:http";
import { createServer, type AddressInfo, type Server, type Socket } from "node:net";

import { TestClient } from "./test-client.ts";
import { startProxy, type TestProxy, type TestProxyOptions } from "./test-proxy.ts";

/** Starts things; `close` ends all of them. */
export class TestStack {
  readonly #closers: (() => Promise<unknown> | void)[] = [];

  /** Ends everything started so far, the last first. */
  async close(): Promise<void> {
    for (const close of this.#closers.splice(0).reverse()) await close();
  }

  /** Does something at `close`. */
  defer(close: () => Promise<unknown> | void): void {
    this.#closers.push(close);
  }

  async proxy(options: TestProxyOptions): Promise<TestProxy> {
    const proxy = await startProxy(options);
    this.defer(() => proxy.listener.close());
    return proxy;
  }

  async client(proxy: { readonly port: number }): Promise<TestClient> {
    const client = await TestClient.connect(proxy.port);
    this.defer(() => void client.socket.destroy());
    return client;
  }

  /** An upstream made by `node:http`; its port. */
  async http(listener: RequestListener): Promise<number> {
    const server = createHttpServer({ keepAliveTimeout: 0 }, listener);
    this.defer(async () => {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    });
    return listen(server);
  }

  /** An upstream of bytes; its port. */
  async raw(onSocket: (socket: Socket) => void): Promise<number> {
    const sockets = new Set<Socket>();
    const server = createServer({ noDelay: true }, (socket) => {
      sockets.add(socket);
      socket.on("error", () => undefined);
      socket.on("close", () => sockets.delete(socket));
      onSocket(socket);
    });
    this.defer(async () => {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, "close");
    });
    return listen(server);
  }

  /** A port on which nothing listens. */
  async deadPort(): Promise<number> {
    const server = createServer();
    const port = await listen(server);
    server.close();
    await once(server, "close");
    return port;
  }
}

async function listen(server: Server): Promise<number> {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return (server.address() as AddressInfo).port;
}
