import { statSync } from "node:fs";
import Database from "better-sqlite3";
import { afterAll, expect, test, vi } from "vitest";
import { StoreFolder, write, writeAll } from "./store-fixture.ts";

const folder = new StoreFolder();
afterAll(() => folder.remove());

test("a file whose rows were deleted becomes shorter while the store goes on", async () => {
  const store = folder.open("shrinking");
  for (let at = 0; at < 10; at += 1) {
    const sql = "INSERT INTO t (id, a, b) VALUES (?, ?, '')";
    const params = (row: number): string[] => [`${at}-${row}`, "x".repeat(4_000)];
    writeAll(
      store,
      Array.from({ length: 500 }, (_, row) => ({ sql, params: params(row) })),
    );
  }
  const before = pages("shrinking");
  write(store, "DELETE FROM t WHERE id > '1'");
  expect(pages("shrinking").free).toBeGreaterThan(before.all / 2);
  await vi.waitFor(() => expect(pages("shrinking").free).toBeLessThan(1_000), {
    timeout: 20_000,
  });
  expect(pages("shrinking").all).toBeLessThan(before.all / 2);
  write(store, "INSERT INTO t (id, a, b) VALUES ('after', 1, 'b')");
  expect(store.checkBooks()).toMatchObject({ mismatched: [], findings: [] });
});

test("the log is cut back to its limit once a reader no longer holds it", async () => {
  const store = folder.open("logged");
  const { path } = folder.options("logged");
  const reader = new Database(path, { readonly: true });
  reader.exec("BEGIN");
  reader.prepare("SELECT count(*) FROM t").get();
  const fill = (at: number): void => {
    const params = (row: number): string[] => [`${at}-${row}`, "x".repeat(8_000)];
    const sql = "INSERT INTO t (id, a, b) VALUES (?, ?, '')";
    writeAll(
      store,
      Array.from({ length: 500 }, (_, row) => ({ sql, params: params(row) })),
    );
  };
  for (let at = 0; statSync(`${path}-wal`).size < 80 * MIB; at += 1) fill(at);
  reader.close();
  await vi.waitFor(
    () => {
      fill(Date.now());
      expect(statSync(`${path}-wal`).size).toBeLessThanOrEqual(64 * MIB);
    },
    { timeout: 20_000 },
  );
});

function pages(name: string): { readonly free: number; readonly all: number } {
  const database = new Database(folder.options(name).path, { readonly: true });
  try {
    const read = (what: string): number => Number(database.pragma(what, { simple: true }));
    return { free: read("freelist_count"), all: read("page_count") };
  } finally {
    database.close();
  }
}

const MIB = 1024 * 1024;
