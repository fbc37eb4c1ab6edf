import fc from "fast-check";
import { expect, test } from "vitest";
import { firstKeyword, internalName, splitStatements, tokenize } from "./sql-text.ts";

test("statements are cut at semicolons outside strings, names and comments", () => {
  const text = `-- a; b
CREATE TABLE "x;y" (a TEXT DEFAULT ';' /* ; */);
  DROP INDEX IF EXISTS [z;]; ;
`;
  expect(splitStatements(text).map(({ sql, line }) => ({ sql, line }))).toEqual([
    { sql: `CREATE TABLE "x;y" (a TEXT DEFAULT ';' /* ; */)`, line: 2 },
    { sql: "DROP INDEX IF EXISTS [z;]", line: 3 },
  ]);
});

test("the first keyword is found behind comments", () => {
  expect(firstKeyword(tokenize("/* x */ -- y\n select 1"))).toBe("SELECT");
  expect(firstKeyword(tokenize("  "))).toBe("");
});

test.each([
  ["DELETE FROM crsql_changes", "crsql_changes"],
  ["SELECT crsql_internal_sync_bit(1)", "crsql_internal_sync_bit"],
  [`UPDATE "t__crsql_clock" SET seq = 0`, "t__crsql_clock"],
  ["INSERT INTO '__patina_versions' VALUES (1)", "__patina_versions"],
  ["DELETE FROM [__corro_members]", "__corro_members"],
  ["DELETE FROM `crsql_site_id`", "crsql_site_id"],
  ["UPDATE main.sqlite_master SET sql = ''", "sqlite_master"],
])("an internal name is seen however it is quoted: %s", (sql, name) => {
  expect(internalName(tokenize(sql))).toBe(name);
});

test("a text that only mentions an internal name is none", () => {
  expect(internalName(tokenize("INSERT INTO t VALUES ('about crsql_changes')"))).toBeNull();
});

test("no text makes the tokenizer throw or lose its place", () => {
  fc.assert(
    fc.property(fc.string({ unit: "binary" }), (text) => {
      const tokens = tokenize(text);
      expect(tokens.every((token) => token.offset < text.length)).toBe(true);
      splitStatements(text);
    }),
  );
});
