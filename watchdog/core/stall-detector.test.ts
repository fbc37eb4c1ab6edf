import fc from "fast-check";
import { expect, test } from "vitest";
import type { LoopPhase } from "../types.ts";
import { STALL_BUDGETS, StallDetector, type StallOutput } from "./stall-detector.ts";

test("a loop that beats is never accused", () => {
  const world = new World();
  for (let poll = 0; poll < 200; poll++) {
    world.beat();
    world.poll(50);
  }
  expect(world.outputs).toEqual([]);
});

test.each<[LoopPhase, number]>([
  ["boot", STALL_BUDGETS.boot],
  ["load", STALL_BUDGETS.load],
  ["apply", STALL_BUDGETS.apply],
  ["steady", STALL_BUDGETS.steady],
  ["drain", STALL_BUDGETS.drain],
])("in phase %s a loop is accused when it is silent for %d ms", (phase, budgetMs) => {
  const world = new World({ phase });
  world.pollFor(budgetMs - 50);
  expect(world.kinds()).toEqual([]);
  world.poll(50);
  expect(world.kinds()).toEqual(["suspect", "accuse"]);
  expect(world.outputs[1]).toMatchObject({ stall: { loop: 0, phase, budgetMs } });
});

test("a change of phase counts as a beat and starts the new budget", () => {
  const world = new World({ phase: "steady" });
  world.pollFor(950);
  world.phase = "apply";
  world.pollFor(2000);
  expect(world.kinds()).toEqual([]);
  world.poll(50);
  expect(world.kinds()).toEqual(["suspect", "accuse"]);
});

test("the accusation waits for the random delay, drawn once per suspicion", () => {
  const world = new World({ jittersMs: [120, 10] });
  world.pollFor(1100);
  expect(world.kinds()).toEqual(["suspect"]);
  world.poll(50);
  expect(world.kinds()).toEqual(["suspect", "accuse"]);
});

test("a beat during the random delay cancels", () => {
  const world = new World({ jittersMs: [200, 200] });
  world.pollFor(1100);
  world.beat();
  world.poll(50);
  expect(world.outputs.at(-1)).toEqual({ kind: "recovered", loop: 0, from: "suspected" });
  world.pollFor(1000);
  expect(world.kinds()).toEqual(["suspect", "recovered", "suspect"]);
});

test("the action follows the capture", () => {
  const world = new World();
  world.pollFor(1000);
  expect(world.kinds()).toEqual(["suspect", "accuse"]);
  world.captured();
  expect(world.kinds()).toEqual(["suspect", "accuse", "bounce"]);
});

test("a beat during the capture cancels, seen by a poll or not", () => {
  const seen = new World();
  seen.pollFor(1000);
  seen.beat();
  seen.poll(50);
  seen.captured();
  expect(seen.kinds()).toEqual(["suspect", "accuse", "recovered"]);
  const unseen = new World();
  unseen.pollFor(1000);
  unseen.beat();
  unseen.captured();
  unseen.poll(50);
  expect(unseen.kinds()).toEqual(["suspect", "accuse", "recovered"]);
});

test("a capture that never ends does not save the loop", () => {
  const world = new World();
  world.pollFor(1000);
  world.pollFor(350);
  expect(world.kinds()).toEqual(["suspect", "accuse"]);
  world.poll(50);
  expect(world.kinds()).toEqual(["suspect", "accuse", "bounce"]);
});

test("a loop with action report is reported once per stall", () => {
  const world = new World({ action: "report" });
  world.pollFor(1000);
  world.captured();
  world.pollFor(5000);
  expect(world.kinds()).toEqual(["suspect", "accuse", "report"]);
  world.beat();
  world.poll(50);
  expect(world.outputs.at(-1)).toEqual({ kind: "recovered", loop: 0, from: "acted" });
  world.pollFor(1000);
  world.captured();
  expect(world.kinds().slice(4)).toEqual(["suspect", "accuse", "report"]);
});

test("a loop whose action is changed is bounced at its next stall", () => {
  const world = new World({ action: "report" });
  world.pollFor(1000);
  world.detector.handle({ kind: "action", loop: 0, action: "bounce" }, world.nowMs);
  world.captured();
  expect(world.kinds()).toEqual(["suspect", "accuse", "bounce"]);
});

test.each([
  ["stopped or starved: both clocks went on", { monotonicMs: 3000, wallMs: 3000 }],
  ["suspended: only the wall clock went on", { monotonicMs: 50, wallMs: 3_600_000 }],
  ["its monotonic clock alone jumped", { monotonicMs: 3000, wallMs: 50 }],
  ["the wall clock was set back", { monotonicMs: 50, wallMs: -3_600_000 }],
])("the watcher accuses nobody when it overslept (%s)", (_why, jump) => {
  const world = new World();
  world.pollFor(950);
  world.poll(jump.monotonicMs, jump.wallMs);
  expect(world.outputs).toEqual([{ kind: "overslept", ...jump }]);
  world.pollFor(950);
  expect(world.kinds()).toEqual(["overslept"]);
  world.poll(50);
  expect(world.kinds()).toEqual(["overslept", "suspect", "accuse"]);
});

test("an oversleep during the random delay cancels the suspicion", () => {
  const world = new World({ jittersMs: [200, 200] });
  world.pollFor(1100);
  world.poll(900);
  world.pollFor(950);
  expect(world.kinds()).toEqual(["suspect", "overslept"]);
});

test("a stall is found although the watcher oversleeps again and again", () => {
  const world = new World();
  let rounds = 0;
  while (!world.kinds().includes("accuse") && rounds < 20) {
    world.pollFor(500);
    world.poll(400);
    rounds++;
  }
  expect(rounds).toBe(6);
});

test("a poll that is a little late still counts", () => {
  const world = new World();
  for (let poll = 0; poll < 4; poll++) world.poll(290);
  expect(world.kinds()).toEqual(["suspect", "accuse"]);
});

test("however small the budget, three polls in a row must miss", () => {
  const world = new World({ steadyMs: 10 });
  world.pollFor(100);
  expect(world.kinds()).toEqual([]);
  world.poll(50);
  expect(world.kinds()).toEqual(["suspect", "accuse"]);
});

test("time without a CPU is not held against a loop, up to two budgets", () => {
  const starved = new World();
  for (let poll = 0; poll < 40; poll++) {
    starved.starvedMs += 50;
    starved.poll(50);
  }
  expect(starved.kinds()).toEqual([]);
  for (let poll = 0; poll < 20; poll++) {
    starved.starvedMs += 50;
    starved.poll(50);
  }
  expect(starved.kinds()).toEqual(["suspect", "accuse"]);
});

test("a loop is not watched before it attaches nor after it left", () => {
  const world = new World();
  world.isWatched = false;
  world.pollFor(60_000);
  expect(world.kinds()).toEqual([]);
  world.isWatched = true;
  world.poll(50);
  world.pollFor(950);
  world.isWatched = false;
  world.pollFor(5_000);
  expect(world.kinds()).toEqual([]);
});

test("a loop whose thread is replaced is judged no more, and the thread in its place anew", () => {
  const world = new World({ action: "report" });
  world.pollFor(1000);
  world.captured();
  world.isWatched = false;
  world.pollFor(5_000);
  expect(world.kinds()).toEqual(["suspect", "accuse", "report", "left"]);
  world.detector.handle({ kind: "action", loop: 0, action: "bounce" }, world.nowMs);
  world.isWatched = true;
  world.beat();
  world.poll(50);
  world.pollFor(950);
  expect(world.kinds()).toHaveLength(4);
  world.poll(50);
  world.captured();
  expect(world.kinds().slice(4)).toEqual(["suspect", "accuse", "bounce"]);
});

test("each loop has its own case", () => {
  const detector = new StallDetector({
    loops: [
      { action: "bounce", budgets: STALL_BUDGETS },
      { action: "report", budgets: { ...STALL_BUDGETS, steady: 300 } },
    ],
    nextJitterMs: () => 0,
  });
  const base = { isWatched: true, phase: "steady", signs: null, starvedMs: 0 } as const;
  for (let at = 0; at <= 400; at += 50) {
    const loops = [
      { ...base, beats: at },
      { ...base, beats: 1 },
    ];
    detector.handle({ kind: "poll", wallMs: at, loops }, at);
  }
  expect(
    detector.drain().map((output) => [output.kind, "stall" in output && output.stall.loop]),
  ).toEqual([
    ["suspect", 1],
    ["accuse", 1],
  ]);
  expect(detector.silentMs(0)).toBe(0);
});

test("a loop that turns without a sign of life for a whole budget is judged like a stall", () => {
  const world = new World({ signs: 1 });
  world.turnFor(950);
  expect(world.kinds()).toEqual([]);
  world.turnFor(50);
  expect(world.kinds()).toEqual(["suspect", "accuse"]);
  expect(world.outputs[1]).toMatchObject({
    stall: { loop: 0, isLivelock: true, phase: "steady", budgetMs: 1000, silentMs: 1000 },
  });
  expect(world.detector.silentMs(0)).toBe(0);
  expect(world.detector.fruitlessMs(0)).toBe(1000);
  world.captured();
  expect(world.kinds()).toEqual(["suspect", "accuse", "bounce"]);
});

test("one sign of life per budget is enough, and one during the capture cancels", () => {
  const world = new World({ signs: 1 });
  for (let round = 0; round < 10; round++) {
    world.turnFor(950);
    world.signs = (world.signs ?? 0) + 1;
  }
  world.turnFor(50);
  expect(world.kinds()).toEqual([]);
  world.turnFor(1000);
  expect(world.kinds()).toEqual(["suspect", "accuse"]);
  world.signs = (world.signs ?? 0) + 1;
  world.captured();
  world.turnFor(50);
  expect(world.kinds()).toEqual(["suspect", "accuse", "recovered"]);
});

test("a loop that does not count what it gets done is judged by its beats alone", () => {
  const world = new World({ signs: null });
  world.turnFor(60_000);
  expect(world.kinds()).toEqual([]);
});

test("a loop that stands still is one case, a stall, whatever it did before", () => {
  for (const busyMs of [0, 300, 700]) {
    const world = new World({ signs: 1 });
    world.turnFor(busyMs);
    world.pollFor(1000);
    world.captured();
    world.pollFor(5000);
    expect(world.kinds()).toEqual(["suspect", "accuse", "bounce"]);
    expect(world.outputs[1]).toMatchObject({ stall: { isLivelock: false } });
  }
});

test("the watcher's oversleep, and a lack of CPU, count for a livelock as for a stall", () => {
  const overslept = new World({ signs: 1 });
  overslept.turnFor(950);
  overslept.beat();
  overslept.poll(3000);
  overslept.turnFor(950);
  expect(overslept.kinds()).toEqual(["overslept"]);
  const starved = new World({ signs: 1 });
  for (let poll = 0; poll < 40; poll++) {
    starved.starvedMs += 50;
    starved.turnFor(50);
  }
  expect(starved.kinds()).toEqual([]);
});

test("the next poll is due one period after the last", () => {
  const world = new World();
  world.poll(50);
  expect(world.detector.deadlineMs()).toBe(world.nowMs + 50);
});

test("a loop that beats at least once per budget is never accused, whatever the clocks do", () => {
  const interval = fc.record({
    monotonicMs: fc.integer({ min: 1, max: 4000 }),
    wallMs: fc.integer({ min: -4000, max: 4000 }),
  });
  fc.assert(
    fc.property(fc.array(interval, { maxLength: 200 }), (intervals) => {
      const world = new World();
      let sinceBeatMs = 0;
      for (const { monotonicMs, wallMs } of intervals) {
        sinceBeatMs += monotonicMs;
        if (sinceBeatMs >= STALL_BUDGETS.steady) {
          world.beat();
          sinceBeatMs = 0;
        }
        world.poll(monotonicMs, wallMs);
      }
      expect(world.kinds().filter((kind) => kind !== "overslept")).toEqual([]);
    }),
  );
});

interface WorldOptions {
  readonly phase?: LoopPhase;
  readonly action?: "bounce" | "report";
  readonly jittersMs?: readonly number[];
  readonly steadyMs?: number;
  readonly signs?: number | null;
}

/** One watched loop and the two clocks. */
class World {
  readonly detector: StallDetector;
  readonly outputs: StallOutput[] = [];
  nowMs = 10_000;
  wallMs = 1_700_000_000_000;
  beats = 1;
  phase: LoopPhase;
  isWatched = true;
  signs: number | null;
  starvedMs = 0;

  constructor(options: WorldOptions = {}) {
    const jittersMs = [...(options.jittersMs ?? [])];
    const budgets = { ...STALL_BUDGETS, steady: options.steadyMs ?? STALL_BUDGETS.steady };
    this.phase = options.phase ?? "steady";
    this.signs = options.signs ?? null;
    this.detector = new StallDetector({
      loops: [{ action: options.action ?? "bounce", budgets }],
      nextJitterMs: () => jittersMs.shift() ?? 0,
    });
    this.poll(0);
  }

  beat(): void {
    this.beats++;
  }

  poll(monotonicMs: number, wallMs = monotonicMs): void {
    this.nowMs += monotonicMs;
    this.wallMs += wallMs;
    const { isWatched, beats, phase, signs, starvedMs } = this;
    const loops = [{ isWatched, beats, phase, signs, starvedMs }];
    this.detector.handle({ kind: "poll", wallMs: this.wallMs, loops }, this.nowMs);
    this.outputs.push(...this.detector.drain());
  }

  pollFor(totalMs: number): void {
    for (let at = 0; at < totalMs; at += 50) this.poll(50);
  }

  /** The loop turns, and nothing else is to be said of it. */
  turnFor(totalMs: number): void {
    for (let at = 0; at < totalMs; at += 50) {
      this.beat();
      this.poll(50);
    }
  }

  captured(): void {
    const accused = this.outputs.findLast((output) => output.kind === "accuse");
    const isLivelock = accused?.kind === "accuse" && accused.stall.isLivelock;
    const beats = isLivelock ? (this.signs ?? 0) : this.beats;
    this.detector.handle({ kind: "captured", loop: 0, isLivelock, beats }, this.nowMs);
    this.outputs.push(...this.detector.drain());
  }

  kinds(): string[] {
    return this.outputs.map((output) => output.kind);
  }
}
