import { join } from "node:path";
import { expect, test } from "vitest";
import { PatinaError } from "#base/errors.ts";
import { readSchema, readSchemaFolder } from "./schema-files.ts";

test("the platform's schema keeps its own rules", () => {
  const folder = join(import.meta.dirname, "..", "..", "schema");
  const schema = readSchema(readSchemaFolder(folder));
  expect(schema.tables.map((table) => table.name)).toEqual([
    "apps",
    "checks",
    "edge_stalls",
    "hostnames",
    "machines",
    "nodes",
    "services",
  ]);
});

test.each([
  ["CREATE TABLE t (id TEXT NOT NULL PRIMARY KEY, a INTEGER, b TEXT NOT NULL DEFAULT '')"],
  ["CREATE TABLE t (x INTEGER NOT NULL, y BLOB NOT NULL, PRIMARY KEY (x, y))"],
  ["CREATE TABLE t (id TEXT NOT NULL PRIMARY KEY, a INTEGER, b INTEGER AS (a + 1)) STRICT"],
  ["CREATE TABLE t (id TEXT NOT NULL PRIMARY KEY, a); CREATE INDEX i ON t (a) WHERE a > 1"],
  ["CREATE TABLE t (id TEXT NOT NULL PRIMARY KEY, a CHECK (a > 1), b, CHECK (a <> b))"],
  ["DROP INDEX IF EXISTS gone"],
])("a schema within the rules is accepted: %s", (text) => {
  expect(readSchema([{ name: "a.sql", text }])).toBeDefined();
});

test.each([
  ["CREATE TABLE t (id TEXT PRIMARY KEY)", "must be NOT NULL"],
  ["CREATE TABLE t (id TEXT)", "a primary key is needed"],
  ["CREATE TABLE t (id TEXT NOT NULL PRIMARY KEY, a TEXT NOT NULL)", "NOT NULL needs a DEFAULT"],
  [
    "CREATE TABLE t (id TEXT NOT NULL PRIMARY KEY, a TEXT NOT NULL DEFAULT NULL)",
    "needs a DEFAULT",
  ],
  ["CREATE TABLE t (id TEXT NOT NULL PRIMARY KEY, a UNIQUE)", "UNIQUE is not allowed"],
  [
    "CREATE TABLE t (id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT)",
    "AUTOINCREMENT is not allowed",
  ],
  [
    "CREATE TABLE t (id TEXT NOT NULL PRIMARY KEY, a REFERENCES t (id))",
    "foreign keys are not allowed",
  ],
  ["CREATE TABLE t AS SELECT 1 AS a", "AS SELECT is not allowed"],
  ["CREATE TEMP TABLE t (id TEXT NOT NULL PRIMARY KEY)", "temporary tables are not allowed"],
  ["CREATE TABLE temp.t (id TEXT NOT NULL PRIMARY KEY)", "temporary tables are not allowed"],
  ["CREATE TABLE IF NOT EXISTS t AS SELECT 1 AS a", "AS SELECT is not allowed"],
  ["CREATE TABLE t (id TEXT NOT NULL PRIMARY KEY, a, UNIQUE (id, a))", "UNIQUE is not allowed"],
  ["CREATE TABLE t (id NOT NULL, a, PRIMARY KEY (id, a || 'x'))", "prohibited in PRIMARY KEY"],
  ["CREATE TABLE t (id NOT NULL, a, PRIMARY KEY (id, a))", 'column "a" of the key'],
  [
    "CREATE TABLE t (id TEXT NOT NULL PRIMARY KEY, a, FOREIGN KEY (a) REFERENCES t (id))",
    "foreign keys are not allowed",
  ],
  ["CREATE INDEX i ON t (a); CREATE TABLE t (id TEXT NOT NULL PRIMARY KEY, a)", "no such table"],
  [
    "CREATE TABLE t (id TEXT NOT NULL PRIMARY KEY); CREATE INDEX i ON t (id); DROP INDEX IF EXISTS i",
    "cannot be dropped by the files that create it",
  ],
  ["CREATE TRIGGER r AFTER INSERT ON t BEGIN SELECT 1", "CREATE TRIGGER is not allowed"],
  ["CREATE VIRTUAL TABLE v USING fts5 (a)", "CREATE VIRTUAL is not allowed"],
  ["ALTER TABLE t ADD COLUMN x", "ALTER is not allowed"],
  ["INSERT INTO t VALUES (1)", "INSERT is not allowed"],
  [
    "CREATE TABLE t (id TEXT NOT NULL PRIMARY KEY); CREATE UNIQUE INDEX i ON t (id)",
    "unique indexes",
  ],
  ["CREATE VIEW v AS SELECT 1", "CREATE VIEW is not allowed"],
  ["DROP TABLE t", "DROP is not allowed"],
  ["DROP INDEX i", "with IF EXISTS only"],
  ["PRAGMA journal_mode = DELETE", "PRAGMA is not allowed"],
  ["CREATE TABLE crsql_x (id TEXT NOT NULL PRIMARY KEY)", "is reserved"],
  ["CREATE TABLE t (id TEXT NOT NULL PRIMARY KEY", "incomplete input"],
])("a schema outside the rules is refused: %s", (text, expected) => {
  expect(errorOf(text)).toContain(expected);
});

test("every violation is reported at once, with file and line", () => {
  const text = "CREATE TABLE t (id TEXT);\n\nDROP TABLE u;\nSELECT 1;";
  const message = errorOf(text);
  expect(message.split("\n")).toHaveLength(3);
  expect(message).toContain("bad.sql:3: DROP is not allowed");
  expect(message).toContain('bad.sql:1: table "t"');
});

test("what is wrong with a column is told at its line, a word at its own", () => {
  const text = `-- A table.
CREATE TABLE t (
  id TEXT NOT NULL PRIMARY KEY,
  a TEXT NOT NULL, -- a, comma
  "b c" TEXT DEFAULT ',' UNIQUE,
  d TEXT NOT NULL DEFAULT (1, 2)
);
CREATE TABLE u (
  id TEXT NOT NULL PRIMARY KEY,
  t TEXT DEFAULT 'REFERENCES'
    REFERENCES t (id)
);`.replace("(1, 2)", "(max(1, 2))");
  expect(errorOf(text).split("\n")).toEqual([
    expect.stringMatching(/^bad\.sql:11: foreign keys/),
    expect.stringMatching(/^bad\.sql:4: table "t": column "a": NOT NULL needs a DEFAULT/),
    expect.stringMatching(/^bad\.sql:5: table "t": UNIQUE is not allowed \("b c"\)/),
  ]);
});

function errorOf(text: string): string {
  try {
    readSchema([{ name: "bad.sql", text }]);
  } catch (thrown) {
    expect(thrown).toBeInstanceOf(PatinaError);
    return thrown instanceof PatinaError && thrown.code === "STORE_SCHEMA" ? thrown.message : "";
  }
  return "";
}
