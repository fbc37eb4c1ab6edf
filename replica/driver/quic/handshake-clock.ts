/**
 * How long a handshake has taken by the peer's fault.
 *
 * A loop that comes late finds answers waiting in the socket that came in time. Were they to count
 * as late, a replica short of CPU would give up one handshake after the other and dial again, each
 * attempt at the price of the last, and have the less time to finish any: it never would. So what
 * the loop was late by moves the start. What is moved has a bound, for a peer that does not answer
 * must be found out by a busy replica too.
 */

/** The clock of one handshake, in monotonic milliseconds. */
export class HandshakeClock {
  readonly #timeoutMs: number;
  #startedMs: number;
  #forgivableMs: number;

  constructor(options: { readonly startedMs: number; readonly timeoutMs: number }) {
    this.#startedMs = options.startedMs;
    this.#timeoutMs = options.timeoutMs;
    this.#forgivableMs = options.timeoutMs * FORGIVEN_TIMEOUTS;
  }

  /** When the peer counts as silent. */
  get deadlineMs(): number {
    return this.#startedMs + this.#timeoutMs;
  }

  /** Time that the peer has had. */
  elapsedMs(nowMs: number): number {
    return nowMs - this.#startedMs;
  }

  /** The loop, due `lateMs` ago, comes only at `nowMs`. */
  forgive(lateMs: number, nowMs: number): void {
    if (lateMs < LATE_MS) return;
    // Timers run before packets are read: what came meanwhile has a turn to be read in.
    const wantedMs = lateMs + LATE_MS;
    const forgivenMs = Math.min(wantedMs, this.elapsedMs(nowMs), this.#forgivableMs);
    this.#startedMs += forgivenMs;
    this.#forgivableMs -= forgivenMs;
  }
}

/** Arbitrary; many turns of a loop that is well, and little of any timeout. */
const LATE_MS = 50;
/** With the default of 5 s, silence is found out after 30 s at the latest: quiche's own limit. */
const FORGIVEN_TIMEOUTS = 5;
