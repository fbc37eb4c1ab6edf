/**
 * When the packets of a peer are acknowledged: as soon as they come to two full ones, small ones a
 * little later.
 *
 * RFC 9000, section 13.2.1, lets a receiver wait as long as it has announced (`MAX_ACK_DELAY_MS`).
 * What the packet brought is applied and passed on first, by all replicas of a machine where there are
 * several, and several packets share one acknowledgement. The transport sends all that are owed as
 * soon as one of them is due: to wake up costs more than to send. quiche itself acknowledges with
 * whatever is sent next, so to wait means to send nothing. A peer sees loss that much later.
 */

/** The debt of one connection. */
export class DelayedAck {
  /** When it is due; `Infinity` = nothing is owed. */
  dueMs = Number.POSITIVE_INFINITY;
  #bytes = 0;

  /** Whether something is owed. */
  get isOwed(): boolean {
    return this.#bytes > 0;
  }

  /** A packet of so many bytes came. */
  received(bytes: number, nowMs: number): void {
    if (this.#bytes === 0) this.dueMs = nowMs + WAIT_MS;
    this.#bytes += bytes;
    if (this.#bytes >= BYTES_MAX) this.dueMs = nowMs;
  }

  /** Everything that quiche had to send was sent. */
  settled(): void {
    this.#bytes = 0;
    this.dueMs = Number.POSITIVE_INFINITY;
  }

  /** Whether what is owed is not due yet. */
  mayWait(nowMs: number): boolean {
    return this.isOwed && nowMs < this.dueMs;
  }

  /** Others are acknowledged now: what is owed is due with them. */
  hasten(nowMs: number): void {
    if (this.isOwed) this.dueMs = Math.min(this.dueMs, nowMs);
  }
}

/**
 * What we announce: a peer waits that much longer before it takes the last packet of a burst for
 * lost. RFC 9000's default is 25.
 */
export const MAX_ACK_DELAY_MS = 75;

/** Well below what is announced also on a loop that is late. */
const WAIT_MS = 40;
/** RFC 9000, section 13.2.2: every second packet, of those that fill a path. */
const BYTES_MAX = 2 * 1_200;
