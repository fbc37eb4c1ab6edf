/**
 * Reads the rows of one stored version back as changes.
 *
 * One prepared UNION ALL over the clock tables finds which columns a local number holds, then each
 * row is read once for their values: faster than the virtual table `crsql_changes`, which prepares
 * its union over all tables each time.
 */
import type Database from "better-sqlite3";
import type { ColumnChange, SqlValue } from "../../types.ts";
import type { CrrTable, CrrTables } from "./crr-tables.ts";
import { SENTINEL, columnList, keyJoin } from "./crr-tables.ts";
import { quoteName } from "./sql-text.ts";

/** What is left of a version. */
export interface VersionRows {
  /** Ascending by seq. */
  readonly changes: readonly ColumnChange[];
  /** Greatest seq that is left; 0 when nothing is. */
  readonly lastSeq: number;
}

/** Reads versions by local number; made anew after a change of the schema. */
export class VersionRowReader {
  readonly #clocks: Database.Statement<[VersionAddress], ClockRow> | null;
  readonly #values = new Map<string, RowValues>();

  constructor(database: Database.Database, tables: CrrTables) {
    const parts = [...tables.values()].map(clockSql);
    this.#clocks =
      parts.length === 0
        ? null
        : database.prepare<[VersionAddress], ClockRow>(parts.join(" UNION ALL "));
    for (const table of tables.values()) {
      this.#values.set(table.name, new RowValues(database, table));
    }
  }

  /**
   * What is left of the version at `local` by the site with `ordinal`. Left out are rows with a
   * column version of 0 (reset by a resurrection: the value is older than the row) and a sentinel
   * that shares its seq with a column (made up by the merge of that column, not by the origin).
   */
  read(local: number, ordinal: bigint): VersionRows {
    const rows = this.#clocks?.all({ local: BigInt(local), site: ordinal }) ?? [];
    rows.sort((left, right) => Number(left.seq - right.seq));
    const columnSeqs = new Set<bigint>();
    for (const row of rows) if (row.cid !== SENTINEL) columnSeqs.add(row.seq);
    const changes: ColumnChange[] = [];
    let previous: { row: ClockRow; values: readonly SqlValue[] } | null = null;
    for (const row of rows) {
      const isSentinel = row.cid === SENTINEL;
      if (isSentinel && columnSeqs.has(row.seq)) continue;
      if (!isSentinel && (previous === null || !isSameRow(previous.row, row))) {
        previous = { row, values: this.#values.get(row.tbl)?.read(row.key) ?? [] };
      }
      const val = isSentinel
        ? null
        : this.#values.get(row.tbl)?.pick(previous?.values ?? [], row.cid);
      if (val === undefined) continue;
      changes.push(toChange(row, val));
    }
    return { changes, lastSeq: changes.at(-1)?.seq ?? 0 };
  }
}

/** The values of one row by its lookaside key. */
class RowValues {
  readonly #statement: Database.Statement<[bigint], SqlValue[]> | null;
  readonly #indexByName = new Map<string, number>();

  constructor(database: Database.Database, table: CrrTable) {
    for (const [index, column] of table.values.entries()) this.#indexByName.set(column.name, index);
    const sql =
      `SELECT ${columnList(table.values, "t")} FROM ${quoteName(`${table.name}__crsql_pks`)} p` +
      ` JOIN ${quoteName(table.name)} t ON ${keyJoin(table, "t", "p")} WHERE p.__crsql_key = ?`;
    this.#statement =
      table.values.length === 0 ? null : database.prepare<[bigint], SqlValue[]>(sql).raw();
  }

  read(key: bigint): readonly SqlValue[] {
    return this.#statement?.get(key) ?? [];
  }

  /** One column's value; undefined when there is no such row or column. */
  pick(values: readonly SqlValue[], column: string): SqlValue | undefined {
    const index = this.#indexByName.get(column);
    return index === undefined ? undefined : values[index];
  }
}

function clockSql(table: CrrTable): string {
  const name = `'${table.name.replaceAll("'", "''")}'`;
  const clock = quoteName(`${table.name}__crsql_clock`);
  const keys = quoteName(`${table.name}__crsql_pks`);
  return (
    `SELECT ${name} AS tbl, crsql_pack_columns(${columnList(table.keys, "p")}) AS pk,` +
    " c.key AS key, c.col_name AS cid, c.col_version AS colVersion, c.seq AS seq," +
    " COALESCE(s.col_version, 1) AS cl" +
    ` FROM ${clock} c JOIN ${keys} p ON p.__crsql_key = c.key` +
    ` LEFT JOIN ${clock} s ON s.key = c.key AND s.col_name = '${SENTINEL}'` +
    " WHERE c.db_version = :local AND c.site_id = :site AND c.col_version <> 0"
  );
}

function isSameRow(left: ClockRow, right: ClockRow): boolean {
  return left.key === right.key && left.tbl === right.tbl;
}

function toChange(row: ClockRow, val: SqlValue): ColumnChange {
  return {
    table: row.tbl,
    pk: new Uint8Array(row.pk),
    cid: row.cid,
    val,
    colVersion: Number(row.colVersion),
    seq: Number(row.seq),
    cl: Number(row.cl),
  };
}

interface VersionAddress {
  readonly local: bigint;
  readonly site: bigint;
}

interface ClockRow {
  readonly tbl: string;
  readonly pk: Uint8Array;
  readonly key: bigint;
  readonly cid: string;
  readonly colVersion: bigint;
  readonly seq: bigint;
  readonly cl: bigint;
}
