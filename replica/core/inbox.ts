/**
 * Changesets that broadcasts brought and the store has not applied yet.
 *
 * Urgent ones (deletes, machines going down) and ordinary ones wait in queues of their own, and
 * urgent ones go first. Both go in batches that grow by themselves to what arrives during one merge:
 * at most `inFlightMax` batches of each kind are under way, so that a storm of downs fills batches
 * rather than the store's queue. The queues are bounded; beyond that the oldest are dropped, and
 * sync will bring them.
 */
import type { Changeset } from "../types.ts";
import { changeWeight, type ApplyQueueStats } from "./replica-stats.ts";

/** Limits of an inbox. */
export interface InboxLimits {
  /** Changesets waiting, of each kind. Corrosion's queue: 20,000. */
  readonly waitingMax: number;
  /** Changesets in one batch. */
  readonly batchMax: number;
  /** Batches without an answer, of each kind. */
  readonly inFlightMax: number;
}

/** One batch for the store. */
export interface InboxBatch {
  readonly batchId: number;
  readonly changesets: readonly Changeset[];
  readonly isUrgent: boolean;
}

/** The queue between broadcast and store. */
export class Inbox {
  readonly #limits: InboxLimits;
  readonly #names = new Set<string>();
  #urgent: Changeset[] = [];
  #waiting: Changeset[] = [];
  readonly #inFlight = new Map<number, InboxBatch>();
  #urgentInFlight = 0;
  #ordinaryInFlight = 0;
  #nextBatchId = 1;
  #changesets = 0;
  /** Changesets dropped because the queue was full. */
  #dropped = 0;

  constructor(limits: InboxLimits) {
    this.#limits = limits;
  }

  /** Changesets not applied yet. */
  get size(): number {
    return this.#names.size;
  }

  /** What waits and what was handed over. O(changesets waiting). */
  get stats(): ApplyQueueStats & { readonly dropped: number } {
    const waiting = [this.#urgent, this.#waiting];
    return {
      waiting: this.#urgent.length + this.#waiting.length,
      waitingChanges: waiting.flat().reduce((sum, one) => sum + changeWeight(one), 0),
      inFlight: this.#inFlight.size,
      batches: this.#nextBatchId - 1,
      changesets: this.#changesets,
      dropped: this.#dropped,
    };
  }

  /** Whether the same changeset is waiting or under way. */
  has(changeset: Changeset): boolean {
    return this.#names.has(nameOf(changeset));
  }

  /**
   * Queues a changeset that is not there already. Returns the one that was dropped for it, or null.
   */
  add(changeset: Changeset, isUrgent: boolean): Changeset | null {
    const name = nameOf(changeset);
    if (this.#names.has(name)) return null;
    this.#names.add(name);
    const queue = isUrgent ? this.#urgent : this.#waiting;
    queue.push(changeset);
    if (queue.length <= this.#limits.waitingMax) return null;
    const oldest = queue.shift() ?? changeset;
    this.#names.delete(nameOf(oldest));
    this.#dropped++;
    return oldest;
  }

  /** The next batch that may go, urgent ones first; null = none. */
  take(): InboxBatch | null {
    const { batchMax, inFlightMax } = this.#limits;
    if (this.#urgent.length > 0 && this.#urgentInFlight < inFlightMax) {
      this.#urgentInFlight++;
      return this.#launch(this.#urgent.splice(0, batchMax), true);
    }
    if (this.#waiting.length === 0 || this.#ordinaryInFlight >= inFlightMax) return null;
    this.#ordinaryInFlight++;
    return this.#launch(this.#waiting.splice(0, batchMax), false);
  }

  /** Ends a batch and returns it; null when it is not one of ours. */
  finish(batchId: number): InboxBatch | null {
    const batch = this.#inFlight.get(batchId);
    if (!batch) return null;
    this.#inFlight.delete(batchId);
    if (batch.isUrgent) this.#urgentInFlight--;
    else this.#ordinaryInFlight--;
    for (const changeset of batch.changesets) this.#names.delete(nameOf(changeset));
    return batch;
  }

  #launch(changesets: readonly Changeset[], isUrgent: boolean): InboxBatch {
    const batch = { batchId: this.#nextBatchId++, changesets, isUrgent };
    this.#inFlight.set(batch.batchId, batch);
    this.#changesets += changesets.length;
    return batch;
  }
}

function nameOf(changeset: Changeset): string {
  const { actorId } = changeset;
  return changeset.kind === "full"
    ? `${actorId} ${changeset.version} ${changeset.seqs.start} ${changeset.seqs.end}`
    : `${actorId} ${changeset.versions.start}-${changeset.versions.end}`;
}
