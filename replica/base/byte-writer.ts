/**
 * Writes numbers, bytes and text into a byte array that grows.
 *
 * Meant for our own values, so it checks nothing: a number out of a field's range wraps, as the
 * platform's typed arrays do. A writer can be used again after `reset`, which keeps its memory.
 */

/** An append-only byte buffer; `finish` copies out what was written. */
export class ByteWriter {
  #bytes: Uint8Array;
  #view: DataView;
  #length = 0;

  /** `bytesExpected` only avoids growth; any amount can be written. */
  constructor(bytesExpected = 256) {
    this.#bytes = new Uint8Array(Math.max(16, bytesExpected));
    this.#view = new DataView(this.#bytes.buffer);
  }

  /** Bytes written since the start or the last `reset`. */
  get length(): number {
    return this.#length;
  }

  /** Forgets what was written and keeps the memory. */
  reset(): void {
    this.#length = 0;
  }

  /** A copy of the bytes written. */
  finish(): Uint8Array {
    return this.#bytes.slice(0, this.#length);
  }

  /** One byte. */
  u8(value: number): void {
    const at = this.#grow(1);
    this.#bytes[at] = value;
  }

  /** Two bytes, little-endian. */
  u16le(value: number): void {
    const at = this.#grow(2);
    this.#view.setUint16(at, value, true);
  }

  /** Two bytes, big-endian. */
  u16be(value: number): void {
    const at = this.#grow(2);
    this.#view.setUint16(at, value, false);
  }

  /** Four bytes, little-endian; returns where, for `patchU32le`. */
  u32le(value: number): number {
    const at = this.#grow(4);
    this.#view.setUint32(at, value, true);
    return at;
  }

  /** Four bytes, big-endian. */
  u32be(value: number): void {
    const at = this.#grow(4);
    this.#view.setUint32(at, value, false);
  }

  /** Overwrites the four bytes at `at`, little-endian; for a count known only afterwards. */
  patchU32le(at: number, value: number): void {
    this.#view.setUint32(at, value, true);
  }

  /** Overwrites the two bytes at `at`, big-endian; for a count known only afterwards. */
  patchU16be(at: number, value: number): void {
    this.#view.setUint16(at, value, false);
  }

  /** Eight bytes, little-endian, unsigned. */
  u64le(value: bigint): void {
    const at = this.#grow(8);
    this.#view.setBigUint64(at, value, true);
  }

  /** Eight bytes, little-endian, signed. */
  i64le(value: bigint): void {
    const at = this.#grow(8);
    this.#view.setBigInt64(at, value, true);
  }

  /** Eight bytes, little-endian, of a number from 0 to 2^53 - 1. */
  u53le(value: number): void {
    const at = this.#grow(8);
    const high = Math.floor(value / 0x1_0000_0000);
    this.#view.setUint32(at, value - high * 0x1_0000_0000, true);
    this.#view.setUint32(at + 4, high, true);
  }

  /** IEEE 754 double, little-endian. */
  f64le(value: number): void {
    const at = this.#grow(8);
    this.#view.setFloat64(at, value, true);
  }

  /** IEEE 754 double, big-endian. */
  f64be(value: number): void {
    const at = this.#grow(8);
    this.#view.setFloat64(at, value, false);
  }

  /** The bytes as they are. */
  raw(bytes: Uint8Array): void {
    const byteCount = bytes.length;
    const at = this.#grow(byteCount);
    if (byteCount > SHORT_BYTES) {
      this.#bytes.set(bytes, at);
      return;
    }
    const target = this.#bytes;
    for (let index = 0; index < byteCount; index += 1) target[at + index] = bytes[index] ?? 0;
  }

  /** The text as UTF-8 (a lone surrogate becomes U+FFFD); returns the number of bytes. */
  text(text: string): number {
    const start = this.#length;
    if (text.length <= SHORT_TEXT_LENGTH && this.#ascii(text)) return text.length;
    this.#length = start;
    // A UTF-16 unit takes at most three bytes of UTF-8.
    this.#grow(text.length * 3);
    const { written } = ENCODER.encodeInto(text, this.#bytes.subarray(start));
    this.#length = start + written;
    return written;
  }

  /** Writes all of `text` if it is ASCII; else stops somewhere and returns false. */
  #ascii(text: string): boolean {
    const start = this.#grow(text.length);
    const target = this.#bytes;
    for (let index = 0; index < text.length; index += 1) {
      const code = text.charCodeAt(index);
      if (code > 0x7f) return false;
      target[start + index] = code;
    }
    return true;
  }

  /** Makes room for `byteCount` more bytes, counts them as written and returns where they go. */
  #grow(byteCount: number): number {
    const at = this.#length;
    const needed = at + byteCount;
    if (needed > this.#bytes.length) {
      const larger = new Uint8Array(Math.max(needed, this.#bytes.length * 2));
      larger.set(this.#bytes.subarray(0, at));
      this.#bytes = larger;
      this.#view = new DataView(larger.buffer);
    }
    this.#length = needed;
    return at;
  }
}

/** Below this, a loop beats the call into `set`. */
const SHORT_BYTES = 24;
/** Below this, a loop beats the platform's encoder. */
const SHORT_TEXT_LENGTH = 40;
const ENCODER = new TextEncoder();
