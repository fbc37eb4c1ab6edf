/** The fleet's restart budget: what peers say of their bounces, and when a frozen edge goes on. */
import { expect, test } from "vitest";
import type { RestartBudget } from "../types.ts";
import { allocatePeerBounces, fleetBounces, PeerBounces } from "./peer-bounces.ts";
import { Thaw } from "./thaw.ts";

const BUDGET: RestartBudget = { peersMax: 2, windowMs: 60_000 };

test("peers are counted once each, while their last bounce is within the window", () => {
  const { bounces, judge } = fleet();
  expect(judge(100_000)).toEqual({ peers: 0, isSpent: false });
  for (const bouncedMs of [10_000, 20_000, 30_000]) bounces.note("a", { bouncedMs, nowMs: 30_000 });
  bounces.note("b", { bouncedMs: 31_000, nowMs: 32_000 });
  expect(judge(32_000)).toEqual({ peers: 2, isSpent: false });
  bounces.note("c", { bouncedMs: 32_000, nowMs: 32_000 });
  expect(judge(32_000)).toEqual({ peers: 3, isSpent: true });
  expect(judge(89_999)).toEqual({ peers: 3, isSpent: true });
  // The first of them, by its last bounce, is out of the window.
  expect(judge(90_000)).toEqual({ peers: 2, isSpent: false });
  expect(bounces.freeMs(BUDGET)).toBe(90_000);
});

test("a clock that is ahead counts as the present, and what says nothing counts for nothing", () => {
  const { bounces, judge } = fleet();
  bounces.note("a", { bouncedMs: 9e12, nowMs: 50_000 });
  for (const bouncedMs of [0, -1, Number.NaN]) bounces.note("b", { bouncedMs, nowMs: 50_000 });
  expect(judge(50_001)?.peers).toBe(1);
  expect(judge(110_000)?.peers).toBe(0);
});

test("a later word of a peer that is about an earlier bounce changes nothing", () => {
  const { bounces, judge } = fleet();
  bounces.note("a", { bouncedMs: 50_000, nowMs: 50_000 });
  bounces.note("a", { bouncedMs: 1, nowMs: 50_000 });
  expect(judge(109_999)?.peers).toBe(1);
});

test("more peers than there is room for: the latest bounces stay", () => {
  const { bounces, judge } = fleet();
  for (let at = 1; at <= 1_000; at++) bounces.note(`peer-${at}`, { bouncedMs: at, nowMs: 2_000 });
  expect(judge(2_000)).toEqual({ peers: 256, isSpent: true });
  expect(bounces.freeMs(BUDGET)).toBe(998 + BUDGET.windowMs);
});

test("without a budget nothing is judged", () => {
  const bounces = allocatePeerBounces();
  expect(fleetBounces({ budget: { ...BUDGET, peersMax: 0 }, bounces }, 1)).toBe(undefined);
  expect(fleetBounces(null, 1)).toBe(undefined);
});

test("an edge thaws a window and a random delay after it froze", () => {
  const thaw = new Thaw({ budget: BUDGET, sinceMs: 1_000, nextRandom: () => 0.5 });
  expect(thaw.isOver(0, 1_000)).toBe(false);
  expect(thaw.deadlineMs).toBe(61_000);
  expect(thaw.isOver(0, 60_999)).toBe(false);
  expect(thaw.isOver(0, 61_000)).toBe(false);
  expect(thaw.deadlineMs).toBe(91_000);
  expect(thaw.isOver(0, 90_999)).toBe(false);
  expect(thaw.isOver(0, 91_000)).toBe(true);
});

test("while the budget is spent it waits for that, and the delay begins anew", () => {
  const thaw = new Thaw({ budget: BUDGET, sinceMs: 0, nextRandom: () => 0.1 });
  expect(thaw.isOver(80_000, 60_000)).toBe(false);
  expect(thaw.deadlineMs).toBe(80_000);
  expect(thaw.isOver(80_000, 80_000)).toBe(false);
  expect(thaw.deadlineMs).toBe(86_000);
  // Those whose turn came sooner have stalled again.
  expect(thaw.isOver(140_000, 86_000)).toBe(false);
  expect(thaw.isOver(140_000, 140_000)).toBe(false);
  expect(thaw.isOver(140_000, 145_999)).toBe(false);
  expect(thaw.isOver(140_000, 146_000)).toBe(true);
});

test("of a fleet that froze together only a few thaw before they know whether it is safe", () => {
  // Everyone that thaws stalls again at once, and the others hear of it.
  const bounces = new PeerBounces(allocatePeerBounces());
  const frozen = new Map(
    Array.from({ length: 500 }, (_unused, at) => {
      const nextRandom = (): number => at / 500;
      return [`edge-${at}`, new Thaw({ budget: BUDGET, sinceMs: 0, nextRandom })] as const;
    }),
  );
  for (let nowMs = 60_000; nowMs < 120_000; nowMs += 10) {
    for (const [peer, thaw] of frozen) {
      if (thaw.deadlineMs > nowMs || !thaw.isOver(bounces.freeMs(BUDGET), nowMs)) continue;
      frozen.delete(peer);
      bounces.note(peer, { bouncedMs: nowMs, nowMs });
    }
  }
  expect(500 - frozen.size).toBe(BUDGET.peersMax + 1);
});

function fleet() {
  const bounces = allocatePeerBounces();
  const judge = (nowMs: number) => fleetBounces({ budget: BUDGET, bounces }, nowMs);
  return { bounces: new PeerBounces(bounces), judge };
}
