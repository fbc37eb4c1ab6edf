/**
 * A `ChangeStore` without a database: the model's rows, the buffer of partial versions and the
 * books, changed together or not at all. Its operations are synchronous; whoever simulates a store
 * decides when they happen, when they are answered, and whether the replica lives to hear it.
 *
 * Transactions are on the disk for good only from the next `sync` on, as under `synchronous = NORMAL`:
 * until then a power loss may take the last of them, but never one without those after it.
 */
import { Bookkeeping, isComplete } from "../core/bookkeeping/bookkeeping.ts";
import { chunkVersion } from "../core/wire/chunker.ts";
import type {
  ActorBook,
  ActorId,
  ApplyOutcome,
  Changeset,
  ColumnChange,
  FullChangeset,
  LocalCommit,
  PartialVersion,
  ReadVersionsRequest,
  SeqRange,
  VersionRange,
} from "../types.ts";
import { assert } from "#base/errors.ts";
import { RangeSet } from "#base/range-set.ts";
import { ModelRows, SENTINEL } from "./model-rows.ts";
import { StoredBooks } from "./stored-books.ts";

/** One write of a local transaction; `columns` null = delete the row. */
export interface ModelWrite {
  readonly table: string;
  readonly pk: Uint8Array;
  readonly columns: Readonly<Record<string, string>> | null;
}

/** What a replica has on its disk. */
export class ModelStore {
  readonly actorId: ActorId;
  /** Which history this is; another one after a power loss. */
  readonly databaseId: string;
  readonly rows = new ModelRows();
  readonly #books = new Bookkeeping();
  readonly #storedBooks = new StoredBooks();
  /** Stamp of each version that was merged. */
  readonly #tsByVersion = new Map<string, bigint>();
  /** Buffered changes of partial versions. */
  readonly #buffers = new Map<string, ColumnChange[]>();
  readonly #chunkBytes: number;
  /** Every transaction, to be done again on an empty disk. */
  readonly #journal: Transaction[] = [];
  #syncedTransactions = 0;
  /** Whether any of the others is a transaction of our own. */
  #hasUnsyncedOwn = false;
  /** Own versions may be gone that others have: none is given out until `settleOwnVersions`. */
  #isInDoubt = false;
  #hasLostPower = false;

  /** `chunkBytes`: own transactions are cut into chunks of about this size. */
  constructor(actorId: ActorId, chunkBytes: number, databaseId = actorId) {
    this.actorId = actorId;
    this.databaseId = databaseId;
    this.#chunkBytes = chunkBytes;
  }

  /** Which versions are recorded; read only. */
  get books(): Bookkeeping {
    return this.#books;
  }

  /** The books as a restart reads them. */
  loadBooks(): Map<ActorId, ActorBook> {
    return this.#storedBooks.load();
  }

  get isInDoubt(): boolean {
    return this.#isInDoubt;
  }

  /** Whether anything was ever lost here. */
  get hasLostPower(): boolean {
    return this.#hasLostPower;
  }

  /** Transactions that a power loss may take. */
  get unsynced(): number {
    return this.#journal.length - this.#syncedTransactions;
  }

  /** Brings all to the disk for good. */
  sync(): void {
    this.#syncedTransactions = this.#journal.length;
    this.#hasUnsyncedOwn = false;
  }

  /** The disk as a power loss leaves it that takes the last `lost` transactions; own versions in doubt. */
  afterPowerLoss(lost: number): ModelStore {
    assert(lost <= this.unsynced, "what is synced outlives a power loss");
    const store = new ModelStore(this.actorId, this.#chunkBytes, `${this.databaseId}'`);
    for (const again of this.#journal.slice(0, this.#journal.length - lost)) again(store);
    store.#doubt();
    store.sync();
    return store;
  }

  /** Others were asked: goes on above `head`. */
  settleOwnVersions(head: number): void {
    this.#journal.push((store) => store.settleOwnVersions(head));
    this.#isInDoubt = false;
    if (head <= this.#books.head(this.actorId)) return;
    this.#storedBooks.store(this.#books.recordHead(this.actorId, head));
  }

  /** Commits a transaction; null when it changes nothing, and then no version is used. */
  transact(writes: readonly ModelWrite[], ts: bigint): LocalCommit | null {
    assert(!this.#isInDoubt, "nothing is written while own versions are in doubt");
    this.#journal.push((store) => void store.transact(writes, ts));
    const version = this.#books.head(this.actorId) + 1;
    const writer = { actorId: this.actorId, version };
    let seq = 0;
    for (const write of writes) {
      for (const change of this.#changesFor(write, seq)) {
        if (this.rows.merge(change, writer)) seq += 1;
      }
    }
    if (seq === 0) return null;
    this.#hasUnsyncedOwn = true;
    return this.#record(version, seq - 1, ts);
  }

  /**
   * The disk under another actor id, and the version by which it publishes what was its own: with the
   * column versions that they have, as in the database.
   */
  renewed(actorId: ActorId, ts: bigint): { store: ModelStore; commit: LocalCommit | null } {
    const store = new ModelStore(actorId, this.#chunkBytes, `${this.databaseId}*`);
    for (const known of this.#books.actors()) {
      const need = { kind: "full", versions: { start: 1, end: this.#books.head(known) } } as const;
      store.apply(this.readVersions({ actorId: known, need, chunkBytes: this.#chunkBytes }));
    }
    const commit = store.#takeOver(this.actorId, ts);
    store.sync();
    return { store, commit };
  }

  #takeOver(former: ActorId, ts: bigint): LocalCommit | null {
    this.#journal.push((store) => void store.#takeOver(former, ts));
    const writer = { actorId: this.actorId, version: 1 };
    let seq = 0;
    for (let version = 1; version <= this.#books.head(former); version += 1) {
      for (const change of this.rows.changesOf({ actorId: former, version })) {
        assert(
          this.rows.merge({ ...change, seq }, writer),
          "of equal values the greater actor's wins",
        );
        seq += 1;
      }
    }
    return seq === 0 ? null : this.#record(writer.version, seq - 1, ts);
  }

  #record(version: number, lastSeq: number, ts: bigint): LocalCommit {
    const writer = { actorId: this.actorId, version };
    this.rows.endVersion(writer);
    const changes = this.rows.changesOf(writer);
    this.#tsByVersion.set(versionKey(this.actorId, version), ts);
    this.#storedBooks.store(
      this.#books.recordComplete(this.actorId, { start: version, end: version }),
    );
    const chunkBytesMax = this.#chunkBytes;
    const changesets = chunkVersion({ ...writer, changes, lastSeq, ts, chunkBytesMax });
    return { version, lastSeq, ts, changesets };
  }

  /** Applies a batch as one transaction. */
  apply(changesets: readonly Changeset[]): ApplyOutcome[] {
    this.#journal.push((store) => void store.apply(changesets));
    this.#books.begin();
    const outcomes = changesets.map((changeset) => this.#applyOne(changeset));
    for (const change of this.#books.commit()) this.#storedBooks.store(change);
    return outcomes;
  }

  /** Answers a sync server, newest first, Empty last; what the answer rests on is synced by then. */
  readVersions(request: ReadVersionsRequest): Changeset[] {
    if (this.#hasUnsyncedOwn) this.sync();
    const { actorId, need } = request;
    if (need.kind === "partial") return this.#readOne(request, need.version, need.seqs);
    const found: Changeset[] = [];
    const empty = new RangeSet();
    const end = Math.min(need.versions.end, this.#books.head(actorId));
    for (let version = end; version >= Math.max(1, need.versions.start); version -= 1) {
      for (const changeset of this.#readOne(request, version, null)) {
        if (changeset.kind === "empty") empty.insert(changeset.versions);
        else found.push(changeset);
      }
    }
    for (const versions of empty) found.push(emptyOf(actorId, versions));
    return found;
  }

  #changesFor(write: ModelWrite, firstSeq: number): ColumnChange[] {
    const { table, pk, columns } = write;
    const present = this.rows.causalLength(table, pk);
    const isLive = present % 2 === 1;
    const base = { table, pk };
    if (columns === null) {
      if (!isLive) return [];
      const cl = present + 1;
      return [{ ...base, cid: SENTINEL, val: null, colVersion: cl, seq: firstSeq, cl }];
    }
    const cl = isLive ? present : present + 1;
    const changes: ColumnChange[] = [];
    if (!isLive) {
      changes.push({ ...base, cid: SENTINEL, val: null, colVersion: cl, seq: firstSeq, cl });
    }
    for (const [cid, val] of Object.entries(columns)) {
      // As cr-sqlite's triggers: a value that stays the same is no change.
      if (isLive && this.rows.columnValue({ ...base, cid }) === val) continue;
      const known = isLive ? this.rows.columnVersion({ ...base, cid }) : 0;
      const seq = firstSeq + changes.length;
      changes.push({ ...base, cid, val, colVersion: known + 1, seq, cl });
    }
    return changes;
  }

  #applyOne(changeset: Changeset): ApplyOutcome {
    const classification = this.#books.classify(changeset);
    if (classification === "invalid") return { kind: "refused", changeset, reason: "invalid" };
    if (classification === "known") return { kind: "known", changeset };
    const { actorId } = changeset;
    if (actorId === this.actorId && !this.#mayTakeOwn(changeset)) {
      return { kind: "refused", changeset, reason: "our own" };
    }
    if (changeset.kind === "empty") {
      const change = this.#books.recordEmpty(actorId, changeset.versions);
      for (const { version } of change.partials) this.#buffers.delete(versionKey(actorId, version));
      return { kind: "applied", changeset, rowsChanged: 0 };
    }
    const { version } = changeset;
    const key = versionKey(actorId, version);
    const buffered = this.#buffers.get(key) ?? [];
    if (classification === "partial") {
      this.#buffers.set(key, [...buffered, ...newIn(changeset, buffered)]);
      this.#books.recordPartial(changeset);
      return { kind: "buffered", changeset };
    }
    const changes = isComplete(changeset)
      ? changeset.changes
      : [...buffered, ...newIn(changeset, buffered)].sort((one, other) => one.seq - other.seq);
    let rowsChanged = 0;
    for (const change of changes) {
      if (this.rows.merge(change, { actorId, version })) rowsChanged += 1;
    }
    this.rows.endVersion({ actorId, version });
    this.#buffers.delete(key);
    this.#tsByVersion.set(key, changeset.ts);
    this.#books.recordComplete(actorId, { start: version, end: version });
    return { kind: "applied", changeset, rowsChanged };
  }

  #doubt(): void {
    this.#journal.push((store) => store.#doubt());
    this.#isInDoubt = true;
    this.#hasLostPower = true;
  }

  /** As in the database: our own history comes back after a loss, or fills a gap. */
  #mayTakeOwn(changeset: Changeset): boolean {
    const last = changeset.kind === "full" ? changeset.version : changeset.versions.end;
    return this.#isInDoubt || last <= this.#books.head(this.actorId);
  }

  #readOne(
    request: ReadVersionsRequest,
    version: number,
    asked: readonly SeqRange[] | null,
  ): Changeset[] {
    const { actorId, chunkBytes } = request;
    const partial = this.#books.partial(actorId, version);
    const key = versionKey(actorId, version);
    if (partial !== undefined) return this.#readBuffer({ request, version, asked, partial });
    const versions = { start: version, end: version };
    if (!this.#books.contains(actorId, versions)) return [];
    const changes = this.rows.changesOf({ actorId, version });
    const lastSeq = changes.at(-1)?.seq;
    if (lastSeq === undefined) return [emptyOf(actorId, versions)];
    const ts = this.#tsByVersion.get(key) ?? 0n;
    const base = { actorId, version, lastSeq, ts, chunkBytesMax: chunkBytes };
    const ranges = asked ?? [{ start: 0, end: lastSeq }];
    return ranges.flatMap((seqs) =>
      chunkVersion({ ...base, seqs, changes: within(changes, seqs) }),
    );
  }

  #readBuffer(of: {
    request: ReadVersionsRequest;
    version: number;
    asked: readonly SeqRange[] | null;
    partial: PartialVersion;
  }): FullChangeset[] {
    const { request, version, partial } = of;
    const { actorId, chunkBytes } = request;
    const buffered = this.#buffers.get(versionKey(actorId, version)) ?? [];
    const changes = buffered.toSorted((one, other) => one.seq - other.seq);
    const { lastSeq, ts } = partial;
    const base = { actorId, version, lastSeq, ts, chunkBytesMax: chunkBytes };
    const held = RangeSet.from(partial.seqs);
    const ranges = of.asked === null ? held : held.intersect(RangeSet.from(of.asked));
    return [...ranges].flatMap((seqs) =>
      chunkVersion({ ...base, seqs, changes: within(changes, seqs) }),
    );
  }
}

/** Does a transaction again. */
type Transaction = (store: ModelStore) => void;

/** The rows of a chunk whose seqs are not buffered: the first copy of a seq wins. */
function newIn(chunk: FullChangeset, buffered: readonly ColumnChange[]): ColumnChange[] {
  const known = new Set(buffered.map((change) => change.seq));
  return chunk.changes.filter((change) => !known.has(change.seq));
}

function within(changes: readonly ColumnChange[], seqs: SeqRange): ColumnChange[] {
  return changes.filter((change) => change.seq >= seqs.start && change.seq <= seqs.end);
}

function emptyOf(actorId: ActorId, versions: VersionRange): Changeset {
  return { kind: "empty", actorId, versions, ts: null };
}

function versionKey(actorId: ActorId, version: number): string {
  return `${actorId} ${version}`;
}
