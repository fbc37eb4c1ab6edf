/**
 * The sending half of a stream, or of a space's handshake bytes: what was written, what of it is
 * under way, and what must be sent again (RFC 9000, section 3.1).
 *
 *     written ──take──► under way ──acked──► forgotten
 *                          └──lost──► taken again before anything new
 *
 * Written bytes are kept as they were given, not copied, until they and all before them are
 * acknowledged; so they must not be changed.
 */
import { RangeSet } from "#base/range-set.ts";
import type { WireWriter } from "./wire.ts";

/** One direction of a stream. */
export class SendStream {
  readonly id: number;
  /** Goes before streams that are not. */
  isUrgent = false;
  /** In its owner's queue of streams that have something to send. */
  isQueued = false;
  /** Offset up to which the peer lets us write. */
  maxData: number;
  /** Bytes written so far; the offset of the next. */
  written = 0;
  /** Bytes taken for the first time. */
  sent = 0;
  /** What the last `take` found. */
  frameOffset = 0;
  frameLength = 0;
  frameIsFin = false;
  /** Code of a reset, by us or because the peer stopped reading; -1 = none. */
  resetCode = -1;
  isResetAcked = false;
  #finAt = -1;
  #isFinSent = false;
  #isFinAcked = false;
  /** Bytes below are acknowledged. */
  #ackedTo = 0;
  readonly #acked = new RangeSet();
  readonly #lost = new RangeSet();
  #chunks: Uint8Array[] = [];
  /** Offset of the first chunk. */
  #chunksStart = 0;
  /** Where the last `take` ended: the chunk, and the offset of its first byte. */
  #cursor = 0;
  #cursorStart = 0;

  constructor(id: number, maxData: number) {
    this.id = id;
    this.maxData = maxData;
  }

  /** Whether the end was written. */
  get isEnded(): boolean {
    return this.#finAt >= 0;
  }

  /** Whether nothing is left to send or to be acknowledged. */
  get isDone(): boolean {
    if (this.resetCode >= 0) return this.isResetAcked;
    return this.#isFinAcked && this.#ackedTo === this.#finAt;
  }

  /** Whether everything written so far has arrived. */
  get isAllAcked(): boolean {
    return this.written > 0 && this.#ackedTo === this.written;
  }

  /** Whether `take` would find something. */
  get hasPending(): boolean {
    if (this.resetCode >= 0) return false;
    if (!this.#lost.isEmpty || this.sent < this.written) return true;
    return this.#finAt >= 0 && !this.#isFinSent;
  }

  /** Adds bytes; the owner keeps to `maxData`. */
  write(bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    this.#chunks.push(bytes);
    this.written += bytes.length;
  }

  /** Ends the stream behind what was written. */
  finish(): void {
    if (this.#finAt < 0) this.#finAt = this.written;
  }

  /** Drops everything: the peer will be told with this code. False: it is over already. */
  reset(code: number): boolean {
    if (this.resetCode >= 0 || this.isDone) return false;
    this.resetCode = code;
    this.#chunks = [];
    return true;
  }

  /** Chooses what to send next, at most `bytesMax` bytes. False: nothing. */
  take(bytesMax: number): boolean {
    if (this.resetCode >= 0) return false;
    const lost = this.#lost.ranges[0];
    if (lost !== undefined) {
      this.frameOffset = lost.start;
      this.frameLength = Math.min(bytesMax, lost.end - lost.start + 1);
      if (this.frameLength <= 0) return false;
      this.#lost.remove({ start: lost.start, end: lost.start + this.frameLength - 1 });
    } else {
      this.frameOffset = this.sent;
      this.frameLength = Math.max(0, Math.min(bytesMax, this.written - this.sent));
      const isEnd = this.#finAt >= 0 && !this.#isFinSent && this.sent === this.written;
      if (this.frameLength === 0 && !isEnd) return false;
      this.sent += this.frameLength;
    }
    this.frameIsFin = this.frameOffset + this.frameLength === this.#finAt;
    if (this.frameIsFin) this.#isFinSent = true;
    return true;
  }

  /** Writes the bytes that the last `take` found. */
  copyFrame(writer: WireWriter): void {
    let at = this.frameOffset;
    const end = at + this.frameLength;
    if (at < this.#cursorStart) {
      this.#cursor = 0;
      this.#cursorStart = this.#chunksStart;
    }
    while (at < end) {
      const chunk = this.#chunks[this.#cursor];
      if (chunk === undefined) return;
      const from = at - this.#cursorStart;
      if (from >= chunk.length) {
        this.#cursor += 1;
        this.#cursorStart += chunk.length;
        continue;
      }
      const to = Math.min(chunk.length, end - this.#cursorStart);
      writer.copy(chunk.subarray(from, to));
      at += to - from;
    }
  }

  /** A frame has arrived. */
  acked(offset: number, length: number, isFin: boolean): void {
    if (isFin) this.#isFinAcked = true;
    const end = offset + length;
    if (length === 0 || end <= this.#ackedTo) return;
    if (!this.#lost.isEmpty) this.#lost.remove({ start: offset, end: end - 1 });
    if (offset > this.#ackedTo) {
      this.#acked.insert({ start: offset, end: end - 1 });
      return;
    }
    this.#ackedTo = end;
    for (let next = this.#acked.ranges[0]; next !== undefined; next = this.#acked.ranges[0]) {
      if (next.start > this.#ackedTo) break;
      this.#ackedTo = Math.max(this.#ackedTo, next.end + 1);
      this.#acked.remove(next);
    }
    this.#release();
  }

  /** A frame was lost, or is to be repeated: what of it has not arrived otherwise is pending again. */
  lost(offset: number, length: number, isFin: boolean): void {
    if (this.resetCode >= 0) return;
    if (isFin && !this.#isFinAcked) this.#isFinSent = false;
    const start = Math.max(offset, this.#ackedTo);
    const end = offset + length - 1;
    if (end < start) return;
    for (const range of this.#acked.missing({ start, end })) this.#lost.insert(range);
  }

  #release(): void {
    let released = 0;
    for (;;) {
      const chunk = this.#chunks[released];
      if (chunk === undefined || this.#chunksStart + chunk.length > this.#ackedTo) break;
      this.#chunksStart += chunk.length;
      released += 1;
    }
    if (released === 0) return;
    this.#chunks.splice(0, released);
    this.#cursor = Math.max(0, this.#cursor - released);
    if (this.#cursor === 0) this.#cursorStart = this.#chunksStart;
  }
}
