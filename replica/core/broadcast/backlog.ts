/**
 * The changesets on their way out, and which of them goes first when there are too many.
 *
 * An entry is one encoded changeset. It is sent in rounds, each to some members that have not had it;
 * between rounds it waits until `dueMs`. Entries stand in sets by rounds sent, each in order of
 * arrival, so the next victim and the next due round are found without a search. Drop order: most-sent
 * first; among those not sent at all the oldest own, then the oldest received, urgent ones last.
 */
import type { ActorId, Address } from "../../types.ts";
import type { PeerLane } from "./peer-lane.ts";

/** One encoded changeset on its way out. Mutable; only `broadcast.ts` changes it. */
export interface BroadcastEntry {
  readonly payload: Uint8Array;
  readonly origin: ActorId;
  readonly version: number;
  readonly isLocal: boolean;
  /** It came along a tree, so its origin did not send it to all. */
  readonly isFromTree: boolean;
  readonly bornMs: number;
  isUrgent: boolean;
  /** Rounds sent. */
  rounds: number;
  roundsMax: number;
  /** When the next round is due; `Infinity` = none waiting. */
  dueMs: number;
  /** Lanes in which it waits to be sent. */
  readonly lanes: Set<PeerLane>;
  /** Transmissions without an answer. */
  inFlight: number;
  /** Addresses that have it, were just sent it, or never need it. */
  readonly sentTo: Set<Address>;
}

/** All live entries. */
export class Backlog {
  /** Not sent yet, in the order in which they would be dropped. */
  readonly #unsentOwn = new Set<BroadcastEntry>();
  readonly #unsentReceived = new Set<BroadcastEntry>();
  readonly #unsentUrgent = new Set<BroadcastEntry>();
  /** By rounds sent, from 1; index 0 stays empty. */
  readonly #sent: Set<BroadcastEntry>[] = [];
  /** Waiting for their next round, by rounds sent: nearly in order of `dueMs`. */
  readonly #waiting: Set<BroadcastEntry>[] = [];
  #size = 0;
  #bytes = 0;

  /** Live entries. */
  get size(): number {
    return this.#size;
  }

  /** Payload bytes of the live entries. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Whether the entry is live: neither finished nor dropped. */
  has(entry: BroadcastEntry): boolean {
    return this.#setOf(entry).has(entry);
  }

  /** Takes an entry in. */
  add(entry: BroadcastEntry): void {
    this.#setOf(entry).add(entry);
    this.#size += 1;
    this.#bytes += entry.payload.length;
  }

  /** Lets an entry go; nothing happens if it is not live. */
  remove(entry: BroadcastEntry): void {
    this.#waitingSet(entry.rounds).delete(entry);
    if (!this.#setOf(entry).delete(entry)) return;
    this.#size -= 1;
    this.#bytes -= entry.payload.length;
  }

  /** Counts one more round of a live entry. */
  countRound(entry: BroadcastEntry): void {
    this.#waitingSet(entry.rounds).delete(entry);
    this.#setOf(entry).delete(entry);
    entry.rounds += 1;
    this.#setOf(entry).add(entry);
  }

  /** Makes a live entry urgent. */
  promote(entry: BroadcastEntry): void {
    this.#setOf(entry).delete(entry);
    entry.isUrgent = true;
    this.#setOf(entry).add(entry);
  }

  /** Lets a live entry wait for its next round. */
  wait(entry: BroadcastEntry, dueMs: number): void {
    entry.dueMs = dueMs;
    this.#waitingSet(entry.rounds).add(entry);
  }

  /** Ends a live entry's wait before its time; whether it was waiting. */
  wake(entry: BroadcastEntry): boolean {
    entry.dueMs = Number.POSITIVE_INFINITY;
    return this.#waitingSet(entry.rounds).delete(entry);
  }

  /** Takes out the waiting entries whose round is due. */
  takeDue(nowMs: number): BroadcastEntry[] {
    const due: BroadcastEntry[] = [];
    for (const waiting of this.#waiting) {
      for (const entry of waiting) {
        if (entry.dueMs > nowMs) break;
        waiting.delete(entry);
        entry.dueMs = Number.POSITIVE_INFINITY;
        due.push(entry);
      }
    }
    return due;
  }

  /** When the next round is due; `Infinity` = none waiting. O(rounds). */
  nextDueMs(): number {
    let least = Number.POSITIVE_INFINITY;
    for (const waiting of this.#waiting) {
      const first = firstOf(waiting);
      if (first !== undefined && first.dueMs < least) least = first.dueMs;
    }
    return least;
  }

  /** The entry to give up first; `undefined` when there is none. */
  victim(): BroadcastEntry | undefined {
    for (let rounds = this.#sent.length - 1; rounds > 0; rounds -= 1) {
      const entry = firstOf(this.#sent[rounds] ?? NONE);
      if (entry !== undefined) return entry;
    }
    return firstOf(this.#unsentOwn) ?? firstOf(this.#unsentReceived) ?? firstOf(this.#unsentUrgent);
  }

  /** Live entries of one version. O(entries). */
  ofVersion(origin: ActorId, version: number): BroadcastEntry[] {
    const found: BroadcastEntry[] = [];
    for (const set of [this.#unsentOwn, this.#unsentReceived, ...this.#sent]) {
      for (const entry of set) {
        if (entry.version === version && entry.origin === origin) found.push(entry);
      }
    }
    return found;
  }

  #setOf(entry: BroadcastEntry): Set<BroadcastEntry> {
    if (entry.rounds > 0) return setAt(this.#sent, entry.rounds);
    if (entry.isUrgent) return this.#unsentUrgent;
    return entry.isLocal ? this.#unsentOwn : this.#unsentReceived;
  }

  #waitingSet(rounds: number): Set<BroadcastEntry> {
    return setAt(this.#waiting, rounds);
  }
}

function setAt(sets: Set<BroadcastEntry>[], index: number): Set<BroadcastEntry> {
  for (let at = sets.length; at <= index; at += 1) sets.push(new Set());
  return sets[index] ?? new Set();
}

function firstOf(set: ReadonlySet<BroadcastEntry>): BroadcastEntry | undefined {
  for (const entry of set) return entry;
  return undefined;
}

const NONE: ReadonlySet<BroadcastEntry> = new Set();
