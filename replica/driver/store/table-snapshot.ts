/**
 * Reads tables straight from the database file, without cr-sqlite and without the store worker: how
 * the data plane gets its first routing table before the replica is up.
 */
import { existsSync } from "node:fs";
import Database from "better-sqlite3";
import type { SqlValue, Watermark } from "../../types.ts";
import { toFileError } from "./errors.ts";
import { quoteName } from "./sql-text.ts";

/** Rows of one moment. */
export interface TableSnapshot {
  /** Rows by table, column name to value; a table that does not exist has none. */
  readonly tables: ReadonlyMap<string, readonly Readonly<Record<string, SqlValue>>[]>;
  /** Where the change stream goes on. */
  readonly watermark: Watermark;
}

/**
 * Reads all rows of `tables` and the watermark in one read transaction. Null when there is no
 * database yet. Throws `STORE_CORRUPT` when the file is not one of ours or is damaged, `STORE_BUSY`
 * or `STORE_FULL` when it cannot be read.
 */
export function readTableSnapshot(path: string, tables: readonly string[]): TableSnapshot | null {
  if (!existsSync(path)) return null;
  let database: Database.Database | null = null;
  try {
    database = new Database(path, { readonly: true, timeout: BUSY_TIMEOUT_MS });
    database.defaultSafeIntegers(true);
    database.prepare("BEGIN").run();
    const watermark = readWatermark(database);
    if (watermark === null) return null;
    const rowsByTable = new Map(tables.map((table) => [table, readRows(database, table)]));
    return { tables: rowsByTable, watermark };
  } catch (thrown) {
    throw toFileError(thrown, path, "STORE_CORRUPT");
  } finally {
    database?.close();
  }
}

/** Null when the store was never finished setting up. */
function readWatermark(database: Database.Database): Watermark | null {
  const state = database.prepare("SELECT 1 FROM sqlite_master WHERE name = '__patina_state'").get();
  if (state === undefined) return null;
  const databaseId = database
    .prepare("SELECT value FROM __patina_state WHERE key = 'database_id'")
    .pluck()
    .get();
  if (typeof databaseId !== "string") return null;
  const last = database.prepare("SELECT max(local) FROM __patina_versions").pluck().get();
  return { databaseId, dbVersion: Number(last ?? 0) };
}

function readRows(database: Database.Database | null, table: string): Record<string, SqlValue>[] {
  if (database === null) return [];
  const present = database.prepare("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?");
  if (present.get(table) === undefined) return [];
  return database.prepare<[], Record<string, SqlValue>>(`SELECT * FROM ${quoteName(table)}`).all();
}

/** At boot another process may still be closing the file. */
const BUSY_TIMEOUT_MS = 1000;
