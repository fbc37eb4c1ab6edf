/**
 * The record of versions beside the rows: which local number holds which version of which actor,
 * and the bookkeeping, written in the same transaction as the rows themselves.
 *
 * cr-sqlite rewrites `db_version` when it merges, so the origin's version numbers are kept here:
 * (actor, version) <-> local number, only for versions of which something won its merge.
 */
import type Database from "better-sqlite3";
import { assert } from "#base/errors.ts";
import type { BookChange } from "../../core/bookkeeping/bookkeeping.ts";
import { Bookkeeping } from "../../core/bookkeeping/bookkeeping.ts";
import { actorIdFromBytes, actorIdToBytes } from "../../core/wire/actor-id.ts";
import type { ActorBook, ActorId, PartialVersion, SeqRange, VersionRange } from "../../types.ts";
import { unseen } from "./sql-text.ts";

/** A version of which rows are stored. */
export interface VersionRecord {
  /** cr-sqlite's db_version in this database. */
  readonly local: number;
  readonly actorId: ActorId;
  readonly version: number;
  readonly lastSeq: number;
  readonly ts: bigint;
}

/** Reads and writes the record. All writes happen inside a transaction of the caller's. */
export class Ledger {
  readonly actorId: ActorId;
  readonly books: Bookkeeping;
  readonly #database: Database.Database;
  readonly #ordinalByActor = new Map<ActorId, bigint>();
  readonly #actorByOrdinal = new Map<bigint, ActorId>();
  readonly #statements: Statements;
  #lastLocal = 0;
  /** What `undo` goes back to. */
  #lastLocalBefore = 0;
  readonly #sitesAdded: ActorId[] = [];
  /**
   * Versions of our own may be gone that others have: none is given out until they were asked, and
   * what they have is taken like anybody's.
   */
  isInDoubt = false;
  /** Whether the books collect changes, between `begin` and `save`. */
  #isOpen = false;

  constructor(database: Database.Database, actorId: ActorId) {
    this.#database = database;
    this.actorId = actorId;
    this.#statements = prepareStatements(database);
    this.books = new Bookkeeping(readBooks(database));
    this.#load();
  }

  /** Greatest local number in use: the present position of the change stream. */
  get lastLocal(): number {
    return this.#lastLocal;
  }

  /** After ROLLBACK: puts back what has changed in memory since `begin`. */
  undo(): void {
    if (this.#isOpen) this.books.rollback();
    else this.books.load(readBooks(this.#database));
    this.#isOpen = false;
    this.#lastLocal = this.#lastLocalBefore;
    for (const actorId of this.#sitesAdded) {
      this.#actorByOrdinal.delete(this.#ordinalByActor.get(actorId) ?? -1n);
      this.#ordinalByActor.delete(actorId);
    }
    this.#sitesAdded.length = 0;
  }

  /** The site ordinal of an actor, given one if need be. */
  ensureOrdinal(actorId: ActorId): bigint {
    const known = this.#ordinalByActor.get(actorId);
    if (known !== undefined) return known;
    const bytes = actorBytes(actorId);
    this.#statements.insertSite.run(bytes);
    const ordinal = this.#statements.ordinal.get(bytes);
    assert(typeof ordinal === "bigint", "an inserted site has an ordinal");
    this.#learn(actorId, ordinal);
    this.#sitesAdded.push(actorId);
    return ordinal;
  }

  /** The site ordinal of an actor, or undefined when nothing of it was ever stored. */
  ordinalOf(actorId: ActorId): bigint | undefined {
    return this.#ordinalByActor.get(actorId);
  }

  /**
   * Records where a version's rows are. `local` must be above every one before it. Returns the local
   * number that the version had before, from which its rows are to be moved; null when it is new.
   */
  recordVersion(record: VersionRecord): number | null {
    const { local, actorId, version, lastSeq, ts } = record;
    assert(local > this.#lastLocal, "local numbers grow");
    const ordinal = this.ensureOrdinal(actorId);
    const numbers = [
      BigInt(local),
      ordinal,
      BigInt(version),
      BigInt(lastSeq),
      BigInt.asIntN(64, ts),
    ];
    const { changes: added } = this.#statements.insertVersion.run(...numbers);
    this.#lastLocal = local;
    if (added > 0) return null;
    const place = [ordinal, BigInt(version)] as const;
    const old = this.#statements.localOf.get(...place);
    this.#statements.moveVersion.run(BigInt(local), ...place);
    return Number(old);
  }

  /** Versions of an actor in a range of which rows are stored, newest first. */
  versionsIn(actorId: ActorId, range: VersionRange): VersionRecord[] {
    const ordinal = this.ordinalOf(actorId);
    if (ordinal === undefined) return [];
    const rows = this.#statements.versionsIn.all(ordinal, BigInt(range.start), BigInt(range.end));
    return rows.map((row) => this.#toRecord(row));
  }

  /** Which version a local number holds. */
  versionAt(local: number): VersionRecord | undefined {
    const row = this.#statements.versionAt.get(BigInt(local));
    return row === undefined ? undefined : this.#toRecord(row);
  }

  /** After BEGIN: starts collecting changes of the books. */
  begin(): void {
    this.books.begin();
    this.#isOpen = true;
    this.#lastLocalBefore = this.#lastLocal;
    this.#sitesAdded.length = 0;
  }

  /** Before COMMIT: stores what changed in the books since `begin`. */
  save(): void {
    const changes = this.books.commit();
    this.#isOpen = false;
    const statements = this.#statements;
    for (const change of changes) {
      const actor = actorBytes(change.actorId);
      if (change.head !== null) statements.saveHead.run(actor, BigInt(change.head));
      for (const gap of change.gapsDeleted) statements.deleteGap.run(actor, BigInt(gap.start));
      for (const gap of change.gapsInserted) {
        statements.insertGap.run(actor, BigInt(gap.start), BigInt(gap.end));
      }
      for (const partial of change.partials) this.#savePartial(actor, partial);
    }
  }

  /** Reads sites and the last local number. */
  #load(): void {
    const sites = this.#database.prepare<[], { site_id: Uint8Array; ordinal: bigint }>(
      "SELECT site_id, ordinal FROM crsql_site_id",
    );
    for (const row of sites.all()) this.#learn(actorIdFromBytes(row.site_id), row.ordinal);
    const recorded = this.#database
      .prepare("SELECT max(local) FROM __patina_versions")
      .pluck()
      .get();
    const counted = this.#database.prepare("SELECT crsql_db_version()").pluck().get();
    this.#lastLocal = Math.max(Number(recorded ?? 0), Number(counted ?? 0));
  }

  #savePartial(actor: Uint8Array, partial: BookChange["partials"][number]): void {
    const version = BigInt(partial.version);
    if (partial.isClosed) {
      this.#statements.deleteSeqs.run(actor, version);
      this.#statements.deleteBuffered.run(actor, version);
      return;
    }
    const ts = BigInt.asIntN(64, partial.ts);
    const lastSeq = BigInt(partial.lastSeq);
    for (const seqs of partial.seqsDeleted) {
      this.#statements.deleteSeq.run(actor, version, BigInt(seqs.start));
    }
    for (const { start, end } of partial.seqsInserted) {
      this.#statements.insertSeq.run(actor, version, BigInt(start), BigInt(end), lastSeq, ts);
    }
  }

  #learn(actorId: ActorId, ordinal: bigint): void {
    this.#ordinalByActor.set(actorId, ordinal);
    this.#actorByOrdinal.set(ordinal, actorId);
  }

  #toRecord(row: VersionRow): VersionRecord {
    return {
      local: Number(row.local),
      actorId: this.#actorByOrdinal.get(row.actor) ?? this.actorId,
      version: Number(row.version),
      lastSeq: Number(row.last_seq),
      ts: BigInt.asUintN(64, row.ts),
    };
  }
}

/** The 16 bytes of an actor id that is known to be one. */
export function actorBytes(actorId: ActorId): Uint8Array {
  const bytes = actorIdToBytes(actorId);
  assert(bytes !== null, "an actor id is a UUID");
  return bytes;
}

/** The bookkeeping as stored. O(everything). */
export function readBooks(database: Database.Database): Map<ActorId, ActorBook> {
  const heads = new Map<ActorId, number>();
  const gaps = new Map<ActorId, VersionRange[]>();
  const partials = new Map<ActorId, Map<number, PartialVersion>>();
  const headRows = database.prepare<[], HeadRow>("SELECT actor_id, head FROM __patina_heads");
  for (const row of headRows.all()) heads.set(actorIdFromBytes(row.actor_id), Number(row.head));
  const gapRows = database.prepare<[], GapRow>(
    'SELECT actor_id, start, "end" FROM __corro_bookkeeping_gaps ORDER BY actor_id, start',
  );
  for (const row of gapRows.all()) {
    const range = { start: Number(row.start), end: Number(row.end) };
    listIn(gaps, actorIdFromBytes(row.actor_id)).push(range);
  }
  const seqRows = database.prepare<[], SeqRow>(
    "SELECT site_id, db_version, start_seq, end_seq, last_seq, ts FROM __corro_seq_bookkeeping" +
      " ORDER BY site_id, db_version, start_seq",
  );
  for (const row of seqRows.all()) {
    const actorId = actorIdFromBytes(row.site_id);
    const versions = partials.get(actorId) ?? new Map<number, PartialVersion>();
    partials.set(actorId, versions);
    const version = Number(row.db_version);
    const seq: SeqRange = { start: Number(row.start_seq), end: Number(row.end_seq) };
    const seqs = [...(versions.get(version)?.seqs ?? []), seq];
    versions.set(version, { seqs, lastSeq: Number(row.last_seq), ts: BigInt.asUintN(64, row.ts) });
  }
  const books = new Map<ActorId, ActorBook>();
  for (const [actorId, head] of heads) {
    const book = {
      head,
      gaps: gaps.get(actorId) ?? [],
      partials: partials.get(actorId) ?? new Map(),
    };
    books.set(actorId, book);
  }
  return books;
}

function listIn<Item>(lists: Map<ActorId, Item[]>, actorId: ActorId): Item[] {
  const list = lists.get(actorId) ?? [];
  lists.set(actorId, list);
  return list;
}

interface VersionRow {
  readonly local: bigint;
  readonly actor: bigint;
  readonly version: bigint;
  readonly last_seq: bigint;
  readonly ts: bigint;
}

interface HeadRow {
  readonly actor_id: Uint8Array;
  readonly head: bigint;
}

interface GapRow {
  readonly actor_id: Uint8Array;
  readonly start: bigint;
  readonly end: bigint;
}

interface SeqRow {
  readonly site_id: Uint8Array;
  readonly db_version: bigint;
  readonly start_seq: bigint;
  readonly end_seq: bigint;
  readonly last_seq: bigint;
  readonly ts: bigint;
}

type Statements = ReturnType<typeof prepareStatements>;

function prepareStatements(database: Database.Database) {
  const columns = "local, actor, version, last_seq, ts";
  return {
    insertSite: database.prepare("INSERT OR IGNORE INTO crsql_site_id (site_id) VALUES (?)"),
    ordinal: database.prepare("SELECT ordinal FROM crsql_site_id WHERE site_id = ?").pluck(),
    insertVersion: database.prepare(
      `INSERT INTO __patina_versions (${columns}) VALUES (?, ?, ?, ?, ?)` +
        " ON CONFLICT (actor, version) DO NOTHING",
    ),
    localOf: database
      .prepare<[bigint, bigint], bigint>(
        "SELECT local FROM __patina_versions WHERE actor = ? AND version = ?",
      )
      .pluck(),
    moveVersion: database.prepare(
      "UPDATE __patina_versions SET local = ? WHERE actor = ? AND version = ?",
    ),
    versionsIn: database.prepare<[bigint, bigint, bigint], VersionRow>(
      `SELECT ${columns} FROM __patina_versions WHERE actor = ${unseen("?")}` +
        ` AND version BETWEEN ${unseen("?")} AND ${unseen("?")} ORDER BY version DESC`,
    ),
    versionAt: database.prepare<[bigint], VersionRow>(
      `SELECT ${columns} FROM __patina_versions WHERE local = ?`,
    ),
    saveHead: database.prepare(
      "INSERT INTO __patina_heads (actor_id, head) VALUES (?, ?)" +
        " ON CONFLICT (actor_id) DO UPDATE SET head = excluded.head",
    ),
    deleteGap: database.prepare(
      "DELETE FROM __corro_bookkeeping_gaps WHERE actor_id = ? AND start = ?",
    ),
    insertGap: database.prepare(
      'INSERT INTO __corro_bookkeeping_gaps (actor_id, start, "end") VALUES (?, ?, ?)',
    ),
    deleteSeqs: database.prepare(
      "DELETE FROM __corro_seq_bookkeeping WHERE site_id = ? AND db_version = ?",
    ),
    deleteSeq: database.prepare(
      "DELETE FROM __corro_seq_bookkeeping WHERE site_id = ? AND db_version = ? AND start_seq = ?",
    ),
    insertSeq: database.prepare("INSERT INTO __corro_seq_bookkeeping VALUES (?, ?, ?, ?, ?, ?)"),
    deleteBuffered: database.prepare(
      "DELETE FROM __corro_buffered_changes WHERE site_id = ? AND db_version = ?",
    ),
  };
}
