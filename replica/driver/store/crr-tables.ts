/**
 * What the store needs to know of each replicated table: columns, keys, and what a peer may put
 * into them. Read from the database's catalogue after each change of the schema.
 */
import type Database from "better-sqlite3";
import { unpackKey } from "../../core/wire/packed-key.ts";
import type { ColumnChange, SqlValue } from "../../types.ts";
import type { ColumnSpec } from "./schema-files.ts";
import { readColumns } from "./schema-files.ts";
import { checkTexts, isInternalName, quoteName, tokenize } from "./sql-text.ts";

/** One replicated table. */
export interface CrrTable {
  readonly name: string;
  readonly isStrict: boolean;
  /** Whether it has CHECK constraints, which local writes are held to and merges are not. */
  readonly hasChecks: boolean;
  /** Key columns in key order. */
  readonly keys: readonly ColumnSpec[];
  /** Columns outside the key, generated ones left out. */
  readonly values: readonly ColumnSpec[];
  readonly valueByName: ReadonlyMap<string, ColumnSpec>;
}

/** The replicated tables by name, in name order. */
export type CrrTables = ReadonlyMap<string, CrrTable>;

/** Reads the replicated tables from the catalogue. */
export function readCrrTables(database: Database.Database): CrrTables {
  const names = database
    .prepare<[], { name: string; strict: number; sql: string }>(
      "SELECT l.name, l.strict, t.sql FROM pragma_table_list l" +
        " JOIN sqlite_master t ON t.type = 'table' AND t.name = l.name" +
        " JOIN sqlite_master c ON c.name = l.name || '__crsql_clock'" +
        " WHERE l.schema = 'main' ORDER BY l.name",
    )
    .safeIntegers(false)
    .all();
  const tables = new Map<string, CrrTable>();
  for (const { name, strict, sql } of names) {
    const columns = readColumns(database, name);
    const keys = columns.filter((column) => column.keyPosition > 0);
    keys.sort((left, right) => left.keyPosition - right.keyPosition);
    const values = columns.filter((column) => column.keyPosition === 0 && !column.isGenerated);
    const valueByName = new Map(values.map((column) => [column.name, column]));
    const hasChecks = checkTexts(tokenize(sql)).length > 0;
    tables.set(name, { name, isStrict: strict === 1, hasChecks, keys, values, valueByName });
  }
  return tables;
}

/** `"x", "y"` for columns. */
export function columnNames(columns: readonly ColumnSpec[]): string {
  return columns.map((column) => quoteName(column.name)).join(", ");
}

/** `a."x", a."y"` for columns. */
export function columnList(columns: readonly ColumnSpec[], prefix: string): string {
  return columns.map((column) => `${prefix}.${quoteName(column.name)}`).join(", ");
}

/** `a."x" = b."x" AND ...` over the key. */
export function keyJoin(table: CrrTable, left: string, right: string): string {
  const parts = table.keys.map((key) => {
    const name = quoteName(key.name);
    return `${left}.${name} = ${right}.${name}`;
  });
  return parts.join(" AND ");
}

/**
 * Whether the schema has the table and the column of a change. cr-sqlite leaves half a row behind
 * for an unknown column.
 */
export function isKnownChange(
  tables: CrrTables,
  change: Pick<ColumnChange, "table" | "cid">,
): boolean {
  const table = tables.get(change.table);
  return table !== undefined && (change.cid === SENTINEL || table.valueByName.has(change.cid));
}

/**
 * Checks one change from a peer as cr-sqlite would need it: it aborts the process on bad keys. Null =
 * good, as far as can be said where the table or the column is unknown; else the reason. `previous` is
 * the change checked before: the columns of a row share one key object, which is then decoded once.
 */
export function checkChange(
  tables: CrrTables,
  change: ColumnChange,
  previous: ColumnChange | null,
): string | null {
  const table = tables.get(change.table);
  if (table === undefined) return numbersReason(change) ?? unknownTableReason(change);
  const isSameKey = previous?.pk === change.pk && previous.table === change.table;
  const keyProblem = isSameKey ? null : keyReason(table, change.pk);
  return keyProblem ?? numbersReason(change) ?? valueReason(table, change);
}

function unknownTableReason(change: ColumnChange): string | null {
  if (isInternalName(change.table)) return `table ${change.table} is internal`;
  const key = unpackKey(change.pk);
  if (!key.ok) return `key of ${change.table}: ${key.error}`;
  return deletedReason(change);
}

function deletedReason({ table, cid, cl }: ColumnChange): string | null {
  return cid !== SENTINEL && cl % 2 === 0 ? `column ${table}.${cid} of a deleted row` : null;
}

function keyReason(table: CrrTable, pk: Uint8Array): string | null {
  const key = unpackKey(pk);
  if (!key.ok) return `key of ${table.name}: ${key.error}`;
  if (key.value.length !== table.keys.length)
    return `key of ${table.name}: wrong number of columns`;
  for (const [index, column] of table.keys.entries()) {
    const value = key.value[index] ?? null;
    if (!keyFits(column, value)) return `key of ${table.name}: wrong type for ${column.name}`;
  }
  return null;
}

function numbersReason(change: ColumnChange): string | null {
  if (change.cl < 1) return "causal length below 1";
  if (change.colVersion < 0) return "column version below 0";
  return change.seq < 0 ? "seq below 0" : null;
}

function valueReason(table: CrrTable, change: ColumnChange): string | null {
  if (change.cid === SENTINEL) return null;
  const deleted = deletedReason(change);
  if (deleted !== null) return deleted;
  const column = table.valueByName.get(change.cid);
  if (column === undefined) return null;
  if (change.val === null) {
    return column.isNotNull ? `NULL for ${table.name}.${column.name}` : null;
  }
  if (!table.isStrict) return null;
  return strictFits(column.type, change.val) ? null : `wrong type for ${table.name}.${column.name}`;
}

/**
 * Whether a key value is one that the column would store unchanged. cr-sqlite keeps keys in a
 * table without affinity, so a value that is converted on its way would be two different keys.
 */
function keyFits(column: ColumnSpec, value: SqlValue): boolean {
  if (value === null) return false;
  const type = column.type;
  if (type.includes("INT")) return typeof value === "bigint";
  if (/CHAR|CLOB|TEXT/.test(type)) return typeof value === "string" || value instanceof Uint8Array;
  if (type === "" || type.includes("BLOB")) return true;
  if (/REAL|FLOA|DOUB/.test(type)) return typeof value === "number";
  return typeof value === "bigint" || typeof value === "number";
}

function strictFits(type: string, value: SqlValue): boolean {
  switch (type) {
    case "INT":
    case "INTEGER":
      return typeof value === "bigint";
    case "REAL":
      return typeof value === "number" || typeof value === "bigint";
    case "TEXT":
      return typeof value === "string";
    case "BLOB":
      return value instanceof Uint8Array;
    default:
      return true;
  }
}

/** Column name of the change that creates or deletes a whole row. */
export const SENTINEL = "-1";
