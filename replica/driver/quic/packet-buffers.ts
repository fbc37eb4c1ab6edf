/**
 * Memory for packets on their way out and stream bytes on their way in, shared by all connections
 * of one transport.
 *
 * Outgoing packets are written one behind the other into a slab, because the socket may still hold
 * the last ones while the next are made; the garbage collector frees a slab as a whole.
 */

/** Buffers of one transport. */
export class PacketBuffers {
  /** One read of a stream lands here and is copied out before the next. */
  readonly scratch = Buffer.allocUnsafeSlow(SCRATCH_BYTES);
  #slab = Buffer.alloc(0);
  #offset = 0;

  /** Space for one packet; valid until `commit`. */
  reserve(packetBytesMax: number): Buffer {
    if (this.#slab.length - this.#offset < packetBytesMax) {
      this.#slab = Buffer.allocUnsafeSlow(Math.max(SLAB_BYTES, packetBytesMax));
      this.#offset = 0;
    }
    return this.#slab.subarray(this.#offset, this.#offset + packetBytesMax);
  }

  /** Keeps the first bytes of what was reserved as a packet of its own. */
  commit(length: number): Buffer {
    const packet = this.#slab.subarray(this.#offset, this.#offset + length);
    this.#offset += length;
    return packet;
  }
}

/** Arbitrary; about 190 packets, so that allocation does not show in a profile. */
const SLAB_BYTES = 256 * 1024;
/** Larger reads bring nothing: quiche stores streams as one piece per packet. */
const SCRATCH_BYTES = 64 * 1024;
