/**
 * Changesets received and not applied yet: batches them for the store and says how much waits.
 *
 * A batch goes out at once when none is under way, and further ones, up to the limit, only when
 * full: so batches grow by themselves to what arrives during one merge, and no timer is needed.
 *
 * The chunks of a large version are held until all are there, and then go in one batch: the store
 * merges a whole version from memory, whereas it has to keep a part of one in a table first. Only so
 * much is held: chunks of a version that is larger, or that come out of order, go on as they are.
 */
import type { Changeset, FullChangeset } from "../../types.ts";
import { changeWeight, type ApplyQueueStats } from "../replica-stats.ts";

/** Limits of an apply queue. */
export interface ApplyQueueLimits {
  readonly applyBatchMax: number;
  readonly applyChangesMax: number;
  readonly applyInFlightMax: number;
  /** Column changes received and not applied above which nothing is asked. */
  readonly pendingChangesMax: number;
}

/** One batch for the store. */
export interface ApplyBatch {
  readonly batchId: number;
  readonly changesets: readonly Changeset[];
}

/** The queue of one sync client. */
export class ApplyQueue {
  readonly #limits: ApplyQueueLimits;
  /** Each a changeset, or the chunks of a whole version. */
  readonly #waiting: Waiting[] = [];
  #waitingChangesets = 0;
  #waitingChanges = 0;
  /** Versions of which the first chunks are there, by actor and version; oldest first. */
  readonly #held = new Map<string, Waiting>();
  #heldChangesets = 0;
  #heldChanges = 0;
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
    return this.#waitingChanges + this.#heldChanges + this.#inFlightChanges;
  }

  /** What waits and what was handed over. */
  get stats(): ApplyQueueStats {
    return {
      waiting: this.#waitingChangesets + this.#heldChangesets,
      waitingChanges: this.#waitingChanges + this.#heldChanges,
      inFlight: this.#inFlight.size,
      batches: this.#nextBatchId - 1,
      changesets: this.#changesets,
    };
  }

  /** Whether everything received has been answered. */
  get isEmpty(): boolean {
    return this.#waiting.length === 0 && this.#held.size === 0 && this.#inFlight.size === 0;
  }

  /** `isPartial`: a part of the version is stored already, so that this is not all of it. */
  add(changeset: Changeset, options: { readonly isPartial: boolean }): void {
    const weight = changeWeight(changeset);
    if (changeset.kind === "full" && !options.isPartial && !isWhole(changeset)) {
      return this.#hold(changeset, weight);
    }
    this.#push({ changesets: [changeset], weight });
  }

  /** Gives up waiting for chunks: what is there may go. */
  flush(): void {
    for (const key of this.#held.keys()) this.#release(key);
  }

  /** The next batch, if one may go. */
  take(): ApplyBatch | null {
    const { applyBatchMax, applyChangesMax, applyInFlightMax } = this.#limits;
    if (this.#waiting.length === 0 || this.#inFlight.size >= applyInFlightMax) return null;
    const isFull =
      this.#waitingChangesets >= applyBatchMax || this.#waitingChanges >= applyChangesMax;
    if (this.#inFlight.size > 0 && !isFull) return null;
    const changesets: Changeset[] = [];
    let taken = 0;
    let weight = 0;
    for (const next of this.#waiting) {
      const isTooMany = changesets.length + next.changesets.length > applyBatchMax;
      if (taken > 0 && (isTooMany || weight + next.weight > applyChangesMax)) break;
      changesets.push(...next.changesets);
      weight += next.weight;
      taken += 1;
    }
    this.#waiting.splice(0, taken);
    const batchId = this.#nextBatchId;
    this.#nextBatchId += 1;
    this.#waitingChangesets -= changesets.length;
    this.#waitingChanges -= weight;
    this.#inFlight.set(batchId, weight);
    this.#changesets += changesets.length;
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

  #hold(chunk: FullChangeset, weight: number): void {
    const key = `${chunk.actorId} ${chunk.version}`;
    const held = this.#held.get(key);
    const last = held?.changesets.at(-1);
    const nextSeq = last?.kind === "full" ? last.seqs.end + 1 : 0;
    if (chunk.seqs.start !== nextSeq) {
      // In the middle of a version: of one that was given up, or from another server.
      if (held !== undefined) this.#release(key);
      return this.#push({ changesets: [chunk], weight });
    }
    const grown = held ?? { changesets: [], weight: 0 };
    grown.changesets.push(chunk);
    grown.weight += weight;
    this.#heldChangesets += 1;
    this.#heldChanges += weight;
    this.#held.set(key, grown);
    if (chunk.seqs.end >= chunk.lastSeq || grown.weight > this.#limits.applyChangesMax) {
      return this.#release(key);
    }
    const { applyChangesMax, pendingChangesMax } = this.#limits;
    // Held chunks must leave room to ask for the rest of their versions.
    const heldMax = Math.min(HELD_BATCHES_MAX * applyChangesMax, pendingChangesMax / 2);
    for (const [oldest] of this.#held) {
      if (this.#heldChanges <= heldMax) break;
      this.#release(oldest);
    }
  }

  #release(key: string): void {
    const held = this.#held.get(key);
    if (held === undefined) return;
    this.#held.delete(key);
    this.#heldChangesets -= held.changesets.length;
    this.#heldChanges -= held.weight;
    this.#push(held);
  }

  #push(waiting: Waiting): void {
    this.#waiting.push(waiting);
    this.#waitingChangesets += waiting.changesets.length;
    this.#waitingChanges += waiting.weight;
  }
}

/** What goes into one batch together. */
interface Waiting {
  readonly changesets: Changeset[];
  weight: number;
}

function isWhole({ seqs, lastSeq }: FullChangeset): boolean {
  return seqs.start <= 0 && seqs.end >= lastSeq;
}

/** Batches' worth of chunks that are held: well below what stops the reading of streams. */
const HELD_BATCHES_MAX = 2;
