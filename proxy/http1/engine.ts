/**
 * The HTTP/1.1 engine of one data-plane thread: takes client sockets, answers requests.
 *
 * It works on bytes of `node:net` sockets: one pass over each head, header blocks forwarded as
 * ranges with edits, bodies as they came. One coarse timer serves all deadlines. It binds nothing:
 * `listeners/http-listener.ts` gives it sockets.
 */
import type { Socket } from "node:net";

import { SharedLimit } from "#base/shared-counts.ts";

import type {
  ConnectionCounts,
  DelayEmulation,
  EngineObserver,
  ForwardingOptions,
  Router,
  ReadInto,
  SizeLimits,
  TimeLimits,
} from "../types.ts";
import { ReadBuffers } from "../read-buffers.ts";
import type { UpstreamTls } from "../upstream/upstream-tls.ts";
import { UpstreamPool } from "../upstream/upstream-pool.ts";
import { ClientConnection, type ListenerShare } from "./client-connection.ts";
import { bytesOf } from "./core/bytes.ts";
import { createListenerBlock } from "./core/head-writer.ts";
import type { Places } from "./core/wait-queue.ts";
import { EngineParts, Spares } from "./engine-parts.ts";
import { Exchange } from "./exchange.ts";

/** What an engine is made of. */
export interface EngineOptions {
  readonly router: Router;
  readonly observer: EngineObserver;
  /** `viaName` has no default: it must differ between edges. */
  readonly forwarding: Pick<ForwardingOptions, "viaName"> & Partial<ForwardingOptions>;
  readonly times?: Partial<TimeLimits>;
  readonly sizes?: Partial<SizeLimits>;
  /** Fault injection for the demo; leave out in production. */
  readonly delay?: DelayEmulation;
  /** How machines that speak HTTPS are verified. Default: by the system's authorities. */
  readonly upstreamTls?: UpstreamTls | undefined;
  /** For requests that wait, shared with other engines. Default: its own, `sizes.queuedMax`. */
  readonly places?: Places;
  /** For bodies that are kept, likewise. Default: its own, `sizes.keptBodiesMax`. */
  readonly bodyPlaces?: Places;
  /** A cell for the budget of repeats, likewise. Default: its own. */
  readonly retryCell?: Int32Array;
  /** Connections to machines, counted with other engines. Default: none but its own count. */
  readonly connectionCounts?: ConnectionCounts | undefined;
}

/** What a listener is to its connections. */
export interface ListenerFacts {
  readonly proto: "http" | "https";
  readonly port: number;
  /** Requests are sent on to HTTPS on this port; `null` or absent = they are served. */
  readonly redirectPort?: number | null;
  /** Lines added to every response, each with its CRLF. */
  readonly addedLines?: string;
}

/** Where a listener's sockets go. */
export interface ClientSide {
  /** How sockets may read; one that is made without emits `data`. */
  readonly onread: ReadInto;
  /**
   * Takes an accepted socket (`allowHalfOpen`, no delay of small writes), with the client's address
   * where a PROXY header named one.
   */
  readonly take: (socket: Socket, address?: string) => void;
}

/** Creates an engine; its timer does not keep the process alive. */
export function createEngine(options: EngineOptions): Engine {
  return new Engine(options);
}

/** An engine. Close it when done. */
export class Engine {
  readonly pool: UpstreamPool;
  readonly #parts: EngineParts;
  readonly #connections = new Set<ClientConnection>();
  readonly #exchanges: Spares<Exchange>;
  readonly #timer: NodeJS.Timeout;
  #whenEmpty: (() => void) | null = null;

  constructor(options: EngineOptions) {
    const times = { ...DEFAULT_TIMES, ...options.times };
    const sizes = { ...DEFAULT_SIZES, ...options.sizes };
    const buffers = new ReadBuffers();
    this.pool = new UpstreamPool({
      buffers,
      idleMs: times.upstreamIdleMs,
      perUpstreamMax: sizes.idlePerUpstreamMax,
      openMax: sizes.openPerUpstreamMax,
      counts: options.connectionCounts,
      delay: options.delay ?? null,
      tls: options.upstreamTls,
    });
    this.#parts = new EngineParts({
      router: options.router,
      observer: options.observer,
      pool: this.pool,
      buffers,
      places: options.places ?? SharedLimit.own(sizes.queuedMax),
      bodyPlaces: options.bodyPlaces ?? SharedLimit.own(sizes.keptBodiesMax),
      retryCell: options.retryCell ?? new Int32Array(1),
      forwarding: { ...DEFAULT_FORWARDING, ...options.forwarding },
      times,
      sizes,
    });
    this.#exchanges = new Spares(() => new Exchange(this.#parts), SPARE_EXCHANGES_MAX);
    this.#parts.deadlines.nowMs = performance.now();
    this.#timer = setInterval(() => this.tick(performance.now()), TICK_MS);
    this.#timer.unref();
  }

  /** Open client connections. */
  get connectionCount(): number {
    return this.#connections.size;
  }

  /** Makes ready for a listener. */
  acceptFrom(listener: ListenerFacts): ClientSide {
    const { observer } = this.#parts.settings;
    const share: ListenerShare = {
      parts: this.#parts,
      exchanges: this.#exchanges,
      block: createListenerBlock(listener.proto, listener.port),
      isTls: listener.proto === "https",
      redirectPort: listener.redirectPort ?? null,
      addedLines: bytesOf(listener.addedLines ?? ""),
      onClosed: (connection) => {
        this.#connections.delete(connection);
        observer.connectionClosed();
        if (this.#connections.size === 0) this.#whenEmpty?.();
      },
    };
    const take = (socket: Socket, address?: string): void => {
      observer.connectionOpened();
      const connection = new ClientConnection(share, socket, address);
      this.#parts.deadlines.add(connection);
      this.#connections.add(connection);
      if (this.#parts.isClosing) connection.drain();
    };
    return { onread: ClientConnection.readInto(this.#parts), take };
  }

  /** Judges deadlines at monotonic `nowMs`. Called by the engine's own timer; tests may call it. */
  tick(nowMs: number): void {
    this.#parts.deadlines.sweep(nowMs);
    this.#parts.retryBudget.tick(nowMs);
    this.#parts.waiting.serve();
    this.pool.expire(nowMs);
    this.pool.relieve();
  }

  /** Answers every request with `Connection: close` from here on; nothing is closed unasked. */
  startDraining(): void {
    this.#parts.isDraining = true;
  }

  /**
   * Stops keeping connections: idle ones are closed, WebSockets are told to go away (1001), requests
   * in flight are answered with `Connection: close`. Resolves when the last connection is closed, or
   * after `deadlineMs` when what is left has been cut off; the answer is how many were cut.
   */
  async drain(deadlineMs: number): Promise<number> {
    this.#parts.isDraining = true;
    this.#parts.isClosing = true;
    for (const connection of this.#connections) connection.drain();
    if (this.#connections.size > 0) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, deadlineMs);
        this.#whenEmpty = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    const cutCount = this.#connections.size;
    this.close();
    return cutCount;
  }

  /** Closes everything at once. */
  close(): void {
    clearInterval(this.#timer);
    this.#whenEmpty = null;
    for (const connection of this.#connections) connection.destroy();
    this.pool.close();
  }
}

/** Coarse enough to cost nothing, fine enough for a connect limit of a second. */
const TICK_MS = 100;
/** So many requests at once are common; about 2 MiB if there ever were. */
const SPARE_EXCHANGES_MAX = 1_000;

/** Defaults; reasons in `TimeLimits`. */
export const DEFAULT_TIMES: TimeLimits = {
  requestHeadMs: 10_000,
  clientIdleMs: 75_000,
  stalledBodyMs: 60_000,
  bodyGraceMs: 30_000,
  queueMs: 5_000,
  connectMs: 1_000,
  connectTotalMs: 5_000,
  responseHeadMs: 60_000,
  upstreamIdleMs: 50_000,
  tunnelIdleMs: 600_000,
  tunnelCloseMs: 5_000,
  halfClosedMs: 5_000,
  lingerMs: 2_000,
};

/** Defaults; reasons in `SizeLimits`. */
export const DEFAULT_SIZES: SizeLimits = {
  headBytesMax: 32_768,
  targetBytesMax: 8_192,
  headerLinesMax: 100,
  pipelinedBytesMax: 65_536,
  bodyBytesMax: 1_073_741_824,
  // As Kestrel has it: slower than any modem, faster than any drip.
  bodyBytesPerSecondMin: 240,
  responseBytesPerSecondMin: 240,
  keptBodyBytesMax: 16_384,
  keptBodiesMax: 1_000,
  requestsPerConnectionMax: 100_000,
  chunkOverheadBytesMax: 16_384,
  queuedMax: 1_000,
  retryShare: 0.2,
  retriesPerSecond: 10,
  threads: 1,
  attemptsMax: 4,
  idlePerUpstreamMax: 128,
  openPerUpstreamMax: 10_000,
};

const DEFAULT_FORWARDING = {
  isTrusted: () => false,
  keepRequestId: true,
  writesForwarded: false,
  startsTraces: false,
} as const;
