import Database from "better-sqlite3";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { StoreFolder, write } from "../store/store-fixture.ts";
import type { Store } from "../store/store.ts";
import { QueryThread, type QueryResult, type QueryThreadOptions } from "./query-thread.ts";

// Tests read the file of one store. A query that "does not come back" takes about a second, so that
// its thread can be joined at the end.

const COUNT = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)";
let folder: StoreFolder;
let store: Store;
let shared: QueryThread;
const threads: QueryThread[] = [];

beforeAll(async () => {
  folder = new StoreFolder();
  store = folder.open("reader");
  write(store, "INSERT INTO t (id, a, b) VALUES ('one', 9007199254740993, 'x'), ('two', 1.5, 'y')");
  shared = await QueryThread.start(options());
});

afterEach(async () => {
  for (const thread of threads.splice(0)) await thread.close();
});

afterAll(async () => {
  await shared.close();
  folder.remove();
});

test("columns come first, then rows with integers as bigint and reals as number", async () => {
  const queries = await startQueries();
  const answer = await queries.query({ sql: "SELECT id, a FROM t ORDER BY id" }, 0);
  expect(answer.columns).toEqual(["id", "a"]);
  expect(await rowsOf(answer)).toEqual([
    ["one", 9007199254740993n],
    ["two", 1.5],
  ]);
  expect(queries.stats).toMatchObject({ open: 0, threads: 1, started: 1, abandoned: 0 });
});

test.each([
  ["DELETE FROM t", "STORE_SQL", "statement is not readonly"],
  ["INSERT INTO t (id) VALUES ('z') RETURNING id", "STORE_SQL", "statement is not readonly"],
  ["BEGIN", "STORE_SQL", "statement is not readonly"],
  ["ATTACH '/dev/null' AS other", "STORE_SQL", "statement is not readonly"],
  ["VACUUM INTO '/dev/null'", "STORE_SQL", "statement is not readonly"],
  ["CREATE TEMP TABLE mine (x)", "STORE_SQL", "statement is not readonly"],
  ["PRAGMA user_version = 5", "STORE_SQL", "statement is not readonly"],
  ["PRAGMA user_version(5)", "STORE_SQL", "statement is not readonly"],
  ["PRAGMA hard_heap_limit(1)", "STORE_SQL", "statement is not readonly"],
  ["; PRAGMA main.cache_size", "STORE_SQL", "statement is not readonly"],
  ["EXPLAIN QUERY PLAN PRAGMA query_only(0)", "STORE_SQL", "statement is not readonly"],
  ["SELECT 1; SELECT 2", "STORE_SQL", "Multiple statements provided"],
  ["SELECT * FROM nope", "STORE_SQL", "no such table: nope"],
  ["SELEC 1", "STORE_SQL", 'near "SELEC": syntax error'],
  ["SELECT ?", "QUERY_PARAMETERS", "Wrong number of parameters passed to query. Got 0, needed 1"],
  [" ; -- nothing", "QUERY_EMPTY", "the text holds no statement"],
  [
    "SELECT crsql_as_crr('main', 't'), crsql_db_version()",
    "STORE_SQL",
    "crsql_as_crr is internal and cannot be named here",
  ],
  ["SELECT crsql_next_db_version(9)", "STORE_SQL", "no such function: crsql_next_db_version"],
  [
    'SELECT "patina_deadline"(0)',
    "STORE_SQL",
    "patina_deadline is internal and cannot be named here",
  ],
])("%s is refused with %s", async (sql, code, message) => {
  await expect(shared.query({ sql }, 0)).rejects.toMatchObject({ code, message });
  expect(shared.stats.open).toBe(0);
});

test.each([
  "PRAGMA table_info(t)",
  "EXPLAIN QUERY PLAN SELECT * FROM t",
  "VALUES (1)",
  "WITH c AS (SELECT 1) SELECT * FROM c",
  "SELECT * FROM crsql_changes",
  "SELECT crsql_db_version()",
  "SELECT * FROM crsql_site_id",
  "SELECT * FROM t__crsql_clock;",
])("%s reads", async (sql) => {
  expect((await rowsOf(await shared.query({ sql }, 0))).length).toBeGreaterThan(0);
});

test("an error behind the first rows comes after them", async () => {
  const queries = await startQueries();
  const sql = "SELECT abs(x) FROM (SELECT 1 AS x UNION ALL SELECT -9223372036854775807 - 1)";
  const { pages } = await queries.query({ sql }, 0);
  expect(await pages.next()).toEqual({ done: false, value: [[1n]] });
  await expect(pages.next()).rejects.toMatchObject({
    code: "STORE_SQL",
    message: "integer overflow",
  });
  expect(await pages.next()).toEqual({ done: true, value: undefined });
});

test("two long queries take turns page by page, and a third one is answered between", async () => {
  const queries = await startQueries();
  const first = await queries.query({ sql: countTo(5_000) }, 0);
  const second = await queries.query({ sql: countTo(5_000) }, 0);
  const counts = { first: 0, second: 0 };
  for (let page = 0; page < 3; page += 1) {
    counts.first += (await first.pages.next()).value?.length ?? 0;
    counts.second += (await second.pages.next()).value?.length ?? 0;
    expect(await rowsOf(await queries.query({ sql: "SELECT 1" }, 0))).toEqual([[1n]]);
  }
  counts.first += (await rowsOf(first)).length;
  counts.second += (await rowsOf(second)).length;
  expect(counts).toEqual({ first: 5_000, second: 5_000 });
  expect(queries.stats.open).toBe(0);
});

test("a query sees what was written before it, also while an older one is open", async () => {
  const queries = await startQueries();
  const sql = `SELECT t.id FROM t, (${countTo(5_000)})`;
  const older = await queries.query({ sql }, 0);
  await older.pages.next();
  write(store, "INSERT INTO k (id) VALUES ('fresh')");
  expect(await rowsOf(await queries.query({ sql: "SELECT id FROM k" }, 0))).toEqual([["fresh"]]);
  await older.pages.return?.();
  write(store, "DELETE FROM k");
});

test("a client that takes no rows loses its query, and the log can be cut again", async () => {
  const queries = await startQueries({ idleMs: 20 });
  const answer = await queries.query({ sql: `SELECT t.id FROM t, (${countTo(5_000)})` }, 0);
  await answer.pages.next();
  write(store, "INSERT INTO k (id) VALUES ('kept')");
  await until(() => queries.stats.open === 0);
  await expect(answer.pages.next()).rejects.toMatchObject({ code: "QUERY_SLOW_CLIENT" });
  const other = new Database(folder.options("reader").path);
  const [checkpoint] = other.pragma("wal_checkpoint(TRUNCATE)") as { busy: number }[];
  other.close();
  expect(checkpoint?.busy).toBe(0);
});

test("rows that come too late for the deadline end with a timeout", async () => {
  const queries = await startQueries();
  const { pages } = await queries.query({ sql: countTo(100_000_000) }, 50);
  const drained = (async () => {
    for await (const page of pages) expect(page.length).toBeGreaterThan(0);
  })();
  await expect(drained).rejects.toMatchObject({
    code: "STORE_TIMEOUT",
    message: "interrupted: the query took longer than 50 ms",
  });
  expect(queries.stats).toMatchObject({ open: 0, timeouts: 1, abandoned: 0 });
});

test.each(["SELECT count(*) FROM c", "SELECT count(*) FROM crsql_changes, c"])(
  "a row that does not come is given up at the deadline, and other queries go on: %s",
  async (sql) => {
    const queries = await startQueries({ marginMs: 60_000 });
    const endless = await queries.query({ sql: `${COUNT} ${sql}` }, 50);
    const neighbour = await queries.query({ sql: countTo(5_000) }, 0);
    const lost = endless.pages.next();
    const rows = rowsOf(neighbour);
    await expect(lost).rejects.toMatchObject({
      code: "STORE_TIMEOUT",
      message: "interrupted: the query took longer than 50 ms",
    });
    expect(await rows).toHaveLength(5_000);
    // The connection is used again: the deadline was its query's.
    const long = `SELECT count(*) FROM (${countTo(1_000_000)})`;
    expect(await rowsOf(await queries.query({ sql: long }, 0))).toEqual([[1_000_000n]]);
    expect(queries.stats).toMatchObject({ open: 0, threads: 1, timeouts: 1, abandoned: 0 });
  },
);

test("a function that does not come back costs its thread; the next query has another", async () => {
  // One thread, however long it is silent; and time enough to reach the function before the deadline.
  const queries = await startQueries({ marginMs: 20, silenceMs: Infinity });
  const stuck = await queries.query({ sql: UNINTERRUPTED }, 300);
  const neighbour = await queries.query({ sql: countTo(5_000) }, 0);
  const lost = stuck.pages.next();
  const waiting = neighbour.pages.next();
  await expect(lost).rejects.toMatchObject({ code: "STORE_TIMEOUT" });
  await expect(waiting).rejects.toMatchObject({ code: "QUERY_LOST" });
  expect(queries.stats).toMatchObject({ open: 0, abandoned: 1, stuckThreads: 1 });
  expect(await rowsOf(await queries.query({ sql: "SELECT 1" }, 0))).toEqual([[1n]]);
  await until(() => queries.stats.stuckThreads === 0);
});

test("while one thread looks for a row, another query is answered by a second one", async () => {
  // Any unanswered request counts as silence, so that nothing depends on how long it lasts.
  const queries = await startQueries({ silenceMs: 0.000_1 });
  const long = await queries.query({ sql: STUCK }, 0);
  const order: string[] = [];
  const late = long.pages.next().then(({ value }) => void order.push(`long ${value?.length}`));
  const short = await queries.query({ sql: "SELECT 1" }, 0);
  expect(queries.stats.threads).toBe(2);
  order.push(`short ${(await rowsOf(short)).length}`);
  await late;
  await long.pages.return?.();
  expect(order).toEqual(["short 1", "long 1"]);
  expect(queries.stats).toMatchObject({ threads: 1, abandoned: 0 });
});

test("a query that is ended settles its waiting page and frees its place", async () => {
  const queries = await startQueries();
  const { pages } = await queries.query({ sql: STUCK }, 0);
  const page = pages.next();
  await pages.return?.();
  expect(await page).toEqual({ done: true, value: undefined });
  expect(queries.stats.open).toBe(0);
});

test("the first thread is started by the first query", async () => {
  const queries = QueryThread.create(options());
  expect(queries.stats.threads).toBe(0);
  const { pages } = await queries.query({ sql: "SELECT 1" }, 0);
  expect((await pages.next()).value).toEqual([[1n]]);
  expect(queries.stats.threads).toBe(1);
  await queries.close();
  const nowhere = QueryThread.create({ ...options(), databasePath: `${folder.path}/nowhere.db` });
  await expect(nowhere.query({ sql: "SELECT 1" }, 0)).rejects.toMatchObject({
    code: "QUERY_LOST",
  });
  await nowhere.close();
});

test("a database that is not there is told at the start", async () => {
  const databasePath = `${folder.path}/nowhere.db`;
  await expect(QueryThread.start({ ...options(), databasePath })).rejects.toMatchObject({
    code: "STORE_FULL",
  });
});

test("closing fails what runs and what comes later", async () => {
  const queries = await startQueries();
  const { pages } = await queries.query({ sql: countTo(5_000) }, 0);
  await queries.close();
  await expect(pages.next()).rejects.toMatchObject({ code: "QUERY_LOST" });
  await expect(queries.query({ sql: "SELECT 1" }, 0)).rejects.toMatchObject({
    code: "STORE_CLOSED",
  });
});

function options(): QueryThreadOptions {
  const { path: databasePath, extensionPath, deadlinePath } = folder.options("reader");
  return { databasePath, extensionPath, deadlinePath };
}

async function startQueries(changes: Partial<QueryThreadOptions> = {}): Promise<QueryThread> {
  const thread = await QueryThread.start({ ...options(), ...changes });
  threads.push(thread);
  return thread;
}

async function rowsOf({ pages }: QueryResult): Promise<unknown[][]> {
  const rows: unknown[][] = [];
  for await (const page of pages) for (const row of page) rows.push([...row]);
  return rows;
}

async function until(isTrue: () => boolean): Promise<void> {
  while (!isTrue()) await new Promise((resolve) => setImmediate(resolve));
}

function countTo(limit: number): string {
  return `${COUNT} SELECT x FROM c LIMIT ${limit}`;
}

/** One row, after about a second of looking for it. */
const STUCK = `SELECT count(*) FROM (${countTo(6_000_000)})`;
/** As long, in one call of a function, within which SQLite looks for no interrupt. */
const UNINTERRUPTED = "SELECT instr(hex(zeroblob(200000)), hex(zeroblob(100000)) || '1')";
