/**
 * The two replies that a QUIC endpoint gives without having a connection: "I do not speak that
 * version" (RFC 9000, section 6) and "I no longer know this connection" (section 10.3).
 *
 * The second is what makes a restart cheap: peers still send on connections of the process that is
 * gone, and the reply tells them so within a round trip in place of an idle timeout. For that the
 * token must be the same after the restart: it is derived from the server's private key and the
 * connection id, so it needs no storage and one seen token says nothing about another.
 *
 * Both replies are smaller than what caused them, and rate limited, so that forged source addresses
 * cannot turn us into an amplifier.
 */
import { createHash, createHmac, randomBytes } from "node:crypto";
import { CONNECTION_ID_BYTES, QUIC_VERSION } from "./packet-header.ts";
import type { PacketHeader } from "./packet-header.ts";

/** Makes the secret behind all reset tokens of one server key. */
export function createResetSecret(serverKeyPem: string): Buffer {
  return createHash("sha256").update("patina stateless reset\n").update(serverKeyPem).digest();
}

/** The reset token (16 bytes) of the connection whose id, chosen by us, is `connectionId`. */
export function resetToken(secret: Buffer, connectionId: Uint8Array): Buffer {
  return createHmac("sha256", secret).update(connectionId).digest().subarray(0, TOKEN_BYTES);
}

/** A token as the number that the quiche binding takes. */
export function tokenNumber(token: Buffer): bigint {
  return (token.readBigUInt64BE(0) << 64n) | token.readBigUInt64BE(8);
}

/**
 * The reset for a short packet of an unknown connection; `null` when the packet is too short to be
 * answered by something smaller, which also ends a loop of two endpoints resetting each other.
 */
export function createStatelessReset(secret: Buffer, packet: Buffer): Buffer | null {
  const length = Math.min(packet.length - 1, RESET_BYTES_MAX);
  if (length < RESET_BYTES_MIN) return null;
  const reset = randomBytes(length);
  reset[0] = ((reset[0] ?? 0) & 0x3f) | 0x40;
  const connectionId = packet.subarray(1, 1 + CONNECTION_ID_BYTES);
  resetToken(secret, connectionId).copy(reset, length - TOKEN_BYTES);
  return reset;
}

/** The list of versions we speak, addressed to the sender of a packet of another version. */
export function createVersionNegotiation(header: PacketHeader): Buffer {
  const { dcid, scid } = header;
  const first = randomBytes(1);
  first[0] = (first[0] ?? 0) | 0xc0;
  const versions = Buffer.alloc(4);
  versions.writeUInt32BE(QUIC_VERSION);
  return Buffer.concat([
    first,
    Buffer.alloc(4),
    Buffer.of(scid.length),
    scid,
    Buffer.of(dcid.length),
    dcid,
    versions,
  ]);
}

/** Allows so many replies per second, counted over whole seconds. */
export class ReplyBudget {
  readonly #perSecond: number;
  #secondStartMs = Number.NEGATIVE_INFINITY;
  #used = 0;

  constructor(perSecond: number) {
    this.#perSecond = perSecond;
  }

  /** Takes one reply from the budget, or says that there is none left at `nowMs`. */
  take(nowMs: number): boolean {
    if (nowMs - this.#secondStartMs >= 1_000) {
      this.#secondStartMs = nowMs;
      this.#used = 0;
    }
    if (this.#used >= this.#perSecond) return false;
    this.#used += 1;
    return true;
  }
}

const TOKEN_BYTES = 16;
/** RFC 9000, section 10.3: 5 unpredictable bytes before the token at the least. */
const RESET_BYTES_MIN = 21;
/** Arbitrary; the size of a small packet, so that a reset does not stand out. */
const RESET_BYTES_MAX = 43;
