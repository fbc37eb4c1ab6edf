/**
 * How long an empty replica takes to hold what another has, from the start of its process, and the
 * most memory that its process held; beside it the bare apply of the same changes by a store worker
 * of this process, without sync, network and boot.
 *
 * The other's database is filled here, 1,000 rows in each transaction, and then given to its process.
 * Versions are counted in the new replica's file from this process, rows at the end. `--rows` takes
 * one of the two sizes.
 */
import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import Database from "better-sqlite3";
import { crsqlitePath, sqlDeadlinePath } from "../bin/setup/paths.js";
import { readSchemaFiles } from "../proxy/schema-sources.ts";
import { StoreClient } from "../replica/driver/store/store-client.ts";
import { startStore } from "../replica/driver/store/store-thread.ts";
import type { Changeset } from "../replica/types.ts";
import { SCHEMA, TEXT } from "./catchup.ts";
import { LocalCluster, sleep, type Host, type HostSpec } from "./local-cluster.ts";
import type { Bench, BenchContext, Sample } from "./measure.ts";
import { cpuTimeMs, residentMemory } from "./process-figures.ts";

/** Corrosion: 16.1 s and 267 MiB, 66.8 s and 802 MiB. */
export const bench: Bench = {
  about: "an empty replica catches up 100,000 and 400,000 rows x 5 columns",
  figures: [
    { name: "100,000 rows", unit: "s", target: { atMost: 5 }, corrosion: 16.1 },
    { name: "100,000 rows, bare apply", unit: "s" },
    { name: "100,000 rows, ratio", unit: "x", target: { atMost: 1.3 } },
    { name: "100,000 rows, CPU", unit: "s" },
    { name: "100,000 rows, resident", unit: "MiB", target: { atMost: 250 }, corrosion: 267 },
    { name: "400,000 rows", unit: "s", target: { atMost: 32 }, corrosion: 66.8 },
    { name: "400,000 rows, bare apply", unit: "s" },
    { name: "400,000 rows, ratio", unit: "x" },
    { name: "400,000 rows, CPU", unit: "s" },
    { name: "400,000 rows, resident", unit: "MiB", target: { atMost: 400 }, corrosion: 802 },
  ],
  run,
};

async function* run(context: BenchContext): AsyncIterable<Sample> {
  const asked = context.flags.get("rows");
  const sizes = SIZES.filter((rows) => asked === undefined || rows === Number(asked));
  if (sizes.length === 0) throw new Error(`--rows ${asked}: one of ${SIZES.join(", ")}`);
  const cluster = await LocalCluster.create(context);
  const schema = cluster.writeSchema(SCHEMA);
  const sources = new Map<number, string>();
  for (const rows of sizes) sources.set(rows, await fill(cluster, { schema, rows }));
  for (;;) {
    let sample: Sample = {};
    for (const [rows, path] of sources) {
      const bareS = await applyBare(cluster, { schema, rows, path });
      const caughtUp = await catchUp(cluster, { schema, rows, path });
      const name = `${rows.toLocaleString("en")} rows`;
      sample = {
        ...sample,
        [name]: caughtUp.seconds,
        [`${name}, bare apply`]: bareS,
        [`${name}, ratio`]: caughtUp.seconds / bareS,
        [`${name}, CPU`]: caughtUp.cpuS,
        [`${name}, resident`]: caughtUp.residentMiB,
      };
    }
    yield sample;
  }
}

/** What to fill with how much. */
export interface Part {
  readonly schema: string;
  readonly rows: number;
}

/** Returns the path of a database with so many rows, 1,000 in each version. */
export async function fill(cluster: LocalCluster, { schema, rows }: Part): Promise<string> {
  const folder = join(cluster.folder, `source-${rows}`);
  mkdirSync(folder);
  const path = join(folder, "patina.db");
  await withStore({ path, schema }, async (store) => {
    for (let from = 0; from < rows; from += ROWS_PER_VERSION) {
      const statements = Array.from({ length: ROWS_PER_VERSION }, (_, at) => ({
        sql: "INSERT INTO bench_rows (id, a, b, c, d, e) VALUES (?, ?, ?, ?, ?, ?)",
        params: [BigInt(from + at), TEXT, `row ${from + at}`, BigInt(from), BigInt(at), at / 7],
      }));
      await store.transact(statements, STAMP);
    }
  });
  return path;
}

/** Seconds that an empty store takes to apply what the source has, newest version first. */
async function applyBare(
  cluster: LocalCluster,
  { schema, rows, path }: Part & { readonly path: string },
): Promise<number> {
  const folder = join(cluster.folder, `bare-${performance.now()}`);
  mkdirSync(folder);
  let tookMs = 0;
  await withStore({ path, schema }, (source) =>
    withStore({ path: join(folder, "patina.db"), schema }, async (target) => {
      for (let last = rows / ROWS_PER_VERSION; last > 0; last -= VERSIONS_PER_APPLY) {
        const changesets: Changeset[] = [];
        for (let version = last; version > Math.max(0, last - VERSIONS_PER_APPLY); version--) {
          const versions = { start: version, end: version };
          const need = { kind: "full", versions } as const;
          const request = { actorId: source.actorId, need, chunkBytes: CHUNK_BYTES };
          changesets.push(...(await source.readVersions(request)));
        }
        const startMs = performance.now();
        await target.apply(changesets);
        tookMs += performance.now() - startMs;
      }
    }),
  );
  const counted = readNumber(join(folder, "patina.db"), COUNT_ROWS);
  if (counted !== rows) throw new Error(`the bare apply left ${counted} of ${rows} rows`);
  return tookMs / 1000;
}

async function withStore(
  place: { readonly path: string; readonly schema: string },
  work: (store: StoreClient) => Promise<void>,
): Promise<void> {
  const thread = await startStore({
    path: place.path,
    extensionPath: crsqlitePath(),
    deadlinePath: sqlDeadlinePath(),
    nodeId: "source",
    schemaFiles: readSchemaFiles([place.schema]),
  });
  try {
    const store = await StoreClient.connect(thread.connect());
    await work(store);
    store.close();
  } finally {
    await thread.close();
  }
}

/** What it took. */
export interface CaughtUp {
  readonly seconds: number;
  readonly cpuS: number;
  readonly residentMiB: number;
}

/** From an empty database until all versions are there; `path` is what the one peer has. */
export async function catchUp(
  cluster: LocalCluster,
  {
    schema,
    rows,
    path,
    config: more = {},
  }: Part & { readonly path: string; readonly config?: HostSpec["config"] },
): Promise<CaughtUp> {
  const source = await startReplica(cluster, { name: "source", schema, path, bootstrap: [] });
  await source.ready();
  const startMs = performance.now();
  const seconds = (): number => (performance.now() - startMs) / 1000;
  const config = { name: "empty", schema, path: "./patina.db", bootstrap: [source] };
  const empty = await startReplica(cluster, { ...config, more });
  const versions = rows / ROWS_PER_VERSION;
  for (let counted = 0; counted < versions; await sleep(COUNT_PERIOD_MS)) {
    if (seconds() > LIMIT_S) throw new Error(`${counted} of ${versions} versions: too slow`);
    counted = readNumber(empty.databasePath, COUNT_VERSIONS);
  }
  // Whoever started from a checkpoint has them before it is up.
  await empty.ready();
  const caughtUp: CaughtUp = {
    seconds: seconds() - COUNT_PERIOD_MS / 1000,
    cpuS: cpuTimeMs(empty.pid) / 1000,
    residentMiB: residentMemory(empty.pid).maxMiB,
  };
  const counted = readNumber(empty.databasePath, COUNT_ROWS);
  if (counted !== rows) throw new Error(`the replica has ${counted} of ${rows} rows`);
  await empty.stop();
  await source.stop();
  return caughtUp;
}

function startReplica(
  cluster: LocalCluster,
  replica: {
    name: string;
    schema: string;
    path: string;
    bootstrap: readonly Host[];
    more?: HostSpec["config"];
  },
): Promise<Host> {
  const { name, schema, path, bootstrap, more = {} } = replica;
  const config = { ...more, db: { path, schema_paths: [schema] } };
  return cluster.start({ name, kind: "agent", isBare: true, bootstrap, config });
}

/** A number from a database that another process writes; 0 while there is no such table yet. */
function readNumber(path: string, sql: string): number {
  if (!existsSync(path)) return 0;
  try {
    const database = new Database(path, { readonly: true, timeout: 1_000 });
    try {
      return Number(database.prepare(sql).pluck().get());
    } finally {
      database.close();
    }
  } catch (error) {
    if (error instanceof Database.SqliteError) return 0;
    throw error;
  }
}

const SIZES = [100_000, 400_000];
/** As Corrosion's baseline was filled. */
const ROWS_PER_VERSION = 1_000;
/** As sync hands them to the store. */
const VERSIONS_PER_APPLY = 2;
const CHUNK_BYTES = 8_192;
/** Any time: 2025-06-15, in NTP64. */
const STAMP = 0x684ee18000000000n;
/**
 * Counting versions costs next to nothing; counting rows would take a share of the machine. Smaller
 * versions are the replicas' own, of what they say of themselves.
 */
const COUNT_VERSIONS = "SELECT count(*) FROM __patina_versions WHERE last_seq > 100";
const COUNT_ROWS = "SELECT count(*) FROM bench_rows";
const COUNT_PERIOD_MS = 20;
const LIMIT_S = 300;
