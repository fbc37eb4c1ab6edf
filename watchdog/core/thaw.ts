/**
 * Decides when an edge that serves from its last known table alone takes part again.
 *
 * ```
 *             window over, and budget left           delay over, and budget left
 *   frozen ──────────────────────────────► settling ────────────────────────────► thawed
 *     ▲                                       │ budget spent
 *     └───────────────────────────────────────┘
 * ```
 *
 * The delay is random, up to a window: many edges that froze together would thaw together, and all
 * meet at once what stalled them. One that stalls again tells the others, whose budget is then spent
 * before their turn comes. The window since the freeze is waited for in any case: a process that has
 * just started has not heard of anybody yet.
 *
 * It knows nothing of tables and clocks; times are wall-clock milliseconds, because a freeze outlives
 * the process.
 */
import type { RestartBudget } from "../types.ts";

/** What it is made of. */
export interface ThawRules {
  readonly budget: RestartBudget;
  /** When the edge froze. */
  readonly sinceMs: number;
  /** The next number in [0, 1). */
  readonly nextRandom: () => number;
}

/** One per freeze. */
export class Thaw {
  readonly sinceMs: number;
  readonly #rules: ThawRules;
  #isSettling = false;
  #dueMs: number;

  constructor(rules: ThawRules) {
    this.#rules = rules;
    this.sinceMs = rules.sinceMs;
    this.#dueMs = rules.sinceMs + rules.budget.windowMs;
  }

  /** When `isOver` is next to be asked. */
  get deadlineMs(): number {
    return this.#dueMs;
  }

  /** Whether the edge is to go on. `freeMs`: see `PeerBounces`. */
  isOver(freeMs: number, nowMs: number): boolean {
    if (nowMs < this.#dueMs) return false;
    if (freeMs > nowMs) {
      this.#isSettling = false;
      this.#dueMs = freeMs;
      return false;
    }
    if (this.#isSettling) return true;
    this.#isSettling = true;
    this.#dueMs = nowMs + this.#rules.nextRandom() * this.#rules.budget.windowMs;
    return false;
  }
}
