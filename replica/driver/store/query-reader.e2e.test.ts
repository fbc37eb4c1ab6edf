/** Read-only queries in their own thread. */
import { afterAll, expect, test } from "vitest";
import type { Statement } from "../../types.ts";
import type { QueryPart } from "./query-reader.ts";
import { QueryReader } from "./query-reader.ts";
import { StoreFolder, write } from "./store-fixture.ts";

const folder = new StoreFolder();
const store = folder.open("a");
const reader = new QueryReader(folder.options("a").path);
afterAll(async () => {
  await reader.close();
  folder.remove();
});

test("a query answers with columns, then rows as of its start", async () => {
  write(store, "REPLACE INTO t VALUES ('x', 5, 'b')");
  const parts = await all({ sql: "SELECT id, a AS n FROM t WHERE a = :a", params: { ":a": 5n } });
  expect(parts).toEqual([
    { kind: "columns", columns: ["id", "n"] },
    { kind: "rows", rows: [["x", 5n]] },
  ]);
});

test("a large answer comes in chunks, and stops being read when nobody takes it", async () => {
  let rows = 0;
  for await (const part of reader.query({ sql: `${COUNT} SELECT i FROM n` }, 60_000)) {
    if (part.kind !== "rows") continue;
    rows += part.rows.length;
    if (rows > 2000) break;
  }
  expect(rows).toBeGreaterThan(2000);
  expect(rows).toBeLessThan(5000);
});

test.each(["DELETE FROM t", "PRAGMA journal_mode = DELETE", "ATTACH ':memory:' AS x", "BEGIN", ""])(
  "a statement that is not a read is refused: %s",
  async (sql) => {
    await expect(all({ sql })).rejects.toMatchObject({
      code: "STORE_SQL",
      message: "statement is not readonly",
    });
  },
);

test("a wrong statement and a failure between rows are told with SQLite's words", async () => {
  await expect(all({ sql: "SELECT * FROM nowhere" })).rejects.toMatchObject({
    code: "STORE_SQL",
    message: "no such table: nowhere",
  });
  const late = `${COUNT} SELECT CASE WHEN i = 600 THEN abs(-9223372036854775808) ELSE i END FROM n`;
  await expect(all({ sql: late })).rejects.toMatchObject({ message: "integer overflow" });
});

test("a query beyond its deadline is given up, and the next one is answered", async () => {
  const endless = all({ sql: `${COUNT} SELECT i FROM n` }, 1);
  await expect(endless).rejects.toMatchObject({ code: "STORE_TIMEOUT" });
  expect(await all({ sql: "SELECT 1 AS one" })).toHaveLength(2);
});

const COUNT = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)";

async function all(statement: Statement, timeoutMs = 60_000): Promise<QueryPart[]> {
  const parts: QueryPart[] = [];
  for await (const part of reader.query(statement, timeoutMs)) parts.push(part);
  return parts;
}
