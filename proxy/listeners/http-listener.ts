/**
 * The listening socket of one data-plane thread, plain HTTP.
 *
 * Either binds by itself or takes a socket that the supervisor holds, as a file descriptor: then
 * the socket outlives this process, and connections that arrive during a bounce wait in its
 * backlog.
 */
import { createServer, type AddressInfo, type ListenOptions, type Server } from "node:net";

import { PatinaError } from "#base/errors.ts";

import type { Engine } from "../http1/engine.ts";

/** Where a listener's socket comes from. */
export type ListenSource =
  | { readonly fd: number }
  | { readonly host: string; readonly port: number; readonly reusePort?: boolean };

/** What a listener needs. */
export interface HttpListenerOptions {
  readonly source: ListenSource;
  readonly engine: Engine;
  /** Open client connections; more are closed as they arrive. Default 20,000. */
  readonly connectionsMax?: number;
}

/** A bound listener. */
export interface HttpListener {
  readonly address: AddressInfo;
  /**
   * Stops accepting and drains the engine; resolves with the number of connections that were cut
   * off at `deadlineMs`. An inherited socket stays open in the supervisor.
   */
  drain(deadlineMs: number): Promise<number>;
  /** Stops accepting and closes every connection at once. */
  close(): Promise<void>;
}

/** Listens; rejects with `LISTEN_FAILED` when the socket cannot be bound or taken over. */
export async function createHttpListener(options: HttpListenerOptions): Promise<HttpListener> {
  const { engine, source } = options;
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) =>
    engine.accept(socket, { proto: "http", port: address.port }),
  );
  server.maxConnections = options.connectionsMax ?? CONNECTIONS_MAX;
  await listen(server, source);
  const address = server.address() as AddressInfo;
  return {
    address,
    drain: async (deadlineMs) => {
      const closed = closeServer(server);
      const cutCount = await engine.drain(deadlineMs);
      await closed;
      return cutCount;
    },
    close: async () => {
      const closed = closeServer(server);
      engine.close();
      await closed;
    },
  };
}

function listen(server: Server, source: ListenSource): Promise<void> {
  const options: ListenOptions & { fd?: number } =
    "fd" in source
      ? { fd: source.fd }
      : {
          host: source.host,
          port: source.port,
          reusePort: source.reusePort ?? false,
          backlog: BACKLOG,
        };
  return new Promise((resolve, reject) => {
    server.once("error", (cause) => {
      const what = "fd" in source ? `socket ${source.fd}` : `${source.host}:${source.port}`;
      reject(new PatinaError("LISTEN_FAILED", `cannot listen on ${what}`, { cause }));
    });
    server.listen(options, () => resolve());
  });
}

function closeServer(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
  });
}

/** Connections that wait while the process is bounced; the kernel may cap it (somaxconn). */
const BACKLOG = 4096;
const CONNECTIONS_MAX = 20_000;
