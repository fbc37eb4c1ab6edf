/**
 * Writes rows of keys that are not known yet directly, into the table and its clocks.
 *
 * `crsql_changes` merges one column at a time: for each it looks the key up, its causal length and
 * the column's clock, and then updates the row. Of a key that was never seen nothing can lose, so a
 * row whose columns arrive together is written here by three statements, and what is stored
 * afterwards is the same to the byte (`store-fuzz.e2e.test.ts` compares them). Everything else is
 * left to cr-sqlite: known keys, sentinels, deletes, resurrections.
 *
 * Source: cr-sqlite 0.16.3, `changes_vtab_write.rs` (`merge_insert`) and `tableinfo.rs`.
 */
import type Database from "better-sqlite3";
import { unpackKey } from "../../core/wire/packed-key.ts";
import { assert } from "#base/errors.ts";
import type { ColumnChange, SqlValue } from "../../types.ts";
import type { CrrTable, CrrTables } from "./crr-tables.ts";
import { SENTINEL, columnNames } from "./crr-tables.ts";
import { quoteName } from "./sql-text.ts";

/** Where a row's clocks say that it comes from. */
export interface RowOrigin {
  /** Local number of the version. */
  readonly local: number;
  /** Ordinal of the actor in `crsql_site_id`. */
  readonly ordinal: number;
}

/** Writes rows inside a transaction of the caller's: `begin`, `write` ..., `finish`. */
export class RowWriter {
  readonly #tables = new Map<string, TableWriter>();
  readonly #setSyncBit: Database.Statement;
  /** Whether it is known to be set: cr-sqlite clears it after each column that it writes. */
  #isSyncBitSet = false;
  /** Whether it was set in this transaction and may be so still. */
  #mayBeSet = false;

  constructor(database: Database.Database, tables: CrrTables) {
    this.#setSyncBit = database.prepare("SELECT crsql_internal_sync_bit(?)");
    for (const table of tables.values()) {
      this.#tables.set(table.name, new TableWriter(database, table));
    }
  }

  /**
   * Writes the row of `changes` from `at` up to `end`, as `rowEnd` found it, all checked before.
   * Returns its lookaside key, or null when it is for cr-sqlite to merge: nothing is written then.
   */
  write(
    changes: readonly ColumnChange[],
    row: { readonly at: number; readonly end: number },
    origin: RowOrigin,
  ): number | null {
    const first = changes[row.at];
    const table = first === undefined ? undefined : this.#tables.get(first.table);
    if (first === undefined || table === undefined) return null;
    const columns = table.columnsOf(changes, row);
    const key = columns === null ? null : table.addKey(first.pk);
    if (columns === null || key === null) return null;
    if (!this.#isSyncBitSet) {
      // Off, the table's triggers would take the row for one that is written here.
      this.#setSyncBit.get(1n);
      this.#isSyncBitSet = true;
      this.#mayBeSet = true;
    }
    columns.write(changes, { ...row, ...origin, ...key });
    return key.key;
  }

  /** Whenever something else may have cleared the bit: a merge of cr-sqlite's, a rollback. */
  noteCleared(): void {
    this.#isSyncBitSet = false;
  }

  /** Before COMMIT: with the bit set, local writes would go untracked. */
  finish(): void {
    if (this.#mayBeSet) this.#setSyncBit.get(0n);
    this.#isSyncBitSet = false;
    this.#mayBeSet = false;
  }
}

/**
 * Where the row that begins at `at` ends: behind the changes of the same key that follow each other.
 * `at` itself when it cannot be written directly: a sentinel, or a causal length that needs one.
 */
export function rowEnd(changes: readonly ColumnChange[], at: number): number {
  const first = changes[at];
  if (first === undefined) return at;
  let end = at;
  for (let change = changes[at]; change !== undefined; change = changes[++end]) {
    if (change.cl !== 1 || change.cid === SENTINEL) return at;
    if (change.table !== first.table || !isSameKey(change.pk, first.pk)) break;
  }
  return end;
}

/** Statements of one table. */
class TableWriter {
  readonly #database: Database.Database;
  readonly #table: CrrTable;
  readonly #addKey: Database.Statement;
  /** By the columns' names; null = they cannot be written so. Bounded. */
  readonly #byNames = new Map<string, ColumnsWriter | null>();
  /** The last one used: rows of one transaction tend to have the same columns. */
  #last: ColumnsWriter | null = null;

  constructor(database: Database.Database, table: CrrTable) {
    this.#database = database;
    this.#table = table;
    const keys = quoteName(`${table.name}__crsql_pks`);
    this.#addKey = database
      .prepare(
        `INSERT OR IGNORE INTO ${keys} (${columnNames(table.keys)})` +
          ` VALUES (${marks(table.keys.length)})`,
      )
      .safeIntegers(false);
  }

  /** Gives the key a lookaside key; null when it has one. */
  addKey(pk: Uint8Array): { key: number; values: readonly SqlValue[] } | null {
    const unpacked = unpackKey(pk);
    assert(unpacked.ok, "a key was checked before the merge");
    const { changes, lastInsertRowid } = this.#addKey.run(...unpacked.value);
    return changes === 0 ? null : { key: Number(lastInsertRowid), values: unpacked.value };
  }

  /** What writes rows of these columns; null when there is none. */
  columnsOf(
    changes: readonly ColumnChange[],
    row: { readonly at: number; readonly end: number },
  ): ColumnsWriter | null {
    if (this.#last?.isFor(changes, row) === true) return this.#last;
    const names = changes.slice(row.at, row.end).map(({ cid }) => cid);
    const text = names.join("\0");
    let writer = this.#byNames.get(text);
    if (writer === undefined) {
      if (this.#byNames.size >= COLUMN_SETS_MAX) return null;
      const isSet = new Set(names).size === names.length && names.length <= COLUMNS_MAX;
      writer = isSet ? new ColumnsWriter(this.#database, this.#table, names) : null;
      this.#byNames.set(text, writer);
    }
    this.#last = writer;
    return writer;
  }
}

/** Statements of one table and a list of its columns. */
class ColumnsWriter {
  readonly #names: readonly string[];
  readonly #insertRow: Database.Statement;
  readonly #insertClocks: Database.Statement;

  constructor(database: Database.Database, table: CrrTable, names: readonly string[]) {
    this.#names = names;
    const columns = names.map(quoteName);
    // A row may be there, written while the table was no CRR; cr-sqlite goes over it, too.
    this.#insertRow = database.prepare(
      `INSERT INTO ${quoteName(table.name)} (${columnNames(table.keys)}, ${columns.join(", ")})` +
        ` VALUES (${marks(table.keys.length + names.length)}) ON CONFLICT DO UPDATE SET ` +
        columns.map((column) => `${column} = excluded.${column}`).join(", "),
    );
    // FAIL spares the journal by which a statement of several rows could be undone alone: whoever
    // calls undoes the whole transaction.
    this.#insertClocks = database.prepare(
      `INSERT OR FAIL INTO ${quoteName(`${table.name}__crsql_clock`)}` +
        " (key, col_name, col_version, db_version, seq, site_id) VALUES " +
        names.map((name) => `(?, '${name.replaceAll("'", "''")}', ?, ?, ?, ?)`).join(", "),
    );
  }

  isFor(changes: readonly ColumnChange[], row: { at: number; end: number }): boolean {
    if (row.end - row.at !== this.#names.length) return false;
    return this.#names.every((name, index) => changes[row.at + index]?.cid === name);
  }

  write(
    changes: readonly ColumnChange[],
    row: RowOrigin & { at: number; end: number; key: number; values: readonly SqlValue[] },
  ): void {
    const { key, local, ordinal } = row;
    const values = [...row.values];
    // The clock table is STRICT: plain numbers, which bind faster, become integers there.
    const clocks: number[] = [];
    for (let at = row.at; at < row.end; at += 1) {
      const change = changes[at];
      if (change === undefined) break;
      values.push(change.val);
      clocks.push(key, change.colVersion, local, change.seq, ordinal);
    }
    this.#insertRow.run(...values);
    this.#insertClocks.run(...clocks);
  }
}

function isSameKey(left: Uint8Array, right: Uint8Array): boolean {
  if (left === right) return true;
  return left.length === right.length && left.every((byte, index) => byte === right[index]);
}

function marks(count: number): string {
  return Array.from({ length: count }, () => "?").join(", ");
}

/** Of one table. A row that is written whole has one; the others come from partly overwritten rows. */
const COLUMN_SETS_MAX = 64;
/** SQLite takes 32,766 parameters in one statement; no table is near. */
const COLUMNS_MAX = 1_000;
