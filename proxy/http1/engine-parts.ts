/**
 * What all connections of one engine share: ports, limits, and things that are reused because
 * making them per request would cost more than the request.
 */
import { randomBytes } from "node:crypto";

import type { ReadBuffers } from "../read-buffers.ts";
import type { UpstreamPool } from "../upstream/upstream-pool.ts";
import type {
  EngineObserver,
  ForwardingOptions,
  Router,
  SizeLimits,
  TimeLimits,
} from "../types.ts";
import { Deadlines } from "./core/deadlines.ts";
import { HeadWriter } from "./core/head-writer.ts";
import { KeptBodies } from "./core/kept-bodies.ts";
import { RequestHead } from "./core/request-head.ts";
import { RetryBudget } from "./core/retry-budget.ts";
import { ResponseHead } from "./core/response-head.ts";
import type { Places } from "./core/wait-queue.ts";
import { WaitingRoom } from "./waiting-room.ts";

/** Ports and limits, as `createEngine` got them. */
export interface EngineSettings {
  readonly router: Router;
  readonly observer: EngineObserver;
  readonly pool: UpstreamPool;
  readonly buffers: ReadBuffers;
  /** For requests that wait for a machine below its hard limit. */
  readonly places: Places;
  /** For bodies that are kept to be sent again. */
  readonly bodyPlaces: Places;
  /** What is spent of the budget of repeats. */
  readonly retryCell: Int32Array;
  readonly forwarding: ForwardingOptions;
  readonly times: TimeLimits;
  readonly sizes: SizeLimits;
}

/** The shared things. Used by one thread only. */
export class EngineParts {
  readonly settings: EngineSettings;
  readonly deadlines = new Deadlines();
  readonly requestHeads: Spares<RequestHead>;
  readonly responseHeads: Spares<ResponseHead>;
  readonly writer: HeadWriter;
  readonly ids = new RequestIds();
  /** `null` = no traces are started. */
  readonly traces: TraceIds | null;
  /** Request heads on their way: kept until the upstream answers. */
  readonly requestSlab = new Slab();
  /** Response heads and copied bodies: free again as soon as the socket took them. */
  readonly responseSlab = new Slab();
  readonly waiting: WaitingRoom;
  readonly retryBudget: RetryBudget;
  readonly keptBodies: KeptBodies;
  /** No connection is kept after its current request. */
  isDraining = false;
  /** Idle connections are closed, tunnels are told to go away. */
  isClosing = false;

  constructor(settings: EngineSettings) {
    this.settings = settings;
    const { observer, sizes } = settings;
    this.waiting = new WaitingRoom(settings.places, (count) => observer.queueChanged(count));
    this.keptBodies = new KeptBodies({
      bytesMax: sizes.keptBodyBytesMax,
      places: settings.bodyPlaces,
    });
    const { retryShare: share, retriesPerSecond: perSecond, threads } = sizes;
    this.retryBudget = new RetryBudget({ share, perSecond, threads }, settings.retryCell);
    this.requestHeads = new Spares(() => new RequestHead(settings.sizes));
    this.responseHeads = new Spares(() => new ResponseHead(settings.sizes));
    this.writer = new HeadWriter(settings.forwarding.viaName);
    this.traces = settings.forwarding.startsTraces ? new TraceIds() : null;
  }
}

/** Objects that are lent out and come back. */
export class Spares<Item extends { reset(): void }> {
  readonly #create: () => Item;
  readonly #max: number;
  readonly #items: Item[] = [];

  /** Keeps at most `max`. */
  constructor(create: () => Item, max = SPARES_MAX) {
    this.#create = create;
    this.#max = max;
  }

  take(): Item {
    const item = this.#items.pop() ?? this.#create();
    item.reset();
    return item;
  }

  give(item: Item): void {
    if (this.#items.length < this.#max) this.#items.push(item);
  }
}

/** Memory for outgoing bytes, handed out front to back. */
export class Slab {
  bytes: Buffer = Buffer.allocUnsafeSlow(SLAB_BYTES);
  at = 0;

  /** Makes sure that `length` bytes can be written at `at`. */
  reserve(length: number): void {
    if (this.bytes.length - this.at >= length) return;
    this.bytes = Buffer.allocUnsafeSlow(Math.max(SLAB_BYTES, length));
    this.at = 0;
  }

  /** Takes what was written up to `end`. */
  commit(end: number): Buffer {
    const taken = this.bytes.subarray(this.at, end);
    this.at = end;
    return taken;
  }

  /** Gives back the last commit: nobody reads it any more. */
  rewind(taken: Buffer): void {
    if (taken.buffer === this.bytes.buffer && taken.byteOffset + taken.length === this.at) {
      this.at = taken.byteOffset;
    }
  }
}

/**
 * Request ids: 12 random digits of this engine's start, then a count of 12, all hexadecimal. Unique
 * without a random number per request, and sortable within one engine.
 */
export class RequestIds {
  readonly #digits: Buffer = Buffer.from(`${randomBytes(6).toString("hex")}000000000000`, "latin1");

  /** The next id: bytes that change with the next call. */
  next(): Uint8Array {
    const digits = this.#digits;
    let at = digits.length - 1;
    while (at >= RANDOM_DIGITS && digits[at] === 0x66) {
      digits[at] = 0x30;
      at -= 1;
    }
    const digit = digits[at] as number;
    digits[at] = digit === 0x39 ? 0x61 : digit + 1;
    return digits;
  }
}

/**
 * Values of `traceparent` for traces that start here: random ids, because samplers decide by them,
 * and the flag "sampled", because without it most tracers would record nothing behind us.
 */
export class TraceIds {
  readonly #value: Buffer = Buffer.from(`00-${"0".repeat(32)}-${"0".repeat(16)}-01`, "latin1");
  #random: Buffer = NO_BYTES;
  #at = 0;

  /** The next value: bytes that change with the next call. */
  next(): Uint8Array {
    if (this.#at === this.#random.length) {
      this.#random = randomBytes(TRACE_BYTES * TRACES_AT_ONCE);
      this.#at = 0;
    }
    const hex = this.#random.toString("hex", this.#at, this.#at + TRACE_BYTES);
    this.#at += TRACE_BYTES;
    this.#value.write(hex.slice(0, 32), 3, "latin1");
    this.#value.write(hex.slice(32), 36, "latin1");
    return this.#value;
  }
}

const NO_BYTES = Buffer.alloc(0);
/** Trace id and parent id. */
const TRACE_BYTES = 24;
/** One call to the system's generator for so many traces. */
const TRACES_AT_ONCE = 128;
const RANDOM_DIGITS = 12;
const SLAB_BYTES = 65_536;
/** Parsers kept; beyond that they were for a burst of clients that send heads in pieces. */
const SPARES_MAX = 64;
