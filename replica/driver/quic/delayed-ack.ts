/**
 * When the packets of a peer are acknowledged: the second one at once, a single one a little later.
 *
 * RFC 9000, section 13.2.1, lets a receiver wait as long as it has announced (`MAX_ACK_DELAY_MS`).
 * What the packet brought is applied and passed on first, by all replicas of a machine where there are
 * several, and on a busy connection two packets share one acknowledgement. quiche itself
 * acknowledges with whatever is sent next, so to wait means to send nothing. A peer sees loss that
 * much later.
 */

/** The debt of one connection. */
export class DelayedAck {
  /** When it is due; `Infinity` = nothing is owed. */
  dueMs = Number.POSITIVE_INFINITY;
  #packets = 0;

  /** A packet came. */
  received(nowMs: number): void {
    this.#packets += 1;
    if (this.#packets === 1) this.dueMs = nowMs + WAIT_MS;
    else if (this.#packets >= PACKETS_MAX) this.dueMs = nowMs;
  }

  /** Everything that quiche had to send was sent. */
  settled(): void {
    this.#packets = 0;
    this.dueMs = Number.POSITIVE_INFINITY;
  }

  /** Whether one packet is owed an answer that may still wait. */
  mayWait(nowMs: number): boolean {
    return this.#packets > 0 && nowMs < this.dueMs;
  }
}

/**
 * What we announce: a peer waits that much longer before it takes the last packet of a burst for
 * lost. RFC 9000's default is 25.
 */
export const MAX_ACK_DELAY_MS = 50;

/** Well below what is announced also on a loop that is late. */
const WAIT_MS = 20;
/** RFC 9000, section 13.2.2: every second packet. */
const PACKETS_MAX = 2;
