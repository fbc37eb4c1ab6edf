/**
 * What a data plane serves from before its replica is up: the table's file, else the database as it
 * was left.
 */
import { existsSync } from "node:fs";
import type { Logger } from "#base/logger.ts";
import { readTableSnapshot } from "../replica/driver/store/table-snapshot.ts";
import { ROUTING_TABLES, type DataPlane } from "./data-plane.ts";
import { readTableFile, setAside, tableFileOf, type TableFile } from "./table-file.ts";

/** Where a first table came from. `savedMs` is when the file was written, by the wall clock. */
export type FirstTable =
  | { readonly source: "file"; readonly savedMs: number }
  | { readonly source: "database" };

/**
 * Fills the table of a plane that is new; null = there is nothing to fill it from. Throws
 * `STORE_CORRUPT` and the like when there is no file, and the database cannot be read.
 */
export function loadFirstTable(
  plane: DataPlane,
  options: {
    readonly databasePath: string;
    readonly log: Logger;
    /** See `QuarantineState`: all rows at once may be what stalled the last start. */
    readonly cautiousUntil: number | null;
    /** What is in the database may be what stalled: the file or nothing. */
    readonly isFrozen?: boolean;
  },
): FirstTable | null {
  const { databasePath, log, cautiousUntil, isFrozen = false } = options;
  if (cautiousUntil === 0) return null;
  // A table without its database is somebody else's, or of one that was removed on purpose.
  if (!existsSync(databasePath)) return null;
  const file = readOrSetAside(tableFileOf(databasePath), log);
  // One written before the first machine was known routes nothing; the database may know more.
  const isOfUse = cautiousUntil !== null || file?.rows.some(({ table }) => table === "machines");
  if (file !== null && isOfUse) {
    plane.feed.load(file, { isFromFile: true });
    return { source: "file", savedMs: file.savedMs };
  }
  // The suspected batch is in the database: its rows come one by one with the change stream.
  if (cautiousUntil !== null || isFrozen) return null;
  const snapshot = readTableSnapshot(databasePath, Object.keys(ROUTING_TABLES));
  if (snapshot === null) return null;
  const { tables, watermark } = snapshot;
  const rows = Object.entries(ROUTING_TABLES).flatMap(([table, keyColumns]) =>
    (tables.get(table) ?? []).map((row) => ({
      table,
      key: keyColumns.map((column) => row[column] ?? null),
      row,
      // Whose transaction it was is not in the tables; the evidence of a stall says so.
      actorId: "",
      version: 0,
    })),
  );
  plane.feed.load({ rows, watermark, seen: null }, { isFromFile: false });
  return { source: "database" };
}

function readOrSetAside(path: string, log: Logger): TableFile | null {
  const file = readTableFile(path);
  if (file.ok) return file.value;
  const msg = `the routing table's file is set aside: ${file.error}`;
  log.warn?.("table-file-damaged", msg, { file: path, aside: setAside(path) });
  return null;
}
