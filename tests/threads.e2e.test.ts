/**
 * A thread behind the data plane that stalls or ends by an exception, in real edges: it is replaced
 * alone, under the same actor id, while requests go on being answered; the second time the changeset
 * that did it is held. A thread stuck in native code cannot be ended: then the process is bounced.
 *
 * `PATINA_LOST_THREADS=1` tries every case; else one of each kind.
 */
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import { until } from "./asking-fixture.ts";
import { Cluster, type LogLine, type TestHost } from "./cluster-fixture.ts";
import { runPatina } from "./process-fixture.ts";
import { Traffic } from "./traffic-fixture.ts";

/** Long enough for a machine without CPU to show that it lives. */
const BUDGET_MS = 2_000;
/** Three edges, of which the last is stuck where no thread can be ended; else the first alone. */
const IS_WHOLE = process.env["PATINA_LOST_THREADS"] === "1";
const EDGES = IS_WHOLE ? ["one", "two", "three"] : ["one"];
let cluster: Cluster;
let worker: TestHost;
/** Of the worker. */
let actorId: string;
const actors = new Map<TestHost, string>();

beforeAll(async () => {
  const edge = (name: string, ...faults: readonly (readonly [string, string, string])[]) => ({
    name,
    kind: "edge" as const,
    bootstrap: ["worker"],
    config: {
      fault: {
        enabled: true,
        stall_changes: faults.map(([loop, at, value]) => {
          return { table: "machines", column: "region", value, loop, at };
        }),
      },
      watchdog: {
        allow_fault_injection: true,
        steady_ms: BUDGET_MS,
        store_ms: BUDGET_MS,
        jitter_ms: 0,
      },
    },
  });
  cluster = await Cluster.create([
    { name: "worker", kind: "worker" },
    edge("one", ["replica", "loop", "first"], ["store", "throw", "second"]),
    edge("two", ["replica", "throw", "first"], ["store", "loop", "second"]),
    edge("three", ["store", "native", "third"]),
  ]);
  worker = cluster.host("worker");
  await cluster.start("worker", ...EDGES);
  const machine = await cluster.startMachine("one");
  await worker.publish("one.test", machine);
  actorId = (await worker.status()).actor;
  for (const name of EDGES) {
    const edge = cluster.host(name);
    await edge.routes("one.test", "one");
    actors.set(edge, (await edge.status()).actor);
  }
});

afterAll(async () => {
  await cluster.close();
});

test.each([
  ["replica", "first", "one", "two"],
  ["store", "second", "two", "one"],
] as const)(
  "a %s thread that stalls or crashes is replaced alone, twice; then the changeset is held",
  async (loop, region, stalling, crashing) => {
    const cases = [
      { name: stalling, cause: "stall" },
      { name: crashing, cause: "crash" },
    ] as const;
    const watched = cases
      .filter(({ name }) => EDGES.includes(name))
      .map(({ name, cause }) => watch(name, cause));
    const version = await move(region);
    for (const { edge, cause, from, pid, traffic } of watched) {
      const held = await edge.logged("changeset-held", { from });
      expect(held).toMatchObject({ level: "error", actorId, version, table: "machines" });
      await until(
        "the replica is up again",
        () => linesOf(edge, from, "replica-replaced").length === 2,
      );
      await traffic.flows();
      expect(await traffic.stop()).toEqual([]);
      expect(edge.edgePid()).toBe(pid);
      const alerts = linesOf(edge, from, cause === "stall" ? "loop-stalled" : "loop-crashed");
      expect(alerts).toHaveLength(2);
      const breadcrumb = { what: "changeset", actor: actorId, version };
      for (const alert of alerts) {
        expect(alert).toMatchObject({ level: "error", kind: cause, loop, breadcrumb });
      }
      for (const line of linesOf(edge, from, "replica-replaced")) {
        expect(line).toMatchObject({ loop, cause });
      }
      expect(linesOf(edge, from, "edge-bounced")).toEqual([]);
      expect((await edge.status()).actor).toBe(actors.get(edge));
    }
  },
);

test("what is held is listed, outlives the process, and can be released", async () => {
  const edge = cluster.host("one");
  const listed = await quarantine(edge, "list");
  expect(listed.stdout).toMatch(/^s1 +not taken +a changeset of machines +version \d+ of /m);
  expect(await edge.metric('patina_quarantine_holds{kind="changeset"}')).toBe(2);
  // A newer version of the row has nothing to do with it.
  await move("mended");
  await until("the newer version is there", async () => (await regionIn(edge)) === "mended");
  edge.signal("SIGTERM");
  await edge.ending();
  expect((await quarantine(edge, "list")).stdout).toContain("s1");
  const from = edge.log.length;
  await cluster.start("one");
  await edge.logged("replica-started", { from });
  for (const id of ["s1", "s2"])
    expect(await quarantine(edge, "release", id)).toMatchObject({ code: 0 });
  await until("nothing is held or needed any more", async () => {
    const held = await edge.metric('patina_quarantine_holds{kind="changeset"}');
    return held === 0 && (await edge.status()).needs === 0;
  });
  // What was written over meanwhile has nothing in it that stalls any more.
  expect(linesOf(edge, from, "loop-stalled")).toEqual([]);
  expect(linesOf(edge, from, "loop-crashed")).toEqual([]);
});

test.runIf(IS_WHOLE)(
  "a store stuck in native code is a bounce that cuts nothing; the second time the changeset is held",
  async () => {
    const { edge, from, traffic } = watch("three", "stall");
    const version = await move("third");
    const held = await edge.logged("changeset-held", { from });
    expect(held).toMatchObject({ actorId, version });
    expect(linesOf(edge, from, "loop-stalled")).toMatchObject([
      { loop: "store" },
      { loop: "store" },
    ]);
    await until("it was bounced twice", () => linesOf(edge, from, "edge-bounced").length === 2);
    await traffic.flows();
    expect(await traffic.stop()).toEqual([]);
    await until("its replica is up", async () => (await edge.status()).actor === actors.get(edge));
  },
);

interface Watched {
  readonly edge: TestHost;
  readonly cause: "stall" | "crash";
  readonly from: number;
  readonly pid: number;
  readonly traffic: Traffic;
}

/** An edge under traffic. */
function watch(name: string, cause: "stall" | "crash"): Watched {
  const edge = cluster.host(name);
  const traffic = new Traffic(edge);
  onTestFinished(async () => void (await traffic.stop()));
  return { edge, cause, from: edge.log.length, pid: edge.edgePid(), traffic };
}

/** The version that moved the machine. */
async function move(region: string): Promise<number> {
  const update = `UPDATE machines SET region = '${region}' WHERE id = 'one'`;
  expect(await worker.api("POST", "/v1/transactions", [update])).toMatchObject({ status: 200 });
  return (await worker.status()).heads[actorId] ?? 0;
}

async function regionIn(edge: TestHost): Promise<string> {
  const sql = "SELECT region FROM machines WHERE id = 'one'";
  const { text } = await edge.api("POST", "/v1/queries", sql);
  return /"row":\[\d+,\["(\w+)"\]\]/.exec(text)?.[1] ?? "";
}

function quarantine(edge: TestHost, ...args: readonly string[]): ReturnType<typeof runPatina> {
  return runPatina(["quarantine", ...args, "--config", edge.configFile]);
}

function linesOf(edge: TestHost, from: number, event: string): LogLine[] {
  return edge.log.slice(from).filter((line) => line.event === event);
}
