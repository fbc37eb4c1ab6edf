/** What holds of one store and its peers, rule by rule; cr-sqlite is the real one. */
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { packKey } from "../../core/wire/packed-key.ts";
import type { Changeset, ColumnChange, FullChangeset } from "../../types.ts";
import { backupDatabase } from "./backup.ts";
import {
  StoreFolder,
  TS,
  actor,
  apply,
  copyAll,
  rowsOf,
  serve,
  write,
  writeAll,
} from "./store-fixture.ts";
import { SERVED_CHANGES_MAX } from "./serve-versions.ts";
import type { Store } from "./store.ts";

const folder = new StoreFolder();
afterAll(() => folder.remove());

test("a transaction becomes one version, chunked, with rows affected", () => {
  const store = open();
  const answer = store.transact(
    [
      { sql: "INSERT INTO t VALUES (?, ?, ?)", params: ["x", 5n, "b"] },
      { sql: "UPDATE t SET b = :b", params: { ":b": "c" } },
      { sql: "SELECT * FROM t" },
      { sql: "UPDATE t SET b = 'd' RETURNING id" },
    ],
    TS,
  );
  expect(answer.results.map((result) => result.rowsAffected)).toEqual([1, 1, 0, 1]);
  expect(answer.commit).toMatchObject({ version: 1, ts: TS });
  const [changeset] = answer.commit?.changesets ?? [];
  expect(changeset?.changes.map(({ cid, val }) => [cid, val])).toEqual([
    ["a", 5n],
    ["b", "d"],
  ]);
});

test("a version of more than 8 KiB is cut into chunks whose seqs tile it", () => {
  const store = open();
  const rows = Array.from({ length: 200 }, (_, index) => ({
    sql: "INSERT INTO t VALUES (?, 1, ?)",
    params: [`k${index}`, "x".repeat(60)],
  }));
  const chunks = writeAll(store, rows) as FullChangeset[];
  expect(chunks.length).toBeGreaterThan(1);
  let next = 0;
  for (const chunk of chunks) {
    expect(chunk.seqs.start).toBe(next);
    next = chunk.seqs.end + 1;
  }
  expect(next - 1).toBe(chunks[0]?.lastSeq);
});

test("a tombstone cannot be dropped by one alone, even when all have applied the delete", () => {
  // What decision 26 rests on: cr-sqlite counts a row's lives in its clock table only.
  const [owner, dropper, keeper] = [open(), open(), open()];
  write(owner, "INSERT INTO t (id, a) VALUES ('x', 1)");
  write(owner, "DELETE FROM t");
  for (const store of [dropper, keeper]) copyAll(owner, store);
  dropTombstones(dropper);
  const again = write(dropper, "INSERT INTO t (id, a) VALUES ('x', 2)");
  expect(apply(keeper, again)).toMatchObject([{ kind: "applied", rowsChanged: 0 }]);
  expect(rowsOf(dropper, "SELECT id, a FROM t")).toEqual([["x", 2n]]);
  expect(rowsOf(keeper, "SELECT id, a FROM t")).toEqual([]);
  // With the tombstone the row's next life wins everywhere.
  const next = write(keeper, "INSERT INTO t (id, a) VALUES ('x', 3)");
  for (const store of [owner, dropper]) apply(store, next);
  for (const store of [owner, dropper, keeper])
    expect(rowsOf(store, "SELECT id, a FROM t")).toEqual([["x", 3n]]);
});

test("without a tombstone an old replica is told that the delete was Empty, and brings the row back", () => {
  const [owner, dropper, old] = [open(), open(), open()];
  write(owner, "INSERT INTO t (id, a) VALUES ('x', 1)");
  copyAll(owner, old);
  write(owner, "DELETE FROM t");
  copyAll(owner, dropper);
  dropTombstones(dropper);
  const told = serve(dropper, owner.actorId, { start: 1, end: 2 });
  expect(told).toMatchObject([{ kind: "empty", versions: { start: 1, end: 2 } }]);
  apply(old, told);
  const fresh = open();
  copyAll(old, fresh);
  for (const store of [old, fresh]) expect(rowsOf(store, "SELECT id FROM t")).toEqual([["x"]]);
  // With the tombstone it is deleted there.
  const other = open();
  copyAll(owner, other);
  expect(rowsOf(other, "SELECT id FROM t")).toEqual([]);
});

test("writes that change nothing use no version and emit nothing", () => {
  const store = open();
  write(store, "INSERT INTO t VALUES ('x', 1, 'b')");
  const upsert =
    "INSERT INTO t VALUES ('x', 1, 'b') ON CONFLICT DO UPDATE SET a = excluded.a, b = excluded.b";
  expect(write(store, upsert)).toEqual([]);
  expect(write(store, "UPDATE t SET a = 1, b = 'b'")).toEqual([]);
  expect(write(store, "DELETE FROM t WHERE id = 'absent'")).toEqual([]);
  expect(write(store, "SELECT 1")).toEqual([]);
  const [next] = write(store, "UPDATE t SET a = 2, b = 'b'") as FullChangeset[];
  expect(next).toMatchObject({ version: 2, changes: [{ cid: "a", val: 2n }] });
});

test("a failing statement undoes the whole transaction and says which one it was", () => {
  const store = open();
  const insert = { sql: "INSERT INTO t VALUES ('x', 1, 'b')" };
  expect(() => writeAll(store, [insert, { sql: "INSERT INTO t VALUES ('x', 1, NULL)" }])).toThrow(
    /statement 2: .*constraint failed/,
  );
  expect(rowsOf(store, "SELECT * FROM t")).toEqual([]);
  expect(write(store, insert.sql)).toMatchObject([{ version: 1 }]);
});

test.each([
  "CREATE TABLE z (id TEXT NOT NULL PRIMARY KEY)",
  "DROP TABLE t",
  "PRAGMA journal_mode = DELETE",
  "ATTACH '/tmp/x' AS x",
  "BEGIN",
  "COMMIT",
  "SAVEPOINT s",
  "VACUUM",
  "REINDEX",
  "",
  "SELECT crsql_internal_sync_bit(1)",
  "DELETE FROM __patina_versions",
  "INSERT INTO t VALUES ('x', 1, 'b'); DELETE FROM t",
])("a statement that is no plain read or write of rows is refused: %s", (sql) => {
  const store = open();
  expect(() => write(store, sql)).toThrow(expect.objectContaining({ code: "STORE_SQL" }));
});

test("a key cannot be updated, but may be set to itself", () => {
  const store = open();
  write(store, "INSERT INTO t VALUES ('x', 1, 'b')");
  expect(() => write(store, "UPDATE t SET id = 'y'")).toThrow(/primary key cannot be updated/);
  expect(write(store, "UPDATE t SET id = 'x', a = 2")).toHaveLength(1);
});

test("integers, reals, texts and blobs arrive as what they were", () => {
  const [source, target] = [open(), open()];
  const values = [5n, 5, "5", Uint8Array.of(5), -(2n ** 63n), 2n ** 53n + 1n, null, 0.5];
  for (const [index, value] of values.entries()) {
    write(source, "INSERT INTO t VALUES (?, ?, '')", `k${index}`, value);
  }
  copyAll(source, target);
  const typed = "SELECT id, typeof(a), a FROM t ORDER BY id";
  expect(rowsOf(target, typed)).toEqual(rowsOf(source, typed));
});

test("keys of 200 bytes and integers with the highest bit set survive a merge", () => {
  const [source, target] = [open(), open()];
  for (const x of [0n, 127n, 128n, 200n, 65_535n, 2n ** 31n, -1n, -200n, 2n ** 63n - 1n]) {
    write(source, "INSERT INTO p VALUES (?, ?, 1.0)", x, "y".repeat(200));
  }
  copyAll(source, target);
  const all = "SELECT * FROM p ORDER BY x";
  expect(rowsOf(target, all)).toEqual(rowsOf(source, all));
});

test("equal values written by two actors end with the same owner in every order", () => {
  const [low, high] = [open(1), open(2)];
  const fromLow = write(low, "INSERT INTO t VALUES ('x', 1, 'b')");
  const fromHigh = write(high, "INSERT INTO t VALUES ('x', 1, 'b')");
  const forward = open(3);
  const backward = open(4);
  apply(forward, [...fromLow, ...fromHigh]);
  apply(backward, [...fromHigh, ...fromLow]);
  for (const store of [forward, backward]) {
    expect(serve(store, high.actorId, ONE)[0]?.kind).toBe("full");
    expect(serve(store, low.actorId, ONE)).toMatchObject([{ kind: "empty", versions: ONE }]);
  }
});

test("a tie of two deletes goes to the greater site in every order", () => {
  const [low, high] = [open(1), open(2)];
  const base = write(low, "INSERT INTO t VALUES ('x', 1, 'b')");
  apply(high, base);
  const fromLow = write(low, "DELETE FROM t");
  const fromHigh = write(high, "DELETE FROM t");
  for (const order of [
    [...fromLow, ...fromHigh],
    [...fromHigh, ...fromLow],
  ]) {
    const store = open();
    apply(store, [...base, ...order]);
    expect(serve(store, high.actorId, ONE)).toMatchObject([{ kind: "full", version: 1 }]);
  }
});

test("a tie of two key-only inserts goes to the greater site in every order", () => {
  const [low, high] = [open(1), open(2)];
  const fromLow = write(low, "INSERT INTO k VALUES ('x')");
  const fromHigh = write(high, "INSERT INTO k VALUES ('x')");
  for (const order of [
    [...fromLow, ...fromHigh],
    [...fromHigh, ...fromLow],
  ]) {
    const store = open();
    const outcomes = apply(store, order);
    expect(outcomes.map((outcome) => outcome.kind)).toEqual(["applied", "applied"]);
    expect(serve(store, high.actorId, ONE)).toMatchObject([{ kind: "full" }]);
  }
});

test("columns reset by a resurrection have their default, and are not served", () => {
  const { writer, resurrection } = resurrect();
  const reader = open();
  apply(reader, resurrection.slice(0, 1));
  // Of version 3, the writer has only the sentinel and `a` left: the reader's old `b` is reset.
  apply(reader, serve(writer, writer.actorId, { start: 3, end: 3 }));
  expect(rowsOf(reader, "SELECT id, b FROM t")).toEqual([["x", ""]]);
  expect(columnsServed(reader, writer, 3)).toEqual(["-1", "a"]);
});

test("a sentinel that the merge of a column made up is not served", () => {
  const { writer } = resurrect();
  const reader = open();
  apply(reader, serve(writer, writer.actorId, { start: 4, end: 4 }));
  expect(rowsOf(reader, "SELECT id, b FROM t")).toEqual([["x", "d"]]);
  expect(columnsServed(reader, writer, 4)).toEqual(["b"]);
});

test("a transaction of 50 MB goes over in chunks, and is there whole or not at all", () => {
  const [source, target] = [open(1), open(2)];
  const text = "x".repeat(10_000);
  const statements = Array.from({ length: 5_000 }, (_, row) => ({
    sql: "INSERT INTO t VALUES (?, ?, ?)",
    params: [`row ${row}`, BigInt(row), text],
  }));
  const chunks = writeAll(source, statements);
  expect(chunks.length).toBeGreaterThan(4_000);
  const [last, ...others] = chunks.toReversed();
  apply(target, others);
  expect(rowsOf(target, "SELECT count(*) FROM t")).toEqual([[0n]]);
  expect(apply(target, [last!])).toMatchObject([{ kind: "applied" }]);
  const sums = "SELECT count(*), sum(a), sum(length(b)) FROM t";
  expect(rowsOf(target, sums)).toEqual(rowsOf(source, sums));
  expect(target.ledger.books.partial(source.actorId, 1)).toBeUndefined();
  expect(rowsOf(target, "SELECT count(*) FROM __corro_buffered_changes")).toEqual([[0n]]);
}, 240_000);

test("an incomplete version is buffered, and merged when its last seqs arrive", () => {
  const [source, target] = [open(), open()];
  writeAll(source, [
    { sql: "INSERT INTO t VALUES ('x', 1, 'b')" },
    { sql: "INSERT INTO t VALUES ('y', 2, 'c')" },
  ]);
  const chunks = serve(source, source.actorId, ONE, 1) as FullChangeset[];
  expect(chunks).toHaveLength(4);
  const kinds = apply(target, [chunks[3]!, chunks[0]!, chunks[0]!, chunks[2]!]).map(
    ({ kind }) => kind,
  );
  expect(kinds).toEqual(["buffered", "buffered", "known", "buffered"]);
  expect(rowsOf(target, "SELECT * FROM t")).toEqual([]);
  expect(target.ledger.books.partial(source.actorId, 1)?.seqs).toEqual([
    { start: 0, end: 0 },
    { start: 2, end: 3 },
  ]);
  expect(serve(target, source.actorId, ONE)).toHaveLength(2);
  expect(apply(target, [chunks[1]!])).toMatchObject([{ kind: "applied", rowsChanged: 2 }]);
  expect(rowsOf(target, "SELECT count(*) FROM __corro_buffered_changes")).toEqual([[0n]]);
  expect(rowsOf(target, "SELECT count(*) FROM __corro_seq_bookkeeping")).toEqual([[0n]]);
  expect(rowsOf(target, "SELECT id, a FROM t ORDER BY id")).toEqual([
    ["x", 1n],
    ["y", 2n],
  ]);
});

test("chunks that come together and make a whole version are merged past the buffer", () => {
  const [source, target] = [open(), open()];
  writeAll(source, [
    { sql: "INSERT INTO t VALUES ('x', 1, 'b')" },
    { sql: "INSERT INTO t VALUES ('y', 2, 'c')" },
  ]);
  write(source, "INSERT INTO t VALUES ('z', 3, 'd')");
  const chunks = serve(source, source.actorId, { start: 1, end: 2 }, 1);
  const outcomes = apply(target, chunks);
  expect(outcomes.map(({ kind, rowsChanged }) => `${kind} ${rowsChanged}`)).toEqual([
    "buffered 0",
    "applied 1",
    "buffered 0",
    "buffered 0",
    "buffered 0",
    "applied 2",
  ]);
  expect(rowsOf(target, "SELECT id, a, b FROM t ORDER BY id")).toEqual([
    ["x", 1n, "b"],
    ["y", 2n, "c"],
    ["z", 3n, "d"],
  ]);
  expect(target.ledger.books.contains(source.actorId, { start: 1, end: 2 })).toBe(true);
  expect(rowsOf(target, "SELECT count(*) FROM __corro_buffered_changes")).toEqual([[0n]]);
});

test("one bad chunk of a version that comes whole refuses all of it", () => {
  const [source, target] = [open(), open()];
  writeAll(source, [
    { sql: "INSERT INTO t VALUES ('x', 1, 'b')" },
    { sql: "INSERT INTO t VALUES ('y', 2, 'c')" },
  ]);
  const chunks = serve(source, source.actorId, ONE, 1) as FullChangeset[];
  const last = chunks.at(-1)!;
  const bad = {
    ...last,
    changes: last.changes.map((change) => ({ ...change, pk: packKey([1n]) })),
  };
  const outcomes = apply(target, [...chunks.slice(0, -1), bad]);
  expect(outcomes.map(({ kind }) => kind)).toEqual(Array(4).fill("refused"));
  expect(rowsOf(target, "SELECT * FROM t")).toEqual([]);
  expect(apply(target, chunks).at(-1)).toMatchObject({ kind: "applied", rowsChanged: 2 });
});

test("an answer ends with the version that makes it large, and says nothing of those below", () => {
  const store = open();
  const insert = (from: number) =>
    Array.from({ length: SERVED_CHANGES_MAX / 4 }, (_, index) => ({
      sql: "INSERT INTO t VALUES (?, 1, 'b')",
      params: [`k${from + index}`],
    }));
  for (let version = 0; version < 4; version += 1) writeAll(store, insert(version * 10_000));
  const versionsOf = (answer: readonly Changeset[]) =>
    new Set(answer.map((one) => (one.kind === "full" ? one.version : summary(one))));
  const all = { start: 1, end: 4 };
  expect(versionsOf(serve(store, store.actorId, all))).toEqual(new Set([4, 3]));
  expect(versionsOf(serve(store, store.actorId, { start: 1, end: 2 }))).toEqual(new Set([2, 1]));
});

test("partial versions, gaps and heads outlive a restart", () => {
  const source = open();
  const writer = open();
  for (let index = 0; index < 5; index += 1)
    write(writer, "INSERT INTO t VALUES (?, 1, 'b')", `k${index}`);
  const before = open(7);
  const name = `s${counter}`;
  apply(before, serve(writer, writer.actorId, { start: 2, end: 2 }));
  apply(before, serve(writer, writer.actorId, { start: 5, end: 5 }, 1).slice(0, 1));
  write(before, "INSERT INTO k VALUES ('own')");
  const books = before.ledger.books.snapshot();
  before.close();
  const after = folder.open(name);
  expect(after.ledger.books.snapshot()).toEqual(books);
  expect(after.actorId).toBe(before.actorId);
  expect(after.databaseId).toBe(before.databaseId);
  expect(after.ledger.lastLocal).toBe(before.ledger.lastLocal);
  expect(source.databaseId).not.toBe(before.databaseId);
});

test.each<[string, Partial<ColumnChange>]>([
  ["an empty key", { pk: new Uint8Array() }],
  ["a key of no columns", { pk: Uint8Array.of(0) }],
  [
    "an integer of nine bytes in the key",
    { pk: Uint8Array.of(1, (9 << 3) | 1, 1, 1, 1, 1, 1, 1, 1, 1, 1) },
  ],
  ["a NULL key", { pk: Uint8Array.of(1, 5) }],
  ["a key of the wrong type", { pk: packKey([5n]) }],
  ["a key with too many columns", { pk: packKey(["x", "y"]) }],
  ["an empty key of an unknown table", { table: "nowhere", pk: new Uint8Array() }],
  ["a table of the store's own", { table: "__patina_state" }],
  ["an unknown column of a deleted row", { cid: "nothing", cl: 2 }],
  ["NULL in a NOT NULL column", { cid: "b", val: null }],
  ["a causal length of 0", { cl: 0 }],
  ["a column of a deleted row", { cl: 2 }],
])("a changeset with %s is refused, leaves nothing behind, and stays needed", (_label, change) => {
  const store = open();
  const good = changesetOf(actor(5), 1, { pk: packKey(["good"]) });
  const bad = changesetOf(actor(5), 2, change);
  const last = changesetOf(actor(5), 3, { pk: packKey(["last"]) });
  const kinds = apply(store, [good, bad, last]).map(({ kind }) => kind);
  expect(kinds).toEqual(["applied", "refused", "applied"]);
  expect(rowsOf(store, "SELECT id FROM t ORDER BY id")).toEqual([["good"], ["last"]]);
  expect(rowsOf(store, "SELECT count(*) FROM t__crsql_pks")).toEqual([[2n]]);
  expect(store.ledger.books.gaps(actor(5))).toEqual([{ start: 2, end: 2 }]);
});

test("a changeset that fails inside SQLite is refused alone; local writes stay tracked", () => {
  const store = open();
  // A trigger that the store does not know of, in the way that a damaged schema would be.
  store.databaseForTests.exec(
    "CREATE TEMP TRIGGER trip BEFORE INSERT ON t WHEN NEW.id = 'trip'" +
      " BEGIN SELECT RAISE(ABORT, 'tripped'); END",
  );
  const changesets = ["a", "trip", "b"].map((id, index) =>
    changesetOf(actor(5), index + 1, { pk: packKey([id]) }),
  );
  const outcomes = apply(store, changesets);
  expect(outcomes.map(({ kind }) => kind)).toEqual(["applied", "refused", "applied"]);
  expect(outcomes[1]?.reason).toContain("tripped");
  expect(write(store, "INSERT INTO t VALUES ('own', 1, 'b')")).toHaveLength(1);
});

test("a CHECK holds for local writes; a merge that breaks one goes through, so that replicas agree", () => {
  const schemaFiles = [{ name: "c.sql", text: CHECKED }];
  const left = folder.open("left", { schemaFiles });
  const right = folder.open("right", { schemaFiles });
  apply(right, write(left, "INSERT INTO c VALUES ('x', 1, 10)"));
  // Good before and after, and not between: a row is merged column by column.
  const moved = write(left, "UPDATE c SET a = 50, b = 60");
  expect(apply(right, moved)).toMatchObject([{ kind: "applied" }]);
  // Each writer keeps to it, both together do not. What came with it in one batch is there, too.
  const raised = write(left, "UPDATE c SET a = 57");
  const lowered = write(right, "UPDATE c SET b = 53");
  const more = write(right, "INSERT INTO c VALUES ('y', 2, 3)");
  expect(apply(left, [...lowered, ...more]).map(({ kind }) => kind)).toEqual([
    "applied",
    "applied",
  ]);
  expect(apply(right, raised)).toMatchObject([{ kind: "applied" }]);
  const rows = [
    ["x", 57n, 53n],
    ["y", 2n, 3n],
  ];
  for (const store of [left, right]) {
    expect(rowsOf(store, "SELECT * FROM c ORDER BY id")).toEqual(rows);
    const broken = /CHECK constraint failed: a < b/;
    expect(() => write(store, "INSERT INTO c VALUES ('z', 3, 2)")).toThrow(broken);
    expect(() => write(store, "UPDATE c SET a = 56 WHERE id = 'x'")).toThrow(broken);
  }
  const copy = { source: folder.options("left").path, target: join(folder.path, "left.backup") };
  expect(backupDatabase(copy)).toBeGreaterThan(0);
  apply(right, write(left, "UPDATE c SET a = 5 WHERE id = 'x'"));
  expect(rowsOf(right, "SELECT a FROM c WHERE id = 'x'")).toEqual([[5n]]);
});

test("the CHECK constraints of a table that exists stay as they are", () => {
  const store = folder.open("fixed", { schemaFiles: [{ name: "c.sql", text: CHECKED }] });
  const declare = (text: string): unknown => store.applySchema([{ name: "c.sql", text }], TS);
  const refusal = 'c.sql:1: table "c": CHECK constraints of a table that exists cannot be';
  expect(() => declare(CHECKED.replace("a < b", "a <= b"))).toThrow(refusal);
  expect(() => declare(CHECKED.replace(", CHECK (a < b)", ""))).toThrow(refusal);
  expect(() => declare(CHECKED.replace(", CHECK", ", d CHECK (d > 0), CHECK"))).toThrow(refusal);
  declare(CHECKED.replace(", CHECK (a < b)", ", d, check(a  <  b)"));
  expect(rowsOf(store, "SELECT d FROM c")).toEqual([]);
});

test("known changesets do nothing, and a version of our own that we lack is refused", () => {
  const store = open();
  const changeset = changesetOf(actor(5), 1, {});
  apply(store, [changeset]);
  const before = store.ledger.lastLocal;
  expect(apply(store, [changeset])).toMatchObject([{ kind: "known" }]);
  expect(apply(store, [changesetOf(store.actorId, 1, {})])).toMatchObject([{ kind: "refused" }]);
  expect(store.ledger.lastLocal).toBe(before);
  expect(store.ledger.books.head(store.actorId)).toBe(0);
});

test("a full disk is one clear error that leaves everything acknowledged in place", () => {
  const store = open();
  write(store, "INSERT INTO t VALUES ('x', 1, 'b')");
  const database = store.databaseForTests;
  const pages = Number(database.pragma("page_count", { simple: true }));
  database.pragma(`max_page_count = ${pages}`);
  const big = "y".repeat(100_000);
  const full = expect.objectContaining({ code: "STORE_FULL" });
  expect(() => write(store, "INSERT INTO t VALUES ('y', 1, ?)", big)).toThrow(full);
  expect(() => apply(store, [changesetOf(actor(5), 1, { cid: "b", val: big })])).toThrow(full);
  database.pragma("max_page_count = 1000000");
  expect(rowsOf(store, "SELECT id FROM t")).toEqual([["x"]]);
  expect(store.ledger.books.head(actor(5))).toBe(0);
  expect(write(store, "INSERT INTO t VALUES ('z', 1, 'b')")).toMatchObject([{ version: 2 }]);
});

test("known versions without rows are Empty; gaps and what is above the head are left out", () => {
  const store = open();
  apply(store, [
    changesetOf(actor(5), 2, { colVersion: 1 }),
    changesetOf(actor(5), 6, { colVersion: 2 }),
    { kind: "empty", actorId: actor(5), versions: { start: 4, end: 5 }, ts: null },
  ]);
  const answer = serve(store, actor(5), { start: 1, end: 100 });
  expect(answer.map(summary)).toEqual(["full 6", "empty 2-2", "empty 4-5"]);
  expect(serve(store, actor(6), { start: 1, end: 100 })).toEqual([]);
  expect(serve(store, actor(5), { start: 1, end: Number.MAX_SAFE_INTEGER })).toEqual(answer);
});

test("the missing seqs of a partial version are answered by chunks that tile them", () => {
  const store = open();
  writeAll(store, [
    { sql: "INSERT INTO t VALUES ('x', 1, 'b')" },
    { sql: "INSERT INTO t VALUES ('y', 2, 'c')" },
  ]);
  write(store, "UPDATE t SET b = 'd' WHERE id = 'x'");
  const need = { kind: "partial", version: 1, seqs: [{ start: 1, end: 2 }] } as const;
  const answer = store.server.read({ actorId: store.actorId, need, chunkBytes: 8192 });
  expect(answer).toMatchObject([
    { version: 1, seqs: { start: 1, end: 2 }, changes: [{ seq: 2 }], lastSeq: 3 },
  ]);
});

test("added columns emit no changes, removed ones stay, changed ones are refused", () => {
  const store = open();
  write(store, "INSERT INTO t VALUES ('x', 1, 'b')");
  const before = store.ledger.lastLocal;
  const grown = SMALL.replace(
    "b TEXT NOT NULL DEFAULT ''",
    "b TEXT NOT NULL DEFAULT '', c TEXT NOT NULL DEFAULT 'c'",
  );
  const { change, commit } = store.applySchema([{ name: "s.sql", text: grown }], TS);
  expect({ change, commit }).toEqual({
    change: { tablesCreated: 0, tablesAdopted: 0, columnsAdded: 1, indexesChanged: 0 },
    commit: null,
  });
  expect(store.ledger.lastLocal).toBe(before);
  expect(rowsOf(store, "SELECT * FROM t")).toEqual([["x", 1n, "b", "c"]]);
  expect(write(store, "UPDATE t SET c = 'd'")).toMatchObject([
    { version: 2, changes: [{ cid: "c" }] },
  ]);
  expect(store.applySchema([{ name: "s.sql", text: SMALL }], TS).change.columnsAdded).toBe(0);
  expect(rowsOf(store, "SELECT * FROM t")).toEqual([["x", 1n, "b", "d"]]);
  const changed = grown.replace("v REAL", "v INTEGER");
  expect(() => store.applySchema([{ name: "s.sql", text: changed }], TS)).toThrow(
    /cannot be changed/,
  );
  expect(store.applySchema([{ name: "s.sql", text: grown }], TS).change.columnsAdded).toBe(0);
});

test("the rows of a table that becomes replicated are a version of ours, at a reload, too", () => {
  const [store, peer] = [open(), open()];
  store.databaseForTests.exec(
    "CREATE TABLE plain (id TEXT NOT NULL PRIMARY KEY, v); INSERT INTO plain VALUES ('x', 1)",
  );
  const files = [
    { name: "s.sql", text: `${SMALL} CREATE TABLE plain (id TEXT NOT NULL PRIMARY KEY, v);` },
  ];
  store.applySchema([{ name: "s.sql", text: SMALL }], TS);
  const { change, commit } = store.applySchema(files, TS);
  expect(change).toMatchObject({ tablesAdopted: 1, tablesCreated: 0 });
  expect(commit).toMatchObject({ version: 1, changesets: [{ changes: [{ cid: "v", val: 1n }] }] });
  peer.applySchema(files, TS);
  apply(peer, commit?.changesets ?? []);
  expect(rowsOf(peer, "SELECT * FROM plain")).toEqual([["x", 1n]]);
});

test("generated columns may be added later, and are what they were declared as", () => {
  const store = open();
  write(store, "INSERT INTO t VALUES ('x', 1, 'b')");
  const grownBy = (columns: string): { name: string; text: string }[] => [
    { name: "s.sql", text: SMALL.replace("DEFAULT '');", `DEFAULT '', ${columns});`) },
  ];
  const grown = grownBy("twice AS (a + c) VIRTUAL, c INTEGER DEFAULT 3");
  const { change, commit } = store.applySchema(grown, TS);
  expect({ change, commit }).toMatchObject({ change: { columnsAdded: 2 }, commit: null });
  expect(rowsOf(store, "SELECT id, c, twice FROM t")).toEqual([["x", 3n, 4n]]);
  const alone = grownBy("twice AS (a + c) VIRTUAL, c INTEGER DEFAULT 3, d AS (upper(id))");
  expect(store.applySchema(alone, TS).change.columnsAdded).toBe(1);
  expect(rowsOf(store, "SELECT d FROM t")).toEqual([["X"]]);
  expect(write(store, "UPDATE t SET a = 5")).toMatchObject([
    { version: 2, changes: [{ cid: "a", val: 5n }] },
  ]);
  expect(store.applySchema(alone, TS).change.columnsAdded).toBe(0);
  const other = grownBy("twice AS (a + a) VIRTUAL, c INTEGER DEFAULT 3, d AS (upper(id))");
  expect(() => store.applySchema(other, TS)).toThrow(/s\.sql:1: .*"twice" cannot be changed/);
  const stored = grownBy(
    "twice AS (a + c), c INTEGER DEFAULT 3, d AS (upper(id)), e AS (a) STORED",
  );
  expect(() => store.applySchema(stored, TS)).toThrow(/"e" is STORED/);
});

test("files of which one thing cannot be done change nothing, and say where it is", () => {
  const store = open();
  const catalogue = (): unknown[] =>
    rowsOf(store, "SELECT name, sql FROM sqlite_master ORDER BY name");
  const before = catalogue();
  const text = [
    "CREATE TABLE first (id TEXT NOT NULL PRIMARY KEY);",
    "CREATE INDEX by_b ON t (b);",
    SMALL.replace("a, b", "a, c, b"),
    "CREATE TABLE last (id TEXT NOT NULL PRIMARY KEY);",
  ];
  const files = [
    { name: "a.sql", text: [text[2], text[0], text[1]].join("\n").replace("v REAL", "v TEXT") },
    { name: "b.sql", text: text[3] ?? "" },
  ];
  expect(() => store.applySchema(files, TS)).toThrow(/^a\.sql:3: table "p": .*"v" cannot be/);
  expect(catalogue()).toEqual(before);
  expect(write(store, "INSERT INTO t VALUES ('x', 1, 'b')")).toHaveLength(1);
});

const ONE = { start: 1, end: 1 };
const SMALL = `CREATE TABLE t (id TEXT NOT NULL PRIMARY KEY, a, b TEXT NOT NULL DEFAULT '');
CREATE TABLE k (id TEXT NOT NULL PRIMARY KEY);
CREATE TABLE p (x INTEGER NOT NULL, y TEXT NOT NULL, v REAL, PRIMARY KEY (x, y));`;

const CHECKED =
  "CREATE TABLE c (id TEXT NOT NULL PRIMARY KEY, a INTEGER NOT NULL DEFAULT 0," +
  " b INTEGER NOT NULL DEFAULT 9, CHECK (a < b))";

/** A row written, deleted, written again, and changed in `b`: versions 1 to 4. */
function resurrect(): { writer: Store; resurrection: Changeset[] } {
  const writer = open();
  const resurrection = [
    ...write(writer, "INSERT INTO t VALUES ('x', 1, 'b')"),
    ...write(writer, "DELETE FROM t"),
    ...write(writer, "INSERT INTO t VALUES ('x', 2, 'c')"),
    ...write(writer, "UPDATE t SET b = 'd'"),
  ];
  return { writer, resurrection };
}

function columnsServed(store: Store, writer: Store, version: number): string[] {
  const served = serve(store, writer.actorId, { start: version, end: version });
  return served.flatMap((changeset) =>
    changeset.kind === "full" ? changeset.changes.map((change) => change.cid) : [],
  );
}

let counter = 0;

/** What a garbage collection of deleted rows would do. */
function dropTombstones({ databaseForTests }: Store): void {
  const keys = "SELECT key FROM t__crsql_clock WHERE col_name = '-1' AND col_version % 2 = 0";
  databaseForTests.exec(`DELETE FROM t__crsql_pks WHERE __crsql_key IN (${keys})`);
  databaseForTests.exec(`DELETE FROM t__crsql_clock WHERE key IN (${keys})`);
}

function open(index?: number): Store {
  counter += 1;
  return folder.open(`s${counter}`, index === undefined ? {} : { actorId: actor(index) });
}

function changesetOf(
  actorId: string,
  version: number,
  change: Partial<ColumnChange>,
): FullChangeset {
  const base = { table: "t", pk: packKey(["x"]), cid: "a", val: 1n, colVersion: 1, seq: 0, cl: 1 };
  const changes = [{ ...base, ...change }];
  return {
    kind: "full",
    actorId,
    version,
    changes,
    seqs: { start: 0, end: 0 },
    lastSeq: 0,
    ts: TS,
  };
}

function summary(changeset: Changeset): string {
  if (changeset.kind === "full") return `full ${changeset.version}`;
  return `empty ${changeset.versions.start}-${changeset.versions.end}`;
}
