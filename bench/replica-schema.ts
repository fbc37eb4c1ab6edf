/**
 * How long writes stand still while a table of many rows gets columns: the longest that a write waits
 * which comes right behind the change of the schema, at 1,000,000 rows of 5 columns; beside it what
 * crsql_commit_alter takes for the same. `--rows` takes another number.
 */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { crsqlitePath, sqlDeadlinePath } from "../bin/setup/paths.js";
import { Store, type StoreOptions } from "../replica/driver/store/store.ts";
import { LocalCluster } from "./local-cluster.ts";
import type { Bench, BenchContext, Sample } from "./measure.ts";

/** The pause of `crsql_commit_alter` is Corrosion's, too. */
export const bench: Bench = {
  about: "columns added to a table of 1,000,000 rows x 5 columns",
  figures: [
    { name: "nullable column, pause", unit: "ms", target: { atMost: 1_000 } },
    { name: "column with default, pause", unit: "ms", target: { atMost: 1_000 } },
    { name: "changes emitted", unit: "", target: { atMost: 0 } },
    { name: "crsql_commit_alter, pause", unit: "ms" },
  ],
  defaultRuns: 1,
  run,
};

async function* run(context: BenchContext): AsyncIterable<Sample> {
  const rows = Number(context.flags.get("rows") ?? ROWS);
  const cluster = await LocalCluster.create(context);
  for (let at = 1; ; at += 1) {
    const folder = join(cluster.folder, `schema-${at}`);
    mkdirSync(folder);
    yield alter(folder, rows);
  }
}

function alter(folder: string, rows: number): Sample {
  const options: StoreOptions = {
    path: join(folder, "patina.db"),
    extensionPath: crsqlitePath(),
    deadlinePath: sqlDeadlinePath(),
    nodeId: "bench",
    schemaFiles: schemaWith(""),
  };
  fill(options, rows);
  const nullable = pause(options, "f TEXT");
  const withDefault = pause(options, "f TEXT, g TEXT NOT NULL DEFAULT 'unknown'");
  const commitAlter = pause(
    {
      ...options,
      renewTriggers: (database, table) => {
        database.prepare("SELECT crsql_begin_alter('main', ?)").get(table);
        database.prepare("SELECT crsql_commit_alter('main', ?)").get(table);
      },
    },
    "f TEXT, g TEXT NOT NULL DEFAULT 'unknown', h TEXT",
  );
  return {
    "nullable column, pause": nullable.tookMs,
    "column with default, pause": withDefault.tookMs,
    "changes emitted": nullable.emitted + withDefault.emitted,
    "crsql_commit_alter, pause": commitAlter.tookMs,
  };
}

function fill(options: StoreOptions, rows: number): void {
  const store = open(options);
  for (let from = 0; from < rows; from += ROWS_PER_VERSION) {
    const statements = Array.from({ length: Math.min(ROWS_PER_VERSION, rows - from) }, (_, at) => ({
      sql: "INSERT INTO bench_rows (id, a, b, c, d, e) VALUES (?, ?, ?, ?, ?, ?)",
      params: [
        `key ${from + at}`,
        "some text",
        `row ${from + at}`,
        BigInt(from),
        BigInt(at),
        at / 7,
      ],
    }));
    store.transact(statements, STAMP);
  }
  store.close();
}

/** From the call to the end of a write behind it, by a store that has just been opened. */
function pause(options: StoreOptions, columns: string): { tookMs: number; emitted: number } {
  const store = open({ ...options, schemaFiles: [] });
  const before = store.ledger.lastLocal;
  const startedMs = performance.now();
  const { commit } = store.applySchema(schemaWith(`, ${columns}`), STAMP);
  const behind = store.ledger.lastLocal;
  store.transact([{ sql: "UPDATE bench_rows SET a = a || '.' WHERE id = 'key 0'" }], STAMP);
  const tookMs = performance.now() - startedMs;
  store.close();
  return { tookMs, emitted: behind - before + (commit?.changesets.length ?? 0) };
}

function open(options: StoreOptions): Store {
  return new Store(options, { nowMs: () => performance.now(), wallMs: () => Date.now() });
}

function schemaWith(columns: string): { name: string; text: string }[] {
  const text =
    "CREATE TABLE bench_rows (id TEXT NOT NULL PRIMARY KEY, a TEXT, b TEXT, c INTEGER, d INTEGER," +
    ` e REAL${columns});`;
  return [{ name: "bench.sql", text }];
}

const ROWS = 1_000_000;
const ROWS_PER_VERSION = 1_000;
/** Any time: 2025-06-15, in NTP64. */
const STAMP = 0x684ee18000000000n;
