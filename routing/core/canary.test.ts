/** Two edges try what no table has applied; nothing that goes down waits, and nothing is lost. */
import fc from "fast-check";
import { expect, test } from "vitest";
import type { RowChange } from "../types.ts";
import { Canary } from "./canary.ts";
import { isDown, rowId } from "./deny-set.ts";
import type { ChangeName } from "./quarantine.ts";
import { SeenShapes } from "./shapes.ts";

const WAIT_MS = 3_000;
const EXTEND_MS = 60_000;
const OPTIONS = {
  waitMs: WAIT_MS,
  extendMs: EXTEND_MS,
  hashOf: ({ actorId, version, key }: ChangeName) => `${key}/${version}/${actorId}`,
};

test("of a fleet exactly two apply an unseen shape at once, the same two for each such change", () => {
  const fleet = fc.uniqueArray(fc.uuid(), { minLength: 1, maxLength: 30 });
  fc.assert(
    fc.property(fleet, fc.integer({ min: 2, max: 9 }), (actors, changes) => {
      const edges = actors.map((self) => edgeOf(self, actors));
      const first = Array.from({ length: changes }, (_, at) => {
        const change = machine(`m${at}`, { state: "started", weight: 1n });
        return edges.map((edge) => edge.admit(change, at0())).join();
      });
      expect(new Set(first).size).toBe(1);
      const canaries = first[0]!.split(",").filter((isNow) => isNow === "true");
      expect(canaries.length).toBe(Math.min(2, actors.length));
    }),
  );
});

test("edges that are down, workers and strangers are no canaries", () => {
  const edges = ["a", "b", "c", "d"].map((self) => {
    const canary = edgeOf(self, ["a", "b", "c", "d"]);
    canary.setUp("worker", true);
    return { self, canary };
  });
  const unseen = machine("m", { state: "started", weight: 1n });
  const before = edges.filter(({ canary }) => canary.admit(unseen, at0()));
  const [dead] = before;
  const left = ["a", "b", "c", "d"].filter((self) => self !== dead?.self);
  const after = left.filter((self) => {
    const canary = edgeOf(self, ["a", "b", "c", "d"]);
    canary.setUp(dead?.self ?? "", false);
    return canary.admit(unseen, at0());
  });
  expect(before).toHaveLength(2);
  expect(after).toHaveLength(2);
  expect(after).toContain(before[1]?.self);
});

test("a shape is unseen by a column, a word, a size, a kind or characters, and by nothing else", () => {
  const seen: RowChange["row"] = { state: "started", app_id: "shop", weight: 3n, note: null };
  const isUnseen = (row: RowChange["row"]): boolean => {
    const canary = waitingEdge();
    canary.learn(machine("m0", seen));
    canary.applied();
    return !canary.admit(machine("m1", { state: "started", ...row }), at0());
  };
  expect(isUnseen({ app_id: "another", weight: 60_000n })).toBe(false);
  expect(isUnseen({ app_id: "", weight: 0, note: "" })).toBe(false);
  expect(isUnseen({ weight: 12.5 })).toBe(false);
  expect(isUnseen({ note: "in use" })).toBe(true);
  expect(isUnseen({ extra: 1n })).toBe(true);
  expect(isUnseen({ weight: 70_000n })).toBe(true);
  expect(isUnseen({ weight: -1n })).toBe(true);
  expect(isUnseen({ app_id: "x".repeat(128) })).toBe(true);
  expect(isUnseen({ app_id: "naïve" })).toBe(true);
  expect(isUnseen({ app_id: new Uint8Array(1) })).toBe(true);
  const service = { ...machine("m", { protocol: "http" }), table: "services" };
  const canary = waitingEdge();
  canary.learn(service);
  canary.applied();
  expect(canary.admit(service, at0())).toBe(true);
  expect(canary.admit({ ...service, row: { protocol: "h2c" } }, at0())).toBe(false);
});

test("whatever goes down is let through at once, and takes the place of what waits", () => {
  const row = fc.dictionary(fc.string(), fc.oneof(fc.string(), fc.bigInt(), fc.double()));
  const table = fc.constantFrom("machines", "services", "checks", "hostnames", "nodes");
  fc.assert(
    fc.property(table, fc.option(row), (name, value) => {
      const canary = waitingEdge();
      const change: RowChange = { ...machine("m", value), table: name };
      const isNow = canary.admit(change, at0());
      if (value === null || isDown(change)) expect(isNow).toBe(true);
    }),
  );
  const canary = waitingEdge();
  expect(canary.admit(machine("m", { state: "started" }), at0())).toBe(false);
  expect(canary.admit(machine("m", null), at0())).toBe(true);
  expect(canary.takeDue(Infinity)).toBeNull();
});

test("a change waits for its time once, however often the stream starts over", () => {
  const canary = waitingEdge();
  const change = machine("m", { state: "started" });
  const gone = machine("gone", { state: "started" });
  canary.admit(change, at0());
  canary.admit(gone, at0());
  canary.began();
  canary.admit(change, { nowMs: 2_000, since: null });
  canary.caughtUp();
  expect(canary.waiting(2_000)).toMatchObject([{ change: { key: "m" }, leftMs: 1_000 }]);
  expect(canary.takeDue(WAIT_MS - 1)).toBeNull();
  expect(canary.takeDue(WAIT_MS)).toEqual(change);
  expect(canary.takeDue(Infinity)).toBeNull();
  // Only when the table has gone on is the shape one that has been seen.
  expect(canary.admit(machine("n", { state: "started" }), at0())).toBe(false);
  canary.applied();
  expect(canary.admit(machine("o", { state: "started" }), at0())).toBe(true);
});

test("while the stream starts over nothing is due that may be no more", () => {
  const canary = waitingEdge();
  const [kept, gone] = [machine("m", { state: "started" }), machine("gone", { state: "started" })];
  canary.admit(gone, at0());
  canary.admit(kept, at0());
  canary.began();
  expect(canary.takeDue(WAIT_MS)).toBeNull();
  expect(canary.deadlineMs).toBe(Infinity);
  canary.admit(kept, { nowMs: 2_000, since: null });
  expect(canary.deadlineMs).toBe(WAIT_MS);
  expect(canary.takeDue(WAIT_MS)).toEqual(kept);
  expect(canary.takeDue(Infinity)).toBeNull();
  canary.caughtUp();
  expect(canary.waitingCount).toBe(0);
});

test("a table that starts with nothing learns without waiting, until it knows the others", () => {
  const canary = new Canary({ ...OPTIONS, edges: () => ["a", "b", "c"] });
  canary.setSelf("a");
  expect(canary.admit(machine("m", { state: "started" }), at0())).toBe(true);
  canary.applied();
  canary.membersKnown();
  expect(canary.admit(machine("n", { state: "started" }), at0())).toBe(true);
  expect(canary.stats).toMatchObject({ first: 0, waited: 0 });
});

test("an edge that restarts among others waits until it knows them", () => {
  const canary = new Canary({ ...OPTIONS, edges: () => [] });
  canary.setSelf("a");
  canary.restore(new SeenShapes());
  expect(canary.admit(machine("m", { state: "started" }), at0())).toBe(false);
  canary.membersKnown();
  expect(canary.admit(machine("n", { state: "started" }), at0())).toBe(true);
});

test("whatever waits in whatever order, the table ends with the newest of each row", () => {
  const value = fc.option(fc.constantFrom("started", "stopped", "starting", "draining", "odd"));
  const step = fc.record({
    id: fc.constantFrom("a", "b", "c"),
    state: value,
    afterMs: fc.integer({ min: 0, max: 2 * WAIT_MS }),
    extra: fc.constantFrom("", "x", "é", "y".repeat(200)),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
      const canary = waitingEdge();
      const table = new Map<string, RowChange["row"]>();
      const newest = new Map<string, RowChange["row"]>();
      const put = (change: RowChange): void => {
        table.set(rowId(change), change.row);
        canary.applied();
      };
      const takeAllDue = (nowMs: number): void => {
        for (let due = canary.takeDue(nowMs); due; due = canary.takeDue(nowMs)) put(due);
      };
      let nowMs = 0;
      for (const [at, { id, state, afterMs, extra }] of steps.entries()) {
        nowMs += afterMs;
        takeAllDue(nowMs);
        const row = state === null ? null : { state, extra };
        const change = { ...machine(id, row), version: at + 1 };
        newest.set(rowId(change), row);
        if (canary.admit(change, { nowMs, since: null })) put(change);
      }
      takeAllDue(nowMs + WAIT_MS);
      expect(canary.waitingCount).toBe(0);
      expect(table).toEqual(newest);
    }),
  );
});

test("a later process resumes before the first change that waits", () => {
  const canary = waitingEdge();
  const here = { databaseId: "d", dbVersion: 90 };
  expect(canary.resumeFrom(here)).toEqual(here);
  const since = { databaseId: "d", dbVersion: 41 };
  canary.admit(machine("m", { state: "started" }), { nowMs: 0, since });
  expect(canary.resumeFrom(here)).toEqual(since);
  // One that came with all rows may be of any age.
  canary.admit(machine("n", { state: "started" }), { nowMs: 0, since: null });
  expect(canary.resumeFrom(here)).toEqual({ databaseId: "d", dbVersion: 0 });
  canary.admit(machine("m", null), at0());
  canary.admit(machine("n", null), at0());
  expect(canary.resumeFrom(here)).toEqual(here);
});

test("the word of one victim extends the wait, that of two holds until it expires", () => {
  const canary = waitingEdge();
  canary.admit(machine("m", { state: "started" }), at0());
  const notice = { hash: "m/1/w", untilMs: 3_600_000 };
  canary.notice({ ...notice, victim: "a" });
  canary.notice({ ...notice, victim: "a" });
  expect(canary.deadlineMs).toBe(EXTEND_MS);
  canary.notice({ ...notice, victim: "b", untilMs: 1_800_000 });
  expect(canary.deadlineMs).toBe(1_800_000);
  expect(canary.waiting(0)).toMatchObject([{ id: "wm/1/w", victims: 2 }]);
  expect(canary.takeDue(1_799_999)).toBeNull();
  expect(canary.takeDue(1_800_000)).toMatchObject({ key: ["m"] });
});

test("a victim that takes its word back holds nobody up any more", () => {
  const canary = waitingEdge();
  canary.admit(machine("m", { state: "started" }), at0());
  for (const victim of ["a", "b"]) canary.notice({ hash: "m/1/w", victim, untilMs: 3_600_000 });
  canary.notice({ hash: "m/1/w", victim: "a", untilMs: -Infinity });
  expect(canary.deadlineMs).toBe(EXTEND_MS);
  canary.notice({ hash: "m/1/w", victim: "b", untilMs: -Infinity });
  expect(canary.deadlineMs).toBe(WAIT_MS);
  // Nor what comes later, and what was never said cannot be taken back.
  canary.notice({ hash: "n/1/w", victim: "b", untilMs: -Infinity });
  expect(canary.takeDue(WAIT_MS)).toMatchObject({ key: ["m"] });
});

test("a notice holds an ordinary change that comes after it, and a canary that has not tried yet", () => {
  const canary = edgeOf("a", ["a"]);
  const ordinary = machine("m", { state: "started" });
  canary.learn(ordinary);
  canary.applied();
  canary.notice({ hash: "m/1/w", victim: "b", untilMs: 3_600_000 });
  expect(canary.admit(ordinary, at0())).toBe(false);
  expect(canary.admit(machine("n", { state: "started" }), at0())).toBe(true);
  const unseen = machine("odd", { state: "started", extra: 1n });
  canary.notice({ hash: "odd/1/w", victim: "b", untilMs: 3_600_000 });
  expect(canary.admit(unseen, at0())).toBe(false);
  expect(canary.deadlineMs).toBe(EXTEND_MS);
  // A newer version of the row is another change.
  expect(canary.admit({ ...ordinary, version: 2 }, at0())).toBe(true);
});

test("no notice holds what goes down, or outlasts its time, or counts when nobody is to heed it", () => {
  const canary = edgeOf("a", ["a"]);
  for (const victim of ["b", "c", "d"]) {
    canary.notice({ hash: "m/1/w", victim, untilMs: 10_000 });
  }
  expect(canary.admit(machine("m", null), at0())).toBe(true);
  expect(canary.admit(machine("m", { state: "stopped" }), at0())).toBe(true);
  const up = machine("m", { state: "started" });
  expect(canary.admit(up, { nowMs: 9_999, since: null })).toBe(false);
  expect(canary.takeDue(10_000)).toEqual(up);
  canary.applied();
  expect(canary.admit(up, { nowMs: 10_000, since: null })).toBe(true);
  const deaf = new Canary({ ...OPTIONS, extendMs: 0, edges: () => [] });
  deaf.notice({ hash: "m/1/w", victim: "b", untilMs: 10_000 });
  expect(deaf.admit(up, at0())).toBe(true);
});

test("whatever is said by whom, a change never waits beyond its notices and its own time", () => {
  const said = fc.record({
    victim: fc.constantFrom("a", "b", "c"),
    untilMs: fc.integer({ min: 0, max: 500_000 }),
  });
  fc.assert(
    fc.property(fc.array(said, { maxLength: 12 }), (notices) => {
      const canary = waitingEdge();
      canary.admit(machine("m", { state: "started" }), at0());
      const untils = new Map<string, number>();
      for (const one of notices) {
        canary.notice({ hash: "m/1/w", ...one });
        untils.set(one.victim, one.untilMs);
      }
      const [last = 0, second = 0] = [...untils.values()].toSorted((one, two) => two - one);
      const expected = Math.max(WAIT_MS, Math.min(last, EXTEND_MS), second);
      expect(canary.deadlineMs).toBe(expected);
    }),
  );
});

test("an operator can have a change applied that waits, whatever is said of it afterwards", () => {
  const canary = waitingEdge();
  canary.admit(machine("m", { state: "started" }), at0());
  expect(canary.release("wnone")).toBe(false);
  expect(canary.release("wm/1/w")).toBe(true);
  canary.notice({ hash: "m/1/w", victim: "a", untilMs: 3_600_000 });
  expect(canary.takeDue(0)).toMatchObject({ key: ["m"] });
});

test("what it costs to find what is due does not grow with what waits", () => {
  const canary = waitingEdge();
  const waiting = 2_000;
  for (let at = 0; at < waiting; at++) {
    canary.admit(machine(`m${at}`, { state: "started" }), { nowMs: waiting - at, since: null });
    // As after each batch of the stream.
    expect(canary.deadlineMs).toBe(waiting - at + WAIT_MS);
  }
  canary.notice({ hash: "m7/1/w", victim: "a", untilMs: 3_600_000 });
  for (let at = waiting - 1; at >= 0; at--) {
    if (at === 7) continue;
    expect(canary.takeDue(Infinity)).toMatchObject({ key: [`m${at}`] });
    expect(canary.deadlineMs).toBeLessThan(Infinity);
  }
  expect(canary.takeDue(Infinity)).toMatchObject({ key: ["m7"] });
  expect(canary.deadlineMs).toBe(Infinity);
  expect(canary.stats.looks).toBeLessThan(4 * waiting);
});

test("shapes survive as JSON, and what is no image of shapes is refused", () => {
  const text = fc.string({ unit: "binary", maxLength: 300 });
  const value = fc.oneof(text, fc.bigInt(), fc.double({ noNaN: true }), fc.constant(null));
  const row = fc.dictionary(fc.constantFrom("state", "note", "weight"), value);
  fc.assert(
    fc.property(fc.array(row, { maxLength: 8 }), row, (learnt, other) => {
      const seen = new SeenShapes();
      for (const one of learnt) seen.learn(machine("m", one));
      for (const one of learnt) expect(seen.has(machine("m", one))).toBe(true);
      const again = SeenShapes.read(JSON.parse(JSON.stringify(seen.image())));
      expect(again?.image()).toEqual(seen.image());
      expect(again?.has(machine("m", other))).toBe(seen.has(machine("m", other)));
    }),
    { numRuns: 50 },
  );
  fc.assert(
    fc.property(fc.jsonValue(), (any) => {
      const seen = SeenShapes.read(any);
      expect(seen === null || SeenShapes.read(seen.image()) !== null).toBe(true);
    }),
  );
  expect(SeenShapes.read({ machines: { state: [1, "large", []] } })).toBeNull();
});

function edgeOf(self: string, actors: readonly string[]): Canary {
  const canary = new Canary({ ...OPTIONS, edges: () => actors });
  canary.setSelf(self);
  for (const actor of actors) canary.setUp(actor, actor !== self);
  canary.membersKnown();
  return canary;
}

/** One that is no canary of anything. */
function waitingEdge(): Canary {
  const canary = new Canary({ ...OPTIONS, edges: () => [] });
  canary.restore(new SeenShapes());
  return canary;
}

function machine(id: string, row: RowChange["row"]): RowChange {
  return { table: "machines", key: [id], row, actorId: "w", version: 1 };
}

function at0(): { nowMs: number; since: null } {
  return { nowMs: 0, since: null };
}
