/**
 * How long an empty replica takes to hold 1,000,000 rows x 5 columns from a checkpoint in an S3
 * store of this machine, from the start of its process until it is ready and has all versions; beside
 * it, with `--sync`, the same by sync alone.
 *
 * The database is filled here, 1,000 rows in each transaction, and the checkpoint taken of it by
 * `takeCheckpoint`, as the command does. A peer that has everything runs meanwhile, as the one to
 * learn the rest from.
 */
import { fork } from "node:child_process";
import { once } from "node:events";
import { statSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { takeCheckpoint } from "../replica/driver/checkpoints/checkpoints.ts";
import { S3Fixture } from "../replica/driver/checkpoints/s3-fixture.ts";
import { SCHEMA } from "./catchup.ts";
import { LocalCluster } from "./local-cluster.ts";
import type { Bench, BenchContext, Sample } from "./measure.ts";
import { catchUp, fill } from "./replica-catchup.ts";

/** The targets are what starting over may cost an operator; see docs/checkpoints.md for what was measured. */
export const bench: Bench = {
  about: "an empty replica starts from a checkpoint of 1,000,000 rows in an S3 store",
  figures: [
    { name: "from the store", unit: "s", target: { atMost: 25 } },
    { name: "resident", unit: "MiB" },
    { name: "by sync alone", unit: "s", target: { atMost: 80 } },
    { name: "taking it", unit: "s" },
    { name: "database", unit: "MiB" },
    { name: "checkpoint", unit: "MiB" },
  ],
  defaultRuns: 1,
  run,
};

async function* run(context: BenchContext): AsyncIterable<Sample> {
  const rows = Number(context.flags.get("rows") ?? ROWS);
  const cluster = await LocalCluster.create(context);
  const store = context.stack.use(await StoreProcess.start(join(cluster.folder, "s3")));
  const schema = cluster.writeSchema(SCHEMA);
  const path = await fill(cluster, { schema, rows });
  const { config } = store;
  const startMs = performance.now();
  const taken = await takeCheckpoint({ source: path, target: TARGET, clusterId: 0, config });
  const takenS = (performance.now() - startMs) / 1000;
  const about = {
    "taking it": takenS,
    database: statSync(path).size / MIB,
    checkpoint: taken.bytes / MIB,
  };
  for (;;) {
    const checkpoints = { target: TARGET, every_secs: 0, s3: config.s3 };
    const booted = await catchUp(cluster, { schema, rows, path, config: { checkpoints } });
    const sample = { "from the store": booted.seconds, resident: booted.residentMiB, ...about };
    if (!context.flags.has("sync")) yield sample;
    else {
      const synced = await catchUp(cluster, { schema, rows, path });
      yield { ...sample, "by sync alone": synced.seconds };
    }
  }
}

/** The store, in a process of its own as stores are. */
class StoreProcess implements AsyncDisposable {
  readonly config: ReturnType<S3Fixture["config"]>;
  readonly #child: ReturnType<typeof fork>;

  private constructor(child: ReturnType<typeof fork>, config: ReturnType<S3Fixture["config"]>) {
    this.#child = child;
    this.config = config;
  }

  static async start(folder: string): Promise<StoreProcess> {
    const child = fork(fileURLToPath(import.meta.url), ["--store", folder], { execArgv: [] });
    const [config] = (await once(child, "message")) as [ReturnType<S3Fixture["config"]>];
    return new StoreProcess(child, config);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const ended = once(this.#child, "exit");
    this.#child.disconnect();
    await ended;
  }
}

if (process.argv[2] === "--store" && process.send !== undefined) {
  const store = await S3Fixture.start(process.argv[3] ?? "");
  process.on("disconnect", () => process.exit());
  process.send(store.config());
}

const TARGET = "s3://bucket/bench";
const ROWS = 1_000_000;
const MIB = 1024 * 1024;
