/**
 * The listening socket of one data-plane thread, plain or TLS.
 *
 * Either binds by itself or takes a socket that the supervisor holds, as a file descriptor: then
 * the socket outlives this process, and connections that arrive during a bounce wait in its
 * backlog.
 */
import {
  createServer,
  type AddressInfo,
  type ListenOptions,
  type Server,
  type Socket,
} from "node:net";

import { PatinaError } from "#base/errors.ts";

import { errorResponse } from "../error-response.ts";
import type { Engine } from "../http1/engine.ts";
import { acceptSockets, readInto } from "./accepted-sockets.ts";
import type { ProcessLimits } from "./core/process-limits.ts";
import { readPreface } from "./proxy-preface.ts";
import { TlsAcceptor, type TlsAcceptorOptions } from "./tls-acceptor.ts";

/** Where a listener's socket comes from. */
export type ListenSource =
  | { readonly fd: number }
  | { readonly host: string; readonly port: number; readonly reusePort?: boolean };

/** What a listener needs. */
export interface HttpListenerOptions {
  readonly source: ListenSource;
  readonly engine: Engine;
  /** Absent = no connection begins with a PROXY protocol header. */
  readonly preface?: Preface | undefined;
  /** Absent = anybody may open any number of connections. */
  readonly admission?: Admission;
  /** HTTPS; absent = plain HTTP. */
  readonly tls?: Omit<TlsAcceptorOptions, "onSecure">;
  /** Plain requests are sent on to HTTPS on this port; absent = they are served. */
  readonly redirectPort?: number | undefined;
  /** Lines added to every response, ready to copy: `strict-transport-security: ...`. */
  readonly addedLines?: string;
}

/** Connections that begin with a PROXY protocol header. */
export interface Preface {
  /** Whether this peer's do; all of its connections must. */
  readonly isFrom: (address: string) => boolean;
  /** Longest wait for the header in milliseconds. */
  readonly limitMs: number;
  readonly onRefused: () => void;
}

/** Who may open a connection. The limits are those of all listeners of the process. */
export interface Admission {
  readonly limits: Pick<ProcessLimits, "connections" | "clients">;
  /** Addresses without a limit: proxies in front. */
  readonly isExempt: (address: string) => boolean;
  /** A connection was closed as it arrived. */
  readonly onRefused: (limit: "client" | "all") => void;
  /** Our name in Via, for the answer. */
  readonly viaName: string;
}

/** A bound listener. */
export interface HttpListener {
  readonly address: AddressInfo;
  /** Stops accepting; connections go on. An inherited socket stays open in the supervisor. */
  stop(): void;
  /**
   * Stops accepting and drains the engine; resolves with the number of connections that were cut
   * off at `deadlineMs`.
   */
  drain(deadlineMs: number): Promise<number>;
  /** Stops accepting and closes every connection of the engine at once. */
  close(): Promise<void>;
  /** Looks at the certificates' files; they are looked at every few seconds anyway. */
  refreshCertificates(): void;
}

/** Listens; rejects with `LISTEN_FAILED` when the socket cannot be bound or taken over. */
export async function createHttpListener(options: HttpListenerOptions): Promise<HttpListener> {
  const { engine, source, tls } = options;
  /** Raw sockets that the engine may not have yet: a header or handshake is under way. */
  const early = new Set<Socket>();
  /** Clients that a PROXY header named, until their handshake is done. */
  const named = new Map<string, string>();
  const give = (socket: Socket): void => {
    client.take(socket, named.size === 0 ? undefined : named.get(peerOf(socket)));
    if (tls) readInto(socket, client.onread);
  };
  const acceptor = tls ? new TlsAcceptor({ ...tls, onSecure: give }) : null;
  const take = (socket: Socket, address: string): void => {
    const { admission } = options;
    const isTls = tls !== undefined;
    if (admission && !admit(socket, { admission, client: address, isTls })) return;
    if (acceptor === null) give(socket);
    else acceptor.accept(socket);
  };
  const { preface } = options;
  const arrived = (socket: Socket): void => {
    if (!admitAny(socket, options.admission)) return;
    const peer = socket.remoteAddress ?? "";
    const hasPreface = preface?.isFrom(peer) ?? false;
    if (hasPreface || acceptor !== null) {
      early.add(socket);
      socket.on("close", () => early.delete(socket));
    }
    if (preface === undefined || !hasPreface) return take(socket, peer);
    readPreface(socket, preface.limitMs, {
      refused: preface.onRefused,
      done: (origin) => {
        if (origin !== null) {
          const key = peerOf(socket);
          named.set(key, origin);
          socket.on("close", () => named.delete(key));
        }
        take(socket, origin ?? peer);
        // TLS takes what is there by itself; a flowing socket would lose it.
        if (acceptor === null) socket.resume();
      },
    });
  };
  const server = createServer();
  await listen(server, source);
  const address = server.address() as AddressInfo;
  const client = engine.acceptFrom({
    proto: tls ? "https" : "http",
    port: address.port,
    redirectPort: options.redirectPort ?? null,
    addedLines: options.addedLines ?? "",
  });
  const isReadFirst = preface !== undefined || acceptor !== null;
  acceptSockets(server, {
    onread: isReadFirst ? undefined : client.onread,
    take: arrived,
    lost: () => options.admission?.onRefused("all"),
  });
  const closed = new Promise<void>((resolve) => server.once("close", () => resolve()));
  const stop = (): void => {
    acceptor?.close();
    if (server.listening) server.close();
  };
  return {
    address,
    stop,
    drain: async (deadlineMs) => {
      stop();
      const cutCount = await engine.drain(deadlineMs);
      for (const socket of early) socket.destroy();
      await closed;
      return cutCount;
    },
    close: async () => {
      stop();
      engine.close();
      for (const socket of early) socket.destroy();
      await closed;
    },
    refreshCertificates: () => acceptor?.refresh(),
  };
}

/** Counts a connection, or closes it. */
function admitAny(socket: Socket, admission: Admission | undefined): boolean {
  if (admission === undefined) return true;
  const { connections } = admission.limits;
  if (connections.take()) {
    socket.on("close", () => connections.give());
    return true;
  }
  admission.onRefused("all");
  socket.destroy();
  return false;
}

/** Counts a client's connection, or answers and closes it. */
function admit(
  socket: Socket,
  { admission, client, isTls }: { admission: Admission; client: string; isTls: boolean },
): boolean {
  const { onRefused, viaName } = admission;
  const { clients } = admission.limits;
  if (admission.isExempt(client)) return true;
  if (clients.take(client)) {
    socket.on("close", () => clients.give(client));
    return true;
  }
  onRefused("client");
  // Gone with it is gone: whoever has that many connections may lose an answer.
  socket.on("error", () => undefined);
  if (isTls) socket.destroy();
  else {
    socket.end(errorResponse({ ...REFUSAL, viaName }));
    socket.destroySoon();
  }
  return false;
}

/** The same for a raw socket and for what TLS makes of it. */
function peerOf(socket: Socket): string {
  return `${socket.remoteAddress} ${socket.remotePort}`;
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

/** Connections that wait while the process is bounced; the kernel may cap it (somaxconn). */
const BACKLOG = 4096;
const REFUSAL = {
  code: "CLIENT_CONNECTIONS",
  requestId: "",
  isPersistent: false,
  httpMinor: 1,
  isHead: false,
  addedLines: "",
} as const;
