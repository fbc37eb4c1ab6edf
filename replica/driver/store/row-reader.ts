/**
 * Reads rows for the change stream: which rows changed after a position, their present state, and
 * all rows in pages. Everything is found through cr-sqlite's own tables, so a position that was
 * reached before a restart is as good as one of this minute.
 */
import type Database from "better-sqlite3";
import type { StreamPage } from "../../core/change-stream/stream-publisher.ts";
import type { RowChange, SqlValue } from "../../types.ts";
import type { CrrTable, CrrTables } from "./crr-tables.ts";
import { columnList, keyJoin } from "./crr-tables.ts";
import type { Ledger } from "./ledger.ts";
import { quoteName, unseen } from "./sql-text.ts";

/** Where a page of all rows goes on. */
export interface PageCursor {
  readonly table: string;
  /** Rows with a greater lookaside key come next. */
  readonly key: bigint;
}

/** Reads changed rows and all rows; made anew after a change of the schema. */
export class RowReader {
  readonly #ledger: Ledger;
  readonly #tables = new Map<string, TableReader>();
  readonly #names: readonly string[];

  constructor(context: { database: Database.Database; tables: CrrTables; ledger: Ledger }) {
    this.#ledger = context.ledger;
    for (const table of context.tables.values()) {
      this.#tables.set(table.name, new TableReader(context.database, table));
    }
    this.#names = [...this.#tables.keys()];
  }

  /**
   * The rows changed after local number `from` up to `to`, as they are now; null when they are more
   * than `rowsMax`. Each row once, however often it changed. Cost: about 15 us a row.
   */
  changedIn(span: { from: number; to: number }, rowsMax: number): RowChange[] | null {
    const changed: { reader: TableReader; key: bigint; local: bigint }[] = [];
    for (const reader of this.#tables.values()) {
      for (const { key, local } of reader.changedKeys(span, rowsMax + 1 - changed.length)) {
        changed.push({ reader, key, local });
      }
      if (changed.length > rowsMax) return null;
    }
    changed.sort((left, right) => Number(left.local - right.local));
    return changed.map(({ reader, key, local }) => this.#toChange(reader, reader.row(key), local));
  }

  /** About `limit` rows of all, going on at `cursor` (null = from the start). */
  page(cursor: PageCursor | null, limit: number): StreamPage<PageCursor> {
    const table = cursor?.table ?? this.#names[0];
    const reader = table === undefined ? undefined : this.#tables.get(table);
    if (table === undefined || reader === undefined) return { rows: [], next: null };
    const found = reader.page(cursor?.key ?? 0n, limit);
    const rows: RowChange[] = [];
    for (const row of found) {
      if (reader.isPresent(row))
        rows.push(this.#toChange(reader, row, row.at(-1) as bigint | null));
    }
    const last = found.at(-1);
    if (last !== undefined && found.length === limit) {
      return { rows, next: { table, key: last[0] as bigint } };
    }
    const following = this.#names[this.#names.indexOf(table) + 1];
    return { rows, next: following === undefined ? null : { table: following, key: 0n } };
  }

  #toChange(reader: TableReader, row: readonly SqlValue[], local: bigint | null): RowChange {
    const record = local === null ? undefined : this.#ledger.versionAt(Number(local));
    return {
      table: reader.table.name,
      key: reader.key(row),
      row: reader.isPresent(row) ? reader.values(row) : null,
      actorId: record?.actorId ?? this.#ledger.actorId,
      version: record?.version ?? 0,
    };
  }
}

/** Statements of one table. A row read: lookaside key, key columns, all columns, local number. */
class TableReader {
  readonly table: CrrTable;
  readonly #changed: Database.Statement<[bigint, bigint, bigint], { key: bigint; local: bigint }>;
  readonly #row: Database.Statement<[bigint], SqlValue[]>;
  readonly #page: Database.Statement<[bigint, bigint], SqlValue[]>;
  readonly #names: readonly string[];

  constructor(database: Database.Database, table: CrrTable) {
    this.table = table;
    const columns = [...table.keys, ...table.values];
    this.#names = columns.map((column) => column.name);
    const clock = quoteName(`${table.name}__crsql_clock`);
    const keys = quoteName(`${table.name}__crsql_pks`);
    const select =
      `SELECT p.__crsql_key, ${columnList(table.keys, "p")}, ${columnList(columns, "t")},` +
      ` (SELECT max(c.db_version) FROM ${clock} c WHERE c.key = p.__crsql_key)` +
      ` FROM ${keys} p LEFT JOIN ${quoteName(table.name)} t ON ${keyJoin(table, "t", "p")}`;
    this.#row = database
      .prepare<[bigint], SqlValue[]>(`${select} WHERE p.__crsql_key = ${unseen("?")}`)
      .raw();
    this.#page = database
      .prepare<[bigint, bigint], SqlValue[]>(
        `${select} WHERE p.__crsql_key > ${unseen("?")}` +
          ` ORDER BY p.__crsql_key LIMIT ${unseen("?")}`,
      )
      .raw();
    this.#changed = database.prepare(
      `SELECT key, max(db_version) AS local FROM ${clock} INDEXED BY` +
        ` ${quoteName(`${table.name}__crsql_clock_dbv_idx`)} ` +
        ` WHERE db_version > ? AND db_version <= ? GROUP BY key LIMIT ${unseen("?")}`,
    );
  }

  changedKeys(span: { from: number; to: number }, limit: number): { key: bigint; local: bigint }[] {
    return this.#changed.all(BigInt(span.from), BigInt(span.to), BigInt(limit));
  }

  row(key: bigint): readonly SqlValue[] {
    return this.#row.get(key) ?? [];
  }

  page(after: bigint, limit: number): SqlValue[][] {
    return this.#page.all(after, BigInt(limit));
  }

  key(row: readonly SqlValue[]): SqlValue[] {
    return row.slice(1, 1 + this.table.keys.length);
  }

  /** Key columns are never NULL: a missing one means that the join found no row. */
  isPresent(row: readonly SqlValue[]): boolean {
    return (row[1 + this.table.keys.length] ?? null) !== null;
  }

  values(row: readonly SqlValue[]): Record<string, SqlValue> {
    const values: Record<string, SqlValue> = {};
    const first = 1 + this.table.keys.length;
    for (const [index, name] of this.#names.entries()) values[name] = row[first + index] ?? null;
    return values;
  }
}
