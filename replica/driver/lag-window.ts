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
    for (const changeset of changesets) {
      const lagMs = lagMsOf(changeset, wallMs);
      if (lagMs !== null) this.#lagsMs[this.#count++ % LAGS_MAX] = lagMs;
    }
  }

  /** The lag that one in a hundred exceeds, in seconds; null = nothing was noted. */
  get p99Seconds(): number | null {
    if (this.#count === 0) return null;
    const lags = this.#lagsMs.slice(0, Math.min(this.#count, LAGS_MAX)).toSorted();
    return (lags[Math.ceil(lags.length * 0.99) - 1] ?? 0) / 1000;
  }
}

/** How late a changeset is, in ms; null = it does not say when it was committed. */
export function lagMsOf({ ts }: Changeset, wallMs: number): number | null {
  return ts === null ? null : Math.max(0, wallMs - ntp64ToUnixMs(ts));
}

/** Enough for a 99th percentile of ten values. */
const LAGS_MAX = 1_000;
