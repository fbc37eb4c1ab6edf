/**
 * A bidirectional QUIC stream as the `BiStream` port: frames out with back-pressure from the
 * stream's queue, frames in with back-pressure from the listener.
 *
 * Nothing is read from quiche until a listener is set, nor while the promise of its last call is
 * pending; the peer's flow-control credit then runs out and its `send` waits. So a slow reader
 * costs one stream window of memory and no more.
 *
 *     open ──FIN both ways──► done        open ──reset, connection lost, bad frame──► broken
 *       └──abort()──► done
 */
import { errorText, PatinaError } from "#base/errors.ts";
import type { ActorId, Address, BiStream } from "../../types.ts";
import { TRANSPORT_CLOSED, TRANSPORT_LIMIT } from "./errors.ts";
import { FrameReader, type FrameLimits } from "./frame-reader.ts";
import { OutboundStream } from "./outbound-stream.ts";
import type { EngineConnection } from "./engine.ts";

/** What a stream asks of the connection it is on. */
export interface StreamHost {
  readonly remote: Address;
  readonly peerActorId: ActorId | null;
  /** `send` resolves while fewer bytes than this are queued. */
  readonly streamQueueBytes: number;
  readonly frameLimits: FrameLimits;
  /** Room for so many more queued bytes? Otherwise the error to reject with. */
  admit(bytes: number): PatinaError | null;
  /** Bytes were queued on the stream, or its end was: write it soon. */
  schedule(stream: OutboundStream): void;
  /** The stream can be read again, though quiche may have nothing more for it: read it soon. */
  resume(stream: QuicBiStream): void;
  /** Resets both directions and forgets the stream. */
  abandon(stream: QuicBiStream): void;
  /** Forgets the stream: both directions ended. */
  release(stream: QuicBiStream): void;
  /** Runs a notification outside of any call of the transport's methods. */
  defer(task: () => void): void;
}

type FrameListener = (frame: Uint8Array | null) => void | Promise<void>;

/** One stream; created by its connection. */
export class QuicBiStream implements BiStream {
  readonly id: number;
  readonly remote: Address;
  readonly peerActorId: ActorId | null;
  readonly outbound: OutboundStream;
  readonly #host: StreamHost;
  readonly #reader: FrameReader;
  /** Decoded and not yet delivered; at most what one read brings. */
  #frames: Uint8Array[] = [];
  #listener: FrameListener | null = null;
  #brokenListener: ((error: PatinaError) => void) | null = null;
  /** The listener's last promise is pending. */
  #isPaused = false;
  /** The peer's FIN was read / was delivered. */
  #sawEnd = false;
  #toldEnd = false;
  /** Nothing more will happen: done, aborted or broken. */
  #isOver = false;
  #error: PatinaError | null = null;
  #waiting: { resolve: () => void; reject: (error: PatinaError) => void }[] = [];

  constructor(id: number, host: StreamHost) {
    this.id = id;
    this.remote = host.remote;
    this.peerActorId = host.peerActorId;
    this.#host = host;
    this.#reader = new FrameReader(host.frameLimits);
    this.outbound = new OutboundStream(id, false);
    this.outbound.onProgress = (outcome) => this.#onProgress(outcome);
  }

  /** Rejects with `TRANSPORT_CLOSED` (broken, aborted, finished) or `TRANSPORT_LIMIT`. */
  send(frame: Uint8Array): Promise<void> {
    if (this.#isOver || this.outbound.isEnding) {
      return Promise.reject(this.#error ?? closedError("the stream is finished or aborted"));
    }
    if (frame.length > this.#host.frameLimits.frameBytesMax) {
      return Promise.reject(limitError("frameBytesMax"));
    }
    const refusal = this.#host.admit(frame.length);
    if (refusal !== null) return Promise.reject(refusal);
    this.outbound.pushFrame(frame);
    this.#host.schedule(this.outbound);
    if (this.outbound.queuedBytes <= this.#host.streamQueueBytes) return Promise.resolve();
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }

  finish(): void {
    if (this.#isOver || this.outbound.isEnding) return;
    this.outbound.pushEnd();
    this.#host.schedule(this.outbound);
  }

  abort(): void {
    if (this.#isOver) return;
    this.#end(closedError("aborted by this side"));
    this.#host.abandon(this);
  }

  onFrame(listener: FrameListener): void {
    this.#listener = listener;
    this.#host.resume(this);
  }

  onBroken(listener: (error: PatinaError) => void): void {
    this.#brokenListener = listener;
    const error = this.#error;
    if (error !== null) this.#host.defer(() => listener(error));
  }

  /**
   * Reads what quiche has, at most `budgetBytes` or a little more, and delivers. Returns bytes
   * read.
   */
  read(native: EngineConnection, scratch: Buffer, budgetBytes: number): number {
    let total = 0;
    this.#deliver();
    while (this.#canRead() && total < budgetBytes) {
      let part: [number, boolean] | null;
      try {
        part = native.streamRecv(this.id, scratch);
      } catch (thrown) {
        this.breakWith(closedError(`reset by the peer: ${errorText(thrown)}`));
        return total;
      }
      if (part === null) break;
      const [length, isEnd] = part;
      total += length;
      this.#take(scratch.subarray(0, length), isEnd);
    }
    return total;
  }

  /**
   * The connection is gone, or the stream cannot go on. Tells the listener unless aborted or done.
   */
  breakWith(error: PatinaError): void {
    if (this.#isOver) return;
    this.#end(error);
    this.#error = error;
    this.#host.abandon(this);
    const listener = this.#brokenListener;
    if (listener !== null) this.#host.defer(() => listener(error));
  }

  #canRead(): boolean {
    return this.#listener !== null && !this.#isPaused && !this.#sawEnd && !this.#isOver;
  }

  #take(bytes: Uint8Array, isEnd: boolean): void {
    const pushed = this.#reader.push(bytes, this.#frames);
    const result = pushed.ok && isEnd ? this.#reader.end() : pushed;
    if (isEnd) this.#sawEnd = true;
    this.#deliver();
    if (result.ok) return;
    this.breakWith(
      result.error === "cutShort" ? closedError("ended inside a frame") : limitError(result.error),
    );
  }

  #deliver(): void {
    const listener = this.#listener;
    if (listener === null) return;
    let delivered = 0;
    while (delivered < this.#frames.length && !this.#isPaused && !this.#isOver) {
      this.#call(listener, this.#frames[delivered] ?? null);
      delivered += 1;
    }
    if (delivered > 0) this.#frames = this.#frames.slice(delivered);
    const isRead = this.#sawEnd && this.#frames.length === 0;
    if (isRead && !this.#toldEnd && !this.#isPaused && !this.#isOver) {
      this.#toldEnd = true;
      this.#call(listener, null);
      this.#finishIfDone();
    }
  }

  #call(listener: FrameListener, frame: Uint8Array | null): void {
    const pending = listener(frame);
    if (pending === undefined) return;
    this.#isPaused = true;
    pending.then(
      () => {
        this.#isPaused = false;
        this.#host.resume(this);
      },
      (thrown: unknown) => {
        this.breakWith(closedError("the reader failed", thrown));
      },
    );
  }

  #onProgress(outcome: "drained" | "blocked" | "broken"): void {
    if (outcome === "broken") {
      this.breakWith(closedError(`the peer stopped reading: ${this.outbound.brokenBy}`));
      return;
    }
    if (this.outbound.queuedBytes <= this.#host.streamQueueBytes / 2) {
      for (const { resolve } of this.#waiting.splice(0)) resolve();
    }
    this.#finishIfDone();
  }

  #finishIfDone(): void {
    if (this.#isOver || !this.#toldEnd || !this.outbound.isFinished) return;
    this.#isOver = true;
    this.#host.release(this);
  }

  #end(error: PatinaError): void {
    this.#isOver = true;
    this.#frames = [];
    for (const { reject } of this.#waiting.splice(0)) reject(error);
  }
}

/** A `TRANSPORT_CLOSED` with its reason. */
export function closedError(reason: string, cause?: unknown): PatinaError {
  return new PatinaError(TRANSPORT_CLOSED, reason, { cause, details: { reason } });
}

/** A `TRANSPORT_LIMIT` naming the limit. */
export function limitError(limit: string): PatinaError {
  return new PatinaError(TRANSPORT_LIMIT, `over the limit ${limit}`, { details: { limit } });
}
