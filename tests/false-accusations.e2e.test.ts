/**
 * A watchdog that accuses the innocent is worse than none: a real edge that lacks CPU, and one that
 * is stopped and continued, again and again, must not be bounced, nor a loop of it be accused.
 *
 * Short here; `PATINA_STARVED_SECONDS=600 PATINA_STOP_ROUNDS=100` is the long form.
 */
import { spawn, type ChildProcess } from "node:child_process";
import { availableParallelism } from "node:os";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import { createPrng } from "#base/prng.ts";
import { get, until } from "./asking-fixture.ts";
import { Cluster, type TestHost } from "./cluster-fixture.ts";

const STARVED_SECONDS = Number(process.env["PATINA_STARVED_SECONDS"] ?? 2);
const STOP_ROUNDS = Number(process.env["PATINA_STOP_ROUNDS"] ?? 2);
/** Four processes that want a core for each that there is. */
const OVERSUBSCRIPTION = 4;
/** As shipped. */
const BUDGET_MS = 1_000;
const LONG_MS = STARVED_SECONDS * 3_000 + STOP_ROUNDS * 8 * BUDGET_MS + 60_000;
let cluster: Cluster;
let edge: TestHost;

beforeAll(async () => {
  const watchdog = { steady_ms: BUDGET_MS, apply_ms: 2_000, boot_ms: 15_000, silence_ms: 10_000 };
  cluster = await Cluster.create([{ name: "edge", kind: "edge", config: { watchdog } }]);
  edge = cluster.host("edge");
  await cluster.start("edge");
  const machine = await cluster.startMachine("one");
  await edge.publish("one.test", machine);
  await edge.routes("one.test", "one");
});

afterAll(async () => {
  await cluster.close();
});

test(
  `${STARVED_SECONDS} s of ${OVERSUBSCRIPTION}-fold oversubscription accuse nobody`,
  { timeout: LONG_MS },
  async () => {
    const hogs = Array.from({ length: OVERSUBSCRIPTION * availableParallelism() }, () => hog());
    onTestFinished(() => hogs.forEach((one) => one.kill("SIGKILL")));
    const before = await figures();
    const traffic = steadyTraffic();
    await beatsOver(STARVED_SECONDS);
    const answered = await traffic.stop();
    for (const one of hogs) one.kill("SIGKILL");
    await expectInnocent(before);
    expect(answered).toBeGreaterThan(0);
  },
);

test(
  `${STOP_ROUNDS} stops of up to three budgets accuse nobody`,
  { timeout: LONG_MS },
  async () => {
    const seed = Number(process.env["PATINA_SEED"] ?? Date.now() % 1e6);
    const prng = createPrng(seed);
    const before = await figures();
    for (let round = 0; round < STOP_ROUNDS; round++) {
      const traffic = steadyTraffic();
      process.kill(before.pid, "SIGSTOP");
      // The pause is the fault itself; nothing is waited for.
      const pauseMs = 100 + prng.below(3 * BUDGET_MS);
      await new Promise((resolve) => setTimeout(resolve, pauseMs));
      process.kill(before.pid, "SIGCONT");
      const atStop = traffic.answered();
      await until("it answers again", () => traffic.answered() > atStop);
      await traffic.stop();
      await beatsOver(prng.below(BUDGET_MS) / 1_000);
    }
    await expectInnocent(before, `seed ${seed}`);
    // The watchdog has noticed that it was away itself.
    expect(await edge.metric("patina_watchdog_oversleeps_total")).toBeGreaterThan(0);
  },
);

interface Figures {
  readonly pid: number;
  readonly log: number;
  readonly stalls: number;
}

async function figures(): Promise<Figures> {
  const stalls = await edge.metric("patina_loop_stalls_total");
  return { pid: edge.edgePid(), log: edge.log.length, stalls };
}

async function expectInnocent(before: Figures, hint = ""): Promise<void> {
  const told = edge.log.slice(before.log).filter(({ event }) => ACCUSATIONS.has(event));
  expect(told, hint).toEqual([]);
  expect(await figures(), hint).toMatchObject({ pid: before.pid, stalls: before.stalls });
}

/** Waits until the main loop has beaten for so many seconds. */
async function beatsOver(seconds: number): Promise<void> {
  const first = await beatsOfMain();
  while ((await beatsOfMain()) - first < seconds * BEATS_PER_SECOND) {
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function beatsOfMain(): Promise<number> {
  const { text } = await get(edge.metricsPort, "/healthz");
  const { loops } = JSON.parse(text) as { loops: { name: string; beats: number }[] };
  return loops.find(({ name }) => name === "main")?.beats ?? 0;
}

/** One request after the other. */
function steadyTraffic(): { answered(): number; stop(): Promise<number> } {
  let answered = 0;
  let isStopped = false;
  const run = async (): Promise<void> => {
    while (!isStopped) {
      const { status } = await edge.request("one.test");
      if (status === 200) answered++;
    }
  };
  const running = run();
  return {
    answered: () => answered,
    stop: async () => {
      isStopped = true;
      await running;
      return answered;
    },
  };
}

function hog(): ChildProcess {
  return spawn(process.execPath, ["-e", "for (;;);"], { stdio: "ignore" });
}

const BEATS_PER_SECOND = 10;
const ACCUSATIONS: ReadonlySet<string> = new Set([
  "edge-bounced",
  "loop-stalled",
  "loop-crashed",
  "loop-recovered",
]);
