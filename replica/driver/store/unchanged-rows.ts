/**
 * Takes back what a transaction did to rows that are, at its end, what they were before it.
 *
 * cr-sqlite's triggers compare each statement with the row that it finds, so an UPDATE with equal
 * values leaves no trace. Not so `INSERT OR REPLACE` of an equal row, or a DELETE and an INSERT of it:
 * the row is buried and resurrected, all of its columns travel, and a writer in a loop floods the
 * cluster with nothing. Nor a value that is set away and back, or a row that came and went.
 *
 * Such a transaction is known by a resurrection among its changes, or by seqs of which nothing is
 * left. Only then are its rows compared with what is committed, over a second connection, and the
 * clocks of those that are equal put back. A row of which a value differs stays as cr-sqlite has it.
 */
import Database from "better-sqlite3";
import { unpackKey } from "../../core/wire/packed-key.ts";
import { assert } from "#base/errors.ts";
import type { ColumnChange, SqlValue } from "../../types.ts";
import { columnNames, SENTINEL, type CrrTable, type CrrTables } from "./crr-tables.ts";
import { quoteName } from "./sql-text.ts";
import type { VersionRows } from "./version-rows.ts";

/** Whether a transaction may have left something as it was. */
export function mayBeUnchanged({ changes, lastSeq }: VersionRows): boolean {
  if (changes.length <= lastSeq) return true;
  return changes.some(({ cid, cl }) => cid === SENTINEL && cl > 1 && cl % 2 === 1);
}

/** Knows rows before a transaction and in it; made anew after a change of the schema. */
export class UnchangedRows {
  readonly #database: Database.Database;
  readonly #tables: CrrTables;
  readonly #comparers = new Map<string, RowComparer>();
  /** Sees what is committed; opened when it is first needed. */
  #committed: Database.Database | null = null;

  constructor(database: Database.Database, tables: CrrTables) {
    this.#database = database;
    this.#tables = tables;
  }

  /**
   * Puts the clocks of unchanged rows and columns back, inside the transaction that made `changes`.
   * O(rows of the transaction).
   */
  putBack(changes: readonly ColumnChange[]): void {
    for (const ofRow of byRow(changes)) {
      const table = this.#tables.get(ofRow[0]?.table ?? "");
      if (table !== undefined) this.#comparer(table).putBack(ofRow);
    }
  }

  /** Closes the second connection. */
  close(): void {
    this.#committed?.close();
    this.#committed = null;
    this.#comparers.clear();
  }

  #comparer(table: CrrTable): RowComparer {
    const known = this.#comparers.get(table.name);
    if (known !== undefined) return known;
    this.#committed ??= openCommitted(this.#database.name);
    const comparer = new RowComparer(
      { database: this.#database, committed: this.#committed },
      table,
    );
    this.#comparers.set(table.name, comparer);
    return comparer;
  }
}

function openCommitted(path: string): Database.Database {
  const committed = new Database(path, { readonly: true, fileMustExist: true });
  committed.defaultSafeIntegers(true);
  return committed;
}

/** One row as one side has it. */
interface RowState {
  /** Values outside the key by name; null = there is no row. */
  readonly values: ReadonlyMap<string, SqlValue> | null;
  readonly clocks: readonly Clock[];
}

interface Clock {
  readonly col_name: string;
  readonly col_version: bigint;
  readonly db_version: bigint;
  readonly site_id: bigint;
  readonly seq: bigint;
}

/** The rows of one table, before the transaction and in it. */
class RowComparer {
  readonly #before: RowQueries;
  readonly #after: RowQueries;
  readonly #deleteClocks: Database.Statement;
  readonly #insertClock: Database.Statement;
  readonly #deleteKey: Database.Statement;

  constructor(
    of: { readonly database: Database.Database; readonly committed: Database.Database },
    table: CrrTable,
  ) {
    this.#before = new RowQueries(of.committed, table);
    this.#after = new RowQueries(of.database, table);
    const clock = quoteName(`${table.name}__crsql_clock`);
    const keys = quoteName(`${table.name}__crsql_pks`);
    this.#deleteClocks = of.database.prepare(`DELETE FROM ${clock} WHERE key = ?`);
    this.#insertClock = of.database.prepare(
      `INSERT OR REPLACE INTO ${clock} (key, col_name, col_version, db_version, site_id, seq)` +
        " VALUES (?, ?, ?, ?, ?, ?)",
    );
    this.#deleteKey = of.database.prepare(`DELETE FROM ${keys} WHERE __crsql_key = ?`);
  }

  /** Puts back what is unchanged of the row of `changes`. */
  putBack(changes: readonly ColumnChange[]): void {
    const [first] = changes;
    if (first === undefined) return;
    const unpacked = unpackKey(first.pk);
    assert(unpacked.ok, "a key of our own can be read");
    const key = unpacked.value;
    const lookaside = this.#after.lookaside(key);
    if (lookaside === null) return;
    const before = this.#before.read(key);
    const after = this.#after.read(key);
    if (isSameRow(before, after)) {
      this.#deleteClocks.run(lookaside);
      for (const clock of before.clocks) this.#write(lookaside, clock);
      if (this.#before.lookaside(key) === null) this.#deleteKey.run(lookaside);
    } else {
      this.#putBackColumns({ changes, before, after, lookaside });
    }
  }

  /** In one life of a row, columns that were set away and back. */
  #putBackColumns(of: {
    readonly changes: readonly ColumnChange[];
    readonly before: RowState;
    readonly after: RowState;
    readonly lookaside: bigint;
  }): void {
    const { before, after, changes, lookaside } = of;
    if (before.values === null || after.values === null) return;
    const sentinelOf = ({ clocks }: RowState): bigint =>
      clocks.find(({ col_name }) => col_name === SENTINEL)?.col_version ?? 1n;
    if (sentinelOf(before) !== sentinelOf(after)) return;
    for (const { cid } of changes) {
      const clock = before.clocks.find(({ col_name }) => col_name === cid);
      if (clock === undefined || cid === SENTINEL) continue;
      if (isSameValue(before.values.get(cid), after.values.get(cid))) this.#write(lookaside, clock);
    }
  }

  #write(lookaside: bigint, clock: Clock): void {
    const { col_name, col_version, db_version, site_id, seq } = clock;
    this.#insertClock.run(lookaside, col_name, col_version, db_version, site_id, seq);
  }
}

/** What is asked of one connection about rows of one table. */
class RowQueries {
  readonly #names: readonly string[];
  readonly #row: Database.Statement<SqlValue[], SqlValue[]>;
  readonly #lookaside: Database.Statement<SqlValue[], bigint>;
  readonly #clocks: Database.Statement<[bigint], Clock>;

  constructor(database: Database.Database, table: CrrTable) {
    const where = table.keys.map(({ name }) => `${quoteName(name)} = ?`).join(" AND ");
    const columns = table.values.length === 0 ? "1" : columnNames(table.values);
    const lookaside = quoteName(`${table.name}__crsql_pks`);
    const clock = quoteName(`${table.name}__crsql_clock`);
    this.#names = table.values.map(({ name }) => name);
    this.#row = database
      .prepare<SqlValue[], SqlValue[]>(
        `SELECT ${columns} FROM ${quoteName(table.name)} WHERE ${where}`,
      )
      .raw();
    this.#lookaside = database
      .prepare<SqlValue[], bigint>(`SELECT __crsql_key FROM ${lookaside} WHERE ${where}`)
      .pluck();
    this.#clocks = database.prepare<[bigint], Clock>(
      `SELECT col_name, col_version, db_version, site_id, seq FROM ${clock} WHERE key = ?`,
    );
  }

  /** cr-sqlite's number for a key; null = it has none. */
  lookaside(key: readonly SqlValue[]): bigint | null {
    return this.#lookaside.get(...key) ?? null;
  }

  read(key: readonly SqlValue[]): RowState {
    const lookaside = this.lookaside(key);
    const row = this.#row.get(...key);
    return {
      values:
        row === undefined ? null : new Map(this.#names.map((name, at) => [name, row[at] ?? null])),
      clocks: lookaside === null ? [] : this.#clocks.all(lookaside),
    };
  }
}

function isSameRow(before: RowState, after: RowState): boolean {
  if (before.values === null || after.values === null) return before.values === after.values;
  for (const [name, value] of before.values) {
    if (!isSameValue(value, after.values.get(name))) return false;
  }
  return true;
}

/** Of the same type, too: 1 and 1.0 are two values. */
function isSameValue(one: SqlValue | undefined, other: SqlValue | undefined): boolean {
  if (one instanceof Uint8Array && other instanceof Uint8Array) {
    return Buffer.compare(one, other) === 0;
  }
  return Object.is(one, other);
}

function byRow(changes: readonly ColumnChange[]): Iterable<readonly ColumnChange[]> {
  const rows = new Map<string, ColumnChange[]>();
  for (const change of changes) {
    const name = `${change.table} ${Buffer.from(change.pk).toString("latin1")}`;
    const known = rows.get(name);
    if (known === undefined) rows.set(name, [change]);
    else known.push(change);
  }
  return rows.values();
}
