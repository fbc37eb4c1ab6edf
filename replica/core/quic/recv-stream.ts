/**
 * The receiving half of a stream, or of a space's handshake bytes: puts the bytes in order and hands
 * them out once (RFC 9000, section 3.2).
 *
 * Of bytes that arrive twice, the first to arrive count, whatever the second ones say. Bytes are
 * views of the packets they came in, or copies where a view would keep much more alive than it shows.
 */
import {
  FINAL_SIZE_ERROR,
  FLOW_CONTROL_ERROR,
  NO_ERROR,
  PROTOCOL_VIOLATION,
} from "./transport-error.ts";

interface Segment {
  readonly offset: number;
  readonly bytes: Uint8Array;
}

/** One direction of a stream. */
export class RecvStream {
  readonly id: number;
  /** Offset up to which the peer may send. */
  maxData: number;
  /** Behind the last byte that has arrived. */
  received = 0;
  /** Of the next byte to be read. */
  readAt = 0;
  /** Bytes of the whole stream, once known; else -1. */
  finalSize = -1;
  /** Code with which the peer gave up; -1 = it did not. */
  resetCode = -1;
  /** We do not want any more: bytes are counted and dropped. */
  isStopped = false;
  readonly #window: number;
  /** Ascending, without overlap, all behind `readAt`. */
  #segments: Segment[] = [];
  #head = 0;
  /** Bytes read of the first segment. */
  #headRead = 0;
  #gaps = 0;

  constructor(id: number, window: number) {
    this.id = id;
    this.maxData = window;
    this.#window = window;
  }

  /** Whether a read would bring bytes, the end, or the news of a reset. */
  get isReadable(): boolean {
    if (this.isStopped) return false;
    return this.resetCode >= 0 || this.isAtEnd || this.#firstOffset() === this.readAt;
  }

  /** Whether everything was read, or dropped. */
  get isAtEnd(): boolean {
    return this.finalSize >= 0 && this.readAt === this.finalSize;
  }

  /** Whether no byte can come any more that would be of interest. */
  get isComplete(): boolean {
    return this.resetCode >= 0 || (this.finalSize >= 0 && (this.isStopped || this.isAtEnd));
  }

  /**
   * Takes bytes, which stay views of `packet` if they are most of it. Returns a transport error, or
   * `NO_ERROR`.
   */
  add(offset: number, bytes: Uint8Array, isFin: boolean): number {
    const end = offset + bytes.length;
    if (end > this.maxData) return FLOW_CONTROL_ERROR;
    const error = this.#noteSize(end, isFin);
    if (error !== NO_ERROR) return error;
    this.received = Math.max(this.received, end);
    if (this.isStopped || this.resetCode >= 0) {
      this.readAt = this.received;
      return NO_ERROR;
    }
    if (bytes.length > 0) this.#insert(offset, bytes);
    const gapsMax = Math.min(GAPS_MAX, GAPS_MIN + this.#window / BYTES_PER_GAP);
    return this.#gaps > gapsMax ? PROTOCOL_VIOLATION : NO_ERROR;
  }

  /** The peer gives the stream up. Returns a transport error, or `NO_ERROR`. */
  reset(code: number, finalSize: number): number {
    if (finalSize > this.maxData) return FLOW_CONTROL_ERROR;
    // All was here before the reset came: then the reset is of no interest (section 3.2).
    const isWhole = this.finalSize >= 0 && this.received === this.finalSize && this.#gaps === 0;
    const error = this.#noteSize(finalSize, true);
    if (error !== NO_ERROR) return error;
    this.received = finalSize;
    if (isWhole || this.resetCode >= 0) return NO_ERROR;
    this.resetCode = code;
    this.#drop();
    return NO_ERROR;
  }

  /** Gives up reading. */
  stop(): void {
    this.isStopped = true;
    this.#drop();
  }

  /** Copies bytes that are next into `out`; returns how many. */
  read(out: Uint8Array): number {
    let copied = 0;
    while (copied < out.length) {
      const segment = this.#segments[this.#head];
      if (segment === undefined || segment.offset + this.#headRead !== this.readAt) break;
      const rest = segment.bytes.length - this.#headRead;
      const take = Math.min(rest, out.length - copied);
      const from = this.#headRead;
      out.set(segment.bytes.subarray(from, from + take), copied);
      copied += take;
      this.readAt += take;
      this.#headRead += take;
      if (take === rest) this.#shift();
    }
    return copied;
  }

  /** Raises the peer's credit if half of it is used up. Returns whether it must be told. */
  grant(): boolean {
    if (this.finalSize >= 0 || this.isStopped) return false;
    if (this.maxData - this.readAt > this.#window / 2) return false;
    this.maxData = this.readAt + this.#window;
    return true;
  }

  #firstOffset(): number {
    const segment = this.#segments[this.#head];
    return segment === undefined ? -1 : segment.offset + this.#headRead;
  }

  #noteSize(end: number, isFin: boolean): number {
    if (this.finalSize >= 0) {
      const isSame = isFin ? end === this.finalSize : end <= this.finalSize;
      return isSame ? NO_ERROR : FINAL_SIZE_ERROR;
    }
    if (!isFin) return NO_ERROR;
    if (end < this.received) return FINAL_SIZE_ERROR;
    this.finalSize = end;
    return NO_ERROR;
  }

  #insert(offset: number, bytes: Uint8Array): void {
    const last = this.#segments.at(-1);
    const lastEnd = last === undefined ? this.readAt : last.offset + last.bytes.length;
    if (offset >= lastEnd && offset >= this.readAt) {
      if (offset > lastEnd) this.#gaps += 1;
      this.#segments.push({ offset, bytes: compact(bytes) });
      return;
    }
    this.#fillGaps(offset, bytes);
  }

  /** Puts in what of the bytes lies between the segments. */
  #fillGaps(offset: number, bytes: Uint8Array): void {
    const end = offset + bytes.length;
    let at = Math.max(offset, this.readAt);
    let index = this.#head;
    while (at < end) {
      let next = this.#segments[index];
      while (next !== undefined && next.offset + next.bytes.length <= at) {
        index += 1;
        next = this.#segments[index];
      }
      const to = Math.min(end, next?.offset ?? end);
      if (to > at) {
        const part = compact(bytes.subarray(at - offset, to - offset));
        this.#segments.splice(index, 0, { offset: at, bytes: part });
        index += 1;
      }
      if (next === undefined) break;
      at = Math.max(to, next.offset + next.bytes.length);
    }
    this.#countGaps();
  }

  #countGaps(): void {
    let gaps = 0;
    let end = this.readAt;
    for (let index = this.#head; index < this.#segments.length; index += 1) {
      const segment = this.#segments[index];
      if (segment === undefined) break;
      if (segment.offset > end) gaps += 1;
      end = segment.offset + segment.bytes.length;
    }
    this.#gaps = gaps;
  }

  #shift(): void {
    this.#segments[this.#head] = EMPTY_SEGMENT;
    this.#head += 1;
    this.#headRead = 0;
    if (this.#head === this.#segments.length) {
      this.#segments.length = 0;
      this.#head = 0;
      this.#gaps = 0;
    } else if (this.#head > COMPACT_SEGMENTS) {
      this.#segments.splice(0, this.#head);
      this.#head = 0;
    }
  }

  #drop(): void {
    this.#segments = [];
    this.#head = 0;
    this.#headRead = 0;
    this.#gaps = 0;
    this.readAt = this.received;
  }
}

/** A copy where the view keeps at least twice its bytes alive. */
function compact(bytes: Uint8Array): Uint8Array {
  return bytes.length * 2 < bytes.buffer.byteLength ? bytes.slice() : bytes;
}

const EMPTY_SEGMENT: Segment = { offset: 0, bytes: new Uint8Array(0) };
/**
 * What a peer can make us keep beside its bytes: far more than loss makes of a window of 1.25 MB, and
 * less for less. Packets are larger than this.
 */
const GAPS_MAX = 8_192;
const GAPS_MIN = 16;
const BYTES_PER_GAP = 128;
/** Arbitrary; read segments are dropped from the array this many at a time. */
const COMPACT_SEGMENTS = 64;
