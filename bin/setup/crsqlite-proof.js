// @ts-check
/**
 * Shows that a cr-sqlite library works: loads it into SQLite and merges one change from one
 * in-memory database into another. Run on the pinned Node as a child process, because a bad library
 * may end the process it is loaded into. Prints "merged" and exits with 0 when it works.
 */
import Database from "better-sqlite3";

const library = process.argv[2];
if (library === undefined) throw new Error("usage: crsqlite-proof.js LIBRARY");

const [source, target] = [openReplica(library), openReplica(library)];
source.prepare("INSERT INTO t (id, v) VALUES ('a', 1)").run();
const columns = `"table", pk, cid, val, col_version, db_version, site_id, cl, seq`;
const insert = target.prepare(`INSERT INTO crsql_changes (${columns}) VALUES (?,?,?,?,?,?,?,?,?)`);
for (const change of source.prepare(`SELECT ${columns} FROM crsql_changes`).raw().all()) {
  insert.run(.../** @type {unknown[]} */ (change));
}
const row = target.prepare("SELECT v FROM t WHERE id = 'a'").pluck().get();
if (row !== 1n) throw new Error(`the merged row has v = ${String(row)}, not 1`);
for (const database of [source, target]) {
  database.prepare("SELECT crsql_finalize()").get();
  database.close();
}
process.stdout.write("merged\n");

/** @param {string} path */
function openReplica(path) {
  const database = new Database(":memory:");
  // Integers as BigInt both ways: a JavaScript number binds as REAL.
  database.defaultSafeIntegers(true);
  // The entry point is named, so that the file may have any name; the types leave it out.
  /** @type {any} */ (database).loadExtension(path, "sqlite3_crsqlite_init");
  database.exec("CREATE TABLE t (id TEXT NOT NULL PRIMARY KEY, v INTEGER)");
  // Two arguments: the form with one reads past a string that has no terminator.
  database.prepare("SELECT crsql_as_crr('main', 't')").get();
  return database;
}
