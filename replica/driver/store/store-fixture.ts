/**
 * What the store's tests share: databases in a folder of their own, small schemas, and the exchange
 * of versions between stores without a network.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { crsqlitePath, sqlDeadlinePath } from "../../../bin/setup/paths.js";
import type { ActorId, Changeset, SqlValue, Statement, VersionRange } from "../../types.ts";
import type { OutcomeRecord } from "./apply.ts";
import type { SchemaFile } from "./schema-files.ts";
import type { StoreOptions } from "./store.ts";
import { Store } from "./store.ts";

/** A folder that goes away with everything in it, stores closed first. */
export class StoreFolder {
  readonly path = mkdtempSync(join(tmpdir(), "patina-store-"));
  readonly #stores: Store[] = [];

  /** Options for a database of this folder. */
  options(name: string, changes: Partial<StoreOptions> = {}): StoreOptions {
    return {
      path: join(this.path, `${name}.db`),
      extensionPath: crsqlitePath(),
      deadlinePath: sqlDeadlinePath(),
      nodeId: name,
      schemaFiles: SMALL_SCHEMA,
      ...changes,
    };
  }

  /** Opens a store in this thread, without worker. */
  open(name: string, changes: Partial<StoreOptions> = {}): Store {
    let nowMs = 0;
    let wallMs = 1_750_000_000_000;
    const clocks = { nowMs: () => (nowMs += 0.001), wallMs: () => (wallMs += 1000) };
    const store = new Store(this.options(name, changes), clocks);
    this.#stores.push(store);
    return store;
  }

  /** Closes what is open and removes the folder. */
  remove(): void {
    for (const store of this.#stores) store.close();
    rmSync(this.path, { recursive: true, force: true });
  }
}

/** Runs one statement as one transaction. */
export function write(store: Store, sql: string, ...params: SqlValue[]): Changeset[] {
  return writeAll(store, [{ sql, params }]);
}

/** Runs statements as one transaction; the changesets of its version, if it used one. */
export function writeAll(store: Store, statements: readonly Statement[]): Changeset[] {
  return [...(store.transact(statements, TS).commit?.changesets ?? [])];
}

/** Applies changesets to the end. */
export function apply(store: Store, changesets: readonly Changeset[]): OutcomeRecord[] {
  const job = { changesets, outcomes: [] as OutcomeRecord[] };
  while (job.outcomes.length < changesets.length) store.applySlice(job, 10);
  return job.outcomes;
}

/** What `store` would answer to a peer that asks for whole versions. */
export function serve(
  store: Store,
  actorId: ActorId,
  versions: VersionRange,
  chunkBytes = 8192,
): Changeset[] {
  return store.server.read({ actorId, need: { kind: "full", versions }, chunkBytes });
}

/** All versions that `source` knows of, to `target`. */
export function copyAll(source: Store, target: Store): void {
  for (const actorId of source.ledger.books.actors()) {
    const versions = { start: 1, end: source.ledger.books.head(actorId) };
    apply(target, serve(source, actorId, versions));
  }
}

/** Rows of a query on the store's own connection. */
export function rowsOf(store: Store, sql: string): unknown[] {
  return store.databaseForTests.prepare(sql).raw().all();
}

/** Everything that merges leave behind: rows, clocks, keys, versions and books. */
export function storedState(store: Store): Record<string, unknown[]> {
  const state: Record<string, unknown[]> = {
    changes: rowsOf(
      store,
      'SELECT "table", hex(pk), cid, val, col_version, db_version, hex(site_id), cl, seq' +
        " FROM crsql_changes ORDER BY db_version, seq, cid",
    ),
    dbVersion: rowsOf(store, "SELECT crsql_db_version(), crsql_next_db_version()"),
  };
  const names = rowsOf(
    store,
    "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'" +
      " AND name <> '__patina_state'",
  );
  for (const [name] of names as [string][]) {
    state[name] = rowsOf(store, `SELECT * FROM "${name}"`);
  }
  return state;
}

/** The stamp of every test transaction: 2025-06-15, in NTP64. */
export const TS = 0x684ee18000000000n;

/** Tables with every shape that merges differ in: values, key only, two key columns. */
export const SMALL_SCHEMA: readonly SchemaFile[] = [
  {
    name: "small.sql",
    text: `
CREATE TABLE t (id TEXT NOT NULL PRIMARY KEY, a, b TEXT NOT NULL DEFAULT '');
CREATE TABLE k (id TEXT NOT NULL PRIMARY KEY);
CREATE TABLE p (x INTEGER NOT NULL, y TEXT NOT NULL, v REAL, PRIMARY KEY (x, y));
`,
  },
];

/** Actor ids in ascending order, as merges compare them. */
export function actor(index: number): ActorId {
  return `0000000${index}-0000-4000-8000-000000000000`;
}
