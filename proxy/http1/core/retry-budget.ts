/**
 * How many requests may be repeated that a machine may have acted on: a share of all requests, so
 * that a failing app is not also hit by a multiple of its traffic, and a few per second for apps
 * that have little (as Finagle's and Linkerd's budgets do).
 *
 * One budget for all data-plane threads: what has been spent of it is counted in memory that they
 * share. What a thread's requests earn, and its part of what time brings, is paid in at its ticks.
 */

/** How much may be repeated. */
export interface RetryBudgetLimits {
  /** Repeats earned by one request, 0 to 1. */
  readonly share: number;
  /** Repeats that there are anyway, in all threads together. */
  readonly perSecond: number;
  /** Threads that pay in. */
  readonly threads: number;
}

/** The budget as one thread sees it. */
export class RetryBudget {
  readonly #share: number;
  readonly #perSecond: number;
  /** What is missing from a full budget, in hundredths of a repeat; memory at 0 is a full one. */
  readonly #missing: Int32Array;
  readonly #max: number;
  /** Earned, and not yet paid in; hundredths. */
  #earned = 0;
  #nowMs = 0;

  /** `missing`: one cell, the same for all threads. */
  constructor({ share, perSecond, threads }: RetryBudgetLimits, missing: Int32Array) {
    this.#share = share * UNIT;
    this.#perSecond = (perSecond * UNIT) / threads;
    this.#max = Math.min(MISSING_MAX, UNIT * Math.max(1, perSecond * SECONDS_KEPT));
    this.#missing = missing;
  }

  /** A request came. */
  earn(): void {
    this.#earned += this.#share;
  }

  /** Time goes on; monotonic milliseconds. */
  tick(nowMs: number): void {
    const seconds = this.#nowMs === 0 ? 0 : Math.max(0, nowMs - this.#nowMs) / 1000;
    this.#nowMs = nowMs;
    this.#earned += seconds * this.#perSecond;
    this.#payIn();
  }

  /** Whether no repeat is left. */
  get isSpent(): boolean {
    this.#payIn();
    return Atomics.load(this.#missing, 0) + UNIT > this.#max;
  }

  /** Takes one repeat; false = there is none left. */
  spend(): boolean {
    this.#payIn();
    const missing = this.#missing;
    for (;;) {
      const before = Atomics.load(missing, 0);
      if (before + UNIT > this.#max) return false;
      if (Atomics.compareExchange(missing, 0, before, before + UNIT) === before) return true;
    }
  }

  #payIn(): void {
    const whole = Math.floor(this.#earned);
    if (whole === 0) return;
    const missing = this.#missing;
    for (;;) {
      const before = Atomics.load(missing, 0);
      const after = Math.max(0, before - whole);
      if (Atomics.compareExchange(missing, 0, before, after) !== before) continue;
      // What a full budget has no room for is lost.
      this.#earned = after === 0 ? 0 : this.#earned - whole;
      return;
    }
  }
}

/** Of one repeat. */
const UNIT = 100;
/** Half of what a cell holds. */
const MISSING_MAX = 2 ** 30;
/** A burst may use what was left over in so many seconds. */
const SECONDS_KEPT = 10;
