/** What leaves a row as it was uses no version and leaves no trace; cr-sqlite is the real one. */
import { afterAll, describe, expect, test } from "vitest";
import { createPrng } from "#base/prng.ts";
import type { FullChangeset, Statement } from "../../types.ts";
import type { Store } from "./store.ts";
import { copyAll, rowsOf, StoreFolder, storedState, write, writeAll } from "./store-fixture.ts";

const folder = new StoreFolder();
afterAll(() => folder.remove());

const UNCHANGED: readonly (readonly [string, readonly string[]])[] = [
  ["an UPDATE with equal values", ["UPDATE t SET a = 1, b = 'b'"]],
  ["INSERT OR REPLACE of an equal row", ["INSERT OR REPLACE INTO t VALUES ('x', 1, 'b')"]],
  ["REPLACE with a default that is equal", ["REPLACE INTO p VALUES (1, 'y', 2.5)"]],
  ["REPLACE of a row that is nothing but a key", ["REPLACE INTO k VALUES ('x')"]],
  ["DELETE and INSERT", ["DELETE FROM t", "INSERT INTO t VALUES ('x', 1, 'b')"]],
  ["a value set away and back", ["UPDATE t SET a = 2", "UPDATE t SET a = 1"]],
  [
    "a row that came and went",
    ["INSERT INTO t VALUES ('y', 1, 'b')", "DELETE FROM t WHERE id = 'y'"],
  ],
  ["INSERT OR IGNORE of a known key", ["INSERT OR IGNORE INTO t VALUES ('x', 9, 'c')"]],
  ["a DELETE of nothing", ["DELETE FROM t WHERE id = 'absent'"]],
];

test.each(UNCHANGED)("%s uses no version and leaves the database as it was", (_, statements) => {
  const store = filled();
  const before = storedState(store);
  expect(
    writeAll(
      store,
      statements.map((sql) => ({ sql })),
    ),
  ).toEqual([]);
  expect(storedState(store)).toEqual(before);
  expect(write(store, "UPDATE t SET b = 'c'")).toMatchObject([{ version: 4 }]);
});

describe("beside a row that changes", () => {
  test("an unchanged one does not travel", () => {
    const store = filled();
    write(store, "INSERT INTO t VALUES ('y', 2, 'c')");
    const changes = changesOf(store, [
      "INSERT OR REPLACE INTO t VALUES ('x', 1, 'b'), ('y', 3, 'c'), ('z', 4, 'd')",
    ]);
    expect(new Set(changes.map(([key]) => key))).toEqual(new Set(["y", "z"]));
  });

  test("a column set away and back does not travel, the others do", () => {
    const changes = changesOf(filled(), ["UPDATE t SET a = 2, b = 'c'", "UPDATE t SET a = 1"]);
    expect(changes.map(([, cid]) => cid)).toEqual(["b"]);
  });

  test("1 and 1.0 are two values", () => {
    expect(changesOf(filled(), ["REPLACE INTO t VALUES ('x', 1.0, 'b')"])).not.toEqual([]);
  });

  test("a resurrected row that was deleted before is a change", () => {
    const store = filled();
    write(store, "DELETE FROM t");
    expect(changesOf(store, ["INSERT INTO t VALUES ('x', 1, 'b')"])).not.toEqual([]);
  });
});

test("whatever is written: a peer that gets the versions has the same rows", () => {
  // Method: a few keys and values, so that much is equal; each version goes to the peer at once.
  for (let seed = 1; seed <= 6; seed += 1) {
    const prng = createPrng(seed);
    const [store, peer] = [open(), open()];
    let unused = 0;
    for (let round = 0; round < 30; round += 1) {
      const statements = Array.from({ length: 1 + prng.below(4) }, () => draw(prng));
      if (writeAll(store, statements).length === 0) unused += 1;
      copyAll(store, peer);
      for (const table of ["t", "k"]) {
        const all = `SELECT *, typeof(id) FROM ${table} ORDER BY id`;
        expect(rowsOf(peer, all), `seed ${seed} round ${round}`).toEqual(rowsOf(store, all));
      }
    }
    expect(unused).toBeGreaterThan(0);
    const fresh = open();
    copyAll(store, fresh);
    expect(rowsOf(fresh, "SELECT * FROM t ORDER BY id")).toEqual(
      rowsOf(store, "SELECT * FROM t ORDER BY id"),
    );
  }
});

function draw(prng: ReturnType<typeof createPrng>): Statement {
  const id = `k${prng.below(3)}`;
  const [a, b] = [BigInt(prng.below(2)), `b${prng.below(2)}`];
  const statements: readonly Statement[] = [
    { sql: "INSERT OR REPLACE INTO t VALUES (?, ?, ?)", params: [id, a, b] },
    { sql: "UPDATE t SET a = ? WHERE id = ?", params: [a, id] },
    { sql: "UPDATE t SET a = ?, b = ?", params: [a, b] },
    { sql: "DELETE FROM t WHERE id = ?", params: [id] },
    { sql: "REPLACE INTO k VALUES (?)", params: [id] },
    { sql: "DELETE FROM k WHERE id = ?", params: [id] },
  ];
  return prng.pick(statements) ?? { sql: "SELECT 1" };
}

/** Rows of three tables, versions 1 to 3. */
function filled(): Store {
  const store = open();
  write(store, "INSERT INTO t VALUES ('x', 1, 'b')");
  write(store, "INSERT INTO k VALUES ('x')");
  write(store, "INSERT INTO p VALUES (1, 'y', 2.5)");
  return store;
}

/** Key (a text) and column of each change of one transaction. */
function changesOf(store: Store, statements: readonly string[]): [string, string][] {
  const changesets = writeAll(
    store,
    statements.map((sql) => ({ sql })),
  ) as FullChangeset[];
  return changesets.flatMap(({ changes }) =>
    changes.map(({ pk, cid }): [string, string] => [String.fromCharCode(...pk.slice(3)), cid]),
  );
}

let counter = 0;

function open(): Store {
  counter += 1;
  return folder.open(`s${counter}`);
}
