/**
 * Three writers on a tiny contended key space; every replica pulls each version from random peers.
 * In some seeds each has a twin that is given the same transactions and changesets, and has cr-sqlite
 * merge every change: what they store must be the same to the byte, however rows were written.
 */
import { afterAll, expect, test } from "vitest";
import type { Prng } from "#base/prng.ts";
import { createPrng } from "#base/prng.ts";
import type { Changeset } from "../../types.ts";
import type { Store } from "./store.ts";
import {
  StoreFolder,
  actor,
  apply,
  rowsOf,
  serve,
  storedState,
  writeAll,
} from "./store-fixture.ts";

/** PATINA_FUZZ_SEEDS=3000 for a long run. */
const SEEDS = Number(process.env["PATINA_FUZZ_SEEDS"] ?? 300);
/** Every so many seeds have twins, which take as long again. PATINA_FUZZ_TWINS=1 for all. */
const TWINS_EVERY = Number(process.env["PATINA_FUZZ_TWINS"] ?? 4);
/** Seeds of one test: a run of any length keeps inside the limit of each, and says how far it is. */
const PIECE_SEEDS = 25;
/** Of one test whose seeds all have twins, on a machine that does much else. */
const PIECE_TIMEOUT_MS = 600_000;

/** The twin of a store, which has cr-sqlite merge every change. */
const twins = new WeakMap<Store, Store>();
const folders: StoreFolder[] = [];
afterAll(() => folders.forEach((folder) => folder.remove()));

for (let first = 1; first <= SEEDS; first += PIECE_SEEDS) {
  const last = Math.min(SEEDS, first + PIECE_SEEDS - 1);
  test(
    `replicas that pull from random peers agree, and with their twins (seeds ${first} to ${last})`,
    () => {
      const sum = { versions: 0, partials: 0, rowsWrittenDirectly: 0 };
      for (let seed = first; seed <= last; seed += 1) {
        const outcome = runSeed(seed);
        sum.versions += outcome.versions;
        sum.partials += outcome.partials;
        sum.rowsWrittenDirectly += outcome.rowsWrittenDirectly;
      }
      // The fuzz is worth nothing if nothing was contended, cut in pieces, or written past cr-sqlite.
      const seeds = last - first + 1;
      expect(sum.rowsWrittenDirectly).toBeGreaterThan(Math.floor(seeds / TWINS_EVERY));
      expect(sum.versions).toBeGreaterThan(seeds * 10);
      expect(sum.partials).toBeGreaterThan(0);
    },
    PIECE_TIMEOUT_MS,
  );
}

interface Outcome {
  readonly versions: number;
  readonly partials: number;
  readonly rowsWrittenDirectly: number;
}

function runSeed(seed: number): Outcome {
  const folder = new StoreFolder();
  folders.push(folder);
  const prng = createPrng(seed);
  const writers = [0, 1, 2].map((index) => openPair({ folder, seed }, `w${index}`, index + 1));
  const stats = { partials: 0 };
  for (let step = 0; step < 30; step += 1) {
    writeRandom(pick(prng, writers), prng);
    const reader = pick(prng, writers);
    pullSome({ reader, peers: writers, prng, stats, isThorough: false });
  }
  const fresh = [openPair({ folder, seed }, "f0", 0), openPair({ folder, seed }, "f1", 9)];
  const everyone = [...writers, ...fresh];
  for (let round = 0; !everyone.every((store) => isComplete(store, writers)); round += 1) {
    expect(round, `seed ${seed} does not settle`).toBeLessThan(200);
    for (const reader of everyone) {
      pullSome({ reader, peers: everyone, prng, stats, isThorough: round > 20 });
    }
  }
  let rowsWrittenDirectly = 0;
  const tables = everyone.map(tablesOf);
  for (const table of tables) expect(table, `seed ${seed}`).toEqual(tables[0]);
  for (const store of everyone) {
    const twin = twins.get(store);
    if (twin === undefined) continue;
    expect(storedState(store), `seed ${seed}`).toEqual(storedState(twin));
    rowsWrittenDirectly += store.stats(0).apply.rowsWrittenDirectly;
    expect(twin.stats(0).apply.rowsWrittenDirectly).toBe(0);
  }
  folder.remove();
  const versions = writers.reduce(
    (sum, writer) => sum + writer.ledger.books.head(writer.actorId),
    0,
  );
  return { versions, partials: stats.partials, rowsWrittenDirectly };
}

function openPair(run: { folder: StoreFolder; seed: number }, name: string, index: number): Store {
  const { folder, seed } = run;
  const actorId = actor(index);
  const store = folder.open(name, { actorId });
  if (seed % TWINS_EVERY === 0) {
    twins.set(store, folder.open(`${name}-twin`, { actorId, writesRowsDirectly: false }));
  }
  return store;
}

function pick<Item>(prng: Prng, items: readonly Item[]): Item {
  const item = prng.pick(items);
  if (item === undefined) throw new Error("nothing to pick from");
  return item;
}

function writeRandom(store: Store, prng: Prng): void {
  const id = pick(prng, ["x", "y"]);
  const value = BigInt(prng.below(3));
  const text = pick(prng, ["", "m", "n"]);
  const key = BigInt(prng.below(2));
  const choices = [
    {
      sql: `INSERT INTO t VALUES (?, ?, ?)
        ON CONFLICT DO UPDATE SET a = excluded.a, b = excluded.b`,
      params: [id, value, text],
    },
    { sql: "UPDATE t SET a = ? WHERE id = ?", params: [value, id] },
    { sql: "UPDATE t SET b = ? WHERE id = ?", params: [text, id] },
    { sql: "DELETE FROM t WHERE id = ?", params: [id] },
    { sql: "REPLACE INTO t VALUES (?, ?, ?)", params: [id, value, text] },
    { sql: "INSERT OR IGNORE INTO k VALUES (?)", params: [id] },
    { sql: "DELETE FROM k WHERE id = ?", params: [id] },
    {
      sql: "INSERT INTO p VALUES (?, ?, 1.5) ON CONFLICT DO UPDATE SET v = v + 1",
      params: [key, id],
    },
    { sql: "DELETE FROM p WHERE x = ?", params: [key] },
  ];
  const count = 1 + prng.below(3);
  const statements = Array.from({ length: count }, () => pick(prng, choices));
  const written = writeAll(store, statements);
  const twin = twins.get(store);
  if (twin !== undefined) expect(writeAll(twin, statements)).toEqual(written);
}

function pullSome(pull: {
  reader: Store;
  peers: readonly Store[];
  prng: Prng;
  stats: { partials: number };
  isThorough: boolean;
}): void {
  const { reader, peers, prng, stats, isThorough } = pull;
  const wanted: Changeset[] = [];
  for (const peer of peers) {
    if (peer === reader) continue;
    for (const actorId of peer.ledger.books.actors()) {
      if (actorId === reader.actorId) continue;
      for (let version = 1; version <= peer.ledger.books.head(actorId); version += 1) {
        const versions = { start: version, end: version };
        if (reader.ledger.books.contains(actorId, versions)) continue;
        if (!isThorough && prng.below(4) > 0) continue;
        const chunkBytes = prng.below(3) === 0 ? 40 : 8192;
        const chunks = serve(peer, actorId, versions, chunkBytes);
        wanted.push(...chunks.filter(() => isThorough || prng.below(4) > 0));
      }
    }
  }
  const shuffled = prng.shuffle(wanted);
  const outcomes = apply(reader, shuffled);
  const twin = twins.get(reader);
  if (twin !== undefined) expect(apply(twin, shuffled)).toEqual(outcomes);
  for (const outcome of outcomes) {
    expect(outcome.kind, outcome.reason).not.toBe("refused");
    if (outcome.kind === "buffered") stats.partials += 1;
  }
}

function isComplete(store: Store, writers: readonly Store[]): boolean {
  return writers.every((writer) => {
    const head = writer.ledger.books.head(writer.actorId);
    return head === 0 || store.ledger.books.contains(writer.actorId, { start: 1, end: head });
  });
}

function tablesOf(store: Store): unknown[] {
  const orders = ["t ORDER BY id", "k ORDER BY id", "p ORDER BY x, y"];
  return orders.map((order) => rowsOf(store, `SELECT * FROM ${order}`));
}
