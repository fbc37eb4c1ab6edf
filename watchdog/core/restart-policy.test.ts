import fc from "fast-check";
import { expect, test } from "vitest";
import { RestartPolicy, type RestartInput, type RestartOutput } from "./restart-policy.ts";

test("an edge that was ready is started again at once, and told about afterwards", () => {
  const world = new World();
  world.run({ kind: "start" }, { kind: "ready" });
  expect(world.take()).toEqual([{ kind: "spawn" }]);
  world.run({ kind: "exited", code: null, signal: "SIGKILL" });
  expect(world.take()).toEqual([
    { kind: "spawn" },
    { kind: "bounced", code: null, signal: "SIGKILL", wasReady: true, delayMs: 0 },
  ]);
});

test("exits after ready never count as a crash loop", () => {
  const world = new World();
  world.run({ kind: "start" });
  for (let round = 0; round < 50; round++) {
    world.run({ kind: "ready" }, CRASH);
    expect(world.take().at(-1)).toMatchObject({ kind: "bounced", delayMs: 0 });
  }
});

test("the fifth exit before ready within a minute delays the next start, longer each time", () => {
  const world = new World({ everReady: true });
  expect(world.delaysOfCrashes(11)).toEqual([
    0, 0, 0, 0, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000,
  ]);
});

test("exits before ready that are far apart are not delayed", () => {
  const world = new World({ everReady: true });
  const delays: number[] = [];
  for (let round = 0; round < 8; round++) {
    world.nowMs += 20_000;
    delays.push(...world.delaysOfCrashes(1));
  }
  expect(delays).toEqual([0, 0, 0, 0, 0, 0, 0, 0]);
});

test("a ready edge ends the back-off", () => {
  const world = new World({ everReady: true });
  world.delaysOfCrashes(7);
  world.run({ kind: "ready" });
  expect(world.delaysOfCrashes(1, "ready")).toEqual([0]);
  expect(world.delaysOfCrashes(5)).toEqual([0, 0, 0, 0, 1000]);
});

test("the delayed start comes when it is due, not before", () => {
  const world = new World({ everReady: true });
  world.delaysOfCrashes(4);
  world.run(CRASH);
  world.take();
  expect(world.policy.deadlineMs()).toBe(world.nowMs + 1000);
  world.nowMs += 999;
  world.run({ kind: "tick" });
  expect(world.take()).toEqual([]);
  world.nowMs += 1;
  world.run({ kind: "tick" });
  expect(world.take()).toEqual([{ kind: "spawn" }]);
});

test("where no edge was ever ready, the tenth exit ends the supervisor", () => {
  const world = new World();
  world.run({ kind: "start" });
  const outputs: RestartOutput[] = [];
  for (let exit = 0; exit < 10; exit++) {
    world.run(CRASH);
    outputs.push(...world.take());
    world.nowMs = Math.max(world.policy.deadlineMs(), world.nowMs);
    if (world.policy.deadlineMs() !== Infinity) world.run({ kind: "tick" });
  }
  expect(outputs.at(-1)).toEqual({ kind: "finish", code: 9, reason: "crash loop" });
});

test.each([2, 4])("exit code %d before any edge was ready ends the supervisor with it", (code) => {
  const world = new World();
  world.run({ kind: "start" }, { kind: "exited", code, signal: null });
  expect(world.take().at(-1)).toEqual({ kind: "finish", code, reason: "lasting exit code" });
  expect(world.policy.deadlineMs()).toBe(Infinity);
});

test("a lasting exit code is retried once an edge has been ready", () => {
  const world = new World({ everReady: true });
  world.run({ kind: "exited", code: 4, signal: null });
  expect(world.take().map((output) => output.kind)).toEqual(["spawn", "bounced"]);
});

test.each(["SIGTERM", "SIGINT"] as const)("the first %s drains, the second kills", (signal) => {
  const world = new World({ everReady: true });
  world.run({ kind: "stop", signal });
  expect(world.take()).toEqual([{ kind: "signal", signal }]);
  world.run({ kind: "stop", signal });
  expect(world.take()).toEqual([{ kind: "signal", signal: "SIGKILL" }]);
  world.run({ kind: "exited", code: null, signal: "SIGKILL" });
  expect(world.take()).toEqual([{ kind: "finish", code: 137, reason: "stopped" }]);
});

test("a drained edge's exit code is the supervisor's", () => {
  for (const code of [0, 1]) {
    const world = new World({ everReady: true });
    world.run({ kind: "stop", signal: "SIGTERM" }, { kind: "exited", code, signal: null });
    expect(world.take().at(-1)).toEqual({ kind: "finish", code, reason: "stopped" });
  }
});

test("a drain that takes too long is killed", () => {
  const world = new World({ everReady: true });
  world.run({ kind: "stop", signal: "SIGTERM" });
  world.take();
  world.nowMs = world.policy.deadlineMs();
  world.run({ kind: "tick" });
  expect(world.take()).toEqual([{ kind: "signal", signal: "SIGKILL" }]);
  expect(world.policy.deadlineMs()).toBe(Infinity);
});

test("a stop while waiting for the next start ends at once", () => {
  const world = new World({ everReady: true });
  world.delaysOfCrashes(4);
  world.run(CRASH);
  world.take();
  world.run({ kind: "stop", signal: "SIGTERM" });
  expect(world.take()).toEqual([{ kind: "finish", code: 0, reason: "stopped" }]);
});

test("a reload reaches a running edge and nobody else", () => {
  const world = new World();
  world.run({ kind: "reload" }, { kind: "start" }, { kind: "reload" });
  expect(world.take()).toEqual([{ kind: "spawn" }, { kind: "signal", signal: "SIGHUP" }]);
});

test("at most one edge runs, and nothing follows the finish, in any order of events", () => {
  const inputs = fc.constantFrom<RestartInput>(
    { kind: "ready" },
    CRASH,
    { kind: "exited", code: 2, signal: null },
    { kind: "stop", signal: "SIGTERM" },
    { kind: "reload" },
    { kind: "tick" },
  );
  fc.assert(
    fc.property(fc.array(fc.tuple(inputs, fc.nat(40_000)), { maxLength: 100 }), (steps) => {
      const world = new World();
      world.run({ kind: "start" });
      let edges = 0;
      let isFinished = false;
      const check = (): void => {
        for (const output of world.take()) {
          expect(isFinished).toBe(false);
          if (output.kind === "spawn") edges += 1;
          if (output.kind === "finish") isFinished = true;
          expect(edges).toBeLessThanOrEqual(1);
        }
      };
      check();
      for (const [input, afterMs] of steps) {
        world.nowMs += afterMs;
        if (input.kind === "exited" && edges === 0) continue;
        if (input.kind === "exited") edges = 0;
        world.run(input);
        check();
      }
    }),
  );
});

const CRASH = { kind: "exited", code: 1, signal: null } as const;

class World {
  readonly policy = new RestartPolicy({
    lastingCodes: [2, 4],
    crashLoopCode: 9,
    signalNumbers: { SIGKILL: 9, SIGTERM: 15 },
    drainLimitMs: 60_000,
    crashLoopExits: 5,
    crashLoopWindowMs: 60_000,
    backOffFirstMs: 1000,
    backOffMaxMs: 30_000,
    giveUpExits: 10,
  });
  nowMs = 1000;

  constructor({ everReady = false } = {}) {
    if (!everReady) return;
    this.run({ kind: "start" }, { kind: "ready" });
    this.run({ kind: "exited", code: null, signal: "SIGKILL" });
    this.take();
  }

  run(...inputs: RestartInput[]): void {
    for (const input of inputs) this.policy.handle(input, this.nowMs);
  }

  take(): RestartOutput[] {
    return this.policy.drain();
  }

  /** Lets `count` edges crash, each as soon as it was started; the delays that followed. */
  delaysOfCrashes(count: number, first?: "ready"): number[] {
    const delays: number[] = [];
    for (let crash = 0; crash < count; crash++) {
      if (first === "ready" && crash === 0) this.run({ kind: "ready" });
      this.run(CRASH);
      for (const output of this.take()) {
        if (output.kind === "bounced") delays.push(output.delayMs);
      }
      if (this.policy.deadlineMs() === Infinity) continue;
      this.nowMs = this.policy.deadlineMs();
      this.run({ kind: "tick" });
      this.take();
    }
    return delays;
  }
}
