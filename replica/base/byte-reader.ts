/**
 * Reads numbers, bytes and text from a byte array that may be hostile.
 *
 * Failure is sticky: the first read past the end (or of a value out of range) sets `failure`, and
 * every read from then on returns zero or nothing without moving. So a decoder reads straight on and
 * looks at `failure` once at its end; only loops whose count came from the input must bound it first,
 * which is what `count` is for. No read throws, allocates more than the input holds, or returns
 * anything outside the stated range.
 */

/** A total cursor over `bytes`; views that it returns share memory with them. */
export class ByteReader {
  /** The bytes being read; not copied, so they must not change while views on them are in use. */
  readonly bytes: Uint8Array;
  readonly #view: DataView;
  readonly #end: number;
  #offset = 0;
  #failure: string | null = null;
  #flaw: string | null = null;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#end = bytes.byteLength;
  }

  /** Why reading stopped, in the words of a stable kebab-case reason; `null` = all well. */
  get failure(): string | null {
    return this.#failure;
  }

  /**
   * Why what was read cannot be used although all of it could be read: a value that nothing here can
   * hold. The first reason stays; `null` = none.
   */
  get flaw(): string | null {
    return this.#flaw;
  }

  /** Position of the next read, in bytes from the start. */
  get offset(): number {
    return this.#offset;
  }

  /** Bytes left; 0 after a failure. */
  get remaining(): number {
    return this.#failure === null ? this.#end - this.#offset : 0;
  }

  /** Fails this reader; the first reason stays. Always returns 0, for use in expressions. */
  fail(reason: string): 0 {
    this.#failure ??= reason;
    return 0;
  }

  /** Notes a flaw: reading goes on. Always returns 0, for use in expressions. */
  mar(reason: string): 0 {
    this.#flaw ??= reason;
    return 0;
  }

  /** One byte; 0 after a failure. */
  u8(): number {
    const at = this.#advance(1);
    return at < 0 ? 0 : this.#view.getUint8(at);
  }

  /** Two bytes, little-endian; 0 after a failure. */
  u16le(): number {
    const at = this.#advance(2);
    return at < 0 ? 0 : this.#view.getUint16(at, true);
  }

  /** Two bytes, big-endian; 0 after a failure. */
  u16be(): number {
    const at = this.#advance(2);
    return at < 0 ? 0 : this.#view.getUint16(at, false);
  }

  /** Four bytes, little-endian; 0 after a failure. */
  u32le(): number {
    const at = this.#advance(4);
    return at < 0 ? 0 : this.#view.getUint32(at, true);
  }

  /** Four bytes, big-endian; 0 after a failure. */
  u32be(): number {
    const at = this.#advance(4);
    return at < 0 ? 0 : this.#view.getUint32(at, false);
  }

  /** Eight bytes, unsigned, little-endian; 0 after a failure. */
  u64le(): bigint {
    const at = this.#advance(8);
    return at < 0 ? 0n : this.#view.getBigUint64(at, true);
  }

  /** Eight bytes, signed, little-endian; 0 after a failure. */
  i64le(): bigint {
    const at = this.#advance(8);
    return at < 0 ? 0n : this.#view.getBigInt64(at, true);
  }

  /**
   * Eight bytes, little-endian, as a number from 0 to 2^53 - 1; anything greater (also a negative
   * value, when the field is signed) fails with `number-too-large`.
   */
  u53le(): number {
    const value = this.#u53le();
    return value < 0 ? this.fail("number-too-large") : value;
  }

  /** The same, but a number that is too great is a flaw, and read as 0. */
  u53leOrFlaw(): number {
    const value = this.#u53le();
    return value < 0 ? this.mar("number-too-large") : value;
  }

  /** IEEE 754 double, little-endian; 0 after a failure. */
  f64le(): number {
    const at = this.#advance(8);
    return at < 0 ? 0 : this.#view.getFloat64(at, true);
  }

  /** IEEE 754 double, big-endian; 0 after a failure. */
  f64be(): number {
    const at = this.#advance(8);
    return at < 0 ? 0 : this.#view.getFloat64(at, false);
  }

  /**
   * A little-endian u32 element count. Fails with `count-too-large` when the rest of the input cannot
   * hold that many elements of at least `bytesEach` bytes, so a loop over it is bounded by the input.
   */
  countU32le(bytesEach: number): number {
    const count = this.u32le();
    if (count * bytesEach > this.#end - this.#offset) return this.fail("count-too-large");
    return count;
  }

  /** A view of the next `byteCount` bytes; empty after a failure. */
  view(byteCount: number): Uint8Array {
    const at = this.#advance(byteCount);
    return at < 0 ? EMPTY : this.bytes.subarray(at, at + byteCount);
  }

  /** Moves over `byteCount` bytes. */
  skip(byteCount: number): void {
    this.#advance(byteCount);
  }

  /**
   * UTF-8 text of `byteCount` bytes; a leading byte order mark is kept. Malformed UTF-8 fails with
   * `text-malformed`: replacing it would store something else than the sender holds.
   */
  text(byteCount: number): string {
    const text = this.#text(byteCount);
    if (text !== null) return text;
    this.fail("text-malformed");
    return "";
  }

  /** The same, but malformed UTF-8 is a flaw, and read as nothing. */
  textOrFlaw(byteCount: number): string {
    const text = this.#text(byteCount);
    if (text === null) this.mar("text-malformed");
    return text ?? "";
  }

  /** The next eight bytes as a number; -1 when it is too great. */
  #u53le(): number {
    const at = this.#advance(8);
    if (at < 0) return 0;
    const high = this.#view.getUint32(at + 4, true);
    return high > 0x1f_ffff ? -1 : high * 0x1_0000_0000 + this.#view.getUint32(at, true);
  }

  /** The next bytes as text; null when it is malformed. */
  #text(byteCount: number): string | null {
    const at = this.#advance(byteCount);
    if (at < 0) return "";
    if (byteCount <= SHORT_TEXT_BYTES) {
      const short = asciiText(this.bytes, at, byteCount);
      if (short !== null) return short;
    }
    const bytes = this.bytes.subarray(at, at + byteCount);
    const text = DECODER.decode(bytes);
    return text.includes("\ufffd") && !isEncodingOf(bytes, text) ? null : text;
  }

  /** Takes `byteCount` bytes and returns where they start, or -1 when there are not as many. */
  #advance(byteCount: number): number {
    const at = this.#offset;
    if (this.#failure !== null) return -1;
    if (byteCount > this.#end - at) {
      this.#failure = "truncated";
      return -1;
    }
    this.#offset = at + byteCount;
    return at;
  }
}

/** Text of up to this many bytes is tried as ASCII by hand; above, the platform's decoder wins. */
const SHORT_TEXT_BYTES = 24;
const EMPTY = new Uint8Array(0);
const DECODER = new TextDecoder("utf-8", { ignoreBOM: true });
const ENCODER = new TextEncoder();

/** The bytes as a string if all are ASCII, else `null`. */
function asciiText(bytes: Uint8Array, start: number, byteCount: number): string | null {
  let text = "";
  const end = start + byteCount;
  for (let at = start; at < end; at += 1) {
    const byte = bytes[at] ?? 0;
    if (byte > 0x7f) return null;
    text += String.fromCharCode(byte);
  }
  return text;
}

function isEncodingOf(bytes: Uint8Array, text: string): boolean {
  const encoded = ENCODER.encode(text);
  if (encoded.length !== bytes.length) return false;
  return encoded.every((byte, at) => byte === bytes[at]);
}
