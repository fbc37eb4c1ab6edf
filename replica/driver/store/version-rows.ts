/**
 * Reads the rows of one stored version back as changes.
 *
 * One prepared UNION ALL over the clock tables finds which columns a local number holds, then each
 * row is read once for its key, its causal length and its values: faster than the virtual table
 * `crsql_changes`, which prepares its union over all tables each time.
 */
import type Database from "better-sqlite3";
import type { ColumnChange, SqlValue } from "../../types.ts";
import type { CrrTable, CrrTables } from "./crr-tables.ts";
import { SENTINEL, columnList, keyJoin } from "./crr-tables.ts";
import { quoteName, unseen } from "./sql-text.ts";

/** What is left of a version. */
export interface VersionRows {
  /** Ascending by seq; the columns of one row that follow each other share one key object. */
  readonly changes: readonly ColumnChange[];
  /** Greatest seq that is left; 0 when nothing is. */
  readonly lastSeq: number;
}

/** Reads versions by local number; made anew after a change of the schema. */
export class VersionRowReader {
  readonly #clocks: Database.Statement<[VersionAddress], Clock> | null;
  readonly #tables: readonly StoredTable[];

  constructor(database: Database.Database, tables: CrrTables) {
    this.#tables = [...tables.values()].map((table) => new StoredTable(database, table));
    const parts = [...tables.values()].map(clockSql);
    this.#clocks =
      parts.length === 0
        ? null
        : // Plain numbers are made faster; these are counted from 1 and far below 2^53.
          database.prepare<[VersionAddress], Clock>(parts.join(" UNION ALL ")).safeIntegers(false);
  }

  /**
   * What is left of the version at `local` by the site with `ordinal`. Left out are rows with a
   * column version of 0 (reset by a resurrection: the value is older than the row) and a sentinel
   * that shares its seq with a column (made up by the merge of that column, not by the origin).
   */
  read(local: number, ordinal: bigint): VersionRows {
    const clocks = this.#clocks?.all({ local: BigInt(local), site: ordinal }) ?? [];
    clocks.sort((left, right) => left.seq - right.seq);
    const columnSeqs = new Set<number>();
    for (const { cid, seq } of clocks) if (cid !== SENTINEL) columnSeqs.add(seq);
    const changes: ColumnChange[] = [];
    let row: StoredRow | null = null;
    for (const clock of clocks) {
      const isSentinel = clock.cid === SENTINEL;
      if (isSentinel && columnSeqs.has(clock.seq)) continue;
      const table = this.#tables[clock.tbl];
      if (table === undefined) continue;
      if (row === null || row.key !== clock.key || row.table !== table) row = table.read(clock.key);
      const val = isSentinel ? null : row.values[table.indexByName.get(clock.cid) ?? -1];
      if (val === undefined) continue;
      const { pk, cl } = row;
      const { cid, colVersion, seq } = clock;
      changes.push({ table: table.name, pk, cid, val, colVersion, seq, cl });
    }
    return { changes, lastSeq: changes.at(-1)?.seq ?? 0 };
  }
}

/** One row as stored; `values` is empty where the row is deleted. */
interface StoredRow {
  readonly table: StoredTable;
  readonly key: number;
  readonly pk: Uint8Array;
  readonly cl: number;
  readonly values: readonly SqlValue[];
}

/** Reads rows of one table by lookaside key. */
class StoredTable {
  readonly name: string;
  /** Where each column's value is among a row's. */
  readonly indexByName: ReadonlyMap<string, number>;
  readonly #statement: Database.Statement<[bigint], SqlValue[]>;

  constructor(database: Database.Database, table: CrrTable) {
    this.name = table.name;
    this.indexByName = new Map(table.values.map((column, index) => [column.name, index]));
    this.#statement = database.prepare<[bigint], SqlValue[]>(rowSql(table)).raw();
  }

  read(key: number): StoredRow {
    const [pk, cl, isPresent, ...values] = this.#statement.get(BigInt(key)) ?? [];
    return {
      table: this,
      key,
      // Of its own: the driver's blobs are views of a larger buffer.
      pk: pk instanceof Uint8Array ? new Uint8Array(pk) : NO_BYTES,
      cl: Number(cl ?? 1),
      values: isPresent === 1n ? values : [],
    };
  }
}

/** Table (its index in name order), lookaside key, column, column version and seq. */
function clockSql(table: CrrTable, index: number): string {
  return (
    `SELECT ${index} AS tbl, key, col_name AS cid, col_version AS colVersion, seq` +
    ` FROM ${quoteName(`${table.name}__crsql_clock`)}` +
    ` WHERE db_version = ${unseen(":local")} AND site_id = ${unseen(":site")}` +
    " AND col_version <> 0"
  );
}

/** Packed key, causal length, whether the row is there, values. */
function rowSql(table: CrrTable): string {
  const clock = quoteName(`${table.name}__crsql_clock`);
  const keys = quoteName(`${table.name}__crsql_pks`);
  const [firstKey] = table.keys;
  const present = firstKey === undefined ? "0" : `t.${quoteName(firstKey.name)} IS NOT NULL`;
  const values = table.values.length === 0 ? "" : `, ${columnList(table.values, "t")}`;
  return (
    `SELECT crsql_pack_columns(${columnList(table.keys, "p")}),` +
    ` (SELECT col_version FROM ${clock} WHERE key = p.__crsql_key AND col_name = '${SENTINEL}'),` +
    ` ${present}${values} FROM ${keys} p` +
    ` LEFT JOIN ${quoteName(table.name)} t ON ${keyJoin(table, "t", "p")}` +
    ` WHERE p.__crsql_key = ${unseen("?")}`
  );
}

interface VersionAddress {
  readonly local: bigint;
  readonly site: bigint;
}

interface Clock {
  /** Index of the table in name order. */
  readonly tbl: number;
  readonly key: number;
  readonly cid: string;
  readonly colVersion: number;
  readonly seq: number;
}

const NO_BYTES = new Uint8Array();
