/**
 * One of five real processes is killed every two seconds while transactions are acknowledged at a
 * steady rate. Method: rows are sent to the replicas in turn, and those that were acknowledged are
 * remembered; in the end every replica must have all of them, nothing may be needed, and books and rows
 * must agree. `PATINA_KILL_SECONDS=120` makes it longer.
 */
import { once } from "node:events";
import { setTimeout } from "node:timers/promises";
import { Pool } from "undici";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createPrng } from "#base/prng.ts";
import { Cluster, runPatina, until, type TestHost } from "./cluster-fixture.ts";

const SECONDS = Number(process.env["PATINA_KILL_SECONDS"] ?? 15);
const WRITES_PER_SECOND = 200;
const KILL_EVERY_MS = 2_000;
const NAMES = ["one", "two", "three", "four", "five"];

let cluster: Cluster;
let hosts: TestHost[];

beforeAll(async () => {
  const options = NAMES.map((name) => {
    const bootstrap = NAMES.filter((other) => other !== name);
    return { name, kind: "worker", bootstrap } as const;
  });
  cluster = await Cluster.create(options);
  hosts = NAMES.map((name) => cluster.host(name));
  await cluster.start(...NAMES);
});

afterAll(async () => {
  await cluster.close();
});

test(
  `nothing acknowledged is lost while processes are killed (${SECONDS} s)`,
  async () => {
    const writer = new Writer(hosts);
    const killer = new Killer(hosts);
    await writer.run(SECONDS * WRITES_PER_SECOND);
    expect(await killer.stop()).toBeGreaterThan(2);

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
      expect(ids, `${NAMES[at]} has the rows of the first`).toEqual(rows[0]);
      expect(writer.acknowledged.filter((id) => !ids.has(id))).toEqual([]);
    }
    for (const { configFile } of hosts) {
      const args = ["sync", "check-bookie-consistency", "--config", configFile];
      expect(await runPatina(args)).toMatchObject({ code: 0 });
    }
  },
  (SECONDS + 120) * 1_000,
);

/** Sends one transaction after the other at a steady rate, whether the last was answered or not. */
class Writer {
  readonly acknowledged: string[] = [];
  readonly #pools: readonly Pool[];
  #sent = 0;
  #inFlight = 0;

  constructor(targets: readonly TestHost[]) {
    this.#pools = targets.map((host) => new Pool(`http://${host.apiAddress}`, { connections: 8 }));
  }

  /** Goes on until so many were acknowledged. */
  async run(count: number): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const timer = setInterval(() => {
      if (this.acknowledged.length >= count) resolve();
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

/** Kills the process of one replica after the other, in an order from a seed, until it is stopped. */
class Killer {
  readonly #targets: readonly TestHost[];
  readonly #prng = createPrng(9);
  readonly #done: Promise<void>;
  readonly #stopping = new AbortController();
  #kills = 0;

  constructor(targets: readonly TestHost[]) {
    this.#targets = targets;
    this.#done = this.#run();
  }

  /** Ends the killing once the last victim is back; returns how often it was done. */
  async stop(): Promise<number> {
    this.#stopping.abort();
    await this.#done;
    return this.#kills;
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      const victim = this.#prng.pick(this.#targets)!;
      process.kill(victim.edgePid(), "SIGKILL");
      this.#kills += 1;
      // On a machine that is busy a start takes longer than two seconds: one at a time is down.
      const back = victim.logged("replica-started", { from: victim.log.length });
      await Promise.all([back, sleep(KILL_EVERY_MS, signal)]);
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
