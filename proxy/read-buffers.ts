/**
 * Memory that sockets of one thread read into.
 *
 * Most reads go into one buffer that all connections share: its bytes are valid only while they are
 * handed over. A connection in the middle of a long body reads into a buffer of its own instead, so
 * that the bytes can be written on without a copy. Node's own way, a new buffer for each read, costs
 * a third of the CPU of a large upload, most of it in the collection of garbage.
 */

/** The buffers of one thread. */
export class ReadBuffers {
  /** For heads and short bodies. 64 KiB is what libuv reads at most at once. */
  readonly shared: Buffer = Buffer.allocUnsafeSlow(READ_BYTES);
  readonly #spare: Buffer[] = [];

  /** One that nobody else uses. */
  take(): Buffer {
    return this.#spare.pop() ?? Buffer.allocUnsafeSlow(READ_BYTES);
  }

  /** Takes back one that no socket reads into or writes from. */
  give(buffer: Buffer): void {
    if (this.#spare.length < SPARE_MAX) this.#spare.push(buffer);
  }
}

const READ_BYTES = 65_536;
/** Kept for later; 1 MiB per thread. */
const SPARE_MAX = 16;
