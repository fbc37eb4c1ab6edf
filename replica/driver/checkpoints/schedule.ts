/**
 * When a checkpoint is due and which may go. Whoever finds that the newest in the target is old
 * enough takes the next one, so replicas that share a target need not agree on who does it, and any
 * of them stands in for the others (docs/decisions/0022-checkpoints.md).
 */
import type { KeptCheckpoint } from "./checkpoint-target.ts";

/** How often, and how many. */
export interface Schedule {
  readonly every_secs: number;
  readonly keep: number;
}

/** Whether the newest is old enough for another one. */
export function isDue(
  newest: KeptCheckpoint,
  { nowMs, every_secs }: { readonly nowMs: number; readonly every_secs: number },
): boolean {
  const ageMs = nowMs - Date.parse(newest.taken);
  // One of a clock that is ahead does not keep everybody from it for ever.
  return ageMs >= every_secs * 1000 || ageMs < -every_secs * 1000;
}

/** Those beyond the newest `keep`; the list is newest first. */
export function superfluous(
  all: readonly KeptCheckpoint[],
  keep: number,
): readonly KeptCheckpoint[] {
  return all.slice(keep);
}

/**
 * Milliseconds until the target is looked at again. `random` (0 to 1) spreads replicas out over a
 * tenth of the period, so that mostly one of them finds it due.
 */
export function nextLookMs(options: {
  /** The newest that is known; null = none, or the target could not be looked at. */
  readonly newest: KeptCheckpoint | null;
  readonly failuresInRow: number;
  readonly nowMs: number;
  readonly everySecs: number;
  readonly random: number;
}): number {
  const { newest, failuresInRow, nowMs, everySecs, random } = options;
  const everyMs = everySecs * 1000;
  const spreadMs = (random * everyMs) / 10;
  if (failuresInRow > 0) {
    const waitMs = RETRY_MS * 2 ** Math.min(failuresInRow - 1, 10);
    return Math.min(waitMs, everyMs) + spreadMs;
  }
  if (newest === null) return Math.min(spreadMs, FIRST_MS * random);
  const leftMs = Date.parse(newest.taken) + everyMs - nowMs;
  return Math.max(1_000, Math.min(leftMs, everyMs)) + spreadMs;
}

/** A store that is away for a moment costs a minute; then longer and longer, up to the period. */
const RETRY_MS = 60_000;
/** The first look after a start, at most: replicas that start together do not look together. */
const FIRST_MS = 60_000;
