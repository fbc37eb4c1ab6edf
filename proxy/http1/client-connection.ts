/**
 * One client connection: finds request heads in what arrives, runs one exchange at a time, and
 * holds what comes too early (pipelined requests, bodies before there is an upstream) up to a
 * limit.
 *
 *   head ─► busy ─► head ─► ... ─► lingering ─► closed
 */
import type { Socket } from "node:net";

import type { ProxyErrorCode } from "../errors.ts";
import type { ReadInto } from "../types.ts";
import type { DeadlineEntry } from "./core/deadlines.ts";
import type { ListenerBlock, PeerBlock } from "./core/head-writer.ts";
import { DONE, MORE } from "./core/header-lines.ts";
import type { RequestHead } from "./core/request-head.ts";
import type { EngineParts, Spares } from "./engine-parts.ts";
import type { ExchangeClient, Window } from "./exchange-client.ts";
import type { Exchange } from "./exchange.ts";

/** What all connections of one listener share. */
export interface ListenerShare {
  readonly parts: EngineParts;
  /** Connections have one as long as a request is under way. */
  readonly exchanges: Spares<Exchange>;
  /** As upstreams are told. */
  readonly block: ListenerBlock;
  readonly isTls: boolean;
  /** As in `ListenerFacts`. */
  readonly redirectPort: number | null;
  /** As in `ListenerFacts`. */
  readonly addedLines: Uint8Array;
  /** A connection is closed; called once. */
  readonly onClosed: (connection: ClientConnection) => void;
}

/**
 * A client's connection; it lives until its socket closes. There may be many that do nothing, so it
 * owns little: what a request needs is lent to it, and its socket's listeners are everybody's.
 */
export class ClientConnection implements ExchangeClient, DeadlineEntry {
  readonly address: string;
  readonly peer: PeerBlock;
  deadlineMs: number;
  slot = -1;

  readonly #share: ListenerShare;
  readonly #parts: EngineParts;
  readonly #socket: Socket;
  #exchange: Exchange | null = null;
  #state: "head" | "busy" | "lingering" = "head";
  /** Bytes that wait: the start of a head, a body before its upstream, pipelined requests. */
  #held: Buffer | null = null;
  /** Parser of a head that has not come whole. */
  #head: RequestHead | null = null;
  #headStartedAtMs = 0;
  #isParsing = false;
  #requestCount = 0;
  /** The client has said that the current request is its last. */
  #isClientsLast = false;
  #hasEnded = false;
  /** The exchange wants no more of the body for the moment. */
  #isHeldBack = false;
  #isPaused = false;
  /** Read into instead of the shared buffer while a long body comes. */
  #own: Buffer | null = null;
  /** What the socket reads into at the moment. */
  #target: Buffer;

  /** `address`: of the client where a PROXY header named one, else the socket's. */
  constructor(share: ListenerShare, socket: Socket, address: string | undefined) {
    const { parts } = share;
    const { forwarding, times } = parts.settings;
    this.#share = share;
    this.#parts = parts;
    this.#socket = socket;
    this.#target = parts.settings.buffers.shared;
    this.address = plainAddress(address ?? socket.remoteAddress ?? "");
    const isTrusted = forwarding.isTrusted(this.address);
    this.peer = {
      isTrusted,
      keepsRequestId: isTrusted || forwarding.keepRequestId,
      address: this.address === "" ? "unknown" : this.address,
      listener: share.block,
      writesForwarded: forwarding.writesForwarded,
    };
    this.deadlineMs = parts.deadlines.nowMs + times.requestHeadMs;
    (socket as ClientSocket)[CONNECTION] = this;
    socket.on("data", ClientConnection.#dataCame);
    socket.on("end", ClientConnection.#ended);
    socket.on("drain", ClientConnection.#drained);
    // The code does not matter: `close` follows, and a client may vanish as it likes.
    socket.on("error", nothing);
    socket.on("close", ClientConnection.#closed);
  }

  // One function per event for all connections; a socket knows whose it is.
  static readonly #dataCame = shared((one, bytes: Buffer) => one.#onBytes(bytes, bytes.length));
  static readonly #ended = shared((one) => one.#onEnd());
  static readonly #drained = shared((one) => one.#onDrain());
  static readonly #closed = shared((one) => one.#onClosed());

  /**
   * How sockets of all connections read. Node asks for the next buffer right after each read, and
   * not whose it is: that of the connection that has just been given bytes.
   */
  static readInto({ settings: { buffers } }: EngineParts): ReadInto {
    let last: ClientConnection | null = null;
    return {
      buffer: () => {
        const one = last;
        last = null;
        return one === null ? buffers.shared : one.#nextBuffer();
      },
      callback(length, bytes) {
        const one = (this as ClientSocket)[CONNECTION];
        last = one;
        one.#onBytes(bytes as Buffer, length);
        return true;
      },
    };
  }

  /** Nothing is going on: may be closed without loss. */
  get isIdle(): boolean {
    return this.#state === "head" && this.#held === null;
  }

  // ------------------------------------------------------------ for the exchange

  /** Whoever is trusted to say what the client used has dealt with HTTPS already. */
  get redirectPort(): number | null {
    return this.peer.isTrusted ? null : this.#share.redirectPort;
  }

  get addedLines(): Uint8Array {
    return this.#share.addedLines;
  }

  get isLastRequest(): boolean {
    return this.#requestCount >= this.#parts.settings.sizes.requestsPerConnectionMax;
  }

  get pendingBytes(): number {
    return this.#socket.writableLength;
  }

  write(bytes: Uint8Array): boolean {
    return this.#socket.write(bytes) || this.#socket.writableLength === 0;
  }

  get hasHeld(): boolean {
    return this.#held !== null;
  }

  isLent(bytes: Buffer): boolean {
    return bytes === this.#parts.settings.buffers.shared;
  }

  releaseBytes(bytes: Buffer): void {
    if (bytes === this.#own) this.#own = null;
  }

  flushHeld(): void {
    const held = this.#held;
    if (held !== null) {
      this.#held = null;
      const at = this.#passBody(held, 0, held.length);
      if (at < held.length) this.#hold(held, at, held.length);
      this.#updateReading();
    }
    if (this.#hasEnded && this.#held === null && this.#state === "busy") {
      this.#exchange?.clientEnded();
    }
  }

  setReading(isReading: boolean): void {
    this.#isHeldBack = !isReading;
    if (isReading) this.flushHeld();
    this.#updateReading();
  }

  setDeadline(ms: number): void {
    this.deadlineMs = this.#parts.deadlines.nowMs + ms;
  }

  exchangeDone(isPersistent: boolean): void {
    this.#isHeldBack = false;
    // Cut off meanwhile: a late response does not bring it back.
    if (this.#state === "lingering") return;
    const isAllSaid = !isPersistent && this.#isAllSaid;
    this.#giveExchange();
    if (isAllSaid) return this.#close();
    if (!isPersistent) return this.#linger();
    this.#state = "head";
    this.setDeadline(this.#parts.settings.times.clientIdleMs);
    if (this.#isParsing) return;
    const held = this.#held;
    if (held !== null) {
      this.#held = null;
      this.#parse(held, 0, held.length);
    } else if (this.#hasEnded) this.#linger();
    this.#updateReading();
  }

  /** A reset rather than an end: a body that ends with the connection must not look whole. */
  cut(): void {
    if (this.#socket.destroyed) return;
    if (this.#share.isTls) this.#cutTls();
    else this.#socket.resetAndDestroy();
  }

  end(): void {
    this.#linger();
  }

  // ------------------------------------------------------------ for the engine

  /**
   * Closes when idle; a request in flight is answered with `Connection: close`. A first request is on
   * its way as soon as there is a connection, so one that has had none is given a moment for it.
   */
  drain(): void {
    if (!this.isIdle) this.#exchange?.drain();
    else if (this.#requestCount > 0 && this.#head === null) this.#linger();
    else {
      this.deadlineMs = Math.min(this.deadlineMs, this.#parts.deadlines.nowMs + FIRST_REQUEST_MS);
    }
  }

  /** Closes at once. */
  destroy(): void {
    this.#socket.destroy();
  }

  onDeadline(): void {
    this.deadlineMs = Infinity;
    if (this.#state === "busy") this.#exchange?.onDeadline();
    else if (this.#state === "lingering") this.#socket.destroy();
    else if (this.#head !== null) this.#refuse("CLIENT_HEAD_TIMEOUT");
    else this.#linger();
  }

  // ------------------------------------------------------------ socket

  #onBytes(bytes: Buffer, end: number): void {
    this.#parts.settings.observer.progressed(end);
    if (this.#state === "lingering") return;
    if (this.#state === "busy") {
      const at = this.#isHeldBack || this.#held !== null ? 0 : this.#passBody(bytes, 0, end);
      if (at < end) this.#hold(bytes, at, end);
      this.#updateReading();
    } else if (this.#isBehind) {
      this.#hold(bytes, 0, end);
      this.#updateReading();
    } else if (this.#held === null) this.#parse(bytes, 0, end);
    else {
      const joined = Buffer.concat([this.#held, bytes.subarray(0, end)]);
      this.#held = null;
      this.#parse(joined, 0, joined.length);
    }
  }

  /** `undefined` = the next read goes to the same buffer as the last. */
  #nextBuffer(): Buffer | undefined {
    const { buffers } = this.#parts.settings;
    const before = this.#target;
    const wantsOwn = this.#state === "busy" && this.#exchange?.upload.isStreaming === true;
    if (wantsOwn) this.#own ??= buffers.take();
    else if (this.#own !== null) {
      buffers.give(this.#own);
      this.#own = null;
    }
    this.#target = this.#own ?? buffers.shared;
    return this.#target === before ? undefined : this.#target;
  }

  #onDrain(): void {
    this.#exchange?.clientDrained();
    const held = this.#held;
    if (this.#state !== "head" || held === null) return;
    this.#held = null;
    this.#parse(held, 0, held.length);
  }

  /**
   * Responses wait for the client to read them: no further request is started, or one who pipelines
   * and never reads could fill the memory.
   */
  get #isBehind(): boolean {
    return this.#socket.writableNeedDrain;
  }

  /** Answers how far the bytes were used up. */
  #passBody(bytes: Buffer, start: number, end: number): number {
    return this.#exchange?.requestBytes(bytes, start, end) ?? start;
  }

  /** Heads and what follows them, until an exchange has to wait for something. */
  #parse(bytes: Buffer, start: number, end: number): void {
    let at = start;
    this.#isParsing = true;
    while (this.#state === "head" && at < end && !this.#isBehind) {
      const isNew = this.#head === null;
      const head = (this.#head ??= this.#parts.requestHeads.take());
      const verdict = head.parse(bytes, at, end);
      if (verdict === MORE) {
        if (isNew) this.#startHead();
        break;
      }
      if (verdict !== DONE) {
        this.#parts.settings.observer.parseRefused("client", head.refusal);
        this.#refuse(head.refusal);
        at = end;
        break;
      }
      at = this.#startExchange(head, { bytes, start: at, end });
    }
    this.#isParsing = false;
    if (this.#state === "lingering") return;
    if (at < end) this.#hold(bytes, at, end);
    if (this.#hasEnded) this.#afterEnd();
    this.#updateReading();
  }

  #startHead(): void {
    this.#headStartedAtMs = performance.now();
    this.setDeadline(this.#parts.settings.times.requestHeadMs);
  }

  #startExchange(head: RequestHead, { bytes, start, end }: Window): number {
    const exchange = this.#takeExchange();
    const { window } = exchange;
    window.bytes = bytes;
    window.start = start;
    window.end = end;
    this.#state = "busy";
    this.#head = null;
    this.#requestCount += 1;
    this.#isClientsLast = !head.isPersistent;
    const at = exchange.start(head);
    this.#parts.requestHeads.give(head);
    return at < end && !this.#isHeldBack ? this.#passBody(bytes, at, end) : at;
  }

  #takeExchange(): Exchange {
    const exchange = this.#share.exchanges.take();
    exchange.serve(this);
    this.#exchange = exchange;
    return exchange;
  }

  #giveExchange(): void {
    const exchange = this.#exchange;
    if (exchange === null) return;
    this.#exchange = null;
    exchange.reset();
    this.#share.exchanges.give(exchange);
  }

  #refuse(code: ProxyErrorCode): void {
    const startedAtMs = this.#headStartedAtMs || performance.now();
    this.#giveHead();
    this.#state = "busy";
    this.#isClientsLast = false;
    this.#takeExchange().refuse(code, startedAtMs);
  }

  #onEnd(): void {
    this.#hasEnded = true;
    if (this.#state !== "lingering") this.#afterEnd();
  }

  #onClosed(): void {
    this.#parts.deadlines.remove(this);
    this.#giveHead();
    this.#exchange?.clientClosed();
    this.#giveExchange();
    this.#share.onClosed(this);
  }

  /** Nothing more comes; what is held is still served. */
  #afterEnd(): void {
    if (this.#state === "busy") this.#exchange?.clientEnded();
    else if (this.#held === null || !this.#isBehind) this.#linger();
  }

  /** Keeps bytes for later: a view where nobody reads over them. */
  #hold(bytes: Buffer, start: number, end: number): void {
    const rest = bytes.subarray(start, end);
    this.releaseBytes(bytes);
    if (this.#held !== null) this.#held = Buffer.concat([this.#held, rest]);
    else this.#held = this.isLent(bytes) ? Buffer.from(rest) : rest;
  }

  /** Reads on unless somebody is behind; the socket is touched only when that changes. */
  #updateReading(): void {
    const isWaiting = this.#state === "busy" || (this.#state === "head" && this.#isBehind);
    const heldBytes = this.#held === null ? 0 : this.#held.length;
    const isFull = heldBytes >= this.#parts.settings.sizes.pipelinedBytesMax;
    const shouldPause = isWaiting && (this.#isHeldBack || isFull);
    if (shouldPause === this.#isPaused) return;
    this.#isPaused = shouldPause;
    if (shouldPause) this.#socket.pause();
    else this.#socket.resume();
  }

  /**
   * Ends our side and discards what still comes for a while: closing with unread bytes would reset
   * the connection and could take the response with it.
   */
  #linger(): void {
    if (this.#state === "lingering") return;
    this.#state = "lingering";
    this.#held = null;
    this.#giveHead();
    this.#updateReading();
    this.#endWriting();
  }

  /** What waits for a client that reads slowly still reaches it, if that is not too slow. */
  #endWriting(): void {
    const { sizes, times } = this.#parts.settings;
    const pendingBytes = this.pendingBytes;
    const linger = (): void => this.setDeadline(times.lingerMs);
    if (pendingBytes === 0) {
      linger();
      this.#socket.end();
      return;
    }
    const takingMs = (pendingBytes * 1000) / sizes.responseBytesPerSecondMin;
    this.setDeadline(Math.min(times.stalledBodyMs, times.bodyGraceMs + takingMs));
    this.#socket.end(linger);
  }

  /**
   * Whether the client has sent all that it will send, by its own word (RFC 9112 section 9.6), and
   * the network has taken all of the response: then there is nothing to linger for. With TLS an end
   * is a message of its own, which has to go out.
   */
  get #isAllSaid(): boolean {
    return (
      this.#isClientsLast &&
      !this.#share.isTls &&
      this.#held === null &&
      this.#exchange?.upload.body.isComplete === true &&
      this.#socket.writableLength === 0
    );
  }

  #close(): void {
    this.#state = "lingering";
    this.#socket.destroy();
  }

  /**
   * Node resets plain sockets only; with TLS a missing close-notify says the same. What was written
   * is still being encrypted: it goes out first.
   */
  #cutTls(): void {
    this.#state = "lingering";
    this.#held = null;
    this.#giveHead();
    this.setDeadline(this.#parts.settings.times.lingerMs);
    this.#socket.write(NO_BYTES, () => this.#socket.destroy());
  }

  #giveHead(): void {
    if (this.#head === null) return;
    this.#parts.requestHeads.give(this.#head);
    this.#head = null;
  }
}

/** IPv4 addresses as such, also where the socket is an IPv6 one. */
function plainAddress(address: string): string {
  return address.startsWith("::ffff:") ? address.slice(7) : address;
}

/** A listener for the sockets of all connections. */
function shared<T>(hear: (one: ClientConnection, value: T) => void) {
  return function (this: Socket, value: T): void {
    hear((this as ClientSocket)[CONNECTION], value);
  };
}

function nothing(): void {
  // Listened to, so that it is not thrown.
}

const CONNECTION = Symbol("connection");
type ClientSocket = Socket & { [CONNECTION]: ClientConnection };
const NO_BYTES = Buffer.alloc(0);
/** Of a connection that is new when a drain begins; longer than any round trip. */
const FIRST_REQUEST_MS = 1000;
