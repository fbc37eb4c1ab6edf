/**
 * Three replicas beside three nodes of Corrosion, real processes on one machine in plaintext mode: how
 * long one write takes from a replica of either kind into the SQLite files of the other kind, and of
 * its own. Before, the same among six nodes of Corrosion.
 *
 * The clock starts when the transaction leaves this process and stops when the row is readable in the
 * file; rows are looked for about once a millisecond. Writes come one by one, each at another
 * replica, after pauses of random length that keep them from falling in step with any timer.
 */
import { spawn, type ChildProcess } from "node:child_process";
import { existsSync, mkdirSync, openSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import Database from "better-sqlite3";
import { stringify } from "smol-toml";
import { Pool } from "undici";
import { freePorts } from "../bin/demo/ports.ts";
import { endProcess, LocalCluster, sleep } from "./local-cluster.ts";
import { percentile, type BenchContext, type FigureSpec, type Sample } from "./measure.ts";

const CROSSINGS: ReadonlySet<string> = new Set(["Patina -> Corrosion", "Corrosion -> Patina"]);

/** `each` = any file of that kind but the writer's own; `last` = the slowest of them. */
export const MIXED_FIGURES: readonly FigureSpec[] = [
  "nodes alone",
  "Patina -> Corrosion",
  "Corrosion -> Patina",
  "Corrosion -> Corrosion",
  "Patina -> Patina",
].flatMap((name) => {
  const isCrossing = CROSSINGS.has(name);
  return [
    { name: `${name}: each p50`, unit: "ms" },
    {
      name: `${name}: each p99`,
      unit: "ms",
      ...(isCrossing ? { target: { atMost: 25 } } : {}),
    },
    { name: `${name}: last p99`, unit: "ms" },
  ];
});

/** The binary that the command line or the environment names; throws when it is not there. */
export function corrosionBinary(flags: ReadonlyMap<string, string>): string | null {
  const binary = flags.get("corrosion") ?? process.env["PATINA_CORROSION_BIN"];
  if (binary === undefined) return null;
  if (existsSync(binary)) return binary;
  throw new Error(`there is no ${binary}: --corrosion names a binary of Corrosion`);
}

/** Takes one sample, in clusters of its own. */
export async function measureMixedCluster(context: BenchContext, binary: string): Promise<Sample> {
  const samples: Sample[] = [];
  for (const kinds of [NODES_ALONE, MIXED]) {
    const stack = context.stack.use(new AsyncDisposableStack());
    const members = await startMembers({ ...context, stack }, binary, kinds);
    const clock = stack.use(new WriteClock(members));
    await clock.measure({ untilMs: performance.now() + WARM_UP_MS });
    const crossings = await clock.measure({ writes: writesOf(context) });
    samples.push(figuresOf(crossings, kinds === NODES_ALONE));
    await stack.disposeAsync();
  }
  return Object.assign({}, ...samples) as Sample;
}

type Kind = "Patina" | "Corrosion";

/** A running replica of either kind. */
interface Member {
  readonly kind: Kind;
  readonly gossip: string;
  readonly databasePath: string;
  readonly api: Pool;
}

/** How long one write took into one file. */
interface Crossing {
  readonly from: Kind;
  readonly to: Kind;
  readonly eachMs: readonly number[];
}

async function startMembers(
  context: BenchContext,
  binary: string,
  kinds: readonly Kind[],
): Promise<Member[]> {
  const cluster = await LocalCluster.create(context);
  const schema = cluster.writeSchema(SCHEMA);
  const members: Member[] = [];
  for (const [at, kind] of kinds.entries()) {
    const bootstrap = members.slice(0, 2).map(({ gossip }) => gossip);
    const start = { context, cluster, schema, bootstrap, binary, name: `${kind}-${at + 1}` };
    members.push(await (kind === "Patina" ? startPatina(start) : startNode(start)));
  }
  return members;
}

interface Start {
  readonly context: BenchContext;
  readonly cluster: LocalCluster;
  readonly schema: string;
  readonly bootstrap: readonly string[];
  readonly binary: string;
  readonly name: string;
}

async function startPatina({ cluster, schema, bootstrap, name }: Start): Promise<Member> {
  const host = await cluster.start({
    name,
    kind: "agent",
    isBare: true,
    bootstrap: [],
    config: {
      db: { path: "./patina.db", schema_paths: [schema] },
      gossip: { bootstrap, plaintext: true, tls: undefined, preset: "wan" },
      // A row of `nodes` is nothing that Corrosion could merge.
      replica: { publish_node: false },
    },
  });
  await host.ready();
  return { ...host, kind: "Patina" };
}

async function startNode({ context, cluster, schema, bootstrap, ...rest }: Start): Promise<Member> {
  const [gossip = 0, apiPort = 0] = await freePorts(2);
  const folder = join(cluster.folder, rest.name);
  mkdirSync(folder);
  const file = join(folder, "config.toml");
  const databasePath = join(folder, "corrosion.db");
  const address = `127.0.0.1:${gossip}`;
  const config = {
    db: { path: databasePath, schema_paths: [schema] },
    gossip: { addr: address, bootstrap, plaintext: true },
    api: { addr: `127.0.0.1:${apiPort}` },
    admin: { path: join(folder, "admin.sock") },
    log: { colors: false },
  };
  writeFileSync(file, stringify(config));
  const log = openSync(join(folder, "log"), "a");
  const child = spawn(rest.binary, ["-c", file, "agent"], { stdio: ["ignore", log, log] });
  const api = new Pool(`http://127.0.0.1:${apiPort}`, { connections: 1 });
  context.stack.defer(async () => {
    await api.destroy();
    await endProcess(child);
  });
  await untilItAnswers(child, api, rest.name);
  return { kind: "Corrosion", gossip: address, databasePath, api };
}

async function untilItAnswers(child: ChildProcess, api: Pool, name: string): Promise<void> {
  const deadlineMs = performance.now() + READY_LIMIT_MS;
  for (;;) {
    if (child.exitCode !== null) throw new Error(`${name} ended with code ${child.exitCode}`);
    try {
      const response = await api.request({
        method: "POST",
        path: "/v1/queries",
        ...json("SELECT 1"),
      });
      await response.body.dump();
      if (response.statusCode === 200) return;
    } catch (error) {
      if (!(error instanceof Error)) throw error;
    }
    if (performance.now() > deadlineMs) throw new Error(`${name} does not answer`);
    await sleep(50);
  }
}

/** Writes rows and watches the files of all. */
class WriteClock implements Disposable {
  readonly #members: readonly Member[];
  readonly #files: readonly { database: Database.Database; find: Database.Statement<[number]> }[];
  #lastId = 0;

  constructor(members: readonly Member[]) {
    this.#members = members;
    this.#files = members.map(({ databasePath }) => {
      const database = new Database(databasePath, { readonly: true });
      return { database, find: database.prepare<[number]>("SELECT 1 FROM t WHERE id = ?").pluck() };
    });
  }

  /** Makes so many writes, or until then, at each member in turn. */
  async measure(end: { writes?: number; untilMs?: number }): Promise<Crossing[]> {
    const crossings: Crossing[] = [];
    const { writes = Number.POSITIVE_INFINITY, untilMs = Number.POSITIVE_INFINITY } = end;
    for (let at = 0; at < writes && performance.now() < untilMs; at += 1) {
      await sleep(Math.random() * PAUSE_MAX_MS);
      crossings.push(...(await this.#write(at % this.#members.length)));
    }
    return crossings;
  }

  [Symbol.dispose](): void {
    for (const { database } of this.#files) database.close();
  }

  async #write(writer: number): Promise<Crossing[]> {
    this.#lastId += 1;
    const id = this.#lastId;
    const startMs = performance.now();
    const [seenMs] = await Promise.all([
      this.#seen(id, { writer, startMs }),
      insert(this.#members[writer]?.api, id),
    ]);
    const from = this.#members[writer]?.kind ?? "Patina";
    return (["Patina", "Corrosion"] as const).map((to) => {
      const eachMs = seenMs.filter((_, at) => at !== writer && this.#members[at]?.kind === to);
      return { from, to, eachMs };
    });
  }

  /** By member, in ms since the start; 0 of the writer. */
  async #seen(id: number, from: { writer: number; startMs: number }): Promise<number[]> {
    const seenMs = this.#files.map((_, at) => (at === from.writer ? 0 : Number.NaN));
    for (;;) {
      await sleep(1);
      for (const [at, { find }] of this.#files.entries()) {
        if (!Number.isNaN(seenMs[at]) || find.get(id) === undefined) continue;
        seenMs[at] = performance.now() - from.startMs;
      }
      if (!seenMs.some(Number.isNaN)) return seenMs;
      if (performance.now() - from.startMs < SEEN_LIMIT_MS) continue;
      const missing = this.#members.filter((_, at) => Number.isNaN(seenMs[at]));
      const names = missing.map(({ kind, gossip }) => `${kind} at ${gossip}`).join(", ");
      throw new Error(`no row ${id} after ${SEEN_LIMIT_MS} ms at ${names}`);
    }
  }
}

async function insert(api: Pool | undefined, id: number): Promise<void> {
  const body = json([["INSERT INTO t (id, v) VALUES (?, ?)", [id, TEXT]]]);
  const response = await api?.request({ method: "POST", path: "/v1/transactions", ...body });
  const text = await response?.body.text();
  if (response?.statusCode !== 200) throw new Error(`a write was answered with ${text}`);
}

function json(body: unknown): { body: string; headers: Record<string, string> } {
  return { body: JSON.stringify(body), headers: { "content-type": "application/json" } };
}

function figuresOf(crossings: readonly Crossing[], isAlone: boolean): Sample {
  const sample: Record<string, number> = {};
  const byName = Map.groupBy(crossings, ({ from, to }) =>
    isAlone ? "nodes alone" : `${from} -> ${to}`,
  );
  for (const [name, some] of byName) {
    const filled = some.filter(({ eachMs }) => eachMs.length > 0);
    if (filled.length === 0) continue;
    const eachMs = filled.flatMap((crossing) => crossing.eachMs);
    sample[`${name}: each p50`] = percentile(eachMs, 0.5);
    sample[`${name}: each p99`] = percentile(eachMs, 0.99);
    sample[`${name}: last p99`] = percentile(
      filled.map((crossing) => Math.max(...crossing.eachMs)),
      0.99,
    );
  }
  return sample;
}

function writesOf({ flags }: BenchContext): number {
  return Number(flags.get("writes") ?? WRITES);
}

const NODES_ALONE: readonly Kind[] = Array.from({ length: 6 }, () => "Corrosion");
const MIXED: readonly Kind[] = [
  "Corrosion",
  "Patina",
  "Corrosion",
  "Patina",
  "Corrosion",
  "Patina",
];
const SCHEMA = "CREATE TABLE t (id INTEGER NOT NULL PRIMARY KEY, v TEXT);\n";
const TEXT = "x".repeat(60);
const WRITES = 600;
/**
 * Code is compiled by then, and what nodes of Corrosion measured of starting processes is forgotten:
 * they keep 20 round-trip times, one a second, and send at once only to who is nearer than 6 ms.
 */
const WARM_UP_MS = 30_000;
const PAUSE_MAX_MS = 50;
const SEEN_LIMIT_MS = 30_000;
const READY_LIMIT_MS = 60_000;
