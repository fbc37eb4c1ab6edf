/**
 * Replicas on an old and on a new schema at once: what the old one does not know is kept aside, passed
 * on, and merged when the schema comes. Real stores, without a network.
 */
import { afterAll, expect, test } from "vitest";
import type { Prng } from "#base/prng.ts";
import { createPrng } from "#base/prng.ts";
import { packKey } from "../../core/wire/packed-key.ts";
import type { ActorId, Changeset, ColumnChange, Statement } from "../../types.ts";
import type { Store, StoreOptions } from "./store.ts";
import {
  SMALL_SCHEMA,
  StoreFolder,
  TS,
  actor,
  apply,
  copyAll,
  rowsOf,
  serve,
  storedState,
  write,
  writeAll,
} from "./store-fixture.ts";

/** PATINA_SCHEMA_SEEDS=1000 for a long run. */
const SEEDS = Number(process.env["PATINA_SCHEMA_SEEDS"] ?? 10);
/** Far more than a seed takes on a machine that does much else. */
const SEEDS_TIMEOUT_MS = 10_000 + SEEDS * 5_000;

const folder = new StoreFolder();
afterAll(() => folder.remove());

test("a version that names a new column counts as known, and its column comes with the schema", () => {
  const [newer, older] = [open(1, NEW), open(2, OLD)];
  const inserted = write(newer, "INSERT INTO t (id, a, b, c) VALUES ('x', 1, 'b', 'new')");
  expect(apply(older, inserted)).toMatchObject([{ kind: "applied", rowsChanged: 1 }]);
  expect(older.ledger.books.gaps(newer.actorId)).toEqual([]);
  expect(rowsOf(older, "SELECT * FROM t")).toEqual([["x", 1n, "b"]]);
  expect(older.stats(0).kept.changes).toBe(1);
  const before = older.ledger.lastLocal;
  expect(older.applySchema(NEW, TS)).toMatchObject({
    change: { columnsAdded: 1, tablesCreated: 1 },
    commit: null,
    keptMerged: 1,
  });
  expect(rowsOf(older, "SELECT * FROM t")).toEqual([["x", 1n, "b", "new"]]);
  expect(older.stats(0)).toMatchObject({ kept: { changes: 0, bytes: 0, versionsCut: 0 } });
  expect(serve(older, newer.actorId, ONE)).toEqual(inserted);
  // One version has one number: readers of the change stream find the row behind where they were.
  expect(
    rowsOf(older, "SELECT local > ?1 FROM __patina_versions".replace("?1", `${before}`)),
  ).toEqual([[1n]]);
  expect(rowsOf(older, "SELECT DISTINCT db_version FROM crsql_changes")).toEqual(
    rowsOf(older, "SELECT local FROM __patina_versions"),
  );
});

test("what is kept aside outlives a restart on the old schema, and a start on the new one merges it", () => {
  const newer = open(1, NEW);
  write(newer, "INSERT INTO t (id, c) VALUES ('x', 'first')");
  write(newer, "INSERT INTO n VALUES ('y', 5)");
  const options = { schemaFiles: OLD, actorId: actor(2) };
  const name = nextName();
  const first = folder.open(name, options);
  copyAll(newer, first);
  const { kept } = first.stats(0);
  first.close();
  const second = folder.open(name, options);
  expect(second.stats(0).kept).toEqual(kept);
  expect(second.stats(0).kept.changes).toBe(2);
  expect(second.ledger.books.contains(newer.actorId, { start: 1, end: 2 })).toBe(true);
  second.close();
  const third = folder.open(name, { ...options, schemaFiles: NEW });
  expect(third.stats(0).kept.changes).toBe(0);
  expect(rowsOf(third, "SELECT id, c FROM t")).toEqual([["x", "first"]]);
  expect(rowsOf(third, "SELECT * FROM n")).toEqual([["y", 5n]]);
});

test("a replica on the old schema passes whole versions on to one on the new schema", () => {
  const [newer, older, last] = [open(1, NEW), open(2, OLD), open(3, NEW)];
  write(newer, "INSERT INTO t (id, a, b, c) VALUES ('x', 1, 'b', 'c')");
  write(newer, "INSERT INTO n VALUES ('only here', 1)");
  write(newer, "INSERT INTO k VALUES ('k')");
  copyAll(newer, older);
  copyAll(older, last);
  expect(serve(older, newer.actorId, ALL)).toEqual(serve(newer, newer.actorId, ALL));
  for (const query of ["SELECT * FROM t", "SELECT * FROM n", "SELECT * FROM k"]) {
    expect(rowsOf(last, query)).toEqual(rowsOf(newer, query));
  }
  // Seqs that a peer lacks of such a version: of the kept column, and of one that is stored.
  const need = { kind: "partial", version: 1, seqs: [{ start: 1, end: 2 }] } as const;
  const ask = { actorId: newer.actorId, need, chunkBytes: 8192 };
  expect(older.server.read(ask)).toEqual(newer.server.read(ask));
});

test("a version that comes in chunks is kept aside as one that comes whole", () => {
  const [newer, older] = [open(1, NEW), open(2, OLD)];
  write(newer, "INSERT INTO t (id, a, b, c) VALUES ('x', 1, 'b', 'c')");
  const chunks = serve(newer, newer.actorId, ONE, 1);
  expect(chunks.length).toBeGreaterThan(2);
  for (const chunk of chunks.toReversed()) apply(older, [chunk]);
  expect(rowsOf(older, "SELECT * FROM t")).toEqual([["x", 1n, "b"]]);
  older.applySchema(NEW, TS);
  expect(rowsOf(older, "SELECT * FROM t")).toEqual([["x", 1n, "b", "c"]]);
});

test("a column written again and again takes the room of one change; a deleted row takes none", () => {
  const [newer, older] = [open(1, NEW), open(2, OLD)];
  write(newer, "INSERT INTO t (id, c) VALUES ('x', '0')");
  const versions = Array.from({ length: 50 }, (_, index) =>
    write(newer, "UPDATE t SET c = ?", `${index + 1}`),
  );
  apply(older, [...serve(newer, newer.actorId, ONE), ...versions.toReversed().flat()]);
  expect(older.stats(0).kept.changes).toBe(1);
  older.applySchema(NEW, TS);
  expect(rowsOf(older, "SELECT c FROM t")).toEqual([["50"]]);
  const late = open(3, OLD);
  copyAll(newer, late);
  apply(late, write(newer, "DELETE FROM t"));
  expect(late.stats(0).kept).toMatchObject({ changes: 0, bytes: 0 });
});

test("a row that the old schema deletes and inserts again has the new column's default everywhere", () => {
  const [newer, older, last] = [open(1, NEW), open(2, OLD), open(3, NEW)];
  write(newer, "INSERT INTO t (id, a, b, c) VALUES ('x', 1, 'b', 'of the first row')");
  for (const store of [older, last]) copyAll(newer, store);
  apply(newer, write(older, "DELETE FROM t"));
  apply(newer, write(older, "INSERT INTO t (id, a) VALUES ('x', 2)"));
  // Never sees the delete: it is Empty by now.
  copyAll(older, last);
  const fresh = open(4, NEW);
  copyAll(older, fresh);
  older.applySchema(NEW, TS);
  for (const store of [newer, last, fresh, older]) {
    expect(rowsOf(store, "SELECT * FROM t")).toEqual([["x", 2n, "", null]]);
  }
  // What the new schema writes to the row afterwards counts, wherever it comes first.
  const update = write(newer, "UPDATE t SET c = 'of the second row'");
  for (const store of [last, fresh, older]) {
    apply(store, update);
    expect(rowsOf(store, "SELECT c FROM t")).toEqual([["of the second row"]]);
  }
  expect(serve(last, newer.actorId, ALL)).toEqual(serve(newer, newer.actorId, ALL));
});

test("without room a version is cut short: not served, not asked for, and fetched when the schema comes", () => {
  const newer = open(1, NEW);
  const keptLimits = { changesMax: 2, bytesMax: 1_000_000 };
  const name = nextName();
  const older = folder.open(name, { schemaFiles: OLD, actorId: actor(2), keptLimits });
  for (const id of ["v", "w", "x", "y"])
    write(newer, "INSERT INTO t (id, c) VALUES (?, ?)", id, id);
  copyAll(newer, older);
  const all = { start: 1, end: 4 };
  expect(older.ledger.books.contains(newer.actorId, all)).toBe(true);
  expect(rowsOf(older, "SELECT count(*) FROM t")).toEqual([[4n]]);
  expect(older.stats(0).kept).toMatchObject({ changes: 2, versionsCut: 2 });
  const served = serve(older, newer.actorId, all);
  expect(served).toMatchObject([{ version: 4 }, { version: 3 }]);
  const { books } = older.applySchema(NEW, TS);
  expect(books?.get(newer.actorId)?.gaps).toEqual([{ start: 1, end: 2 }]);
  const { findings, mismatched } = older.checkBooks();
  expect({ findings, mismatched }).toEqual({ findings: [], mismatched: [] });
  expect(older.repairBooks().repairs).toEqual([]);
  older.close();
  const again = folder.open(name, { schemaFiles: NEW });
  expect(again.ledger.books.gaps(newer.actorId)).toEqual([{ start: 1, end: 2 }]);
  copyAll(newer, again);
  const rows = "SELECT id, c FROM t ORDER BY id";
  expect(rowsOf(again, rows)).toEqual(rowsOf(newer, rows));
  expect(again.stats(0).kept).toEqual({ changes: 0, bytes: 0, versionsCut: 0 });
  expect(serve(again, newer.actorId, all)).toEqual(serve(newer, newer.actorId, all));
});

test("what was kept and does not fit the column that comes is dropped, and the rest merged", () => {
  const older = open(2, OLD);
  apply(older, [
    changesetOf(actor(5), 1, { cid: "c", val: "good" }),
    changesetOf(actor(5), 2, { cid: "e", val: null }),
    changesetOf(actor(5), 3, { table: "n", pk: packKey([5n]), cid: "v" }),
    changesetOf(actor(5), 4, { table: "n", pk: packKey(["a", "b"]), cid: "v" }),
  ]);
  const text = (NEW[0]?.text ?? "").replace("c TEXT", "c TEXT, e TEXT NOT NULL DEFAULT 'e'");
  expect(older.applySchema([{ name: "n.sql", text }], TS).keptMerged).toBe(1);
  expect(older.stats(0)).toMatchObject({ kept: { changes: 0 }, apply: { keptRefused: 3 } });
  expect(rowsOf(older, "SELECT id, c, e FROM t")).toEqual([["x", "good", "e"]]);
  expect(rowsOf(older, "SELECT * FROM n")).toEqual([]);
});

test("a column missing from new files stays, and old peers go on using it", () => {
  const [left, right, fresh] = [open(1, NEW), open(2, NEW), open(3, OLD)];
  copyAll(left, right);
  write(left, "INSERT INTO t (id, c) VALUES ('x', 'before')");
  copyAll(left, right);
  expect(right.applySchema(OLD, TS).change).toMatchObject({ columnsAdded: 0, tablesCreated: 0 });
  write(left, "UPDATE t SET c = 'after'");
  copyAll(left, right);
  expect(rowsOf(right, "SELECT id, c FROM t")).toEqual([["x", "after"]]);
  copyAll(right, fresh);
  expect(rowsOf(fresh, "SELECT * FROM t")).toEqual([["x", null, ""]]);
  const changed = (NEW[0]?.text ?? "").replace("c TEXT", "c INTEGER");
  expect(() => right.applySchema([{ name: "n.sql", text: changed }], TS)).toThrow(
    /cannot be changed/,
  );
});

test(
  "replicas that come to the schema at different times agree in the end",
  () => {
    const sum = { kept: 0, cut: 0, merged: 0, restarts: 0 };
    for (let seed = 1; seed <= SEEDS; seed += 1) runSeed(seed, sum);
    for (const [what, count] of Object.entries(sum)) expect(count, what).toBeGreaterThan(SEEDS / 4);
  },
  SEEDS_TIMEOUT_MS,
);

test(
  "columns added by triggers alone leave what crsql_commit_alter leaves, whatever was there before",
  () => {
    const sum = { versions: 0, columnsAdded: 0 };
    for (let seed = 1; seed <= SEEDS; seed += 1) runTwins(seed, sum);
    expect(sum.columnsAdded).toBeGreaterThan(SEEDS);
    expect(sum.versions).toBeGreaterThan(SEEDS * 10);
  },
  SEEDS_TIMEOUT_MS,
);

/** Two replicas, each with a twin that is altered by cr-sqlite and otherwise given the same. */
function runTwins(seed: number, sum: { versions: number; columnsAdded: number }): void {
  const prng = createPrng(seed);
  const pairs = [1, 2].map((index) => {
    const options = { actorId: actor(index), schemaFiles: OLD };
    const twin = { ...options, renewTriggers: alterByCrsqlite };
    return [folder.open(nextName(), options), folder.open(nextName(), twin)] as const;
  });
  const stages = [OLD, WIDER, NEW];
  const stageOf = [0, 0];
  for (let step = 0; step < 50; step += 1) {
    const at = prng.below(2);
    const [pair, other] = [pairs[at], pairs[1 - at]];
    if (pair === undefined || other === undefined) continue;
    if (prng.below(12) === 0) {
      stageOf[at] = Math.min(stages.length - 1, (stageOf[at] ?? 0) + 1);
      const files = stages[stageOf[at] ?? 0] ?? NEW;
      const [change, same] = pair.map((store) => store.applySchema(files, TS));
      expect(change).toEqual(same);
      sum.columnsAdded += change?.change.columnsAdded ?? 0;
    }
    const statements = [
      randomStatement(prng, stageOf[at] === 2),
      contendedStatement(prng, (stageOf[at] ?? 0) > 0),
    ];
    const written = pair.map((store) => writeAll(store, statements));
    expect(written[0]).toEqual(written[1]);
    sum.versions += (written[0]?.length ?? 0) > 0 ? 1 : 0;
    const head = other[0].ledger.books.head(other[0].actorId);
    const asked = Array.from({ length: prng.below(4) }, () => 1 + prng.below(Math.max(1, head)));
    for (const version of asked) {
      const chunks = serve(other[0], other[0].actorId, { start: version, end: version });
      expect(apply(pair[0], chunks)).toEqual(apply(pair[1], chunks));
    }
    expect(storedState(pair[0]), `seed ${seed}, step ${step}`).toEqual(storedState(pair[1]));
  }
  for (const stores of pairs) {
    const triggers =
      "SELECT name, tbl_name, sql FROM sqlite_master WHERE type = 'trigger' ORDER BY name";
    expect(rowsOf(stores[0], triggers)).toEqual(rowsOf(stores[1], triggers));
    for (const store of stores) store.close();
  }
}

const alterByCrsqlite: NonNullable<StoreOptions["renewTriggers"]> = (database, table) => {
  database.prepare("SELECT crsql_begin_alter('main', ?)").get(table);
  database.prepare("SELECT crsql_commit_alter('main', ?)").get(table);
};

/** Four replicas, two on the new schema from the start; everyone pulls versions from anyone. */
function runSeed(
  seed: number,
  sum: { kept: number; cut: number; merged: number; restarts: number },
): void {
  const prng = createPrng(seed);
  const keptLimits = { changesMax: prng.below(2) === 0 ? 3 : 1000, bytesMax: 1_000_000 };
  const optionsOf = (index: number, schemaFiles: StoreOptions["schemaFiles"]) => ({
    actorId: actor(index),
    schemaFiles,
    keptLimits,
  });
  const names = Array.from({ length: 4 }, nextName);
  const isNew = [true, true, false, false];
  const stores = names.map((name, index) =>
    folder.open(name, optionsOf(index + 1, isNew[index] === true ? NEW : OLD)),
  );
  const upgrade = (index: number): void => {
    isNew[index] = true;
    sum.merged += stores[index]?.applySchema(NEW, TS).keptMerged ?? 0;
  };
  for (let step = 0; step < 40; step += 1) {
    const index = prng.below(4);
    const store = stores[index];
    if (store === undefined) continue;
    writeRandom(store, prng, isNew[index] === true);
    pull(stores, store, prng, 3);
    sum.kept += store.stats(0).kept.changes > 0 ? 1 : 0;
    sum.cut += store.stats(0).kept.versionsCut > 0 ? 1 : 0;
    if (step === 25) upgrade(2);
    if (prng.below(10) > 0) continue;
    store.close();
    sum.restarts += 1;
    stores[index] = folder.open(
      names[index] ?? "",
      optionsOf(index + 1, isNew[index] === true ? NEW : OLD),
    );
  }
  upgrade(3);
  const fresh = folder.open(nextName(), optionsOf(9, NEW));
  const everyone = [...stores, fresh];
  for (let round = 0; !everyone.every((store) => isComplete(store, stores)); round += 1) {
    expect(round, `seed ${seed} does not settle`).toBeLessThan(100);
    for (const store of everyone) pull(everyone, store, prng, round > 10 ? 1 : 2);
  }
  const tables = everyone.map((store) =>
    ["t ORDER BY id", "n ORDER BY id"].map((order) => rowsOf(store, `SELECT * FROM ${order}`)),
  );
  for (const table of tables) expect(table, `seed ${seed}`).toEqual(tables[0]);
  for (const store of everyone) {
    expect(store.stats(0).kept, `seed ${seed}`).toEqual({ changes: 0, bytes: 0, versionsCut: 0 });
    for (const { actorId } of stores) {
      const range = { start: 1, end: 100 };
      const values = valuesOf(serve(store, actorId, range));
      expect(values, `seed ${seed}`).toEqual(valuesOf(serve(fresh, actorId, range)));
    }
    store.close();
  }
}

function writeRandom(store: Store, prng: Prng, isNew: boolean): void {
  writeAll(store, [randomStatement(prng, isNew)]);
}

function randomStatement(prng: Prng, isNew: boolean): Statement {
  const id = prng.pick(["x", "y", "z"]) ?? "x";
  const value = BigInt(prng.below(5));
  const both = [
    { sql: "INSERT OR IGNORE INTO t (id, a) VALUES (?, ?)", params: [id, value] },
    { sql: "UPDATE t SET a = ? WHERE id = ?", params: [value, id] },
    { sql: "DELETE FROM t WHERE id = ?", params: [id] },
  ];
  const onNew = [
    { sql: "UPDATE t SET c = ? WHERE id = ?", params: [`c${value}`, id] },
    { sql: "DELETE FROM t WHERE id = ?", params: [id] },
    { sql: "INSERT OR REPLACE INTO n VALUES (?, ?)", params: [id, value] },
    { sql: "DELETE FROM n WHERE id = ?", params: [id] },
    { sql: "REPLACE INTO t (id, a, c) VALUES (?, ?, ?)", params: [id, value, `r${value}`] },
  ];
  const choices = isNew ? [...both, ...onNew, ...onNew] : both;
  return prng.pick(choices) ?? { sql: "SELECT 1" };
}

/** Deletes and new lives of the same few rows. */
function contendedStatement(prng: Prng, isWide: boolean): Statement {
  const id = prng.pick(["x", "y"]) ?? "x";
  const key = BigInt(prng.below(2));
  const value = BigInt(prng.below(3));
  const insert =
    "INSERT INTO p (x, y, v) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET v = excluded.v";
  const choices = [
    { sql: "DELETE FROM t WHERE id = ?", params: [id] },
    { sql: "REPLACE INTO t (id, a, b) VALUES (?, ?, ?)", params: [id, value, `${value}`] },
    { sql: insert, params: [key, id, value] },
    { sql: "DELETE FROM p WHERE x = ?", params: [key] },
    { sql: "INSERT OR IGNORE INTO k VALUES (?)", params: [id] },
    { sql: "DELETE FROM k WHERE id = ?", params: [id] },
  ];
  const wide = { sql: "UPDATE p SET w = ?, z = z + 1 WHERE x = ?", params: [id, key] };
  return prng.pick(isWide ? [...choices, wide, wide] : choices) ?? { sql: "SELECT 1" };
}

function pull(peers: readonly Store[], reader: Store, prng: Prng, oneOf: number): void {
  const wanted: Changeset[] = [];
  for (const peer of peers) {
    if (peer === reader) continue;
    for (const actorId of peer.ledger.books.actors()) {
      if (actorId === reader.actorId) continue;
      for (let version = 1; version <= peer.ledger.books.head(actorId); version += 1) {
        const range = { start: version, end: version };
        if (reader.ledger.books.contains(actorId, range) || prng.below(oneOf) > 0) continue;
        wanted.push(...serve(peer, actorId, range, prng.below(3) === 0 ? 40 : 8192));
      }
    }
  }
  for (const outcome of apply(reader, prng.shuffle(wanted))) {
    expect(outcome.kind, outcome.reason).not.toBe("refused");
  }
}

function isComplete(store: Store, writers: readonly Store[]): boolean {
  return writers.every(({ actorId, ledger }) => {
    const end = ledger.books.head(actorId);
    return end === 0 || store.ledger.books.contains(actorId, { start: 1, end });
  });
}

/**
 * Values that a peer would learn, stamps and chunk borders aside. Sentinels are left out: one that the
 * merge of a column made up before its own came is not served.
 */
function valuesOf(changesets: readonly Changeset[]): unknown[] {
  return changesets.flatMap((one) =>
    one.kind === "empty" ? [] : one.changes.filter(({ cid }) => cid !== "-1"),
  );
}

let counter = 0;

function nextName(): string {
  counter += 1;
  return `s${counter}`;
}

function open(index: number, schemaFiles: StoreOptions["schemaFiles"]): Store {
  return folder.open(nextName(), { actorId: actor(index), schemaFiles });
}

function changesetOf(actorId: ActorId, version: number, change: Partial<ColumnChange>): Changeset {
  const base = { table: "t", pk: packKey(["x"]), cid: "a", val: 1n, colVersion: 1, seq: 0, cl: 1 };
  const seqs = { start: 0, end: 0 };
  const changes = [{ ...base, ...change }];
  return { kind: "full", actorId, version, changes, seqs, lastSeq: 0, ts: TS };
}

const ONE = { start: 1, end: 1 };
const ALL = { start: 1, end: 3 };
const OLD = SMALL_SCHEMA;
/** Two columns more in another table, of which one is computed, and one with a default. */
const WIDER = SMALL_SCHEMA.map(({ name, text }) => ({
  name,
  text: text.replace(
    "v REAL",
    "v REAL, w TEXT NOT NULL DEFAULT 'w', half AS (v / 2), z INTEGER DEFAULT 7",
  ),
}));
/** One column and one table more. */
const NEW = SMALL_SCHEMA.map(({ name, text }) => ({
  name,
  text:
    text.replace("b TEXT NOT NULL DEFAULT ''", "b TEXT NOT NULL DEFAULT '', c TEXT") +
    "CREATE TABLE n (id TEXT NOT NULL PRIMARY KEY, v INTEGER);",
}));
