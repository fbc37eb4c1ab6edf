/**
 * The chunked coding, checked byte by byte and passed on as it came (RFC 9112 section 7.1).
 *
 *   size [;ext] CRLF  data CRLF  ...  0 [;ext] CRLF  *(trailer CRLF)  CRLF
 *
 * Chunk data is skipped by arithmetic, so a large chunk costs no more than a small one. Refused:
 * blanks around the size, bare CR or LF anywhere, sizes above 2^52, framing names in trailers, and
 * more than a limit of extension and trailer bytes in one body (they are free to send, costly to
 * read).
 */
import { COLON, CR, HEX_VALUE, IS_TCHAR, IS_VALUE, LF, SEMICOLON } from "./bytes.ts";
import { isForbiddenTrailer, nameOf } from "./header-names.ts";
import type { RefusalCode } from "./refusal.ts";

const SIZE_FIRST = 0;
const SIZE = 1;
const EXTENSION = 2;
const SIZE_LINE_FEED = 3;
const DATA = 4;
const DATA_CR = 5;
const DATA_LINE_FEED = 6;
const TRAILER = 7;
const TRAILER_NAME = 8;
const TRAILER_VALUE = 9;
const TRAILER_LINE_FEED = 10;
const LAST_LINE_FEED = 11;
const END = 12;

/** Scanner of one chunked body; reusable after `reset`. */
export class ChunkScanner {
  refusal: RefusalCode = "BODY_CHUNK_SIZE";
  /**
   * When set, `scan` calls it with each range of chunk data: for receivers that know no chunks.
   */
  onData: ((start: number, end: number) => void) | null = null;

  readonly #overheadMax: number;
  readonly #name = new Uint8Array(TRAILER_NAME_KEPT);
  #phase = SIZE_FIRST;
  #digits = 0;
  #left = 0;
  #overhead = 0;
  #nameLength = 0;

  constructor(overheadMax: number) {
    this.#overheadMax = overheadMax;
  }

  reset(): void {
    this.#phase = SIZE_FIRST;
    this.#overhead = 0;
    this.onData = null;
  }

  get isComplete(): boolean {
    return this.#phase === END;
  }

  /** Takes what belongs to the body from `bytes[start..end)`: where it stopped, -1 = refused. */
  scan(bytes: Uint8Array, start: number, end: number): number {
    let at = start;
    while (at < end && this.#phase !== END) {
      if (this.#phase === DATA) {
        const stop = at + Math.min(this.#left, end - at);
        this.onData?.(at, stop);
        this.#left -= stop - at;
        at = stop;
        if (this.#left === 0) this.#phase = DATA_CR;
        continue;
      }
      const refusal =
        this.#phase >= TRAILER
          ? this.#stepTrailer(bytes[at] as number)
          : this.#stepSize(bytes[at] as number);
      if (refusal !== null) {
        this.refusal = refusal;
        return -1;
      }
      at += 1;
    }
    return at;
  }

  #stepSize(byte: number): RefusalCode | null {
    switch (this.#phase) {
      case SIZE_FIRST:
      case SIZE: {
        const digit = HEX_VALUE[byte] as number;
        if (digit < 16) return this.#takeDigit(digit);
        if (this.#phase === SIZE_FIRST) return "BODY_CHUNK_SIZE";
        if (byte === CR) this.#phase = SIZE_LINE_FEED;
        else if (byte === SEMICOLON) this.#phase = EXTENSION;
        else return "BODY_CHUNK_SIZE";
        return null;
      }
      case EXTENSION:
        if (byte === CR) this.#phase = SIZE_LINE_FEED;
        else if (IS_VALUE[byte] === 0) return "BODY_CHUNK_EXTENSION";
        else return this.#countOverhead();
        return null;
      case SIZE_LINE_FEED:
        if (byte !== LF) return "BODY_CHUNK_SIZE";
        this.#phase = this.#left === 0 ? TRAILER : DATA;
        return null;
      case DATA_CR:
        this.#phase = DATA_LINE_FEED;
        return byte === CR ? null : "BODY_CHUNK_END";
      default:
        this.#phase = SIZE_FIRST;
        return byte === LF ? null : "BODY_CHUNK_END";
    }
  }

  #takeDigit(digit: number): RefusalCode | null {
    if (this.#phase === SIZE_FIRST) {
      this.#left = 0;
      this.#digits = 0;
      this.#phase = SIZE;
    }
    this.#digits += 1;
    this.#left = this.#left * 16 + digit;
    return this.#digits > SIZE_DIGITS_MAX ? "BODY_CHUNK_SIZE" : null;
  }

  #stepTrailer(byte: number): RefusalCode | null {
    switch (this.#phase) {
      case TRAILER:
        if (byte === CR) {
          this.#phase = LAST_LINE_FEED;
          return null;
        }
        this.#phase = TRAILER_NAME;
        this.#nameLength = 0;
        return this.#takeNameByte(byte);
      case TRAILER_NAME:
        return byte === COLON ? this.#endName() : this.#takeNameByte(byte);
      case TRAILER_VALUE:
        if (byte === CR) this.#phase = TRAILER_LINE_FEED;
        else if (IS_VALUE[byte] === 0) return "BODY_TRAILER";
        else return this.#countOverhead();
        return null;
      case TRAILER_LINE_FEED:
        this.#phase = TRAILER;
        return byte === LF ? null : "BODY_TRAILER";
      default:
        this.#phase = END;
        return byte === LF ? null : "BODY_TRAILER";
    }
  }

  #takeNameByte(byte: number): RefusalCode | null {
    if (IS_TCHAR[byte] === 0) return "BODY_TRAILER";
    if (this.#nameLength < TRAILER_NAME_KEPT) this.#name[this.#nameLength] = byte;
    this.#nameLength += 1;
    return this.#countOverhead();
  }

  #endName(): RefusalCode | null {
    this.#phase = TRAILER_VALUE;
    if (this.#nameLength > TRAILER_NAME_KEPT) return null;
    const name = nameOf(this.#name, 0, this.#nameLength);
    return isForbiddenTrailer(name) ? "BODY_TRAILER" : null;
  }

  #countOverhead(): RefusalCode | null {
    this.#overhead += 1;
    return this.#overhead > this.#overheadMax ? "BODY_OVERHEAD" : null;
  }
}

/** 16^13 = 2^52: every size up to there is exact in a double. */
const SIZE_DIGITS_MAX = 13;
/** Longer than every name that may not stand in a trailer section. */
const TRAILER_NAME_KEPT = 24;
