import fc from "fast-check";
import { expect, test } from "vitest";
import { readShape } from "./query-shape.ts";

test.each([
  ["SELECT id FROM t", ["t as t"]],
  ["select a.id from main.t AS a, k b", ["t as a", "k as b"]],
  ['SELECT 1 FROM "t" x INDEXED BY i JOIN k USING (id)', ["t as x", "k as k"]],
  ["SELECT 1 FROM t LEFT OUTER JOIN k ON k.id = t.id JOIN p", ["t as t", "k as k?", "p as p"]],
  ["SELECT 1 FROM t RIGHT JOIN k ON 1", ["t as t?", "k as k"]],
  ["SELECT 1 FROM t NATURAL FULL JOIN k", ["t as t?", "k as k?"]],
  ["SELECT 1 FROM t NOT INDEXED WHERE 1;", ["t as t"]],
  ["SELECT DISTINCT id FROM t", null],
  ["SELECT id FROM t UNION SELECT id FROM k", null],
  ["SELECT id FROM (SELECT * FROM t)", null],
  ["SELECT value FROM t, json_each(t.v)", null],
  ["SELECT id FROM other.t", null],
  ["WITH c AS (SELECT 1) SELECT * FROM c", null],
  ["SELECT 1", null],
])("the tables of %s are known", (sql, tables) => {
  const names = readShape(sql)?.tables?.map(
    ({ name, alias, isNullable }) => `${name} as ${alias}${isNullable ? "?" : ""}`,
  );
  expect(names ?? null).toEqual(tables);
});

test.each([
  ["SELECT count(*) FROM t", true],
  ["SELECT max(a) FROM t", true],
  ["SELECT max(a, b) FROM t", false],
  ["SELECT max(a, b), min((a)) FROM t", true],
  ["SELECT a FROM t GROUP BY a", true],
  ["SELECT sum(a) OVER () FROM t", false],
  ["SELECT sum(a) FILTER (WHERE a > 1) FROM t", true],
  ["SELECT id, (SELECT count(*) FROM k) FROM t", false],
  ["SELECT id FROM t WHERE a = 'count('", false],
])("whether %s folds rows is known: %s", (sql, isAggregate) => {
  expect(readShape(sql)?.isAggregate).toBe(isAggregate);
});

test("conditions and columns are added where they belong", () => {
  const sql = "SELECT a -- FROM\n FROM t WHERE (b = ')') -- WHERE\n ORDER BY c ;";
  const shape = readShape(sql);
  expect(sql.slice(shape?.listEnd ?? 0)).toMatch(/^FROM t/);
  const { start = 0, end = 0 } = shape?.condition ?? {};
  expect(sql.slice(start, end)).toBe(" (b = ')') -- WHERE\n ");
  const bare = "SELECT a FROM t ;";
  expect(bare.slice(0, readShape(bare)?.fromEnd)).toBe("SELECT a FROM t ");
});

test("tables met elsewhere are told, qualifiers are not", () => {
  const sql = "SELECT t.id FROM t WHERE t.id IN k AND EXISTS (SELECT 1 FROM 'p')";
  const names = readShape(sql)?.otherNames;
  expect([names?.has("t"), names?.has("k"), names?.has("p")]).toEqual([false, true, true]);
});

test("what is no query has no shape, and no text makes reading throw", () => {
  expect(["DELETE FROM t", "VALUES (1)", "", "SELEC"].map(readShape)).toEqual(Array(4).fill(null));
  const word = fc.constantFrom("SELECT", "FROM", "t", "(", ")", ",", "LEFT", "JOIN", "WHERE", ".");
  const text = fc.array(word).map((words) => `SELECT ${words.join(" ")}`);
  fc.assert(fc.property(fc.oneof(text, fc.string()), (sql) => void readShape(sql)));
});
