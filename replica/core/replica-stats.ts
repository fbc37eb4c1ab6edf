/** What a replica counts of the changesets that it receives, and how it weighs them. */
import type { Changeset } from "../types.ts";
import { changeCountOf } from "./wire/encoded-changeset.ts";

/** Plain counters since the start. */
export interface ReplicaStats {
  /** Column changes of all broadcasts of our cluster, copies and our own included. */
  changesReceived: number;
  /** Broadcasts received, by verdict. */
  news: number;
  known: number;
  /** Of the known ones, those that broadcasts had brought lately: the books were not asked. */
  knownLately: number;
  own: number;
  otherCluster: number;
  invalid: number;
  /** Received changesets that the store refused: bad key, bad value. */
  refused: number;
  /** Stamps more than 300 ms ahead of our wall clock. */
  clockSkews: number;
}

/** Counters at zero. */
export function createReplicaStats(): ReplicaStats {
  return {
    changesReceived: 0,
    news: 0,
    known: 0,
    knownLately: 0,
    own: 0,
    otherCluster: 0,
    invalid: 0,
    refused: 0,
    clockSkews: 0,
  };
}

/** What waits between the wire and the store, and what went there. */
export interface ApplyQueueStats {
  /** Changesets that wait. */
  readonly waiting: number;
  /** Their column changes; an Empty counts as one. */
  readonly waitingChanges: number;
  /** Batches with the store. */
  readonly inFlight: number;
  /** Batches handed over since the start. */
  readonly batches: number;
  /** Their changesets. */
  readonly changesets: number;
}

/** Column changes in a changeset, at least 1. */
export function changeWeight(changeset: Changeset): number {
  return changeset.kind === "full" ? Math.max(1, changeCountOf(changeset)) : 1;
}
