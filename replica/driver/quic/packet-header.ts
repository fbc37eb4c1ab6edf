/**
 * The part of a QUIC packet that is the same in every version (RFC 8999): enough to find the
 * connection it belongs to, before any of it is believed.
 *
 *     long  [1xxxxxxx | version u32be | dcidLen u8 | dcid | scidLen u8 | scid | ...]
 *     short [0xxxxxxx | dcid (8 bytes, ours)               | ...]
 *
 * A UDP payload may hold several packets; all are for one connection, so the first header decides.
 */

/** Length of the connection ids we choose, in bytes; Corrosion's too (protocol reference, 1.3). */
export const CONNECTION_ID_BYTES = 8;

/** QUIC version 1 (RFC 9000), the only one spoken. */
export const QUIC_VERSION = 1;

/** A packet's invariant header. `scid` is empty for the short form. */
export interface PacketHeader {
  readonly kind: "initial" | "long" | "short";
  /** 0 for the short form, and in a version negotiation packet. */
  readonly version: number;
  readonly dcid: Buffer;
  readonly scid: Buffer;
}

/**
 * Reads the header; `null` when the bytes cannot be a QUIC packet. The ids are views of `packet`.
 */
export function readPacketHeader(packet: Buffer): PacketHeader | null {
  const first = packet[0];
  if (first === undefined) return null;
  if ((first & LONG_FORM) === 0) {
    if (packet.length < 1 + CONNECTION_ID_BYTES) return null;
    const dcid = packet.subarray(1, 1 + CONNECTION_ID_BYTES);
    return { kind: "short", version: 0, dcid, scid: packet.subarray(0, 0) };
  }
  if (packet.length < LONG_HEADER_BYTES_MIN) return null;
  const version = packet.readUInt32BE(1);
  const dcidEnd = 6 + (packet[5] ?? 0);
  const scidLength = packet[dcidEnd];
  if (scidLength === undefined) return null;
  const scidEnd = dcidEnd + 1 + scidLength;
  if (scidEnd > packet.length) return null;
  const isInitial = version === QUIC_VERSION && (first & PACKET_TYPE_MASK) === 0;
  // Version 1 allows ids of at most 20 bytes; other versions only matter for the reply to them.
  const isTooLong = dcidEnd - 6 > V1_ID_BYTES_MAX || scidLength > V1_ID_BYTES_MAX;
  if (version === QUIC_VERSION && isTooLong) return null;
  const scid = packet.subarray(dcidEnd + 1, scidEnd);
  return { kind: isInitial ? "initial" : "long", version, dcid: packet.subarray(6, dcidEnd), scid };
}

/** A map key for a connection id. */
export function connectionIdKey(id: Buffer): string {
  return id.toString("latin1");
}

const LONG_FORM = 0x80;
const PACKET_TYPE_MASK = 0x30;
const LONG_HEADER_BYTES_MIN = 7;
const V1_ID_BYTES_MAX = 20;
