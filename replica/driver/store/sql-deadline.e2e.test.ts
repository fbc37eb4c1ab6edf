/**
 * A transaction ends at its deadline and leaves nothing behind. Method: one without end, which only
 * an interrupt ends; and many whose deadlines fall anywhere in their work, cr-sqlite's included.
 */
import { afterAll, expect, test } from "vitest";
import { createPrng } from "#base/prng.ts";
import { StoreFolder, TS, actor, copyAll, rowsOf, storedState, write } from "./store-fixture.ts";

const folder = new StoreFolder();
afterAll(() => folder.remove());

const COUNT = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)";
const ENDLESS = `INSERT INTO p (x, y) ${COUNT} SELECT x, 'y' FROM c`;

test("a transaction past its deadline is undone whole, and the next one has the next version", () => {
  const store = folder.open("whole", { actorId: actor(1) });
  write(store, "INSERT INTO t (id, a) VALUES ('before', 1)");
  const before = storedState(store);
  const { dbVersion } = store.stats(0);
  const statements = [{ sql: "DELETE FROM t" }, { sql: ENDLESS }];
  expect(() => store.transact(statements, TS, 50)).toThrow(
    expect.objectContaining({
      code: "STORE_TIMEOUT",
      message: "interrupted: the transaction took longer than 50 ms",
    }),
  );
  expect(storedState(store)).toEqual(before);
  expect(store.stats(0)).toMatchObject({ timeouts: 1, dbVersion });
  expect(write(store, "DELETE FROM t")).toMatchObject([{ version: 2 }]);
  expect(store.checkBooks()).toMatchObject({ mismatched: [], findings: [] });
});

test("a transaction within its time is as one without limit, and lifts its deadline", () => {
  const store = folder.open("within", { actorId: actor(2) });
  const insert = { sql: "INSERT INTO t (id) VALUES ('x')" };
  expect(store.transact([insert], TS, 600_000).commit).toMatchObject({ version: 1 });
  expect(rowsOf(store, "SELECT patina_deadline(0)")).toEqual([[0n]]);
  expect(store.stats(0).timeouts).toBe(0);
});

test("an error before the deadline is told as it is", () => {
  const store = folder.open("error");
  expect(() => store.transact([{ sql: "DELETE FROM nowhere" }], TS, 600_000)).toThrow(
    expect.objectContaining({ code: "STORE_SQL", message: "statement 1: no such table: nowhere" }),
  );
});

test("wherever the deadline falls, versions stay contiguous and nothing is half done", () => {
  const store = folder.open("anywhere", { actorId: actor(3) });
  const prng = createPrng(5);
  const upsert =
    `INSERT INTO t (id, a) ${COUNT} SELECT 'k' || (x % 50), random() FROM c WHERE true` +
    " LIMIT 40 ON CONFLICT DO UPDATE SET a = excluded.a";
  const statements = Array.from({ length: 50 }, () => ({ sql: upsert }));
  const startedMs = performance.now();
  store.transact(statements, TS);
  const limitMs = Math.ceil(2 * (performance.now() - startedMs));
  const { dbVersion } = store.stats(0);
  const ends = { done: 0, late: 0 };
  while (ends.done < 3 || ends.late < 10) {
    try {
      const { commit } = store.transact(statements, TS, 1 + prng.below(limitMs));
      expect(commit).toMatchObject({ version: 1 + ++ends.done });
    } catch (thrown) {
      expect(thrown).toMatchObject({ code: "STORE_TIMEOUT" });
      ends.late += 1;
    }
  }
  const after = { timeouts: ends.late, dbVersion: dbVersion + ends.done };
  expect(store.stats(0)).toMatchObject(after);
  expect(store.checkBooks()).toMatchObject({ mismatched: [], findings: [] });
  const peer = folder.open("peer");
  copyAll(store, peer);
  expect(rowsOf(peer, "SELECT * FROM t ORDER BY id")).toEqual(
    rowsOf(store, "SELECT * FROM t ORDER BY id"),
  );
});

test("no statement sets its own deadline", () => {
  const store = folder.open("own");
  for (const sql of ["SELECT patina_deadline(0)", 'DELETE FROM t WHERE "PATINA_DEADLINE"(0)']) {
    expect(() => write(store, sql)).toThrow(/^statement 1: patina_deadline is internal/i);
  }
});

test("an extension that is not there is named", () => {
  expect(() => folder.open("without", { deadlinePath: "/nowhere/sql-deadline.so" })).toThrow(
    expect.objectContaining({
      code: "STORE_EXTENSION",
      message: expect.stringContaining("/nowhere/sql-deadline.so cannot be loaded"),
    }),
  );
});
