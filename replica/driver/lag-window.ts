/**
 * How late changes from other replicas are: from the stamp of their commit to their being applied
 * here, over the latest `LAGS_MAX` changesets. Clocks that differ count as lag.
 */
import { ntp64ToUnixMs } from "../core/hlc.ts";
import type { Changeset } from "../types.ts";

/** Lags of late; old ones are overwritten. */
export class LagWindow {
  readonly #lagsMs = new Float64Array(LAGS_MAX);
  #count = 0;

  /** Notes changesets that were applied. `wallMs` is Unix time. */
  note(changesets: readonly Changeset[], wallMs: number): void {
    for (const { ts } of changesets) {
      if (ts === null) continue;
      this.#lagsMs[this.#count++ % LAGS_MAX] = Math.max(0, wallMs - ntp64ToUnixMs(ts));
    }
  }

  /** The lag that one in a hundred exceeds, in seconds; null = nothing was noted. */
  get p99Seconds(): number | null {
    if (this.#count === 0) return null;
    const lags = this.#lagsMs.slice(0, Math.min(this.#count, LAGS_MAX)).toSorted();
    return (lags[Math.ceil(lags.length * 0.99) - 1] ?? 0) / 1000;
  }
}

/** Enough for a 99th percentile of ten values. */
const LAGS_MAX = 1_000;
