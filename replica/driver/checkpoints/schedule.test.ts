import { describe, expect, test } from "vitest";
import type { KeptCheckpoint } from "./checkpoint-target.ts";
import { isDue, nextLookMs, superfluous } from "./schedule.ts";

const NOW = Date.parse("2026-01-02T00:00:00Z");

describe("isDue", () => {
  test.each([
    { ageS: 3_599, due: false },
    { ageS: 3_600, due: true },
    { ageS: -60, due: false },
    { ageS: -3_601, due: true },
  ])("a checkpoint of $ageS s ago, hourly: $due", ({ ageS, due }) => {
    expect(isDue(kept(ageS), { nowMs: NOW, every_secs: 3_600 })).toBe(due);
  });
});

test("the newest are kept", () => {
  const all = [kept(1), kept(2), kept(3)];
  expect(superfluous(all, 2)).toEqual([kept(3)]);
  expect(superfluous(all, 5)).toEqual([]);
});

describe("nextLookMs", () => {
  const look = (changes: Partial<Parameters<typeof nextLookMs>[0]>): number =>
    nextLookMs({
      newest: kept(600),
      failuresInRow: 0,
      nowMs: NOW,
      everySecs: 3_600,
      random: 0,
      ...changes,
    });

  test("is when the newest will be old enough, spread over a tenth of the period", () => {
    expect(look({})).toBe(3_000_000);
    expect(look({ random: 0.5 })).toBe(3_180_000);
    expect(look({ newest: kept(9_999) })).toBe(1_000);
    expect(look({ newest: kept(-9_999) })).toBe(3_600_000);
  });

  test("comes within a minute of a start", () => {
    expect(look({ newest: null, random: 1 })).toBe(60_000);
    expect(look({ newest: null, everySecs: 1, random: 1 })).toBe(100);
  });

  test("backs off after failures, up to the period", () => {
    expect([1, 2, 3, 9].map((failuresInRow) => look({ failuresInRow }))).toEqual([
      60_000, 120_000, 240_000, 3_600_000,
    ]);
  });
});

function kept(ageS: number): KeptCheckpoint {
  const taken = new Date(NOW - ageS * 1000).toISOString();
  return { name: taken, taken, clusterId: 0, bytes: 1 };
}
