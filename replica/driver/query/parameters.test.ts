import Database from "better-sqlite3";
import fc from "fast-check";
import { afterAll, expect, test } from "vitest";
import type { SqlValue, Statement } from "../../types.ts";
import { bindArguments, bindParameters, expandParameters } from "./parameters.ts";

const database = new Database(":memory:").defaultSafeIntegers(true);
afterAll(() => void database.close());

test.each<[string, Statement["params"], SqlValue[]]>([
  ["SELECT ?, ?", [1n, "b"], [1n, "b"]],
  ["SELECT ?1, ?1", ["once"], ["once", "once"]],
  ["SELECT ?2, ?1", ["a", "b"], ["b", "a"]],
  ["SELECT ?2, ?", ["a", "b", "c"], ["b", "c"]],
  ["SELECT :a, @b, $c, :a", [1n, 2n, 3n], [1n, 2n, 3n, 1n]],
  ["SELECT :a, ?", [1n, 2n], [1n, 2n]],
  ["SELECT @a, ?1, ?", [1n, 2n], [1n, 1n, 2n]],
  ["SELECT :a, $b", { $b: "b", ":a": "a" }, ["a", "b"]],
  ["SELECT :a, :b", { ":b": "b" }, [null, "b"]],
  ["SELECT '?', \"?\", [?], `?`, '--' /* ? */ -- ?\n, ?", ["x"], ["?", "?", "?", "?", "--", "x"]],
  ["SELECT :__proto__", { [":__proto__"]: "p" } as Record<string, SqlValue>, ["p"]],
  ["SELECT 1", undefined, [1n]],
])("SQLite gets the values of %s where they belong", (sql, params, row) => {
  const bound = bindParameters(params === undefined ? { sql } : { sql, params });
  if (!bound.ok) throw new Error(bound.error);
  const query = sql.replaceAll(/"\?"|\[\?\]|`\?`/g, "'?'");
  expect(
    database
      .prepare(query)
      .raw()
      .get(...bindArguments(bound.value)),
  ).toEqual(row);
});

test.each<[string, Statement["params"], string]>([
  ["SELECT ?", [1n, 2n], "Wrong number of parameters passed to query. Got 2, needed 1"],
  ["SELECT ?", undefined, "Wrong number of parameters passed to query. Got 0, needed 1"],
  ["SELECT ?7", [1n], "Wrong number of parameters passed to query. Got 1, needed 7"],
  ["SELECT :id", { id: 1n }, "Invalid parameter name: id"],
  ["SELECT :id, $id", [1n, 2n], "two parameters are named id: rename one"],
  ["SELECT ?99999999", [1n], "parameter numbers go up to 32766"],
])("%s with %o is refused", (sql, params, error) => {
  expect(bindParameters(params === undefined ? { sql } : { sql, params })).toEqual({
    ok: false,
    error,
  });
});

test("no text makes binding throw", () => {
  const sql = fc.oneof(
    fc.string(),
    fc
      .array(fc.constantFrom("?", ":", "$", "a", "1", "'", '"', "[", "`", "--", "/*", "\n", " "))
      .map((parts) => parts.join("")),
  );
  fc.assert(fc.property(sql, (text) => void bindParameters({ sql: text, params: [] })));
});

test("where SQLite takes the text, it counts as many parameters as we do", () => {
  const parts = fc.constantFrom("?", "?1", "?3", ":a", "$b", "@a", "'?'", '"?"', "/*?*/1", "1");
  fc.assert(
    fc.property(fc.array(parts, { minLength: 1, maxLength: 6 }), (list) => {
      const sql = `SELECT ${list.join(", ")}`;
      const bound = bindParameters({ sql, params: [] });
      const needed = bound.ok ? 0 : Number(/needed (\d+)/.exec(bound.error)?.[1] ?? "-1");
      fc.pre(needed >= 0);
      const params = Array.from({ length: needed }, (_, index) => BigInt(index));
      const full = bindParameters({ sql, params });
      // `:a` and `@a` in one statement are told apart by SQLite alone.
      fc.pre(full.ok);
      if (full.ok) database.prepare(sql.replaceAll('"?"', "'?'")).all(...bindArguments(full.value));
    }),
  );
});

test.each<[string, Statement["params"], string]>([
  ["SELECT ? FROM t", [3n], "SELECT 3 FROM t"],
  ["SELECT ?2, ?, ?1", ["a", null, 1.5], "SELECT NULL, 1.5, 'a'"],
  ["SELECT :a, @b, :a", { ":a": "it's", "@b": 2 }, "SELECT 'it''s', 2.0, 'it''s'"],
  ["SELECT '?', ? -- ?", [Uint8Array.of(0, 255)], "SELECT '?', x'00ff' -- ?"],
  ["SELECT ?, ?", [1e20, 0.1], "SELECT 1.0e+20, 0.1"],
])("%s becomes a text of its own", (sql, params, expanded) => {
  const statement = params === undefined ? { sql } : { sql, params };
  expect(expandParameters(statement)).toEqual({ ok: true, value: expanded });
});

test("a value comes out of the expanded text as it went in", () => {
  const value = fc.oneof(
    fc.constant(null),
    fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
    fc.double({ noNaN: true }),
    fc.string({ unit: "grapheme" }),
    fc.constant("nul \0 inside"),
    fc.uint8Array(),
  );
  fc.assert(
    fc.property(value, (one: SqlValue) => {
      const expanded = expandParameters({ sql: "SELECT ? AS v", params: [one] });
      if (!expanded.ok) throw new Error(expanded.error);
      const out = database.prepare(expanded.value).pluck().get();
      // SQLite has no negative zero.
      if (typeof one === "number") expect(Number(out)).toBe(one + 0);
      else expect(out instanceof Buffer ? new Uint8Array(out) : out).toEqual(one);
    }),
  );
});
