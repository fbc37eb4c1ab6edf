/**
 * When a result that must be read whole may be read again: at once as long as reading it has taken
 * little time of late, and otherwise as soon as its share of the thread allows.
 *
 * A bucket of time: reading fills it by what it took, and it empties by `SHARE` of the time that
 * passes. Whoever is asked seldom never waits; under a steady stream of changes all that came
 * meanwhile is one reading, and no query takes more than its share from the others.
 */

/** The pace of one subscription. Times are on the monotonic clock, in ms. */
export class RefreshPace {
  /** Time spent and not yet worked off, as of `#atMs`. */
  #owedMs = 0;
  #atMs = 0;

  /** From when on it may be read; in the past where it may be read at once. */
  get dueMs(): number {
    return this.#atMs + (this.#owedMs - OWED_MS_MAX) / SHARE;
  }

  /** It was read. */
  note(startMs: number, endMs: number): void {
    const workedOffMs = SHARE * (startMs - this.#atMs);
    const owedMs = Math.max(0, this.#owedMs - workedOffMs);
    this.#owedMs = owedMs + (1 - SHARE) * (endMs - startMs);
    this.#atMs = endMs;
  }
}

/** Of the thread, for one subscription: five dear ones fill it. */
const SHARE = 0.2;
/** A burst of changes is told one by one as long as reading takes no more than this in all. */
const OWED_MS_MAX = 100;
