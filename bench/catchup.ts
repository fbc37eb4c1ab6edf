/**
 * How long an empty replica takes to hold 100,000 rows x 5 columns that two peers have: from the
 * start of its process to all rows being there, all three as real processes.
 *
 * The first peer is filled through its API, `--rows-per-version` rows in each transaction; the second
 * catches up from the first before anything is measured. Rows are counted in the new replica's file
 * from this process.
 */
import { existsSync } from "node:fs";
import Database from "better-sqlite3";
import { LocalCluster, sleep, type Host, type HostSpec } from "./local-cluster.ts";
import type { Bench, BenchContext, Sample } from "./measure.ts";

/** Real Corrosion needs 16 s for the same on this kind of machine. */
export const bench: Bench = {
  about: "an empty replica catches up 100,000 rows x 5 columns from two peers",
  figures: [
    { name: "all rows", unit: "s", target: { atMost: 10 } },
    { name: "ready", unit: "s" },
    { name: "first rows", unit: "s" },
    { name: "rate", unit: "changes/s" },
  ],
  run,
};

async function* run(context: BenchContext): AsyncIterable<Sample> {
  const cluster = await LocalCluster.create(context);
  const schema = cluster.writeSchema(SCHEMA);
  const rows = Number(context.flags.get("rows") ?? ROWS);
  const rowsPerVersion = Number(context.flags.get("rows-per-version") ?? ROWS_PER_VERSION);
  const spec = (name: string, bootstrap: readonly Host[]): HostSpec => ({
    name,
    kind: "agent",
    bootstrap,
    config: { db: { path: "./patina.db", schema_paths: [schema] } },
  });
  const first = await cluster.start(spec("peer-1", []));
  await first.ready();
  const filledMs = await fill(first, { rows, rowsPerVersion });
  context.note(
    `${rows} rows, ${rowsPerVersion} in each version; filled in ${(filledMs / 1000).toFixed(1)} s`,
  );
  const second = await cluster.start(spec("peer-2", [first]));
  const alone = await catchUp(second, rows);
  context.note(`from one peer, once: ${(alone["all rows"] ?? 0).toFixed(1)} s`);
  for (;;) {
    const empty = await cluster.start(spec("empty", [first, second]));
    yield await catchUp(empty, rows);
    await empty.stop();
  }
}

async function catchUp(host: Host, rows: number): Promise<Sample> {
  const startMs = performance.now();
  const seconds = (): number => (performance.now() - startMs) / 1000;
  let readyS = Number.NaN;
  void host.ready().then(
    () => (readyS = seconds()),
    () => undefined,
  );
  let firstRowsS = Number.NaN;
  for (let counted = 0; counted < rows; await sleep(COUNT_PERIOD_MS)) {
    if (seconds() > LIMIT_S) throw new Error(`${counted} of ${rows} rows after ${LIMIT_S} s`);
    counted = countRows(host.databasePath);
    if (counted > 0 && Number.isNaN(firstRowsS)) firstRowsS = seconds();
  }
  const allS = seconds() - COUNT_PERIOD_MS / 1000;
  return { "all rows": allS, ready: readyS, "first rows": firstRowsS, rate: (rows * 5) / allS };
}

/** Rows of the table; 0 while there is no database or no table yet. */
function countRows(path: string): number {
  if (!existsSync(path)) return 0;
  try {
    const database = new Database(path, { readonly: true, timeout: 1_000 });
    try {
      return Number(database.prepare("SELECT count(*) FROM bench_rows").pluck().get());
    } finally {
      database.close();
    }
  } catch (error) {
    if (error instanceof Database.SqliteError) return 0;
    throw error;
  }
}

/** Returns how long it took, in ms. */
async function fill(
  host: Host,
  size: { readonly rows: number; readonly rowsPerVersion: number },
): Promise<number> {
  const startMs = performance.now();
  for (let from = 0; from < size.rows; from += size.rowsPerVersion) {
    const count = Math.min(size.rowsPerVersion, size.rows - from);
    const statements = Array.from({ length: count }, (_, at) => [
      "INSERT INTO bench_rows (id, a, b, c, d, e) VALUES (?, ?, ?, ?, ?, ?)",
      [from + at, TEXT, `row ${from + at}`, from + at, at, at / 7],
    ]);
    await host.post("transactions", statements);
  }
  return performance.now() - startMs;
}

/** The table that a replica catches up: a key and five columns. */
export const SCHEMA = `CREATE TABLE bench_rows (
  id INTEGER NOT NULL PRIMARY KEY,
  a TEXT NOT NULL DEFAULT '',
  b TEXT NOT NULL DEFAULT '',
  c INTEGER NOT NULL DEFAULT 0,
  d INTEGER NOT NULL DEFAULT 0,
  e REAL NOT NULL DEFAULT 0
);
`;
/** What its texts hold. */
export const TEXT = "x".repeat(60);
const ROWS = 100_000;
/** As Corrosion's baseline was filled: a thousand rows in each transaction. */
const ROWS_PER_VERSION = 1_000;
const COUNT_PERIOD_MS = 50;
const LIMIT_S = 120;
