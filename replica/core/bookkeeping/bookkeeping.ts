/**
 * Which versions of which actor this replica knows: heads, gaps and partials.
 *
 * Two owners hold one each: the store worker (authoritative; inside a transaction, so that a row
 * and the record of it are kept or lost together) and the replica thread (a mirror that follows the
 * store's answers and lets duplicates be dropped before they cost a message). Each `record...`
 * returns what to store; between `begin` and `commit` the changes of many records are netted to
 * one per actor, and `rollback` undoes them all.
 *
 * Rules: protocol reference, sections 4.4 ("Receiver's rules") and 5.2. A complete message closes
 * its version whatever partial state there was; an incomplete one marks all of its seqs received,
 * also where no row came; a partial keeps the first `lastSeq` that it learnt.
 *
 * Not done here: merging rows, buffering rows, deciding whose changes to take.
 */
import type {
  ActorBook,
  ActorId,
  ApplyOutcome,
  Changeset,
  FullChangeset,
  PartialVersion,
  SeqRange,
  VersionRange,
} from "../../types.ts";
import type { SyncState } from "../wire/types.ts";
import { assert } from "#base/errors.ts";
import { RangeSet } from "#base/range-set.ts";

/** What a changeset would do to the books. */
export type Classification =
  /** Nothing: it is in the books. */
  | "known"
  /** Closes its version (or, for Empty, its versions) at once. */
  | "complete"
  /** Some seqs of a version that stays open: buffer the rows. */
  | "partial"
  /** The seqs that were still missing: with the buffered rows the version is whole. */
  | "completes"
  /** Ranges upside down, below their least value or beyond belief: refuse it. */
  | "invalid";

/** Rows to store for one actor; delete before inserting. */
export interface BookChange {
  readonly actorId: ActorId;
  /** The head afterwards; `null` when it did not move. */
  readonly head: number | null;
  readonly gapsDeleted: readonly VersionRange[];
  readonly gapsInserted: readonly VersionRange[];
  readonly partials: readonly PartialChange[];
}

/** Rows to store for one partial version; delete before inserting. */
export interface PartialChange {
  readonly version: number;
  /**
   * The version is no longer partial: its buffered rows go too, also those of the same transaction
   * (a version opened and closed in one transaction is reported, with no seq rows).
   */
  readonly isClosed: boolean;
  readonly seqsDeleted: readonly SeqRange[];
  readonly seqsInserted: readonly SeqRange[];
  /** Of every row inserted; 0, like `ts`, when closed. */
  readonly lastSeq: number;
  readonly ts: bigint;
}

/** The books of every actor known of. */
export class Bookkeeping {
  readonly #books = new Map<ActorId, Book>();
  /** What the books of touched actors were at `begin`; `null` outside a transaction. */
  #before: Map<ActorId, BookBefore> | null = null;

  constructor(books: Iterable<readonly [ActorId, ActorBook]> = []) {
    this.load(books);
  }

  /** Replaces everything by stored books. Not inside a transaction. */
  load(books: Iterable<readonly [ActorId, ActorBook]>): void {
    assert(this.#before === null, "books are not loaded inside a transaction");
    this.#books.clear();
    for (const [actorId, book] of books) {
      this.#books.set(actorId, {
        head: book.head,
        gaps: RangeSet.from(book.gaps),
        partials: new Map(book.partials),
      });
    }
  }

  /** A copy in the form that `load` takes. O(everything). */
  snapshot(): Map<ActorId, ActorBook> {
    const copy = new Map<ActorId, ActorBook>();
    for (const [actorId, book] of this.#books) {
      const { head, gaps, partials } = book;
      copy.set(actorId, { head, gaps: gaps.ranges.slice(), partials: new Map(partials) });
    }
    return copy;
  }

  /** Every actor of which something is known, in the order learnt. */
  actors(): Iterable<ActorId> {
    return this.#books.keys();
  }

  /** Number of them. */
  get actorCount(): number {
    return this.#books.size;
  }

  /** Whether anything is known of an actor. */
  knows(actorId: ActorId): boolean {
    return this.#books.has(actorId);
  }

  /** Greatest version known of; 0 = none. */
  head(actorId: ActorId): number {
    return this.#books.get(actorId)?.head ?? 0;
  }

  /** Versions at or below the head that are missing whole, ascending. A live view. */
  gaps(actorId: ActorId): readonly VersionRange[] {
    return this.#books.get(actorId)?.gaps.ranges ?? [];
  }

  /** Versions of which only some seqs are buffered, in the order learnt. */
  partialVersions(actorId: ActorId): Iterable<number> {
    return this.#books.get(actorId)?.partials.keys() ?? [];
  }

  /** Number of versions at or below the head that are missing whole. O(gaps). */
  missingVersions(actorId: ActorId): number {
    return this.#books.get(actorId)?.gaps.total ?? 0;
  }

  /** How many versions of an actor are known of and not known whole: missing, or partial. O(1). */
  lackingVersions(actorId: ActorId): number {
    return this.missingVersions(actorId) + (this.#books.get(actorId)?.partials.size ?? 0);
  }

  /** Whether any version of any actor is known of and not known whole. O(actors). */
  isLacking(): boolean {
    for (const book of this.#books.values()) {
      if (!book.gaps.isEmpty || book.partials.size > 0) return true;
    }
    return false;
  }

  /** What is buffered of `version`, if it is partial. */
  partial(actorId: ActorId, version: number): PartialVersion | undefined {
    return this.#books.get(actorId)?.partials.get(version);
  }

  /** Whether each of `versions` is known whole. */
  contains(actorId: ActorId, versions: VersionRange): boolean {
    const book = this.#books.get(actorId);
    if (book === undefined || versions.end > book.head) return false;
    return !book.gaps.overlaps(versions) && partialsWithin(book, versions).length === 0;
  }

  /** Whether `seqs` of `version` are known, whole or buffered. */
  containsSeqs(actorId: ActorId, version: number, seqs: SeqRange): boolean {
    if (this.contains(actorId, { start: version, end: version })) return true;
    const partial = this.partial(actorId, version);
    return partial !== undefined && RangeSet.from(partial.seqs).containsRange(seqs);
  }

  /** Says what `changeset` would do, without doing it. */
  classify(changeset: Changeset): Classification {
    const { actorId } = changeset;
    if (changeset.kind === "empty") {
      const { versions } = changeset;
      if (versions.start < 1 || versions.end < versions.start) return "invalid";
      if (versions.end > VERSION_BELIEVED_MAX) return "invalid";
      return this.contains(actorId, versions) ? "known" : "complete";
    }
    const { version, seqs, lastSeq } = changeset;
    if (version < 1 || version > VERSION_BELIEVED_MAX) return "invalid";
    if (seqs.start < 0 || seqs.end < seqs.start || lastSeq < 0) return "invalid";
    if (this.contains(actorId, { start: version, end: version })) return "known";
    if (isComplete(changeset)) return "complete";
    const partial = this.partial(actorId, version);
    const received = RangeSet.from(partial?.seqs ?? []);
    const { inserted } = received.insert(seqs);
    const whole = { start: 0, end: partial?.lastSeq ?? lastSeq };
    if (received.containsRange(whole)) return "completes";
    return inserted.length === 0 ? "known" : "partial";
  }

  /**
   * The same for one that nobody was asked for: an Empty that reaches above our head is refused. No
   * replica sends such, and taken at its word it would make us deaf to all that its actor writes from
   * then on.
   */
  classifyBroadcast(changeset: Changeset): Classification {
    const isAboveHead =
      changeset.kind === "empty" && changeset.versions.end > this.head(changeset.actorId);
    return isAboveHead ? "invalid" : this.classify(changeset);
  }

  /** Records `versions` as known whole; partial state of them is dropped. */
  recordComplete(actorId: ActorId, versions: VersionRange): BookChange {
    const book = this.#touch(actorId);
    const partials: PartialChange[] = [];
    for (const version of partialsWithin(book, versions)) {
      this.#rememberPartial(actorId, version);
      const seqsDeleted = book.partials.get(version)?.seqs ?? [];
      partials.push({ ...CLOSED, version, seqsDeleted });
      book.partials.delete(version);
    }
    return this.#see({ actorId, book, versions, partials });
  }

  /** Records `versions` as known with nothing left to apply: the same as complete. */
  recordEmpty(actorId: ActorId, versions: VersionRange): BookChange {
    return this.recordComplete(actorId, versions);
  }

  /** Records versions at or below the head as missing again: less of them is here than was thought. */
  recordMissing(actorId: ActorId, versions: VersionRange): void {
    const book = this.#touch(actorId);
    book.gaps.insert({ start: versions.start, end: Math.min(versions.end, book.head) });
  }

  /** Records that `head` exists: what is above the head so far becomes a gap. */
  recordHead(actorId: ActorId, head: number): BookChange {
    if (head <= this.head(actorId)) return unchanged(actorId);
    const versions = { start: head + 1, end: head };
    return this.#see({ actorId, book: this.#touch(actorId), versions, partials: [] });
  }

  /**
   * Records the seqs of an incomplete message as buffered. The version stays partial even when they
   * were the last: whoever merges the buffered rows calls `recordComplete` then.
   */
  recordPartial(changeset: Omit<FullChangeset, "changes" | "kind">): BookChange {
    const { actorId, version, seqs } = changeset;
    const versions = { start: version, end: version };
    if (this.contains(actorId, versions)) return unchanged(actorId);
    const book = this.#touch(actorId);
    this.#rememberPartial(actorId, version);
    const known = book.partials.get(version);
    const received = RangeSet.from(known?.seqs ?? []);
    const { deleted, inserted } = received.insert(seqs);
    const { lastSeq, ts } = known ?? changeset;
    book.partials.set(version, { seqs: received.ranges, lastSeq, ts });
    const partial: PartialChange = {
      version,
      isClosed: false,
      seqsDeleted: deleted,
      seqsInserted: inserted,
      lastSeq,
      ts,
    };
    return this.#see({ actorId, book, versions, partials: inserted.length > 0 ? [partial] : [] });
  }

  /**
   * Follows one answer of the store; for the mirror. Unknown to us and refused: nothing. `known` of
   * what the mirror does not know mends it: an answer of the store was lost before.
   */
  follow(outcome: ApplyOutcome): void {
    if (outcome.kind === "refused") return;
    const { changeset } = outcome;
    const { actorId } = changeset;
    if (changeset.kind === "empty") {
      this.recordEmpty(actorId, changeset.versions);
      return;
    }
    const { version } = changeset;
    if (outcome.kind === "applied" || isComplete(changeset)) {
      this.recordComplete(actorId, { start: version, end: version });
      return;
    }
    this.recordPartial(changeset);
    const partial = this.partial(actorId, version);
    // The store merges a version as soon as it is whole.
    const isWhole = partial !== undefined && missingSeqs(partial).length === 0;
    if (outcome.kind === "known" && isWhole) {
      this.recordComplete(actorId, { start: version, end: version });
    }
  }

  /** Starts collecting changes until `commit` or `rollback`. Not nested. */
  begin(): void {
    assert(this.#before === null, "book transactions are not nested");
    this.#before = new Map();
  }

  /** Ends the transaction; one net change per actor that differs, to be stored with the rows. */
  commit(): BookChange[] {
    assert(this.#before !== null, "a book transaction is open");
    const changes: BookChange[] = [];
    for (const [actorId, before] of this.#before) {
      const book = this.#books.get(actorId);
      assert(book !== undefined, "a touched book exists");
      const change = netChange(actorId, before, book);
      if (!isUnchanged(change)) changes.push(change);
    }
    this.#before = null;
    return changes;
  }

  /** Ends the transaction and puts back everything as it was at `begin`. */
  rollback(): void {
    assert(this.#before !== null, "a book transaction is open");
    for (const [actorId, before] of this.#before) {
      const book = this.#books.get(actorId);
      if (before.isNew || book === undefined) {
        this.#books.delete(actorId);
        continue;
      }
      book.head = before.head;
      book.gaps = before.gaps;
      for (const [version, partial] of before.partials) {
        if (partial === undefined) book.partials.delete(version);
        else book.partials.set(version, partial);
      }
    }
    this.#before = null;
  }

  /** What to tell a sync server or client about ourselves. O(actors + gaps + partials). */
  syncState(self: ActorId): SyncState {
    const heads = new Map<ActorId, number>();
    const need = new Map<ActorId, readonly VersionRange[]>();
    const partialNeed = new Map<ActorId, ReadonlyMap<number, readonly SeqRange[]>>();
    for (const [actorId, book] of this.#books) {
      if (book.head > 0) heads.set(actorId, book.head);
      if (!book.gaps.isEmpty) need.set(actorId, book.gaps.ranges.slice());
      const missing = new Map<number, readonly SeqRange[]>();
      for (const [version, partial] of book.partials) missing.set(version, missingSeqs(partial));
      if (missing.size > 0) partialNeed.set(actorId, missing);
    }
    return { actorId: self, heads, need, partialNeed, lastClearedTs: null };
  }

  /** The book of `actorId`, made if need be, its present state remembered for `rollback`. */
  #touch(actorId: ActorId): Book {
    const known = this.#books.get(actorId);
    const book = known ?? { head: 0, gaps: new RangeSet(), partials: new Map() };
    if (known === undefined) this.#books.set(actorId, book);
    if (this.#before !== null && !this.#before.has(actorId)) {
      const { head, gaps } = book;
      const isNew = known === undefined;
      this.#before.set(actorId, { isNew, head, gaps: gaps.clone(), partials: new Map() });
    }
    return book;
  }

  #rememberPartial(actorId: ActorId, version: number): void {
    const before = this.#before?.get(actorId);
    if (before === undefined || before.partials.has(version)) return;
    before.partials.set(version, this.#books.get(actorId)?.partials.get(version));
  }

  /** Advances the head over `versions`, opening a gap below them and closing what they fill. */
  #see(seen: {
    actorId: ActorId;
    book: Book;
    versions: VersionRange;
    partials: readonly PartialChange[];
  }): BookChange {
    const { actorId, book, versions, partials } = seen;
    // Versions above the head are in no gap, so the two changes never touch the same row.
    const opened = book.gaps.insert({ start: book.head + 1, end: versions.start - 1 });
    const filled = book.gaps.remove({ start: versions.start, end: versions.end });
    const head = versions.end > book.head ? versions.end : null;
    if (head !== null) book.head = head;
    return {
      actorId,
      head,
      gapsDeleted: [...opened.deleted, ...filled.deleted],
      gapsInserted: [...opened.inserted, ...filled.inserted],
      partials,
    };
  }
}

/**
 * No replica writes so much. A version above it is a lie or an error, and would leave its actor without
 * numbers to give out.
 */
export const VERSION_BELIEVED_MAX = 2 ** 49;

/** Whether a message covers its whole version by its own account. */
export function isComplete(changeset: Pick<FullChangeset, "seqs" | "lastSeq">): boolean {
  return changeset.seqs.start === 0 && changeset.seqs.end === changeset.lastSeq;
}

/** The seqs of a partial version that have not arrived, ascending. */
export function missingSeqs(partial: PartialVersion): SeqRange[] {
  return RangeSet.from(partial.seqs).missing({ start: 0, end: partial.lastSeq });
}

interface Book {
  head: number;
  gaps: RangeSet;
  readonly partials: Map<number, PartialVersion>;
}

/** A book at `begin`; `partials` holds only the versions touched since. */
interface BookBefore {
  readonly isNew: boolean;
  readonly head: number;
  readonly gaps: RangeSet;
  readonly partials: Map<number, PartialVersion | undefined>;
}

/** Partial versions in a range, however wide. O(the lesser of its width and the partials). */
function partialsWithin(book: Book, versions: VersionRange): number[] {
  const { partials } = book;
  if (versions.start === versions.end) return partials.has(versions.start) ? [versions.start] : [];
  const found: number[] = [];
  for (const version of partials.keys()) {
    if (version >= versions.start && version <= versions.end) found.push(version);
  }
  return found;
}

const CLOSED = { isClosed: true, seqsInserted: [], lastSeq: 0, ts: 0n };

function netChange(actorId: ActorId, before: BookBefore, book: Book): BookChange {
  const gaps = netRanges(before.gaps.ranges, book.gaps.ranges);
  const partials: PartialChange[] = [];
  for (const [version, old] of before.partials) {
    const now = book.partials.get(version);
    const { deleted, inserted } = netRanges(old?.seqs ?? [], now?.seqs ?? []);
    if (now !== undefined && deleted.length + inserted.length === 0) continue;
    partials.push({
      version,
      isClosed: now === undefined,
      seqsDeleted: deleted,
      seqsInserted: inserted,
      lastSeq: now?.lastSeq ?? 0,
      ts: now?.ts ?? 0n,
    });
  }
  const head = book.head === before.head ? null : book.head;
  return { actorId, head, gapsDeleted: gaps.deleted, gapsInserted: gaps.inserted, partials };
}

/** Rows to delete and insert to get from one list of ranges to another. */
function netRanges(
  before: readonly VersionRange[],
  after: readonly VersionRange[],
): { deleted: VersionRange[]; inserted: VersionRange[] } {
  const endByStart = new Map(before.map((range) => [range.start, range.end]));
  const inserted = after.filter((range) => endByStart.get(range.start) !== range.end);
  for (const range of after) {
    if (endByStart.get(range.start) === range.end) endByStart.delete(range.start);
  }
  const deleted = before.filter((range) => endByStart.has(range.start));
  return { deleted, inserted };
}

function isUnchanged(change: BookChange): boolean {
  const { head, gapsDeleted, gapsInserted, partials } = change;
  return head === null && gapsDeleted.length + gapsInserted.length + partials.length === 0;
}

function unchanged(actorId: ActorId): BookChange {
  return { actorId, head: null, gapsDeleted: [], gapsInserted: [], partials: [] };
}
