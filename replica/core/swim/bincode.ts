/**
 * Reading and writing of bincode 2's standard configuration: little-endian, variable-length
 * integers.
 *
 * | first byte | value |
 * |---|---|
 * | `00`-`fa` | itself |
 * | `fb` | u16 follows |
 * | `fc` | u32 follows |
 * | `fd` | u64 follows |
 *
 * The reader never throws: the first fault sticks, everything read after it is zero, and the caller
 * looks at `fault` when done. Longer forms than needed are read, as bincode
 * does, and never written.
 */

/** Reads values from a byte string. Check `fault` before trusting any of them. */
export class BincodeReader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #at = 0;
  #fault: string | null = null;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** What was wrong first, with its position; `null` while all is well. */
  get fault(): string | null {
    return this.#fault;
  }

  /** Bytes not yet read. */
  get remaining(): number {
    return this.#bytes.length - this.#at;
  }

  /** Declares the input wrong, for faults that only the caller can see. */
  fail(reason: string): void {
    this.#fault ??= `${reason} at byte ${this.#at}`;
  }

  u8(): number {
    return this.#take(1) ? this.#view.getUint8(this.#at - 1) : 0;
  }

  /** Fixed two bytes, most significant first. Not bincode's; SWIM counts members this way. */
  u16be(): number {
    return this.#take(2) ? this.#view.getUint16(this.#at - 2, false) : 0;
  }

  /** A variable-length integer of at most 16 bits. */
  vint16(): number {
    const first = this.u8();
    if (first <= INLINE_MAX) return first;
    if (first === 0xfb) return this.#take(2) ? this.#view.getUint16(this.#at - 2, true) : 0;
    this.fail("integer wider than 16 bits");
    return 0;
  }

  /** A variable-length integer of at most 64 bits. */
  vint64(): bigint {
    const first = this.u8();
    if (first <= INLINE_MAX) return BigInt(first);
    if (first === 0xfb)
      return this.#take(2) ? BigInt(this.#view.getUint16(this.#at - 2, true)) : 0n;
    if (first === 0xfc)
      return this.#take(4) ? BigInt(this.#view.getUint32(this.#at - 4, true)) : 0n;
    if (first === 0xfd) return this.#take(8) ? this.#view.getBigUint64(this.#at - 8, true) : 0n;
    this.fail("integer wider than 64 bits");
    return 0n;
  }

  /** A view of the next bytes; empty after a fault. */
  bytes(count: number): Uint8Array {
    return this.#take(count) ? this.#bytes.subarray(this.#at - count, this.#at) : EMPTY;
  }

  #take(count: number): boolean {
    if (this.#fault !== null) return false;
    if (this.remaining < count) {
      this.fail(`${count} bytes wanted, ${this.remaining} left`);
      return false;
    }
    this.#at += count;
    return true;
  }
}

/** Writes values into a buffer that grows. */
export class BincodeWriter {
  #bytes = new Uint8Array(256);
  #view = new DataView(this.#bytes.buffer);
  #length = 0;

  u8(value: number): void {
    this.#reserve(1);
    this.#view.setUint8(this.#length, value);
    this.#length += 1;
  }

  u16be(value: number): void {
    this.#reserve(2);
    this.#view.setUint16(this.#length, value, false);
    this.#length += 2;
  }

  vint16(value: number): void {
    if (value <= INLINE_MAX) return this.u8(value);
    this.u8(0xfb);
    this.#reserve(2);
    this.#view.setUint16(this.#length, value, true);
    this.#length += 2;
  }

  vint64(value: bigint): void {
    if (value <= 0xffffn) return this.vint16(Number(value));
    const width = value <= 0xffff_ffffn ? 4 : 8;
    this.u8(width === 4 ? 0xfc : 0xfd);
    this.#reserve(width);
    if (width === 4) this.#view.setUint32(this.#length, Number(value), true);
    else this.#view.setBigUint64(this.#length, value, true);
    this.#length += width;
  }

  bytes(bytes: Uint8Array): void {
    this.#reserve(bytes.length);
    this.#bytes.set(bytes, this.#length);
    this.#length += bytes.length;
  }

  /** What was written, in an array of its own. */
  finish(): Uint8Array {
    return this.#bytes.slice(0, this.#length);
  }

  #reserve(count: number): void {
    if (this.#length + count <= this.#bytes.length) return;
    const grown = new Uint8Array(Math.max(this.#bytes.length * 2, this.#length + count));
    grown.set(this.#bytes);
    this.#bytes = grown;
    this.#view = new DataView(grown.buffer);
  }
}

/** Bytes that a variable-length integer takes. */
export function vintBytes(value: bigint | number): number {
  if (value <= INLINE_MAX) return 1;
  if (value <= 0xffff) return 3;
  return value <= 0xffff_ffff ? 5 : 9;
}

/** Greatest value that is its own first byte. */
const INLINE_MAX = 250;
const EMPTY = new Uint8Array(0);
