/** What a plan says is held to what then happens, on real databases. */
import { afterAll, expect, test } from "vitest";
import { crsqlitePath } from "../../../bin/setup/paths.js";
import type { SchemaBudget, SchemaPlan } from "./schema-plan.ts";
import { planSchema } from "./schema-plan.ts";
import { readSchema } from "./schema-files.ts";
import type { Store } from "./store.ts";
import { SMALL_SCHEMA, StoreFolder, TS, apply, rowsOf, write, writeAll } from "./store-fixture.ts";

const folder = new StoreFolder();
afterAll(() => folder.remove());

test("a column and an index touch no row and emit nothing, as is then the case", () => {
  const store = open();
  fill(store, 200);
  const files = filesOf(
    SMALL.replace("b TEXT", "c TEXT DEFAULT 'c', b TEXT"),
    "CREATE INDEX i ON t (a);",
  );
  const plan = planOf(store, files);
  expect(plan.exceeded).toEqual([]);
  expect(plan.tables.find(({ table }) => table === "t")).toMatchObject({
    source: "s.sql:1",
    rows: 200,
    rowsTouched: 0,
    changesEmitted: 0,
    bytesPerReplica: 0,
    statements: ['ALTER TABLE "t" ADD COLUMN "c" TEXT DEFAULT (\'c\')', "CREATE INDEX i ON t (a)"],
  });
  expect(plan.tables.find(({ table }) => table === "k")).toMatchObject({ statements: [], rows: 0 });
  const before = store.ledger.lastLocal;
  expect(store.applySchema(files, TS)).toMatchObject({ commit: null, change: { columnsAdded: 1 } });
  expect(store.ledger.lastLocal).toBe(before);
  expect(planOf(store, files).tables.flatMap(({ statements }) => statements)).toEqual([]);
});

test("the rows of a table that becomes replicated are what they then are", () => {
  const store = open();
  store.databaseForTests.exec(`${PLAIN}
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
    INSERT INTO plain SELECT 'key ' || i, i, 'text' FROM n`);
  const budget = { changesMax: 599, bytesMax: 1, lockSecondsMax: Infinity };
  const { tables, exceeded } = planOf(store, filesOf(PLAIN), budget);
  expect(tables).toMatchObject([{ rows: 300, rowsTouched: 300, changesEmitted: 600 }]);
  expect(exceeded).toEqual([
    "changes emitted: 600, more than 599",
    expect.stringMatching(/^bytes per replica: [\d,]+, more than 1$/),
  ]);
  const { commit } = store.applySchema(filesOf(PLAIN), TS);
  const changes = commit?.changesets.flatMap((changeset) => changeset.changes);
  expect(changes).toHaveLength(600);
  expect(tables[0]?.bytesPerReplica).toBeGreaterThan(600 * 24);
});

test("more rows than are rehearsed are scaled", () => {
  const store = open();
  store.databaseForTests.exec(`${PLAIN}
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
    INSERT INTO plain SELECT 'key ' || i, i, 'text' FROM n`);
  expect(planOf(store, filesOf(PLAIN)).tables).toMatchObject([{ changesEmitted: 40_000 }]);
});

test("columns that the files lack stay, what is kept aside is counted, and a bad change is refused", () => {
  const [newer, older] = [open(), open()];
  const grown = SMALL.replace("b TEXT", "c TEXT, b TEXT");
  newer.applySchema(filesOf(grown, "CREATE TABLE n (id TEXT NOT NULL PRIMARY KEY, v);"), TS);
  apply(older, write(newer, "INSERT INTO t (id, c) VALUES ('x', 'c')"));
  apply(older, write(newer, "INSERT INTO n VALUES ('y', 1)"));
  const files = filesOf(
    grown.replace("v REAL", ""),
    "CREATE TABLE n (id TEXT NOT NULL PRIMARY KEY, v);",
  );
  const withoutComma = files.map(({ name, text }) => ({
    name,
    text: text.replace("NULL, ,", "NULL,"),
  }));
  const byName = new Map(planOf(older, withoutComma).tables.map((plan) => [plan.table, plan]));
  expect(byName.get("t")).toMatchObject({ keptChanges: 1, columnsKept: [] });
  expect(byName.get("n")).toMatchObject({ keptChanges: 1, rows: 0 });
  expect(byName.get("p")).toMatchObject({ columnsKept: ["v"], statements: [] });
  const bad = filesOf(SMALL.replace("a,", "a INTEGER,"));
  expect(() => planOf(older, bad)).toThrow(/^s\.sql:1: table "t": .*"a" cannot be changed/);
  expect(rowsOf(older, "SELECT count(*) FROM sqlite_master WHERE name = 'n'")).toEqual([[0n]]);
});

function planOf(
  store: Store,
  files: ReturnType<typeof filesOf>,
  budget?: SchemaBudget,
): SchemaPlan {
  let nowMs = 0;
  const context = { extensionPath: crsqlitePath(), nowMs: () => (nowMs += 1) };
  const limits = budget === undefined ? {} : { budget };
  return planSchema(store.databaseForTests, readSchema(files), { ...context, ...limits });
}

function fill(store: Store, rows: number): void {
  const sql = "INSERT INTO t (id, a) VALUES (?, ?)";
  const params = Array.from({ length: rows }, (_, at) => [`key ${at}`, BigInt(at)]);
  writeAll(
    store,
    params.map((one) => ({ sql, params: one })),
  );
}

function filesOf(...texts: string[]): { name: string; text: string }[] {
  return [{ name: "s.sql", text: texts.join("\n") }];
}

let counter = 0;

function open(): Store {
  counter += 1;
  return folder.open(`s${counter}`);
}

const SMALL = (SMALL_SCHEMA[0]?.text ?? "").trim();
const PLAIN = "CREATE TABLE plain (id TEXT NOT NULL PRIMARY KEY, v INTEGER, w TEXT);";
