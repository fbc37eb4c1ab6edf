/**
 * The outgoing streams of one connection that have bytes to write: urgent ones first, the rest in
 * turn.
 *
 * When a few streams in a row are refused, the congestion window is full and the rest would be
 * refused too, so a turn stops there: its cost does not grow with the number of streams. The next
 * turn begins with the streams that were not tried.
 */
import type { OutboundStream } from "./outbound-stream.ts";
import type { EngineConnection } from "./engine.ts";

/** Streams with work, by urgency. */
export class WriteQueue {
  readonly #native: EngineConnection;
  #urgent: OutboundStream[] = [];
  #bulk: OutboundStream[] = [];

  constructor(native: EngineConnection) {
    this.#native = native;
  }

  /** Whether no stream has bytes to write. */
  get isEmpty(): boolean {
    return this.#urgent.length === 0 && this.#bulk.length === 0;
  }

  /** Adds a stream that has bytes or an end to write; twice does nothing. */
  add(stream: OutboundStream): void {
    if (stream.isScheduled) return;
    stream.isScheduled = true;
    (stream.isUrgent ? this.#urgent : this.#bulk).push(stream);
  }

  /** Takes a stream out and drops its bytes. */
  remove(stream: OutboundStream): void {
    stream.clear();
    if (!stream.isScheduled) return;
    stream.isScheduled = false;
    this.#urgent = this.#urgent.filter((other) => other !== stream);
    this.#bulk = this.#bulk.filter((other) => other !== stream);
  }

  /** Bytes of all streams in the queue. O(streams with bytes), at most some hundreds. */
  queuedBytes(): number {
    let bytes = 0;
    for (const stream of this.#urgent) bytes += stream.queuedBytes;
    for (const stream of this.#bulk) bytes += stream.queuedBytes;
    return bytes;
  }

  /** Writes what quiche takes. Returns whether a listener queued more meanwhile. */
  run(): boolean {
    if (this.isEmpty) return false;
    const urgent = this.#urgent;
    this.#urgent = [];
    this.#urgent = this.#runList(urgent).concat(this.#urgent);
    const bulk = this.#bulk;
    this.#bulk = [];
    this.#bulk = this.#runList(bulk).concat(this.#bulk);
    return false;
  }

  /** Tells every stream that it is broken. */
  breakAll(): void {
    const streams = [...this.#urgent, ...this.#bulk];
    this.#urgent = [];
    this.#bulk = [];
    for (const stream of streams) {
      stream.isScheduled = false;
      stream.clear();
      stream.onProgress("broken");
    }
  }

  /** Returns the streams that are left, those that were not tried first. */
  #runList(streams: OutboundStream[]): OutboundStream[] {
    const blocked: OutboundStream[] = [];
    let streak = 0;
    let tried = 0;
    for (; tried < streams.length && streak < BLOCKED_STREAK_MAX; tried += 1) {
      const stream = streams[tried];
      if (stream === undefined || !stream.isScheduled) continue;
      const bytesBefore = stream.queuedBytes;
      const outcome = stream.write(this.#native);
      if (outcome === "blocked") {
        blocked.push(stream);
        streak = stream.queuedBytes < bytesBefore ? 0 : streak + 1;
      } else {
        stream.isScheduled = false;
        streak = 0;
      }
      stream.onProgress(outcome);
    }
    return [...streams.slice(tried), ...blocked].filter((stream) => stream.isScheduled);
  }
}

/** A few streams may be blocked by their own windows while the connection still has room. */
const BLOCKED_STREAK_MAX = 8;
