/** Books that disagree with rows or with themselves are found, and mended without losing a need. */
import { afterAll, expect, test } from "vitest";
import type { Changeset, FullChangeset } from "../../types.ts";
import type { RowSlice } from "./books-check.ts";
import { actorBytes } from "./ledger.ts";
import { actor, apply, copyAll, rowsOf, StoreFolder, write, writeAll } from "./store-fixture.ts";
import type { Store } from "./store.ts";

const folder = new StoreFolder();
afterAll(() => folder.remove());

test("after a contended exchange between three writers nothing disagrees", () => {
  const stores = [1, 2, 3].map((index) => open(index));
  for (let round = 0; round < 40; round += 1) {
    const store = stores[round % 3]!;
    const key = `k${round % 5}`;
    if (round % 7 === 6) write(store, "DELETE FROM t WHERE id = ?", key);
    else write(store, "INSERT OR REPLACE INTO t VALUES (?, ?, 'b')", key, BigInt(round % 4));
    write(store, "INSERT OR IGNORE INTO k VALUES (?)", `key ${round % 6}`);
    if (round % 5 === 4) write(store, "DELETE FROM k WHERE id = ?", `key ${round % 6}`);
    copyAll(store, stores[(round * 5 + 1) % 3]!);
  }
  for (const source of stores) for (const target of stores) copyAll(source, target);
  for (const store of stores) {
    expect(store.checkBooks()).toMatchObject({
      inMemoryActors: 3,
      databaseActors: 3,
      mismatched: [],
      onlyInMemory: [],
      onlyInDatabase: [],
      findings: [],
    });
    expect(rowFindings(store)).toEqual([]);
    expect(store.repairBooks().repairs).toEqual([]);
  }
});

test("stored books that a foreign hand changed are found and written anew", () => {
  const [source, target] = [open(4), open(5)];
  for (let index = 0; index < 6; index += 1) {
    write(source, "INSERT INTO t VALUES (?, 1, 'b')", `row ${index}`);
  }
  copyAll(source, target);
  const id = actor(4);
  const database = target.databaseForTests;
  database.prepare("UPDATE __patina_heads SET head = 4 WHERE actor_id = ?").run(actorBytes(id));
  const insert = database.prepare("INSERT INTO __corro_bookkeeping_gaps VALUES (?, 2, 3)");
  insert.run(actorBytes(id));
  expect(target.checkBooks().mismatched).toEqual([id]);
  const { repairs, books } = target.repairBooks();
  expect(repairs).toEqual([{ actorId: id, gapsDeleted: 1, gapsInserted: 0, bufferedDropped: 0 }]);
  expect(books.get(id)).toMatchObject({ head: 6, gaps: [] });
  expect(target.checkBooks().mismatched).toEqual([]);
});

test("a gap that memory does not know of becomes a need, unless its rows are there", () => {
  const [source, target] = [open(6), open(7)];
  const versions: Changeset[] = [];
  for (let index = 0; index < 6; index += 1) {
    versions.push(...write(source, "INSERT INTO t VALUES (?, 1, 'b')", `row ${index}`));
  }
  apply(target, [...versions.slice(0, 2), empty(3), ...versions.slice(3)]);
  const insert = target.databaseForTests.prepare(
    "INSERT INTO __corro_bookkeeping_gaps VALUES (?, 2, 3)",
  );
  insert.run(actorBytes(actor(6)));
  target.repairBooks();
  expect(target.ledger.books.gaps(actor(6))).toEqual([{ start: 3, end: 3 }]);
  apply(target, [versions[2]!]);
  expect(target.ledger.books.gaps(actor(6))).toEqual([]);
});

test("rows without a recorded version are found, in slices over all tables", () => {
  const store = open(8);
  writeAll(store, [{ sql: "INSERT INTO p VALUES (1, 'y', 2.5)" }]);
  write(store, "INSERT INTO t VALUES ('x', 1, 'b')");
  store.databaseForTests.prepare("DELETE FROM __patina_versions WHERE version = 1").run();
  expect(rowFindings(store)).toEqual([expect.stringMatching(/^table p, keys 1-/)]);
});

test("buffered rows that belong to no partial version are found and dropped", () => {
  const [source, target] = [open(9), open(1, "again")];
  const [whole] = write(source, "INSERT INTO t VALUES ('x', 1, 'b')") as FullChangeset[];
  const part = { ...whole!, seqs: { start: 0, end: 0 }, changes: whole!.changes.slice(0, 1) };
  expect(apply(target, [part])).toMatchObject([{ kind: "buffered" }]);
  expect(target.checkBooks().findings).toEqual([]);
  target.databaseForTests.prepare("DELETE FROM __corro_seq_bookkeeping").run();
  expect(target.checkBooks()).toMatchObject({
    mismatched: [actor(9)],
    findings: [expect.stringContaining("buffered rows of version 1")],
  });
  expect(target.repairBooks().repairs).toMatchObject([{ bufferedDropped: 1 }]);
  expect(target.checkBooks()).toMatchObject({ mismatched: [], findings: [] });
  expect(target.ledger.books.gaps(actor(9))).toEqual([{ start: 1, end: 1 }]);
  apply(target, [whole!]);
  expect(rowsOf(target, "SELECT id, a, b FROM t")).toEqual([["x", 1n, "b"]]);
});

test("a saved cluster id is there after the store is opened again", () => {
  const options = { schemaFiles: [] };
  const store = folder.open("cluster", options);
  expect(store.clusterId).toBeNull();
  store.saveClusterId(65_535);
  expect(store.clusterId).toBe(65_535);
  store.close();
  expect(folder.open("cluster", options).clusterId).toBe(65_535);
});

function open(index: number, suffix = ""): Store {
  return folder.open(`store${index}${suffix}`, { actorId: actor(index) });
}

function empty(version: number): Changeset {
  return {
    kind: "empty",
    actorId: actor(6),
    versions: { start: version, end: version },
    ts: null,
  };
}

function rowFindings(store: Store): string[] {
  const findings: string[] = [];
  let slice: RowSlice | null = store.checkBooks().firstSlice;
  while (slice !== null) {
    const report = store.checkRows(slice);
    findings.push(...report.findings);
    slice = report.next;
  }
  return findings;
}
