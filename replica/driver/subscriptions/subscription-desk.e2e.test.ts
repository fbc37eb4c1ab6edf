/** Subscriptions and updates over a real store, in one thread: what the lines say, and when. */
import fc from "fast-check";
import { afterEach, expect, test } from "vitest";
import { readCrrTables } from "../store/crr-tables.ts";
import { apply, write, writeAll } from "../store/store-fixture.ts";
import { QueryPlan } from "./query-plan.ts";
import { DeskFixture, type Fold } from "./subscription-fixture.ts";

const fixtures: DeskFixture[] = [];
afterEach(() => {
  for (const fixture of fixtures.splice(0)) fixture.remove();
});

/** One for each way in which rows are known and read again. */
const QUERIES = [
  "SELECT id, a FROM t WHERE a > 2 -- a comment at the end",
  "SELECT x, v FROM p",
  "SELECT t.id, p.v FROM t JOIN p ON p.y = t.id WHERE p.v < 4",
  "SELECT l.id, r.id FROM t l, t r WHERE l.a = r.a AND l.id < r.id",
  "SELECT t.id, p.x, p.v FROM t LEFT JOIN p ON p.y = t.id",
  "SELECT t.id, k.id FROM t LEFT JOIN k ON k.id = t.b WHERE t.a > 1",
  "SELECT t.id, p.v, k.id FROM t LEFT JOIN p ON p.y = t.id LEFT JOIN k ON k.id = p.y WHERE t.a < 4",
  "SELECT l.id, r.a FROM t l LEFT JOIN t r ON r.id = l.b",
  "SELECT t.id, o.x, u.x FROM t LEFT JOIN p o ON o.y = t.id LEFT JOIN p u ON u.v = o.x",
  "SELECT t.id FROM t LEFT JOIN p ON p.y = t.id WHERE p.x IS NULL",
  "SELECT t.id FROM t LEFT JOIN p ON p.y = t.id WHERE v IS NULL",
  "SELECT t.id, k.id FROM t LEFT JOIN p ON p.y = t.id JOIN k ON k.id = t.id OR p.x IS NULL",
  "SELECT p.x, p.y, k.id FROM p LEFT JOIN k ON k.id = p.y AND p.v > 2",
  "SELECT t.id, p.x FROM t RIGHT JOIN p ON p.y = t.id",
  "SELECT * FROM t NATURAL JOIN k ORDER BY b",
  "SELECT id FROM t WHERE EXISTS (SELECT 1 FROM p WHERE p.y = t.id)",
  "SELECT id FROM t WHERE NOT EXISTS (SELECT 1 FROM p WHERE p.y = t.id)",
  "SELECT id, (SELECT count(*) FROM p WHERE p.y = t.id) FROM t",
  "SELECT id FROM t WHERE id IN k",
  "SELECT DISTINCT a FROM t",
  "SELECT a FROM t UNION ALL SELECT v FROM p",
  "SELECT id, a FROM t ORDER BY a, id LIMIT 2",
  "SELECT id, row_number() OVER (ORDER BY id) FROM t",
  "WITH c AS (SELECT y FROM p WHERE v > 1) SELECT id, b FROM t WHERE id IN c",
  "SELECT a FROM (SELECT a, b FROM t WHERE b <> '') s",
  "SELECT t.id, j.value FROM t, json_each('[1,2]') j WHERE j.value < t.a",
];

const ID = fc.constantFrom("a", "b", "c", "d");
const VALUE = fc.integer({ min: 0, max: 5 });
const STATEMENT = fc.oneof(
  fc
    .tuple(ID, VALUE, ID)
    .map(([id, a, b]) => `INSERT OR REPLACE INTO t VALUES ('${id}', ${a}, '${b}')`),
  fc.tuple(ID, VALUE).map(([id, a]) => `UPDATE t SET a = ${a} WHERE id <> '${id}'`),
  fc.tuple(ID).map(([id]) => `DELETE FROM t WHERE id = '${id}'`),
  fc.tuple(ID).map(([id]) => `INSERT OR IGNORE INTO k VALUES ('${id}')`),
  fc.tuple(ID).map(([id]) => `DELETE FROM k WHERE id = '${id}'`),
  fc
    .tuple(VALUE, ID, VALUE)
    .map(([x, y, v]) => `INSERT OR REPLACE INTO p VALUES (${x}, '${y}', ${v})`),
  fc.tuple(VALUE).map(([x]) => `DELETE FROM p WHERE x = ${x}`),
);
const STEP = fc.record({
  /** Whose transaction it is: a peer's is merged. */
  writer: fc.constantFrom("own", "own", "peer"),
  statements: fc.array(STATEMENT, { minLength: 1, maxLength: 4 }),
  /** Whether readers hear of it before the next. */
  isTurn: fc.boolean(),
  event: fc.constantFrom("nothing", "nothing", "nothing", "attach", "closed", "killed"),
});

test("the fold of a stream is the query's result, whoever writes and whenever it restarts", () => {
  const sample = fc.record({
    picks: fc.uniqueArray(fc.nat(QUERIES.length - 1), { minLength: 4, maxLength: 8 }),
    steps: fc.array(STEP, { minLength: 1, maxLength: 12 }),
  });
  fc.assert(
    fc.property(sample, ({ picks, steps }) => {
      const fixture = new DeskFixture();
      const peer = fixture.folder.open("peer");
      try {
        let folds = picks.map((pick): [string, Fold] => {
          const sql = QUERIES[pick] ?? "";
          return [sql, fixture.query(sql)];
        });
        for (const { writer, statements, isTurn, event } of steps) {
          const list = statements.map((sql) => ({ sql }));
          if (writer === "own") writeAll(fixture.store, list);
          else apply(fixture.store, writeAll(peer, list));
          if (event === "closed" || event === "killed") {
            fixture.restart(event);
            for (const [sql, fold] of folds) follow(fixture, sql, fold);
          }
          if (!isTurn && event !== "attach") continue;
          fixture.turn();
          for (const [sql, fold] of folds)
            expect([sql, fold.rows]).toEqual([sql, fixture.rowsOf(sql)]);
          if (event === "attach")
            folds = folds.concat(folds.map(([sql]) => [sql, fixture.query(sql)]));
        }
        expect(fixture.notices).toEqual([]);
      } finally {
        fixture.remove();
      }
    }),
    { numRuns: 25 },
  );
});

test.each([
  ["SELECT a FROM t WHERE a > 1", { t: "own" }],
  ["SELECT l.a FROM t l, t r", { t: "own" }],
  ["SELECT t.a FROM t JOIN p ON p.y = t.id", { t: "own", p: "own" }],
  ["SELECT t.a FROM t LEFT JOIN p ON p.y = t.id WHERE t.a > 1", { t: "own", p: "first" }],
  ["SELECT t.a FROM t LEFT JOIN p ON p.y = t.id WHERE p.v IS NULL", { t: "own", p: "all" }],
  ["SELECT t.a FROM t LEFT JOIN p ON p.y = t.id WHERE v > 1", { t: "own", p: "all" }],
  ["SELECT l.a FROM t l LEFT JOIN t r ON r.a = l.a", { t: "all" }],
  ["SELECT t.a FROM t RIGHT JOIN p ON p.y = t.id", { t: "all", p: "own" }],
  ["SELECT a FROM t WHERE id IN (SELECT y FROM p)", { t: "own", p: "all" }],
  ["SELECT a FROM t WHERE a > (SELECT max(a) FROM t)", { t: "all" }],
  ["SELECT a FROM t LIMIT 5", { t: "all" }],
  ["SELECT DISTINCT a FROM t", { t: "all" }],
])("%s: what is read again when a table changes", (sql, scopes) => {
  const database = start().store.databaseForTests;
  const plan = new QueryPlan(database, readCrrTables(database), sql);
  const found = [...plan.tables].map((table) => [table, plan.scopeOf(table)]);
  expect(Object.fromEntries(found)).toEqual(scopes);
});

test("a query that finds no row in its time is refused, and the others go on", () => {
  const fixture = start({ queryMsMax: 50 });
  write(fixture.store, "INSERT INTO t VALUES ('x', 1, '')");
  const numbers =
    "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n";
  const endless = `SELECT id FROM t WHERE a = (SELECT i FROM (${numbers}) WHERE i < 0)`;
  expect(() => fixture.query(endless)).toThrow(/took longer than 50 ms/);
  const reader = fixture.query("SELECT id, a FROM t");
  write(fixture.store, "INSERT INTO t VALUES ('y', 2, '')");
  fixture.turn();
  expect(reader.rows).toEqual(['["x",1]', '["y",2]']);
});

test("a query that must be read whole is told in the turn of the commit, each of a burst", () => {
  const fixture = start();
  const reader = fixture.query("SELECT id, a FROM t ORDER BY a DESC LIMIT 1");
  for (let a = 1; a <= 20; a += 1) {
    write(fixture.store, `INSERT OR REPLACE INTO t VALUES ('x', ${a}, '')`);
    fixture.desk.turn();
    expect(reader.rows).toEqual([`["x",${a}]`]);
    expect(fixture.desk.dueMs).toBe(Infinity);
  }
});

test("one that has had its share of the thread is told once of all that came meanwhile, after the others", () => {
  const fixture = start();
  const dear = fixture.query("SELECT DISTINCT a FROM t");
  const cheap = fixture.query("SELECT id FROM t");
  const set = (a: number): void => {
    write(fixture.store, `INSERT OR REPLACE INTO t VALUES ('${a}', ${a}, '')`);
    fixture.desk.turn();
  };
  fixture.tickMs = 200;
  set(1);
  fixture.tickMs = 0;
  expect([dear.rows, cheap.rows]).toEqual([["[1]"], ['["1"]']]);
  const order: string[] = [];
  for (const [name, fold] of Object.entries({ dear, cheap })) {
    const take = fold.take.bind(fold);
    fold.take = (text) => {
      order.push(name);
      take(text);
    };
  }
  for (const a of [2, 3, 4]) set(a);
  expect(order).toEqual(["cheap", "cheap", "cheap"]);
  expect(fixture.desk.dueMs).toBeGreaterThan(fixture.nowMs);
  fixture.nowMs = fixture.desk.dueMs;
  set(5);
  expect(order.slice(3)).toEqual(["cheap", "dear"]);
  expect(dear.rows).toEqual(["[1]", "[2]", "[3]", "[4]", "[5]"]);
  expect(fixture.desk.dueMs).toBe(Infinity);
});

test("one that is read whole and has no reader is brought up to date now and then, and for a reader at once", () => {
  const fixture = start();
  const sql = "SELECT DISTINCT a FROM t";
  const first = fixture.query(sql);
  const set = (a: number): void => {
    write(fixture.store, `INSERT INTO t VALUES ('${a}', ${a}, '')`);
    fixture.desk.turn();
  };
  const lastChangeId = (): number | undefined =>
    fixture.desk.views({ hash: first.queryHash, id: null })[0]?.lastChangeId;
  set(1);
  first.leave();
  for (const a of [2, 3]) set(a);
  expect(lastChangeId()).toBe(1);
  fixture.nowMs = fixture.desk.dueMs;
  fixture.desk.turn();
  expect(lastChangeId()).toBe(3);
  set(4);
  const resumed = fixture.query(sql, { from: 1 });
  expect(fixture.desk.dueMs).toBeLessThan(fixture.nowMs);
  fixture.desk.turn();
  expect(resumed.news().map(({ change }) => change?.[3])).toEqual([2, 3, 4]);
});

test("a row keeps its id, ids of changes go up by one, and a resumed reader misses nothing", () => {
  const fixture = start();
  write(fixture.store, "INSERT INTO t VALUES ('a', 1, '')");
  const first = fixture.query("SELECT id, a FROM t");
  expect(first.news()).toMatchObject([
    { columns: ["id", "a"] },
    { row: [1, ["a", 1]] },
    { eoq: { change_id: 0 } },
  ]);
  for (const sql of [
    "INSERT INTO t VALUES ('b', 1, '')",
    "UPDATE t SET a = 2 WHERE id = 'b'",
    "UPDATE t SET b = 'not selected'",
    "DELETE FROM t WHERE id = 'b'",
  ]) {
    write(fixture.store, sql);
    fixture.turn();
  }
  const changes = [
    { change: ["insert", 2, ["b", 1], 1] },
    { change: ["update", 2, ["b", 2], 2] },
    { change: ["delete", 2, ["b", 2], 3] },
  ];
  expect(first.news()).toEqual(changes);
  const sql = "SELECT id, a FROM t";
  expect(fixture.query(sql, { from: 1 }).news()).toEqual(changes.slice(1));
  expect(fixture.query(sql, { from: 99 }).news()).toEqual([]);
  expect(fixture.query(sql, { skipRows: true }).news()).toEqual([]);
  expect(fixture.query(sql, { from: 0 }).news()).toHaveLength(3);
});

test("changes that are no longer kept are asked for in vain, and it is said so", () => {
  const fixture = start({ retainedChanges: 5 });
  const sql = "SELECT id FROM k";
  const reader = fixture.query(sql);
  for (let index = 0; index < 30; index += 1) {
    write(fixture.store, `INSERT INTO k VALUES ('${index}')`);
    fixture.turn();
  }
  expect(reader.lastChangeId).toBe(30);
  const late = fixture.query(sql, { from: 1 });
  expect(late.news()[0]?.error).toMatch(/^subscription already deleted older changes, min change/);
  expect(late.isOver).toBe(true);
  expect(fixture.query(sql, { from: 25 }).news()).toHaveLength(5);
});

test("one that nobody reads is removed, one that somebody reads is not", () => {
  const fixture = start({ idleMs: 1_000 });
  const read = fixture.query("SELECT id FROM t");
  fixture.query("SELECT id FROM k").leave();
  fixture.desk.expire(fixture.nowMs + 999);
  fixture.desk.expire(fixture.nowMs + 1_001);
  const by = (queryId: string) => ({ kind: "id", queryId, from: null, skipRows: false }) as const;
  expect(fixture.open(by(read.queryId)).queryId).toBe(read.queryId);
  expect(() => fixture.query("SELECT id FROM k", { from: 1 })).toThrow(/no existing subscription/);
});

test.each([
  ["DELETE FROM t", "unsupported statement"],
  ["PRAGMA user_version = 5", "unsupported statement"],
  ["", "unsupported statement"],
  ["SELEC", 'near "SELEC": syntax error'],
  ["SELECT a FROM nope", "no such table: nope"],
  ["SELECT nope FROM t", "no such column: nope"],
  ["SELECT 1; SELECT 2", "Multiple statements provided"],
  ["SELECT count(*) FROM t", "aggregates are not supported"],
  ["SELECT a FROM t GROUP BY a", "aggregates are not supported"],
  ["SELECT 1", "the query reads no replicated table"],
  ["SELECT name FROM sqlite_master", "no such table: sqlite_master"],
  ["SELECT key FROM __patina_state", "no such table: __patina_state"],
  ["SELECT name FROM t, pragma_table_info('t')", "virtual tables are not supported"],
])("%s is refused", (sql, reason) => {
  expect(() => start().query(sql)).toThrow(reason);
});

test("updates tell of every changed row by its key, once for each turn", () => {
  const fixture = start();
  const reader = fixture.open({ kind: "updates", table: "p" });
  const other = fixture.open({ kind: "updates", table: "p" });
  expect(other.queryId).toBe(reader.queryId);
  write(fixture.store, "INSERT INTO p VALUES (7, 'u', 1.5)");
  write(fixture.store, "INSERT INTO k VALUES ('elsewhere')");
  fixture.turn();
  write(fixture.store, "UPDATE p SET v = 2");
  write(fixture.store, "DELETE FROM p");
  fixture.turn();
  const lines = [{ notify: ["update", [7, "u"]] }, { notify: ["delete", [7, "u"]] }];
  expect(reader.news()).toEqual(lines);
  expect(other.news()).toEqual(lines);
  expect(() => fixture.open({ kind: "updates", table: "nope" })).toThrow(
    "table not found in schema: nope",
  );
});

test("a new column leaves queries that name theirs alone, and ends those that take all", () => {
  const fixture = start();
  const named = fixture.query("SELECT id, a FROM t");
  const all = fixture.query("SELECT * FROM t");
  const text = "CREATE TABLE t (id TEXT NOT NULL PRIMARY KEY, a, b TEXT NOT NULL DEFAULT '', c);";
  fixture.store.applySchema([{ name: "more.sql", text }], 1n);
  write(fixture.store, "INSERT INTO t VALUES ('x', 1, '', 2)");
  fixture.turn();
  expect(named.news().at(-1)).toEqual({ change: ["insert", 1, ["x", 1], 1] });
  expect(all.news().at(-1)?.error).toMatch(/schema changed/);
  expect(fixture.query("SELECT * FROM t").news()[0]).toEqual({ columns: ["id", "a", "b", "c"] });
});

test("operators are shown each subscription, restored ones too, with what a change makes it read", () => {
  const fixture = start();
  const partial = "SELECT t.id,\n  p.v FROM t JOIN p ON p.y = t.id WHERE t.a > 0 OR p.v > 0";
  const whole = "SELECT DISTINCT a FROM t";
  const first = fixture.query(partial);
  fixture.query(partial);
  fixture.query(whole).leave();
  write(fixture.store, "INSERT INTO t VALUES ('x', 1, '')");
  write(fixture.store, "INSERT INTO p VALUES (1, 'x', 2)");
  fixture.turn();
  const all = fixture.desk.views({ hash: null, id: null });
  expect(all).toMatchObject([
    { id: first.queryId, hash: first.queryHash, sql: partial, readers: 2, lastChangeId: 1 },
    { sql: whole, readers: 0, lastChangeId: 1, statements: [{ table: "t", sql: whole }] },
  ]);
  expect(all[0]?.msPerSecond).toBeGreaterThan(0);
  const statements = new Map(all[0]?.statements.map(({ table, sql }) => [table, sql]));
  const read = (table: string, ...key: readonly unknown[]): unknown[] =>
    fixture.store.databaseForTests.prepare(statements.get(table) ?? "").all(...key);
  expect([...statements.keys()].toSorted()).toEqual(["p", "t"]);
  expect([read("t", "x").length, read("t", "y").length]).toEqual([1, 0]);
  expect([read("p", 1, "x").length, read("p", 1, "y").length]).toEqual([1, 0]);
  fixture.restart("closed");
  expect(fixture.desk.views({ hash: first.queryHash, id: null })).toMatchObject([{ sql: partial }]);
  expect(fixture.desk.unrestoredCount).toBe(1);
  expect(fixture.desk.views({ hash: null, id: first.queryId })).toMatchObject([{ readers: 0 }]);
  expect(fixture.desk.views({ hash: null, id: "nobody" })).toEqual([]);
  expect(fixture.desk.views({ hash: null, id: null })).toHaveLength(2);
});

test("more rows than fit one text arrive whole, and what changes meanwhile comes behind", () => {
  const fixture = start();
  const rows = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 3000)";
  write(fixture.store, `INSERT INTO k ${rows} SELECT 'row ' || x FROM c`);
  const reader = fixture.query("SELECT id FROM k");
  expect(reader.rows).toEqual(fixture.rowsOf("SELECT id FROM k"));
  write(fixture.store, "DELETE FROM k");
  fixture.turn();
  expect(reader.rows).toEqual([]);
  expect(reader.lastChangeId).toBe(3000);
});

/** Connects a reader anew after a restart, where it left off. */
function follow(fixture: DeskFixture, sql: string, fold: Fold): void {
  const from = fold.lastChangeId ?? 0;
  if (from === 0) fold.cellsById.clear();
  fixture.open({ kind: "query", sql, from: from === 0 ? null : from, skipRows: false }, fold);
}

function start(limits: ConstructorParameters<typeof DeskFixture>[0] = {}): DeskFixture {
  const fixture = new DeskFixture(limits);
  fixtures.push(fixture);
  return fixture;
}
