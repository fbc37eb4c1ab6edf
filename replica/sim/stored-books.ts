/**
 * Bookkeeping as a disk would hold it: one row per gap and per seq range, changed only through
 * `BookChange`s. Loading it after a simulated crash shows that the changes carry everything.
 */
import { assert } from "#base/errors.ts";
import type { BookChange, PartialChange } from "../core/bookkeeping/bookkeeping.ts";
import type { ActorBook, ActorId, PartialVersion, VersionRange } from "../types.ts";

/** The rows of every actor. */
export class StoredBooks {
  readonly #actors = new Map<ActorId, StoredActor>();

  /** Performs a change; a row to delete that is not there is a bug of whoever made the change. */
  store(change: BookChange): void {
    let actor = this.#actors.get(change.actorId);
    if (actor === undefined) {
      actor = { head: 0, gapEnds: new Map(), partials: new Map() };
      this.#actors.set(change.actorId, actor);
    }
    actor.head = change.head ?? actor.head;
    for (const row of change.gapsDeleted) {
      assert(actor.gapEnds.get(row.start) === row.end, "a deleted gap row was stored");
      actor.gapEnds.delete(row.start);
    }
    for (const row of change.gapsInserted) actor.gapEnds.set(row.start, row.end);
    for (const partial of change.partials) storePartial(actor, partial);
  }

  /** The books as a restarted replica reads them. */
  load(): Map<ActorId, ActorBook> {
    const books = new Map<ActorId, ActorBook>();
    for (const [actorId, { head, gapEnds, partials }] of this.#actors) {
      const loaded = new Map<number, PartialVersion>();
      for (const [version, { seqEnds, lastSeq, ts }] of partials) {
        loaded.set(version, { seqs: sortedRanges(seqEnds), lastSeq, ts });
      }
      books.set(actorId, { head, gaps: sortedRanges(gapEnds), partials: loaded });
    }
    return books;
  }
}

interface StoredActor {
  head: number;
  readonly gapEnds: Map<number, number>;
  readonly partials: Map<number, StoredPartial>;
}

interface StoredPartial {
  readonly seqEnds: Map<number, number>;
  readonly lastSeq: number;
  readonly ts: bigint;
}

function storePartial(actor: StoredActor, change: PartialChange): void {
  const { version, lastSeq, ts } = change;
  if (change.isClosed) {
    actor.partials.delete(version);
    return;
  }
  const seqEnds = actor.partials.get(version)?.seqEnds ?? new Map<number, number>();
  for (const row of change.seqsDeleted) {
    assert(seqEnds.get(row.start) === row.end, "a deleted seq row was stored");
    seqEnds.delete(row.start);
  }
  for (const row of change.seqsInserted) seqEnds.set(row.start, row.end);
  actor.partials.set(version, { seqEnds, lastSeq, ts });
}

function sortedRanges(endByStart: ReadonlyMap<number, number>): VersionRange[] {
  return [...endByStart].sort(([a], [b]) => a - b).map(([start, end]) => ({ start, end }));
}
