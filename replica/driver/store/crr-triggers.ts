/**
 * The triggers by which cr-sqlite sees local writes, for a table that has got new columns.
 *
 * `crsql_commit_alter` makes them anew too, and then looks through all rows and clocks for what a
 * table may lack after an alter of any kind: seconds for a million rows, in a write transaction. After
 * `ADD COLUMN` there is nothing to find (docs/decisions/0019-columns-by-triggers.md), so only the
 * triggers are made here. Their text is cr-sqlite's own: it makes them for an empty table of the same
 * definition, in a database in memory, and they are copied.
 *
 * Source: cr-sqlite 0.16.3, `alter.rs`, `create_crr.rs`, `backfill.rs`, `triggers.rs`.
 */
import Database from "better-sqlite3";
import { assert } from "#base/errors.ts";
import { quoteName } from "./sql-text.ts";

/** Replaces the triggers of a CRR after columns were added. Inside a transaction of the caller's. */
export function renewTriggers(
  database: Database.Database,
  table: string,
  extensionPath: string,
): void {
  const sql = database
    .prepare<[string], string>("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ?")
    .pluck()
    .get(table);
  assert(sql !== undefined, "a table that was altered exists");
  for (const trigger of triggersFor({ table, sql, extensionPath })) {
    database.exec(`DROP TRIGGER IF EXISTS main.${quoteName(trigger.name)}`);
    database.exec(trigger.sql);
  }
  // As crsql_commit_alter leaves it: the least that the next local number is counted from.
  database
    .prepare(
      "INSERT OR REPLACE INTO crsql_master (key, value)" +
        " VALUES ('pre_compact_dbversion', crsql_db_version())",
    )
    .run();
}

interface Trigger {
  readonly name: string;
  readonly sql: string;
}

function triggersFor(table: {
  readonly table: string;
  readonly sql: string;
  readonly extensionPath: string;
}): Trigger[] {
  const twin = new Database(":memory:");
  try {
    twin.loadExtension(table.extensionPath);
    twin.exec(table.sql);
    twin.prepare("SELECT crsql_as_crr('main', ?)").get(table.table);
    const triggers = twin
      .prepare<[string], Trigger>(
        "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = ? ORDER BY name",
      )
      .all(table.table);
    assert(triggers.length === TRIGGERS, "a CRR has a trigger for inserts, updates and deletes");
    return triggers;
  } finally {
    // Lets the extension free its statements.
    twin.prepare("SELECT crsql_finalize()").get();
    twin.close();
  }
}

const TRIGGERS = 3;
