/**
 * Looks for disagreement between the books in memory, the books as stored, and the rows, and mends
 * it. Everything here is for a person with a suspicion: in order, the three cannot disagree, because
 * they are written in one transaction.
 *
 * Rows are checked in slices by the tables' numbers of keys, so that no call keeps the store's loop
 * for long.
 */
import type Database from "better-sqlite3";
import { RangeSet } from "#base/range-set.ts";
import { actorIdFromBytes } from "../../core/wire/actor-id.ts";
import type { ActorBook, ActorId, PartialVersion, VersionRange } from "../../types.ts";
import type { CrrTables } from "./crr-tables.ts";
import { actorBytes, readBooks } from "./ledger.ts";
import { quoteName } from "./sql-text.ts";

/** The books in memory and what they were written to. */
export interface BooksContext {
  readonly database: Database.Database;
  readonly tables: CrrTables;
  /** As in memory. */
  readonly books: ReadonlyMap<ActorId, ActorBook>;
}

/** Which slice of the rows to check: keys above `afterKey` of one replicated table. */
export interface RowSlice {
  readonly table: string;
  readonly afterKey: number;
}

/** What a check of the books found. */
export interface BooksReport {
  readonly inMemoryActors: number;
  readonly databaseActors: number;
  /** Actors whose books in memory and in the database differ. */
  readonly mismatched: readonly ActorId[];
  readonly onlyInMemory: readonly ActorId[];
  readonly onlyInDatabase: readonly ActorId[];
  /** Sentences on what the record of versions and the buffer contradict. */
  readonly findings: readonly string[];
  /** Where `checkRows` begins; null = there are no tables. */
  readonly firstSlice: RowSlice | null;
}

/** What a check of some rows found. */
export interface RowsReport {
  readonly findings: readonly string[];
  readonly next: RowSlice | null;
}

/** What was mended of one actor's books, in stored ranges and versions. */
export interface BookRepair {
  readonly actorId: ActorId;
  readonly gapsDeleted: number;
  readonly gapsInserted: number;
  /** Versions whose buffered rows belonged to no partial version. */
  readonly bufferedDropped: number;
}

/** Compares the books; O(actors + gaps + partials), and one look into an index for each. */
export function checkBooks(context: BooksContext): BooksReport {
  const { database, books } = context;
  const stored = readBooks(database);
  const mismatched: ActorId[] = [];
  const findings: string[] = [];
  const recorded = new RecordedVersions(database);
  for (const [actorId, book] of books) {
    const other = stored.get(actorId);
    if (other !== undefined && !isSameBook(book, other)) mismatched.push(actorId);
    const top = recorded.greatest(actorId);
    if (top > book.head) findings.push(`${actorId}: rows of version ${top}, head ${book.head}`);
    for (const gap of book.gaps) {
      for (const version of recorded.within(actorId, gap, FINDINGS_MAX)) {
        findings.push(`${actorId}: rows of version ${version}, which counts as missing`);
      }
    }
  }
  for (const { actorId, version } of orphansOf(database)) {
    findings.push(`${actorId}: buffered rows of version ${version}, which is not partial`);
  }
  const [first] = context.tables.keys();
  return {
    inMemoryActors: books.size,
    databaseActors: stored.size,
    mismatched: mismatched.toSorted(),
    onlyInMemory: [...books.keys()].filter((id) => !stored.has(id)).toSorted(),
    onlyInDatabase: [...stored.keys()].filter((id) => !books.has(id)).toSorted(),
    findings: findings.slice(0, FINDINGS_MAX),
    firstSlice: first === undefined ? null : { table: first, afterKey: 0 },
  };
}

/** Looks for rows that belong to no recorded version, in one slice of one table. */
export function checkRows(
  context: Pick<BooksContext, "database" | "tables">,
  slice: RowSlice,
): RowsReport {
  const { database, tables } = context;
  const names = [...tables.keys()];
  const at = names.indexOf(slice.table);
  if (at < 0) return { findings: [], next: null };
  const clock = quoteName(`${slice.table}__crsql_clock`);
  const last = database.prepare<[], bigint | null>(`SELECT max(key) FROM ${clock}`).pluck().get();
  const end = slice.afterKey + KEYS_PER_SLICE;
  const rows = database
    .prepare<[bigint, bigint], { versions: bigint; local: bigint }>(
      `SELECT count(*) AS versions, min(c.db_version) AS local FROM ${clock} c` +
        " LEFT JOIN __patina_versions v ON v.local = c.db_version AND v.actor = c.site_id" +
        " WHERE c.key > ? AND c.key <= ? AND c.col_version <> 0 AND v.local IS NULL",
    )
    .get(BigInt(slice.afterKey), BigInt(end));
  const findings =
    rows === undefined || rows.versions === 0n
      ? []
      : [
          `table ${slice.table}, keys ${slice.afterKey + 1}-${end}: ${rows.versions} columns of no` +
            ` recorded version, the first at local number ${rows.local}`,
        ];
  if (BigInt(end) < (last ?? 0n)) return { findings, next: { ...slice, afterKey: end } };
  const table = names[at + 1];
  return { findings, next: table === undefined ? null : { table, afterKey: 0 } };
}

/**
 * Writes the stored books anew from what memory, disk and rows say together: what either book
 * misses is needed, unless its rows are there; a partial version that they disagree on is needed
 * whole, and its buffer dropped. Inside a transaction of the caller's; returns the books to go on
 * with.
 */
export function repairBooks(context: BooksContext): {
  books: Map<ActorId, ActorBook>;
  repairs: BookRepair[];
} {
  const { database } = context;
  const stored = readBooks(database);
  const recorded = new RecordedVersions(database);
  const books = new Map<ActorId, ActorBook>();
  const repairs: BookRepair[] = [];
  for (const actorId of new Set([...context.books.keys(), ...stored.keys()])) {
    const [inMemory, onDisk] = [context.books.get(actorId), stored.get(actorId)];
    const book = merged([inMemory, onDisk], (gap) => recorded.within(actorId, gap), {
      recordedTop: recorded.greatest(actorId),
    });
    books.set(actorId, book);
    if (onDisk !== undefined && isSameBook(onDisk, book)) continue;
    store(database, actorId, book);
    const [gapsDeleted, gapsInserted] = [onDisk?.gaps.length ?? 0, book.gaps.length];
    repairs.push({ actorId, gapsDeleted, gapsInserted, bufferedDropped: 0 });
  }
  return { books, repairs: withDropped(repairs, dropOrphans(database)) };
}

function merged(
  [first, second]: readonly (ActorBook | undefined)[],
  recordedIn: (gap: VersionRange) => readonly number[],
  { recordedTop }: { readonly recordedTop: number },
): ActorBook {
  const known = Math.max(first?.head ?? 0, second?.head ?? 0);
  const head = Math.max(known, recordedTop);
  const gaps = RangeSet.from([]);
  for (const gap of [...(first?.gaps ?? []), ...(second?.gaps ?? [])]) gaps.insert(gap);
  gaps.insert({ start: known + 1, end: recordedTop });
  for (const gap of gaps.ranges.slice()) {
    for (const version of recordedIn(gap)) gaps.remove({ start: version, end: version });
  }
  const partials = new Map<number, PartialVersion>();
  for (const [version, partial] of [...(first?.partials ?? []), ...(second?.partials ?? [])]) {
    const [one, other] = [first?.partials.get(version), second?.partials.get(version)];
    // Which rows are buffered is in doubt where the two differ: the version is asked for whole.
    if (one !== undefined && other !== undefined && partialText(one) === partialText(other)) {
      partials.set(version, partial);
    } else if (recordedIn({ start: version, end: version }).length === 0) {
      gaps.insert({ start: version, end: version });
    }
  }
  return { head, gaps: gaps.ranges.slice(), partials };
}

function withDropped(
  repairs: readonly BookRepair[],
  droppedBy: ReadonlyMap<ActorId, number>,
): BookRepair[] {
  const untouched = [...droppedBy.keys()].filter((id) =>
    repairs.every((one) => one.actorId !== id),
  );
  const all = [
    ...repairs,
    ...untouched.map((actorId) => ({ actorId, gapsDeleted: 0, gapsInserted: 0 })),
  ];
  return all.map((one) => ({ ...one, bufferedDropped: droppedBy.get(one.actorId) ?? 0 }));
}

function store(database: Database.Database, actorId: ActorId, book: ActorBook): void {
  const actor = actorBytes(actorId);
  database
    .prepare(
      "INSERT INTO __patina_heads (actor_id, head) VALUES (?, ?)" +
        " ON CONFLICT (actor_id) DO UPDATE SET head = excluded.head",
    )
    .run(actor, BigInt(book.head));
  database.prepare("DELETE FROM __corro_bookkeeping_gaps WHERE actor_id = ?").run(actor);
  const insertGap = database.prepare("INSERT INTO __corro_bookkeeping_gaps VALUES (?, ?, ?)");
  for (const { start, end } of book.gaps) insertGap.run(actor, BigInt(start), BigInt(end));
  database.prepare("DELETE FROM __corro_seq_bookkeeping WHERE site_id = ?").run(actor);
  const insertSeqs = database.prepare(
    "INSERT INTO __corro_seq_bookkeeping VALUES (?, ?, ?, ?, ?, ?)",
  );
  for (const [version, { seqs, lastSeq, ts }] of book.partials) {
    const place = [actor, BigInt(version)];
    const end = [BigInt(lastSeq), BigInt.asIntN(64, ts)];
    for (const seq of seqs) insertSeqs.run(...place, BigInt(seq.start), BigInt(seq.end), ...end);
  }
}

/** Buffered rows whose version is not partial: nothing would ever merge or drop them. */
function orphansOf(database: Database.Database): { actorId: ActorId; version: number }[] {
  const rows = database
    .prepare<[], { site_id: Uint8Array; db_version: bigint }>(
      "SELECT DISTINCT site_id, db_version FROM __corro_buffered_changes b WHERE NOT EXISTS" +
        " (SELECT 1 FROM __corro_seq_bookkeeping s" +
        " WHERE s.site_id = b.site_id AND s.db_version = b.db_version)",
    )
    .all();
  return rows.map((row) => ({
    actorId: actorIdFromBytes(row.site_id),
    version: Number(row.db_version),
  }));
}

function dropOrphans(database: Database.Database): Map<ActorId, number> {
  const droppedBy = new Map<ActorId, number>();
  const remove = database.prepare(
    "DELETE FROM __corro_buffered_changes WHERE site_id = ? AND db_version = ?",
  );
  for (const { actorId, version } of orphansOf(database)) {
    remove.run(actorBytes(actorId), BigInt(version));
    droppedBy.set(actorId, (droppedBy.get(actorId) ?? 0) + 1);
  }
  return droppedBy;
}

function isSameBook(one: ActorBook, other: ActorBook): boolean {
  return (
    one.head === other.head &&
    rangesText(one.gaps) === rangesText(other.gaps) &&
    partialsText(one) === partialsText(other)
  );
}

function partialsText({ partials }: ActorBook): string {
  return [...partials]
    .toSorted(([left], [right]) => left - right)
    .map(([version, partial]) => `${version}/${partialText(partial)}`)
    .join(" ");
}

function partialText({ seqs, lastSeq }: PartialVersion): string {
  return `${lastSeq}:${rangesText(seqs)}`;
}

function rangesText(ranges: readonly VersionRange[]): string {
  return ranges.map(({ start, end }) => `${start}-${end}`).join(",");
}

/** The record of versions by actor id. */
class RecordedVersions {
  readonly #greatest: Database.Statement<[Uint8Array], bigint | null>;
  readonly #within: Database.Statement<[Uint8Array, bigint, bigint, number], bigint>;

  constructor(database: Database.Database) {
    const ordinal = "(SELECT ordinal FROM crsql_site_id WHERE site_id = ?)";
    this.#greatest = database
      .prepare<[Uint8Array], bigint | null>(
        `SELECT max(version) FROM __patina_versions WHERE actor = ${ordinal}`,
      )
      .pluck();
    this.#within = database
      .prepare<[Uint8Array, bigint, bigint, number], bigint>(
        `SELECT version FROM __patina_versions WHERE actor = ${ordinal}` +
          " AND version BETWEEN ? AND ? AND NOT EXISTS (SELECT 1 FROM __patina_cut_versions c" +
          " WHERE c.version = __patina_versions.version AND c.site_id =" +
          " (SELECT site_id FROM crsql_site_id WHERE ordinal = __patina_versions.actor)) LIMIT ?",
      )
      .pluck();
  }

  /** Greatest version of which rows are recorded; 0 = none. */
  greatest(actorId: ActorId): number {
    return Number(this.#greatest.get(actorBytes(actorId)) ?? 0n);
  }

  /** Versions of a range of which rows are recorded, not cut short; at most `limit` of them. */
  within(actorId: ActorId, { start, end }: VersionRange, limit = -1): number[] {
    const versions = this.#within.all(actorBytes(actorId), BigInt(start), BigInt(end), limit);
    return versions.map(Number);
  }
}

/** Of one report. */
const FINDINGS_MAX = 1_000;
/** About 20 ms of work at 5 columns a row. */
const KEYS_PER_SLICE = 20_000;
