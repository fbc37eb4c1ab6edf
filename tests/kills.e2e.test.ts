/**
 * Real processes are killed while transactions are acknowledged at a steady rate. Method: rows are sent
 * to the replicas in turn, and those that were acknowledged are remembered; in the end every replica must
 * have all of them, nothing may be needed, and books and rows must agree.
 *
 * One of five replicas is killed every two seconds (`PATINA_KILL_SECONDS=120` makes it longer); and one
 * edge under HTTP traffic every second, or as soon as it is back when that takes longer
 * (`PATINA_KILL_ROUNDS=50`; then the longest wait is asserted as well, which is of use on a quiet machine
 * only, and the figures are printed).
 */
import { once } from "node:events";
import { setTimeout } from "node:timers/promises";
import { Pool } from "undici";
import { expect, onTestFinished, test } from "vitest";
import { createPrng } from "#base/prng.ts";
import { until } from "./asking-fixture.ts";
import { Cluster, type TestHost } from "./cluster-fixture.ts";
import { runPatina } from "./process-fixture.ts";
import { Traffic } from "./traffic-fixture.ts";

const SECONDS = Number(process.env["PATINA_KILL_SECONDS"] ?? 15);
const WRITES_PER_SECOND = 200;
const KILL_EVERY_MS = 2_000;
const NAMES = ["one", "two", "three", "four", "five"];

/** Kills of the edge; the long form is for a quiet machine. */
const EDGE_ROUNDS = Number(process.env["PATINA_KILL_ROUNDS"] ?? 5);
const KILL_EDGE_EVERY_MS = 1_000;
/** Writes that an edge acknowledges before it is killed again. */
const ACKNOWLEDGED_BETWEEN = 20;
/** Codes of a request whose connection ended with its process. */
const CUT: ReadonlySet<string> = new Set(["ECONNRESET", "EPIPE"]);
const LONGEST_WAIT_MS = 3_000;

test(
  `nothing acknowledged is lost while processes are killed (${SECONDS} s)`,
  async () => {
    const options = NAMES.map((name) => {
      const bootstrap = NAMES.filter((other) => other !== name);
      return { name, kind: "worker", bootstrap } as const;
    });
    const cluster = await createCluster(options);
    const hosts = NAMES.map((name) => cluster.host(name));
    await cluster.start(...NAMES);
    const writer = new Writer(hosts);
    // On a machine that is busy a start takes longer than two seconds: one at a time is down.
    const killer = new Killer(hosts, {
      everyMs: KILL_EVERY_MS,
      back: async (victim, from) => void (await victim.logged("replica-started", { from })),
    });
    await writer.run(() => writer.acknowledged.length >= SECONDS * WRITES_PER_SECOND);
    expect(await killer.stop()).toBeGreaterThan(2);
    await expectAll(hosts, writer.acknowledged);
  },
  (SECONDS + 160) * 1_000,
);

test(
  `an edge that is killed refuses no connection and loses no write (${EDGE_ROUNDS} rounds)`,
  async () => {
    const cluster = await createCluster([
      { name: "worker", kind: "worker" },
      { name: "edge", kind: "edge", bootstrap: ["worker"] },
    ]);
    const [edge, worker] = [cluster.host("edge"), cluster.host("worker")];
    const machine = await cluster.startMachine("one");
    await cluster.start("worker", "edge");
    await worker.publish("one.test", machine);
    await edge.routes("one.test", "one");

    const traffic = new Traffic(edge);
    onTestFinished(async () => void (await traffic.stop()));
    const writer = new Writer([edge]);
    const fromMs = performance.now();
    const killer = new Killer([edge], {
      everyMs: KILL_EDGE_EVERY_MS,
      rounds: EDGE_ROUNDS,
      // Both loads flow again: each kill is one under load.
      back: async () => {
        const goal = writer.acknowledged.length + ACKNOWLEDGED_BETWEEN;
        await until("writes are acknowledged", () => writer.acknowledged.length >= goal);
        await traffic.flows();
      },
    });
    let isOver = false;
    const killing = killer.done.finally(() => (isOver = true));
    await Promise.all([killing, writer.run(() => isOver)]);
    const tookMs = performance.now() - fromMs;
    await traffic.flows();
    const failures = await traffic.stop();

    // What was in flight at a kill is cut; a connection that nobody takes is another matter.
    expect(failures.filter((failure) => !CUT.has(failure))).toEqual([]);
    expect(killer.kills).toBe(EDGE_ROUNDS);
    expect(failures.length).toBeGreaterThan(0);
    expect(writer.acknowledged.length).toBeGreaterThanOrEqual(EDGE_ROUNDS * ACKNOWLEDGED_BETWEEN);
    await expectAll([edge, worker], writer.acknowledged);
    if (process.env["PATINA_KILL_ROUNDS"] === undefined) return;
    const figures = {
      rounds: killer.kills,
      secondsPerRound: Number((tookMs / 1_000 / killer.kills).toFixed(2)),
      answered: traffic.answered,
      cut: failures.length,
      longestWaitMs: Math.round(traffic.longestMs),
      acknowledged: writer.acknowledged.length,
    };
    process.stdout.write(`${JSON.stringify(figures)}\n`);
    expect(traffic.longestMs).toBeLessThan(LONGEST_WAIT_MS);
  },
  (EDGE_ROUNDS * 10 + 120) * 1_000,
);

/** Ends with the test. */
async function createCluster(options: Parameters<typeof Cluster.create>[0]): Promise<Cluster> {
  const cluster = await Cluster.create(options);
  onTestFinished(() => cluster.close());
  return cluster;
}

/** Every host has every row that was acknowledged and no other than the first has, and is consistent. */
async function expectAll(
  hosts: readonly TestHost[],
  acknowledged: readonly string[],
): Promise<void> {
  await Promise.all(hosts.map((host) => host.ready()));
  await until("heads are equal and nothing is needed", async () => {
    const statuses = await Promise.all(hosts.map((host) => host.status()));
    const heads = statuses.map((one) =>
      JSON.stringify(Object.entries(one.heads).toSorted(byActor)),
    );
    return new Set(heads).size === 1 && statuses.every(({ needs }) => needs === 0);
  });
  const rows = await Promise.all(hosts.map(idsIn));
  for (const [at, ids] of rows.entries()) {
    expect(ids, `${hosts[at]?.options.name} has the rows of the first`).toEqual(rows[0]);
    expect(acknowledged.filter((id) => !ids.has(id))).toEqual([]);
  }
  for (const { configFile } of hosts) {
    const args = ["sync", "check-bookie-consistency", "--config", configFile];
    expect(await runPatina(args)).toMatchObject({ code: 0 });
  }
}

/** Sends one transaction after the other at a steady rate, whether the last was answered or not. */
class Writer {
  readonly acknowledged: string[] = [];
  readonly #pools: readonly Pool[];
  #sent = 0;
  #inFlight = 0;

  constructor(targets: readonly TestHost[]) {
    this.#pools = targets.map((host) => new Pool(`http://${host.apiAddress}`, { connections: 8 }));
  }

  /** Goes on until it is enough. */
  async run(isEnough: () => boolean): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const timer = setInterval(() => {
      if (isEnough()) resolve();
      // Beyond this the replicas are behind: more would only wait.
      if (this.#inFlight < IN_FLIGHT_MAX) this.#send().catch(reject);
    }, 1_000 / WRITES_PER_SECOND);
    try {
      await promise;
    } finally {
      clearInterval(timer);
      await Promise.all(this.#pools.map((pool) => pool.destroy()));
    }
  }

  async #send(): Promise<void> {
    this.#sent += 1;
    this.#inFlight += 1;
    const id = `row-${this.#sent}`;
    try {
      const answer = await this.#pools[this.#sent % this.#pools.length]!.request({
        method: "POST",
        path: "/v1/transactions",
        headers: { "content-type": "application/json" },
        body: JSON.stringify([["INSERT INTO apps (id, name, node_id) VALUES (?, '', '')", [id]]]),
      });
      await answer.body.dump();
      if (answer.statusCode === 200) this.acknowledged.push(id);
    } catch (error) {
      // Its process is gone: the row counts as not acknowledged, whatever became of it.
      if (!(error instanceof Error && "code" in error)) throw error;
    } finally {
      this.#inFlight -= 1;
    }
  }
}

/** When the next kill may come. */
interface KillerOptions {
  readonly everyMs: number;
  readonly rounds?: number;
  /** Resolves when the victim is back; `from` is the length of its log at the kill. */
  readonly back: (victim: TestHost, from: number) => Promise<void>;
}

/** Kills the process of one host after the other, in an order from a seed. */
class Killer {
  /** Resolves once the last victim is back. */
  readonly done: Promise<void>;
  readonly #targets: readonly TestHost[];
  readonly #options: KillerOptions;
  readonly #prng = createPrng(9);
  readonly #stopping = new AbortController();
  #kills = 0;

  /** Without `rounds` it goes on until it is stopped. */
  constructor(targets: readonly TestHost[], options: KillerOptions) {
    this.#targets = targets;
    this.#options = options;
    this.done = this.#run();
  }

  get kills(): number {
    return this.#kills;
  }

  /** Ends the killing once the last victim is back; returns how often it was done. */
  async stop(): Promise<number> {
    this.#stopping.abort();
    await this.done;
    return this.#kills;
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopping;
    const { everyMs, rounds = Number.POSITIVE_INFINITY, back } = this.#options;
    while (!signal.aborted && this.#kills < rounds) {
      const victim = this.#prng.pick(this.#targets)!;
      process.kill(victim.edgePid(), "SIGKILL");
      this.#kills += 1;
      await Promise.all([back(victim, victim.log.length), sleep(everyMs, signal)]);
    }
  }
}

/** Resolves after a while, or when it is aborted. */
async function sleep(forMs: number, signal: AbortSignal): Promise<void> {
  await Promise.race([setTimeout(forMs), once(signal, "abort")]);
}

function byActor([one]: [string, unknown], [other]: [string, unknown]): number {
  return one < other ? -1 : 1;
}

async function idsIn(host: TestHost): Promise<Set<string>> {
  const sql = "SELECT id FROM apps WHERE id LIKE 'row-%' ORDER BY id";
  const { text } = await host.api("POST", "/v1/queries", sql);
  const lines = text.trim().split("\n");
  const events = lines.map((line) => JSON.parse(line) as { row?: [number, [string]] });
  return new Set(events.flatMap(({ row }) => (row === undefined ? [] : [row[1][0]])));
}

/** A second and a half of writes. */
const IN_FLIGHT_MAX = 300;
