/**
 * How many requests may be repeated that a machine may have acted on: a share of all requests, so
 * that a failing app is not also hit by a multiple of its traffic, and a few per second for apps
 * that have little (as Finagle's and Linkerd's budgets do).
 */

/** How much may be repeated. */
export interface RetryBudgetLimits {
  /** Repeats earned by one request, 0 to 1. */
  readonly share: number;
  /** Repeats that there are anyway. */
  readonly perSecond: number;
}

/** The budget of one engine. */
export class RetryBudget {
  readonly #limits: RetryBudgetLimits;
  readonly #max: number;
  #balance: number;
  #nowMs = 0;

  constructor(limits: RetryBudgetLimits) {
    this.#limits = limits;
    this.#max = Math.max(1, limits.perSecond * SECONDS_KEPT);
    this.#balance = this.#max;
  }

  /** A request came. */
  earn(): void {
    this.#balance = Math.min(this.#max, this.#balance + this.#limits.share);
  }

  /** Time goes on; monotonic milliseconds. */
  tick(nowMs: number): void {
    const seconds = this.#nowMs === 0 ? 0 : Math.max(0, nowMs - this.#nowMs) / 1000;
    this.#nowMs = nowMs;
    this.#balance = Math.min(this.#max, this.#balance + seconds * this.#limits.perSecond);
  }

  /** Whether one repeat is left. */
  get isSpent(): boolean {
    return this.#balance < 1;
  }

  /** Takes one repeat. */
  spend(): void {
    this.#balance -= 1;
  }
}

/** A burst may use what was left over in so many seconds. */
const SECONDS_KEPT = 10;
