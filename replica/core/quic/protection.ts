/**
 * What keeps packets from being read or altered on the way, as a port, and Corrosion's plaintext
 * mode as its one implementation.
 *
 * The port has the shape of RFC 9001, section 5: a mask over header bits and packet number that is
 * taken off first, then the payload, which authenticates the header too and ends with a tag. All
 * work is done in place on the datagram.
 *
 * In plaintext mode (protocol reference, section 1.7) nothing is masked or encrypted. The tag is
 * SeaHash over `[headerLength u64le | header | payloadLength u64le | payload]`, big-endian: it tells
 * damage, and keeps nobody out.
 */
import { SeaHasher } from "#base/sea-hash.ts";

/** Protection of one packet number space and direction. */
export interface PacketProtection {
  /** Bytes behind the payload. */
  readonly tagBytes: number;
  /**
   * Takes the mask off the first byte and the packet number of a received packet. False: too short
   * to be one.
   */
  unmask(datagram: Uint8Array, place: PacketPlace): boolean;
  /** Opens the payload in place. False: not what the peer sent. */
  open(datagram: Uint8Array, place: PacketPlace, number: number): boolean;
  /**
   * Seals a packet that ends at `place.end`, tag included; what stands in the last `tagBytes` is
   * replaced. Puts the mask on.
   */
  seal(datagram: Uint8Array, place: PacketPlace, number: number): void;
}

/** Where a packet is in its datagram. */
export interface PacketPlace {
  readonly start: number;
  readonly numberStart: number;
  /** Bytes of the packet number; for `unmask`, which finds it out, of no meaning. */
  readonly numberBytes: number;
  /** Behind the tag. */
  readonly end: number;
}

/** Corrosion's plaintext mode. One serves all connections and directions. */
export class PlaintextProtection implements PacketProtection {
  readonly tagBytes = TAG_BYTES;
  readonly #hasher = new SeaHasher();

  unmask(datagram: Uint8Array, place: PacketPlace): boolean {
    const first = datagram[place.start] ?? 0;
    return place.numberStart + (first & 3) + 1 + TAG_BYTES <= place.end;
  }

  open(datagram: Uint8Array, place: PacketPlace): boolean {
    const tagAt = place.end - TAG_BYTES;
    this.#hash(datagram, place, tagAt);
    const { high, low } = this.#hasher;
    return readInt32(datagram, tagAt) === high && readInt32(datagram, tagAt + 4) === low;
  }

  seal(datagram: Uint8Array, place: PacketPlace): void {
    const tagAt = place.end - TAG_BYTES;
    this.#hash(datagram, place, tagAt);
    writeInt32(datagram, tagAt, this.#hasher.high);
    writeInt32(datagram, tagAt + 4, this.#hasher.low);
  }

  #hash(datagram: Uint8Array, place: PacketPlace, tagAt: number): void {
    const payloadStart = place.numberStart + place.numberBytes;
    const headerBytes = payloadStart - place.start;
    const payloadBytes = tagAt - payloadStart;
    const total = headerBytes + payloadBytes + 16;
    const input = this.#hasher.input(total);
    writeLength(input, 0, headerBytes);
    for (let at = 0; at < headerBytes; at += 1) input[8 + at] = datagram[place.start + at] ?? 0;
    writeLength(input, 8 + headerBytes, payloadBytes);
    input.set(datagram.subarray(payloadStart, tagAt), 16 + headerBytes);
    this.#hasher.finish(total);
  }
}

/** A u64le of which only the low 32 bits can be set. */
function writeLength(input: Uint8Array, at: number, value: number): void {
  input[at] = value;
  input[at + 1] = value >>> 8;
  input[at + 2] = value >>> 16;
  input[at + 3] = value >>> 24;
  for (let index = at + 4; index < at + 8; index += 1) input[index] = 0;
}

function readInt32(bytes: Uint8Array, at: number): number {
  const high = ((bytes[at] ?? 0) << 24) | ((bytes[at + 1] ?? 0) << 16);
  return high | ((bytes[at + 2] ?? 0) << 8) | (bytes[at + 3] ?? 0);
}

function writeInt32(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 24;
  bytes[at + 1] = value >>> 16;
  bytes[at + 2] = value >>> 8;
  bytes[at + 3] = value;
}

const TAG_BYTES = 8;
