/**
 * The admin socket: a Unix stream socket on which the host's operator asks a replica things and
 * tells it things. Whoever may open the socket may do everything, so it is made for its owner only.
 *
 * One request at a time per connection; while one is served, no more is read. A connection that
 * sends what is no request is told so and closed.
 */
import { chmodSync, lstatSync, mkdirSync, unlinkSync } from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { dirname } from "node:path";
import { errorText, PatinaError } from "#base/errors.ts";
import type { Logger } from "#base/logger.ts";
import {
  AdminFrames,
  encodeMessage,
  parseRequest,
  REQUEST_BYTES_MAX,
  type AdminAnswer,
  type AdminRequest,
} from "./admin-messages.ts";
import { adminError } from "./errors.ts";

/** One thing said in answer to a request; the end is added by the server. */
export type AdminNote =
  | { readonly kind: "log"; readonly msg: string }
  | { readonly kind: "json"; readonly value: unknown };

/** Carries out a request; what it throws becomes the `Error` of the answer. */
export type AdminHandler = (request: AdminRequest) => AsyncIterable<AdminNote>;

/** What a server is made of. */
export interface AdminServerOptions {
  /** The socket's path; its folder is made if need be. */
  readonly path: string;
  readonly handler: AdminHandler;
  readonly log: Logger;
  /** Silence of a client after which it is closed, in ms. Default 300,000. */
  readonly idleMs?: number;
}

/** Counters since the start. */
export interface AdminServerStats {
  requests: number;
  /** Messages that were no request, or too long. */
  bad: number;
  /** Connections beyond the limit. */
  refused: number;
}

/** Serves the socket from `listen` to `close`. */
export class AdminServer {
  readonly stats: AdminServerStats = { requests: 0, bad: 0, refused: 0 };
  readonly #options: AdminServerOptions;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #isListening = false;

  constructor(options: AdminServerOptions) {
    this.#options = options;
    this.#server = createServer((socket) => this.#accept(socket));
  }

  /**
   * Binds; a socket file that nobody answers at is replaced. Rejects with `ADMIN_BIND` when
   * somebody does, when the path is something else than a socket, or cannot be bound.
   */
  async listen(): Promise<void> {
    const { path } = this.#options;
    if (Buffer.byteLength(path) > SOCKET_PATH_BYTES_MAX) {
      throw adminError(
        "ADMIN_BIND",
        `the admin socket's path has more than ${SOCKET_PATH_BYTES_MAX} bytes; set a shorter` +
          ` admin.path than ${path}`,
      );
    }
    try {
      mkdirSync(dirname(path), { recursive: true });
      await removeStale(path);
      await new Promise<void>((resolve, reject) => {
        this.#server.once("error", reject);
        this.#server.listen(path, resolve);
      });
      // Connecting needs the right to write, which no usual umask leaves to others meanwhile.
      chmodSync(path, 0o600);
    } catch (error) {
      if (error instanceof PatinaError) throw error;
      throw adminError("ADMIN_BIND", `the admin socket: ${errorText(error)}`, error);
    }
    this.#isListening = true;
  }

  /** Closes every connection and removes the socket. Idempotent. */
  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    if (!this.#isListening) return;
    this.#isListening = false;
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  #accept(socket: Socket): void {
    if (this.#sockets.size >= CONNECTIONS_MAX) {
      this.stats.refused += 1;
      socket.destroy();
      return;
    }
    this.#sockets.add(socket);
    socket.setTimeout(this.#options.idleMs ?? IDLE_MS, () => socket.destroy());
    socket.on("close", () => this.#sockets.delete(socket));
    socket.on("error", (error) => {
      this.#options.log.debug?.("admin-connection-broken", errorText(error));
    });
    void this.#serve(socket);
  }

  /** Until the client ends, breaks off or says something that is no request. */
  async #serve(socket: Socket): Promise<void> {
    const frames = new AdminFrames(REQUEST_BYTES_MAX);
    try {
      for await (const chunk of socket) {
        frames.push(chunk as Uint8Array);
        for (let isOpen = true; isOpen;) {
          const frame = frames.next();
          if (frame.ok && frame.value === null) break;
          isOpen = await this.#serveFrame(socket, frame.ok ? frame.value : frame.error);
          if (!isOpen) return void socket.end();
        }
      }
    } catch (error) {
      // A connection that broke off has been logged by its listener.
      if (!(error instanceof Error)) throw error;
      socket.destroy();
    }
  }

  /** Whether to go on reading. */
  async #serveFrame(socket: Socket, frame: Uint8Array | string | null): Promise<boolean> {
    if (frame === null) return true;
    const request =
      typeof frame === "string" ? ({ ok: false, error: frame } as const) : parseRequest(frame);
    if (!request.ok) {
      this.stats.bad += 1;
      await send(socket, { Error: { msg: request.error } });
      return false;
    }
    this.stats.requests += 1;
    await this.#answer(socket, request.value);
    return true;
  }

  async #answer(socket: Socket, request: AdminRequest): Promise<void> {
    const { handler, log } = this.#options;
    log.debug?.("admin-request", request.kind);
    try {
      for await (const note of handler(request)) {
        await send(socket, toAnswer(note));
        if (socket.destroyed) return;
      }
    } catch (error) {
      // A bug is as little a reason to end a replica here as it is on its HTTP API.
      if (!(error instanceof PatinaError)) log.error("admin-request-failed", errorText(error));
      return send(socket, { Error: { msg: errorText(error) } });
    }
    await send(socket, "Success");
  }
}

/** Resolves when the connection has room for more, or is gone. */
async function send(socket: Socket, answer: AdminAnswer): Promise<void> {
  if (socket.destroyed || socket.write(encodeMessage(answer))) return;
  await new Promise<void>((resolve) => {
    socket.once("drain", resolve);
    socket.once("close", resolve);
  });
}

function toAnswer(note: AdminNote): AdminAnswer {
  if (note.kind === "json") return { Json: note.value };
  return { Log: { level: "info", msg: note.msg, ts: new Date().toISOString() } };
}

/** A process that was killed leaves its socket file, at which nobody answers. */
async function removeStale(path: string): Promise<void> {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined) return;
  if (!found.isSocket()) throw adminError("ADMIN_BIND", `${path} exists and is no socket`);
  if (await isAnswered(path)) {
    throw adminError("ADMIN_BIND", `${path} is in use by another running process`);
  }
  unlinkSync(path);
}

function isAnswered(path: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const probe = connect(path);
    probe.once("connect", () => {
      probe.destroy();
      resolve(true);
    });
    probe.once("error", (error: NodeJS.ErrnoException) => {
      if (error.code === "ECONNREFUSED" || error.code === "ENOENT") resolve(false);
      else reject(error);
    });
  });
}

/** `sun_path` of Linux has 108 bytes, one for the end. */
export const SOCKET_PATH_BYTES_MAX = 107;
/** People and their scripts; more is a mistake of one. */
const CONNECTIONS_MAX = 32;
const IDLE_MS = 300_000;
