import { statSync } from "node:fs";
import { afterAll, expect, test } from "vitest";
import { apply, copyAll, rowsOf, StoreFolder, write, writeAll } from "./store-fixture.ts";

const folder = new StoreFolder();
afterAll(() => folder.remove());

test("single-row versions are checkpointed between commits, again and again", async () => {
  const store = folder.open("single");
  for (let id = 1; store.stats(0).checkpoints.done < 3; id += 1) {
    write(store, "INSERT INTO t (id, a) VALUES (?, ?)", `row-${id}`, "x".repeat(60));
    if (id % 50 === 0) await turnOfTheLoop();
    expect(id).toBeLessThan(10_000);
  }
  expect(store.stats(0).checkpoints.failed).toBe(0);
});

test("bulk versions are given a longer log", async () => {
  const store = folder.open("bulk");
  for (let at = 0; logBytes("bulk") < 7_000 * 4_120; at += 1) {
    writeAll(store, manyRows(at));
    await turnOfTheLoop();
    expect(at).toBeLessThan(200);
  }
  expect(store.stats(0).checkpoints.done).toBe(0);
});

test("what was committed before, during and after a checkpoint is there when the file is opened again", async () => {
  const source = folder.open("before");
  const target = folder.open("copied");
  for (let id = 1; source.stats(0).checkpoints.done < 1; id += 1) {
    apply(target, write(source, "INSERT INTO t (id, a) VALUES (?, ?)", `row-${id}`, "one"));
    if (id % 100 === 0) await turnOfTheLoop();
  }
  write(source, "INSERT INTO t (id, a) VALUES ('last', 'one')");
  copyAll(source, target);
  source.close();
  const again = folder.open("before");
  const rows = "SELECT id, a, b FROM t ORDER BY id";
  expect(rowsOf(again, rows)).toEqual(rowsOf(target, rows));
});

function manyRows(at: number): { sql: string; params: string[] }[] {
  return Array.from({ length: 500 }, (_, row) => ({
    sql: "INSERT INTO t (id, a, b) VALUES (?, ?, ?)",
    params: [`${at}-${row}`, "x".repeat(200), "y"],
  }));
}

function logBytes(name: string): number {
  return statSync(`${folder.options(name).path}-wal`).size;
}

function turnOfTheLoop(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 1));
}
