/**
 * Transactions over one HTTP connection to one replica, one after the other: of a single row of `t`
 * for as long as `--seconds` says, then of 1,000 rows of `machines`.
 */
import { percentile, type Bench, type BenchContext, type Sample } from "./measure.ts";
import type { Host } from "./local-cluster.ts";
import { cpuTimeMs } from "./process-figures.ts";
import { startReplicas, writeRow } from "./replica-cluster.ts";

/** Corrosion: p50 1.0 ms and p99 4.6 ms for single rows. */
export const bench: Bench = {
  about: "single-row and 1,000-row transactions on one HTTP connection",
  figures: [
    { name: "single rows", unit: "/s", target: { atLeast: 1_500 }, corrosion: 838 },
    { name: "single row p50", unit: "ms", corrosion: 1 },
    { name: "single row p99", unit: "ms", corrosion: 4.6 },
    { name: "CPU per single row", unit: "us" },
    { name: "bulk", unit: "rows/s", target: { atLeast: 20_000 }, corrosion: 13_700 },
    { name: "bulk transaction p50", unit: "ms", corrosion: 75 },
    { name: "repeat without news p50", unit: "ms", corrosion: 41 },
  ],
  run,
};

async function* run(context: BenchContext): AsyncIterable<Sample> {
  const [host] = await startReplicas(context, 1);
  if (!host) return;
  let id = 0;
  const next = (): number => ++id;
  for (let at = 0; at < WARM_UP; at++) await writeRow(host, next());
  for (let batch = 0; ; batch += BULK_TRANSACTIONS) {
    yield { ...(await singleRows(host, next)), ...(await bulk(host, batch)) };
  }
}

async function singleRows(host: Host, next: () => number): Promise<Sample> {
  const takenMs: number[] = [];
  const cpuBeforeMs = cpuTimeMs(host.pid);
  const startMs = performance.now();
  for (let nowMs = startMs; nowMs - startMs < SECONDS * 1000;) {
    await writeRow(host, next());
    const endMs = performance.now();
    takenMs.push(endMs - nowMs);
    nowMs = endMs;
  }
  return {
    "single rows": (takenMs.length * 1000) / (performance.now() - startMs),
    "single row p50": percentile(takenMs, 0.5),
    "single row p99": percentile(takenMs, 0.99),
    "CPU per single row": ((cpuTimeMs(host.pid) - cpuBeforeMs) * 1000) / takenMs.length,
  };
}

async function bulk(host: Host, firstBatch: number): Promise<Sample> {
  const takenMs: number[] = [];
  for (let at = 0; at < BULK_TRANSACTIONS; at++) {
    takenMs.push(await timed(host, machines(firstBatch + at)));
  }
  const repeatMs: number[] = [];
  for (let at = 0; at < REPEATS; at++) repeatMs.push(await timed(host, machines(firstBatch)));
  const sumMs = takenMs.reduce((sum, ms) => sum + ms, 0);
  return {
    bulk: (BULK_TRANSACTIONS * BULK_ROWS * 1000) / sumMs,
    "bulk transaction p50": percentile(takenMs, 0.5),
    "repeat without news p50": percentile(repeatMs, 0.5),
  };
}

async function timed(host: Host, statements: readonly unknown[]): Promise<number> {
  const startMs = performance.now();
  await host.post("transactions", statements);
  return performance.now() - startMs;
}

/** Whole rows of `machines`: key and five columns. */
function machines(batch: number): unknown[] {
  return Array.from({ length: BULK_ROWS }, (_, at) => [
    UPSERT,
    [`machine-${batch}-${at}`, `app-${at % 100}`, `node-${batch % 10}`, "lo", "started", batch],
  ]);
}

const UPSERT =
  "INSERT INTO machines (id, app_id, node_id, region, state, updated_at) " +
  "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET app_id = excluded.app_id, " +
  "node_id = excluded.node_id, region = excluded.region, state = excluded.state, " +
  "updated_at = excluded.updated_at";
const WARM_UP = 500;
const SECONDS = 5;
const BULK_ROWS = 1_000;
const BULK_TRANSACTIONS = 30;
const REPEATS = 10;
