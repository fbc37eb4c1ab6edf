/**
 * QUIC's integers and byte strings: a cursor that reads bytes of which nothing is known, and one
 * that writes.
 *
 * A variable-length integer carries its own length in its first two bits (RFC 9000, section 16):
 * 1, 2, 4 or 8 bytes for 6, 14, 30 or 62 bits. Numbers here are exact up to 2^53 - 1; what is
 * greater is read as `UNBOUNDED`, which as a limit means none and as anything else is refused.
 *
 * One reader and one writer serve a connection for its life: pointed at other bytes with `reset`,
 * they allocate nothing per packet.
 */

/** What 2^53 and more is read as, and what is written as the greatest integer there is. */
export const UNBOUNDED = 2 ** 62;

/** Bytes that an integer takes. */
export function varintBytes(value: number): number {
  if (value < 0x40) return 1;
  if (value < 0x4000) return 2;
  return value < 0x4000_0000 ? 4 : 8;
}

/** Reads on from `at`. The first read past `end` sets `isFailed`; from then on all reads give 0. */
export class WireReader {
  bytes: Uint8Array = EMPTY;
  /** Position of the next read. */
  at = 0;
  end = 0;
  isFailed = false;

  /** Points the reader at `bytes[at..end)`. */
  reset(bytes: Uint8Array, at: number, end: number): void {
    this.bytes = bytes;
    this.at = at;
    this.end = end;
    this.isFailed = false;
  }

  /** Bytes left; 0 after a failure. */
  get remaining(): number {
    return this.isFailed ? 0 : this.end - this.at;
  }

  /** One byte. */
  u8(): number {
    const at = this.skip(1);
    return this.isFailed ? 0 : (this.bytes[at] ?? 0);
  }

  /** Four bytes, big-endian. */
  u32(): number {
    const at = this.skip(4);
    return this.isFailed ? 0 : readBytes(this.bytes, at, 4);
  }

  /** A variable-length integer. */
  varint(): number {
    const at = this.skip(1);
    if (this.isFailed) return 0;
    const first = this.bytes[at] ?? 0;
    const prefix = first >>> 6;
    if (prefix === 0) return first;
    this.skip((1 << prefix) - 1);
    if (this.isFailed) return 0;
    if (prefix === 1) return ((first & 0x3f) << 8) | (this.bytes[at + 1] ?? 0);
    const high = ((first & 0x3f) << 24) | readBytes(this.bytes, at + 1, 3);
    if (prefix === 2) return high;
    return high > 0x1f_ffff ? UNBOUNDED : high * TWO_32 + readBytes(this.bytes, at + 4, 4);
  }

  /** Moves over `byteCount` bytes and returns where they start. */
  skip(byteCount: number): number {
    const { at } = this;
    if (this.isFailed || byteCount > this.end - at) {
      this.isFailed = true;
      return at;
    }
    this.at = at + byteCount;
    return at;
  }
}

/** Writes on from `at`. Its owner sees to it that there is room. */
export class WireWriter {
  bytes: Uint8Array = EMPTY;
  /** Position of the next write. */
  at = 0;

  /** Points the writer at `bytes[at..)`. */
  reset(bytes: Uint8Array, at: number): void {
    this.bytes = bytes;
    this.at = at;
  }

  /** One byte. */
  u8(value: number): void {
    this.bytes[this.at] = value;
    this.at += 1;
  }

  /** The `byteCount` lowest bytes of a number, big-endian. */
  uint(value: number, byteCount: number): void {
    let rest = value;
    for (let at = this.at + byteCount - 1; at >= this.at; at -= 1) {
      this.bytes[at] = rest;
      rest = Math.floor(rest / 256);
    }
    this.at += byteCount;
  }

  /** A variable-length integer in its shortest form. */
  varint(value: number): void {
    if (value < 0x40) this.u8(value);
    else if (value < 0x4000) this.uint(value + 0x4000, 2);
    else if (value < 0x4000_0000) this.uint(value + 0x8000_0000, 4);
    else if (value <= Number.MAX_SAFE_INTEGER) {
      this.uint(0xc000_0000 + Math.floor(value / TWO_32), 4);
      this.uint(value % TWO_32, 4);
    } else {
      this.bytes.fill(0xff, this.at, this.at + 8);
      this.at += 8;
    }
  }

  /** A varint of two bytes whatever its value, below 2^14: for lengths that are known later. */
  varint2(value: number): void {
    this.uint(value + 0x4000, 2);
  }

  /** Bytes as they are. */
  copy(bytes: Uint8Array): void {
    // Connection ids and the like: for a few bytes, a call into the engine costs more than the loop.
    if (bytes.length > 32) this.bytes.set(bytes, this.at);
    else for (let at = 0; at < bytes.length; at += 1) this.bytes[this.at + at] = bytes[at] ?? 0;
    this.at += bytes.length;
  }
}

function readBytes(bytes: Uint8Array, at: number, byteCount: number): number {
  let value = 0;
  for (let index = at; index < at + byteCount; index += 1)
    value = value * 256 + (bytes[index] ?? 0);
  return value;
}

const EMPTY = new Uint8Array(0);
const TWO_32 = 0x1_0000_0000;
