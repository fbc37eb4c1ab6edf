/**
 * Tells a loop that gets somewhere from one that only turns.
 *
 * A loop shows a sign of life when its progress counter has moved (bytes, connections, requests,
 * changes), or when it has been idle for a hundredth of its budget since the last sign: a loop that
 * waits for upstreams, clients or the disk is idle, however long nothing arrives. What is left is a
 * livelock: a busy share of 0.99 or more for a whole budget, with nothing to show for it.
 *
 * The signs count like beats, so that the same rules judge both.
 */

/** What shared memory tells of a loop. */
export interface LifeReading {
  /** Wraps; only compared for equality. */
  readonly progress: number;
  /** Milliseconds it has waited for events since it began; as of its last beat. */
  readonly idleMs: number;
}

/** Counts the signs of life of one loop. */
export class LifeSigns {
  #progress = 0;
  #idleMs = 0;
  #signs = 0;

  /** The number of signs so far. `budgetMs` is that of the loop's phase. */
  read({ progress, idleMs }: LifeReading, budgetMs: number): number {
    // Less than before: another thread has taken the loop over.
    const hasIdled = idleMs < this.#idleMs || idleMs - this.#idleMs >= budgetMs * IDLE_SHARE_MIN;
    if (progress === this.#progress && !hasIdled) return this.#signs;
    this.#progress = progress;
    this.#idleMs = idleMs;
    this.#signs += 1;
    return this.#signs;
  }
}

/** Below it a loop is as busy as it can be: timers and polling alone cost about as much. */
const IDLE_SHARE_MIN = 0.01;
