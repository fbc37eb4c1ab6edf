/**
 * Packets of QUIC version 1 (RFC 9000, section 17): their headers and numbers.
 *
 *     long   [11TTxxPP | version u32 | dcidLen u8 | dcid | scidLen u8 | scid |
 *               Initial only: tokenLen varint | token |
 *               length varint | packet number (PP + 1 bytes) | payload | tag]
 *     short  [01SxxKPP | dcid (length known to its owner) | packet number | payload | tag]
 *     version negotiation: a long header of version 0, then u32 versions to the end
 *     retry: type 3; read as far as its ids, never acted upon
 *
 * A UDP payload may hold several long packets and one short one behind each other; `length` counts
 * from the packet number to the end of the tag. The fixed bit (0x40) is not looked at: peers that
 * were told so clear it at random.
 */
import { WireReader, type WireWriter } from "./wire.ts";

/** What a packet is; the first four are the two bits of the wire. */
export const INITIAL = 0;
/** Data before the handshake is complete; never sent, and dropped. */
export const ZERO_RTT = 1;
/** The second half of the handshake. */
export const HANDSHAKE = 2;
/** A server's demand for an address token; dropped. */
export const RETRY = 3;
/** A short header: 1-RTT. */
export const SHORT = 4;
/** A server's list of the versions it speaks. */
export const VERSION_NEGOTIATION = 5;

/** Version 1 (RFC 9000). */
export const QUIC_VERSION = 1;
/** Version 1 allows connection ids of this many bytes. */
export const CONNECTION_ID_BYTES_MAX = 20;
/** A datagram with a client's Initial packet is at least this long (RFC 9000, section 14.1). */
export const INITIAL_DATAGRAM_BYTES = 1_200;

/** The header of one packet, as positions in the datagram. Reused from packet to packet. */
export class PacketHeader {
  kind = SHORT;
  /** Where the packet begins. */
  start = 0;
  version = 0;
  dcidStart = 0;
  dcidLength = 0;
  scidStart = 0;
  scidLength = 0;
  tokenStart = 0;
  tokenLength = 0;
  /** Where the packet number begins; its length and the lowest header bits may be masked. */
  numberStart = 0;
  /** Behind the tag: where the next packet of the datagram begins. */
  end = 0;
  readonly #reader = new WireReader();

  /**
   * Reads the header at `at`. Short packets have ids of `idLength` bytes. False: not a packet of a
   * version that is known, and where the next one begins is not known either.
   */
  read(datagram: Uint8Array, at: number, idLength: number): boolean {
    const reader = this.#reader;
    reader.reset(datagram, at, datagram.length);
    this.start = at;
    this.scidLength = 0;
    this.tokenLength = 0;
    this.end = datagram.length;
    const first = reader.u8();
    if ((first & LONG_FORM) !== 0) return this.#readLong(reader, first);
    this.kind = SHORT;
    this.version = QUIC_VERSION;
    this.dcidLength = idLength;
    this.dcidStart = reader.skip(idLength);
    this.numberStart = reader.at;
    return !reader.isFailed;
  }

  #readLong(reader: WireReader, first: number): boolean {
    this.version = reader.u32();
    this.dcidLength = reader.u8();
    this.dcidStart = reader.skip(this.dcidLength);
    this.scidLength = reader.u8();
    this.scidStart = reader.skip(this.scidLength);
    this.kind = this.version === 0 ? VERSION_NEGOTIATION : (first >>> 4) & 3;
    this.numberStart = reader.at;
    if (reader.isFailed) return false;
    if (this.kind === VERSION_NEGOTIATION) return true;
    if (this.version !== QUIC_VERSION) return false;
    if (Math.max(this.dcidLength, this.scidLength) > CONNECTION_ID_BYTES_MAX) return false;
    if (this.kind === RETRY) return true;
    if (this.kind === INITIAL) {
      this.tokenLength = reader.varint();
      this.tokenStart = reader.skip(this.tokenLength);
    }
    const length = reader.varint();
    this.numberStart = reader.at;
    this.end = this.numberStart + length;
    return !reader.isFailed && this.end <= reader.end;
  }
}

/** Bytes of the packet number, told by the first byte once nothing masks it. */
export function packetNumberBytes(first: number): number {
  return (first & 3) + 1;
}

/** The packet number at `at` as it stands, without the part that was left off. */
export function readTruncated(bytes: Uint8Array, at: number, byteCount: number): number {
  let value = 0;
  for (let index = at; index < at + byteCount; index += 1)
    value = value * 256 + (bytes[index] ?? 0);
  return value;
}

/**
 * The whole packet number: of those that end in `truncated`, the one nearest to the next expected
 * (RFC 9000, appendix A.3). `largest` is the largest received in this space, -1 for none.
 */
export function expandPacketNumber(truncated: number, byteCount: number, largest: number): number {
  const window = 256 ** byteCount;
  const expected = largest + 1;
  const candidate = Math.floor(expected / window) * window + truncated;
  if (candidate <= expected - window / 2 && candidate < 2 ** 53 - window) return candidate + window;
  if (candidate > expected + window / 2 && candidate >= window) return candidate - window;
  return candidate;
}

/** Bytes to send of a packet number so that the peer can tell it (RFC 9000, appendix A.2). */
export function packetNumberBytesFor(number: number, largestAcked: number): number {
  const unacked = (number - largestAcked) * 2;
  if (unacked < 0x100) return 1;
  if (unacked < 0x1_0000) return 2;
  return unacked < 0x100_0000 ? 3 : 4;
}

/** What a long header says. */
export interface LongHeader {
  readonly kind: number;
  readonly dcid: Uint8Array;
  readonly scid: Uint8Array;
  readonly number: number;
  readonly numberBytes: number;
}

/** Writes a long header with an empty token. Returns where its two-byte length stands. */
export function writeLongHeader(writer: WireWriter, header: LongHeader): number {
  writer.u8(LONG_FORM | FIXED_BIT | (header.kind << 4) | (header.numberBytes - 1));
  writer.uint(QUIC_VERSION, 4);
  writer.u8(header.dcid.length);
  writer.copy(header.dcid);
  writer.u8(header.scid.length);
  writer.copy(header.scid);
  if (header.kind === INITIAL) writer.u8(0);
  const lengthAt = writer.at;
  writer.varint2(0);
  writer.uint(header.number, header.numberBytes);
  return lengthAt;
}

/** Fills in the length of a long packet that ends at `end`, tag included. */
export function finishLongHeader(bytes: Uint8Array, lengthAt: number, end: number): void {
  const length = end - lengthAt - 2;
  bytes[lengthAt] = 0x40 | (length >>> 8);
  bytes[lengthAt + 1] = length;
}

/** Writes a short header. */
export function writeShortHeader(
  writer: WireWriter,
  dcid: Uint8Array,
  packet: { readonly number: number; readonly numberBytes: number },
): void {
  writer.u8(FIXED_BIT | (packet.numberBytes - 1));
  writer.copy(dcid);
  writer.uint(packet.number, packet.numberBytes);
}

/** Whether the bits that version 1 reserves are clear, once nothing masks them. */
export function hasReservedBits(first: number): boolean {
  return (first & ((first & LONG_FORM) === 0 ? 0x18 : 0x0c)) !== 0;
}

const LONG_FORM = 0x80;
const FIXED_BIT = 0x40;
