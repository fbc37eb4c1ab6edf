/**
 * When the packets of a peer are acknowledged: the second one at once, a single one a little later.
 *
 * RFC 9000, section 13.2.1, lets a receiver wait as long as it has announced (quiche: 25 ms). What
 * the packet brought is applied and passed on first, and on a busy connection two packets share one
 * acknowledgement. quiche itself acknowledges with whatever is sent next, so to wait means to send
 * nothing. Loss is seen a few milliseconds later by the peer.
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

/** Well below 25 ms also on a loop that is late; long enough for the work that a packet brings. */
const WAIT_MS = 8;
/** RFC 9000, section 13.2.2: every second packet. */
const PACKETS_MAX = 2;
