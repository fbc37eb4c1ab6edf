/** What a start makes of the files that the process before it has left. */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { createLogger } from "#base/logger.ts";
import { MetricSlots } from "#base/metric-slots.ts";
import type { QuarantineState } from "../routing/core/quarantine.ts";
import { allocatePeerBounces, PeerBounces } from "../watchdog/core/peer-bounces.ts";
import { newStallId, stallFile, writeStall } from "../watchdog/driver/stall-files.ts";
import type { StallEvidence } from "../watchdog/types.ts";
import { PROXY_METRICS } from "./metrics.ts";
import { QuarantineKeeper } from "./quarantine-keeper.ts";

const ROW = { what: "row", actor: "w", version: 7, table: "machines", key: "m1", app: "shop" };
const BUDGET = { peersMax: 2, windowMs: 60_000 };
let stateFolder: string;
let lines: { readonly event: string; readonly [name: string]: unknown }[];
let states: QuarantineState[];
let thaws: number;
let bounces: SharedArrayBuffer;
let keepers: QuarantineKeeper[];

beforeEach(() => {
  stateFolder = mkdtempSync(join(tmpdir(), "patina-keeper-"));
  [lines, states, thaws, keepers] = [[], [], 0, []];
  bounces = allocatePeerBounces();
});

afterEach(async () => {
  for (const keeper of keepers) await keeper.stop();
  rmSync(stateFolder, { recursive: true, force: true });
});

test.each(["", '{"format":1,"id":', "[]", "\0".repeat(100)])(
  "evidence that is damaged (%j) is set aside with a warning, and what comes after it is judged",
  async (text) => {
    const now = Date.now();
    const damaged = stallFile(stateFolder, newStallId(new Date(now - 2_000), 1, "main"));
    mkdirSync(join(stateFolder, "stalls"));
    writeFileSync(damaged, text);
    writeStall(stateFolder, evidence(now - 1_000), 20);
    const keeper = await open();
    expect(keeper.state.holds).toMatchObject([{ change: { key: "m1", version: 7 } }]);
    expect(lines.filter(({ event }) => event === "evidence-damaged")).toMatchObject([
      { level: "warn", file: damaged, aside: `${damaged}.damaged` },
    ]);
    expect(readFileSync(`${damaged}.damaged`, "utf8")).toBe(text);
    // Once.
    await keeper.stop();
    await open();
    expect(lines.filter(({ event }) => event === "evidence-damaged")).toHaveLength(1);
  },
);

test("damaged evidence is bounded like any other", () => {
  const folder = join(stateFolder, "stalls");
  mkdirSync(folder);
  for (let at = 0; at < 9; at++)
    writeFileSync(join(folder, `2026010${at}-1-main.json.damaged`), "");
  writeStall(stateFolder, evidence(Date.now()), 3);
  const damaged = readdirSync(folder).filter((name) => name.endsWith(".damaged"));
  expect(damaged.toSorted()).toEqual([6, 7, 8].map((at) => `2026010${at}-1-main.json.damaged`));
});

test("a bounce beyond the fleet's budget freezes the next start, which a third one takes over", async () => {
  writeStall(stateFolder, evidence(Date.now(), { peers: 3, isSpent: true }), 20);
  const keeper = await open();
  expect(keeper.state.frozen).toMatchObject({ peers: 3 });
  // What stalled is held all the same.
  expect(keeper.state.holds).toHaveLength(1);
  expect(lines.filter(({ event }) => event === "edge-frozen")).toMatchObject([{ level: "error" }]);
  await keeper.stop();
  const next = await open();
  expect(next.state.frozen).toEqual(keeper.state.frozen);
  expect(lines.filter(({ event }) => event === "edge-frozen")).toHaveLength(1);
  expect(next.answer(question("thaw"), TABLE)).toMatchObject({ peers: 3 });
  expect([next.state.frozen, states.at(-1)?.frozen, thaws]).toEqual([null, null, 1]);
  expect(next.answer(question("thaw"), TABLE)).toEqual({ problem: "the edge is not frozen" });
});

test("a bounce within the budget, one long ago and one thread that is replaced freeze nothing", async () => {
  const longAgo = Date.now() - BUDGET.windowMs;
  writeStall(stateFolder, evidence(longAgo, { peers: 9, isSpent: true }), 20);
  writeStall(stateFolder, evidence(Date.now() - 2, { peers: 2, isSpent: false }), 20);
  const report = { ...evidence(Date.now() - 1, { peers: 9, isSpent: true }), action: "report" };
  writeStall(stateFolder, report as StallEvidence, 20);
  const keeper = await open();
  expect(keeper.state.frozen).toBe(null);
  expect(keeper.news.bouncedMs).not.toBe(null);
});

test("a freeze whose window is over ends by itself, unless others go on bouncing", async () => {
  const sinceMs = Date.now() - 2 * BUDGET.windowMs;
  const frozen = { stallId: "s", sinceMs, peers: 3 };
  writeStall(stateFolder, evidence(Date.now(), { peers: 3, isSpent: true }), 20);
  const first = await open();
  await first.stop();
  const file = join(stateFolder, "quarantine.json");
  const state = JSON.parse(readFileSync(file, "utf8")) as QuarantineState;
  writeFileSync(file, JSON.stringify({ ...state, frozen }));
  const peers = new PeerBounces(bounces);
  const nowMs = Date.now();
  for (const peer of ["a", "b", "c"]) peers.note(peer, { bouncedMs: nowMs, nowMs });
  const waiting = await open();
  await new Promise((resolve) => setImmediate(resolve));
  expect(waiting.state.frozen).toEqual(frozen);
  await waiting.stop();
  bounces = allocatePeerBounces();
  const { promise, resolve } = Promise.withResolvers<void>();
  await open({ budget: { peersMax: 2, windowMs: 1 }, onThaw: resolve });
  await promise;
  expect(states.at(-1)?.frozen).toBe(null);
  expect(lines.find(({ event }) => event === "edge-thawed")).toMatchObject({
    why: "the others are well again",
  });
});

const TABLE = { waiting: [], release: () => undefined };

function question(action: "thaw") {
  return { kind: "quarantine", action, id: "" } as const;
}

async function open(
  options: { readonly budget?: typeof BUDGET; readonly onThaw?: () => void } = {},
): Promise<QuarantineKeeper> {
  const keeper = await QuarantineKeeper.open({
    stateFolder,
    holdMs: 3_600_000,
    log: createLogger({
      level: "info",
      nowMs: () => 0,
      write: (line) => void lines.push(JSON.parse(line) as (typeof lines)[0]),
    }),
    metrics: MetricSlots.allocate(PROXY_METRICS, 1).writer(0),
    fleet: { budget: options.budget ?? BUDGET, bounces },
    onReleased: () => undefined,
    onThaw: () => {
      thaws += 1;
      options.onThaw?.();
    },
    onChange: (state) => states.push(state),
  });
  keepers.push(keeper);
  return keeper;
}

function evidence(timeMs: number, fleet?: StallEvidence["fleet"]): StallEvidence {
  const time = new Date(timeMs);
  return {
    format: 1,
    id: newStallId(time, 1, "main"),
    kind: "stall",
    time: time.toISOString(),
    pid: 1,
    loop: "main",
    phase: "apply",
    action: "bounce",
    budgetMs: 1_000,
    silentMs: 1_100,
    misses: 11,
    stack: { kind: "native", reason: "none", thread: null },
    error: null,
    breadcrumb: ROW,
    lastBreadcrumbs: [ROW],
    loops: [],
    resources: {},
    threads: [],
    configHash: "",
    fleet,
  };
}
