/**
 * The handshake as a port, and Corrosion's plaintext mode as its one implementation.
 *
 * The port has the shape of RFC 9001, section 4: bytes of CRYPTO frames go in and out per space, in
 * order; on the way transport parameters come up and protection becomes available. TLS 1.3 would
 * fit behind it.
 *
 * In plaintext mode (protocol reference, section 1.7) the handshake is the transport parameters
 * themselves: the client's in its Initial packet, the server's in a Handshake packet. The client is
 * through when it has those; the server once a packet shows that the client is.
 *
 *     client                              server
 *     Initial   CRYPTO(parameters) ──────►
 *               ◄──────  Initial ACK · Handshake CRYPTO(parameters)
 *     Handshake ACK · 1-RTT ─────────────►
 *               ◄──────  1-RTT HANDSHAKE_DONE
 */
import { APPLICATION_SPACE, HANDSHAKE_SPACE, INITIAL_SPACE } from "./loss-detection.ts";
import type { PacketProtection } from "./protection.ts";
import { NO_ERROR, PROTOCOL_VIOLATION } from "./transport-error.ts";

/** What makes two endpoints agree. */
export interface HandshakeSession {
  /** The peer's transport parameters as sent; `null` = not known yet. */
  readonly peerParameters: Uint8Array | null;
  /** Takes handshake bytes of a space, in order. Returns a transport error, or `NO_ERROR`. */
  receive(space: number, bytes: Uint8Array): number;
  /** Handshake bytes to send in a space behind those taken before; `null` = none for now. */
  take(space: number): Uint8Array | null;
  /** Protection of a space; `null` = there are no keys yet. */
  protection(space: number): PacketProtection | null;
}

/** One side of a plaintext handshake. */
export class PlaintextHandshake implements HandshakeSession {
  peerParameters: Uint8Array | null = null;
  readonly #isClient: boolean;
  readonly #protection: PacketProtection;
  #parameters: Uint8Array | null;

  /** `parameters`: our own, encoded. */
  constructor(isClient: boolean, parameters: Uint8Array, protection: PacketProtection) {
    this.#isClient = isClient;
    this.#parameters = parameters;
    this.#protection = protection;
  }

  receive(space: number, bytes: Uint8Array): number {
    // They come whole or not at all: nothing in them says where they end.
    if (space !== (this.#isClient ? HANDSHAKE_SPACE : INITIAL_SPACE)) return PROTOCOL_VIOLATION;
    this.peerParameters ??= bytes.slice();
    return NO_ERROR;
  }

  take(space: number): Uint8Array | null {
    const isDue = this.#isClient
      ? space === INITIAL_SPACE
      : space === HANDSHAKE_SPACE && this.peerParameters !== null;
    if (!isDue) return null;
    const parameters = this.#parameters;
    this.#parameters = null;
    return parameters;
  }

  protection(space: number): PacketProtection | null {
    if (space === APPLICATION_SPACE) return this.peerParameters === null ? null : this.#protection;
    if (space === HANDSHAKE_SPACE && !this.#isClient && this.peerParameters === null) return null;
    return this.#protection;
  }
}
