/**
 * Changesets received and not applied yet: batches them for the store and says how much waits.
 *
 * A batch goes out at once when none is under way, and further ones, up to the limit, only when
 * full: so batches grow by themselves to what arrives during one merge, and no timer is needed.
 */
import type { Changeset } from "../../types.ts";
import { changeWeight, type ApplyQueueStats } from "../replica-stats.ts";

/** Limits of an apply queue. */
export interface ApplyQueueLimits {
  readonly applyBatchMax: number;
  readonly applyChangesMax: number;
  readonly applyInFlightMax: number;
}

/** One batch for the store. */
export interface ApplyBatch {
  readonly batchId: number;
  readonly changesets: readonly Changeset[];
}

/** The queue of one sync client. */
export class ApplyQueue {
  readonly #limits: ApplyQueueLimits;
  #waiting: Changeset[] = [];
  #waitingChanges = 0;
  /** Weight of each batch under way. */
  readonly #inFlight = new Map<number, number>();
  #inFlightChanges = 0;
  #nextBatchId = 1;
  #changesets = 0;

  constructor(limits: ApplyQueueLimits) {
    this.#limits = limits;
  }

  /** Column changes received and not applied; an Empty counts as one. */
  get pendingChanges(): number {
    return this.#waitingChanges + this.#inFlightChanges;
  }

  /** What waits and what was handed over. */
  get stats(): ApplyQueueStats {
    return {
      waiting: this.#waiting.length,
      waitingChanges: this.#waitingChanges,
      inFlight: this.#inFlight.size,
      batches: this.#nextBatchId - 1,
      changesets: this.#changesets,
    };
  }

  /** Whether everything received has been answered. */
  get isEmpty(): boolean {
    return this.#waiting.length === 0 && this.#inFlight.size === 0;
  }

  add(changeset: Changeset): void {
    this.#waiting.push(changeset);
    this.#waitingChanges += changeWeight(changeset);
  }

  /** The next batch, if one may go. */
  take(): ApplyBatch | null {
    const { applyBatchMax, applyChangesMax, applyInFlightMax } = this.#limits;
    if (this.#waiting.length === 0 || this.#inFlight.size >= applyInFlightMax) return null;
    const isFull = this.#waiting.length >= applyBatchMax || this.#waitingChanges >= applyChangesMax;
    if (this.#inFlight.size > 0 && !isFull) return null;
    let count = 0;
    let weight = 0;
    for (const changeset of this.#waiting) {
      const next = changeWeight(changeset);
      if (count >= applyBatchMax || (count > 0 && weight + next > applyChangesMax)) break;
      count += 1;
      weight += next;
    }
    const changesets = this.#waiting.splice(0, count);
    const batchId = this.#nextBatchId;
    this.#nextBatchId += 1;
    this.#waitingChanges -= weight;
    this.#inFlight.set(batchId, weight);
    this.#changesets += count;
    this.#inFlightChanges += weight;
    return { batchId, changesets };
  }

  /** Ends a batch; false when it is not one of ours. */
  finish(batchId: number): boolean {
    const weight = this.#inFlight.get(batchId);
    if (weight === undefined) return false;
    this.#inFlight.delete(batchId);
    this.#inFlightChanges -= weight;
    return true;
  }
}
