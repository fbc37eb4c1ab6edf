import fc from "fast-check";
import { expect, test } from "vitest";
import { Upgrade, type UpgradeInput, type UpgradeOutput } from "./upgrade.ts";

test("the new process loads, the old one hands over, the new one takes over, the old one drains", () => {
  const world = new World();
  expect(world.run(begin())).toEqual([{ kind: "spawn" }]);
  expect(world.run({ kind: "loaded" })).toEqual([{ kind: "tellEdge", command: "handOver" }]);
  expect(world.run({ kind: "handedOver" })).toEqual([
    { kind: "tellCandidate", command: "takeOver" },
  ]);
  expect(world.run({ kind: "ready" })).toEqual([
    { kind: "promote", isReady: true },
    { kind: "signal", to: "retired", signal: "SIGTERM" },
  ]);
  expect(world.run({ kind: "retiredExited" })).toEqual([]);
  expect(world.run(begin())).toEqual([{ kind: "spawn" }]);
});

test.each([
  ["starting", [begin()], []],
  ["handingOver", [begin(), { kind: "loaded" }], [{ kind: "tellEdge", command: "resume" }]],
  [
    "takingOver",
    [begin(), { kind: "loaded" }, { kind: "handedOver" }],
    [{ kind: "tellEdge", command: "resume" }],
  ],
] as const)("a new process that ends while %s leaves the old one as it was", (step, way, told) => {
  const world = new World();
  world.run(...way);
  const failure = { step, cause: "exited", code: 4, signal: null };
  expect(world.run({ kind: "candidateExited", code: 4, signal: null })).toEqual([
    ...told,
    { kind: "rolledBack", failure },
  ]);
  expect(world.upgrade.deadlineMs()).toBe(Infinity);
});

test.each([
  ["starting", [begin()]],
  ["handingOver", [begin(), { kind: "loaded" }]],
  ["takingOver", [begin(), { kind: "loaded" }, { kind: "handedOver" }]],
] as const)("what takes too long while %s is killed, and undone when it is gone", (step, way) => {
  const world = new World();
  world.run(...way);
  world.nowMs += STEP_MS - 1;
  expect(world.run({ kind: "tick" })).toEqual([]);
  world.nowMs += 1;
  expect(world.run({ kind: "tick" })).toEqual([
    { kind: "signal", to: "candidate", signal: "SIGKILL" },
  ]);
  // Too late to matter: the database is free only when the process is gone.
  expect(world.run({ kind: "loaded" }, { kind: "handedOver" }, { kind: "ready" })).toEqual([]);
  const failure = { step, cause: "tooLate", code: null, signal: "SIGKILL" };
  const resume = step === "starting" ? [] : [{ kind: "tellEdge", command: "resume" }];
  expect(world.run(KILLED)).toEqual([...resume, { kind: "rolledBack", failure }]);
});

test.each([
  ["starting", [begin()], true],
  ["handingOver", [begin(), { kind: "loaded" }], true],
  ["takingOver", [begin(), { kind: "loaded" }, { kind: "handedOver" }], false],
] as const)(
  "an edge that ends while %s is followed by the new one at once",
  (_step, way, isTold) => {
    const world = new World();
    world.run(...way);
    expect(world.run({ kind: "edgeExited" })).toEqual([
      { kind: "promote", isReady: false },
      ...(isTold ? [{ kind: "tellCandidate", command: "takeOver" }] : []),
    ]);
  },
);

test("an edge that ends while its successor is being killed is started anew by others", () => {
  const world = new World();
  world.run(begin(), { kind: "loaded" });
  world.nowMs += STEP_MS;
  world.run({ kind: "tick" });
  expect(world.run({ kind: "edgeExited" })).toEqual([]);
  expect(world.run(begin())).toEqual([{ kind: "refused", reason: "underWay" }]);
  expect(world.run(KILLED)).toMatchObject([
    { kind: "rolledBack", failure: { cause: "edgeLost", step: "handingOver" } },
  ]);
});

test("a retired edge that does not end is killed after the drain's limit", () => {
  const world = new World();
  world.run(begin(), { kind: "loaded" }, { kind: "handedOver" }, { kind: "ready" });
  world.nowMs += DRAIN_MS;
  expect(world.run({ kind: "tick" })).toEqual([
    { kind: "signal", to: "retired", signal: "SIGKILL" },
  ]);
  expect(world.run({ kind: "tick" })).toEqual([]);
});

test("one upgrade at a time, of an edge that is ready, by a supervisor that stays", () => {
  const world = new World();
  expect(world.run({ kind: "begin", isEdgeReady: false })).toEqual([
    { kind: "refused", reason: "edgeNotReady" },
  ]);
  world.run(begin());
  expect(world.run(begin())).toEqual([{ kind: "refused", reason: "underWay" }]);
  world.run({ kind: "candidateExited", code: 1, signal: null }, { kind: "stop" });
  expect(world.run(begin())).toEqual([{ kind: "refused", reason: "stopping" }]);
});

test("a stop kills a new process that has nothing open, and drains one that may have", () => {
  const early = new World();
  early.run(begin(), { kind: "loaded" });
  expect(early.run({ kind: "stop" })).toEqual([
    { kind: "signal", to: "candidate", signal: "SIGKILL" },
  ]);
  expect(early.run({ kind: "edgeExited" }, KILLED)).toEqual([]);

  const late = new World();
  late.run(begin(), { kind: "loaded" }, { kind: "handedOver" });
  expect(late.run({ kind: "stop" })).toEqual([
    { kind: "signal", to: "candidate", signal: "SIGTERM" },
  ]);
  late.nowMs += DRAIN_MS;
  expect(late.run({ kind: "tick" })).toEqual([
    { kind: "signal", to: "candidate", signal: "SIGKILL" },
  ]);
});

test("in every order of events somebody serves, and one process at a time is told to own the database", () => {
  const input = fc.constantFrom<UpgradeInput["kind"]>(
    "begin",
    "loaded",
    "handedOver",
    "ready",
    "candidateExited",
    "edgeExited",
    "retiredExited",
    "stop",
    "tick",
  );
  fc.assert(
    fc.property(
      fc.array(fc.tuple(input, fc.integer({ min: 0, max: STEP_MS })), { size: "+1" }),
      (events) => {
        const model = new Model();
        for (const [kind, waitMs] of events) model.meet(kind, waitMs);
        model.settle();
      },
    ),
    { numRuns: 3000 },
  );
});

/**
 * The processes as they would be: which run, which serve, and who has the database. It lets happen
 * only what can happen, such as no `loaded` of a process that has ended.
 */
class Model {
  readonly #world = new World();
  #edge: Edge | null = { hasDatabase: true };
  #candidate: (Edge & { isTold: boolean; isLoaded: boolean; isKilled: boolean }) | null = null;
  #retired = false;
  #asked: "handOver" | "resume" | null = null;
  #isStopping = false;

  meet(kind: UpgradeInput["kind"], waitMs: number): void {
    this.#world.nowMs += waitMs;
    const candidate = this.#candidate;
    switch (kind) {
      case "begin":
        return this.#take({ kind, isEdgeReady: this.#edge !== null });
      case "loaded":
        if (candidate === null || candidate.isLoaded || candidate.isKilled) return;
        candidate.isLoaded = true;
        return this.#take({ kind });
      case "handedOver":
        if (this.#edge === null || this.#asked !== "handOver") return;
        this.#asked = null;
        this.#edge.hasDatabase = false;
        return this.#take({ kind });
      case "ready":
        if (candidate?.isTold !== true || candidate.hasDatabase || candidate.isKilled) return;
        candidate.hasDatabase = true;
        return this.#take({ kind });
      case "candidateExited":
        if (candidate === null) return;
        this.#candidate = null;
        return this.#take({ kind, code: 1, signal: null });
      case "edgeExited":
        if (this.#edge === null) return;
        this.#edge = null;
        this.#asked = null;
        this.#take({ kind });
        // What is not followed by a candidate is started anew, as after any crash.
        if (!this.#isStopping) this.#edge ??= { hasDatabase: true };
        return;
      case "retiredExited":
        if (!this.#retired) return;
        this.#retired = false;
        return this.#take({ kind });
      case "stop":
        this.#isStopping = true;
        return this.#take({ kind });
      case "tick":
        return this.#take({ kind });
    }
  }

  /** Lets everything come to its end: nobody waits for ever, and the edge has its database. */
  settle(): void {
    for (let round = 0; round < 3; round++) {
      this.meet("tick", STEP_MS + DRAIN_MS);
      this.meet("candidateExited", 0);
      this.meet("handedOver", 0);
      this.meet("retiredExited", 0);
    }
    expect(this.#world.upgrade.deadlineMs()).toBe(Infinity);
    if (this.#isStopping) return;
    expect(this.#edge).not.toBeNull();
    expect(this.#edge?.hasDatabase === true || this.#asked === "resume").toBe(true);
    expect(this.#world.run(begin())).toEqual([{ kind: "spawn" }]);
  }

  #take(input: UpgradeInput): void {
    for (const output of this.#world.run(input)) this.#perform(output);
    if (this.#isStopping) return;
    const owners = [this.#edge, this.#candidate].filter((one) => one?.hasDatabase === true);
    expect(owners.length).toBeLessThanOrEqual(1);
  }

  #perform(output: UpgradeOutput): void {
    switch (output.kind) {
      case "spawn":
        expect(this.#candidate).toBeNull();
        this.#candidate = { hasDatabase: false, isTold: false, isLoaded: false, isKilled: false };
        return;
      case "tellEdge":
        expect(this.#edge).not.toBeNull();
        if (output.command === "resume") {
          // Nobody else may have it by then.
          expect(this.#asked === "handOver" || this.#edge?.hasDatabase === false).toBe(true);
          if (this.#edge) this.#edge.hasDatabase = true;
        }
        this.#asked = output.command;
        return;
      case "tellCandidate": {
        expect(this.#edge?.hasDatabase ?? false).toBe(false);
        if (this.#candidate) this.#candidate.isTold = true;
        else this.#edge = { hasDatabase: true };
        return;
      }
      case "promote":
        expect(this.#candidate).not.toBeNull();
        expect(output.isReady).toBe(this.#candidate?.hasDatabase);
        this.#retired = output.isReady;
        // One that was told takes it; one that was not is told next.
        this.#edge = { hasDatabase: this.#candidate?.isTold === true };
        this.#candidate = null;
        return;
      case "signal":
        if (output.to === "candidate") {
          expect(this.#candidate).not.toBeNull();
          if (this.#candidate) this.#candidate.isKilled = true;
        } else expect(this.#retired).toBe(true);
        return;
      case "rolledBack":
      case "refused":
        return;
    }
  }
}

interface Edge {
  hasDatabase: boolean;
}

class World {
  readonly upgrade = new Upgrade({ stepLimitMs: STEP_MS, drainLimitMs: DRAIN_MS });
  nowMs = 1000;

  run(...inputs: readonly UpgradeInput[]): readonly UpgradeOutput[] {
    for (const input of inputs) this.upgrade.handle(input, this.nowMs);
    return this.upgrade.drain();
  }
}

function begin(): UpgradeInput {
  return { kind: "begin", isEdgeReady: true };
}

const KILLED: UpgradeInput = { kind: "candidateExited", code: null, signal: "SIGKILL" };
const STEP_MS = 30_000;
const DRAIN_MS = 60_000;
