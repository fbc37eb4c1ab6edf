/**
 * Changesets that broadcasts brought and the store has not applied yet.
 *
 * Urgent ones (deletes, machines going down) go to the store at once. The others go in batches that
 * grow by themselves to what arrives during one merge: at most `inFlightMax` batches are under way.
 * The queue is bounded; beyond it the oldest are dropped, and sync will bring them.
 */
import type { Changeset } from "../types.ts";

/** Limits of an inbox. */
export interface InboxLimits {
  /** Changesets waiting. Corrosion's queue: 20,000. */
  readonly waitingMax: number;
  /** Changesets in one batch. */
  readonly batchMax: number;
  /** Ordinary batches without an answer. */
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
  #ordinaryInFlight = 0;
  #nextBatchId = 1;
  /** Changesets dropped because the queue was full. */
  dropped = 0;

  constructor(limits: InboxLimits) {
    this.#limits = limits;
  }

  /** Changesets not applied yet. */
  get size(): number {
    return this.#names.size;
  }

  /** Whether the same changeset is waiting or under way. */
  has(changeset: Changeset): boolean {
    return this.#names.has(nameOf(changeset));
  }

  /** Queues a changeset; false when it is there already. */
  add(changeset: Changeset, isUrgent: boolean): boolean {
    const name = nameOf(changeset);
    if (this.#names.has(name)) return false;
    this.#names.add(name);
    (isUrgent ? this.#urgent : this.#waiting).push(changeset);
    if (this.#waiting.length > this.#limits.waitingMax) {
      const oldest = this.#waiting.shift();
      if (oldest) this.#names.delete(nameOf(oldest));
      this.dropped++;
    }
    return true;
  }

  /** The next batch that may go, urgent ones first; null = none. */
  take(): InboxBatch | null {
    if (this.#urgent.length > 0) {
      const changesets = this.#urgent;
      this.#urgent = [];
      return this.#launch(changesets, true);
    }
    if (this.#waiting.length === 0 || this.#ordinaryInFlight >= this.#limits.inFlightMax) {
      return null;
    }
    this.#ordinaryInFlight++;
    return this.#launch(this.#waiting.splice(0, this.#limits.batchMax), false);
  }

  /** Ends a batch; false when it is not one of ours. */
  finish(batchId: number): boolean {
    const batch = this.#inFlight.get(batchId);
    if (!batch) return false;
    this.#inFlight.delete(batchId);
    if (!batch.isUrgent) this.#ordinaryInFlight--;
    for (const changeset of batch.changesets) this.#names.delete(nameOf(changeset));
    return true;
  }

  #launch(changesets: readonly Changeset[], isUrgent: boolean): InboxBatch {
    const batch = { batchId: this.#nextBatchId++, changesets, isUrgent };
    this.#inFlight.set(batch.batchId, batch);
    return batch;
  }
}

function nameOf(changeset: Changeset): string {
  const { actorId } = changeset;
  return changeset.kind === "full"
    ? `${actorId} ${changeset.version} ${changeset.seqs.start} ${changeset.seqs.end}`
    : `${actorId} ${changeset.versions.start}-${changeset.versions.end}`;
}
