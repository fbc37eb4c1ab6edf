import { expect, test } from "vitest";
import { LifeSigns } from "./life-signs.ts";

const BUDGET_MS = 1_000;

test("progress is a sign of life, however busy the loop is", () => {
  const signs = new LifeSigns();
  const before = signs.read({ progress: 5, idleMs: 0 }, BUDGET_MS);
  expect(signs.read({ progress: 6, idleMs: 0 }, BUDGET_MS)).not.toBe(before);
});

test("a loop that is busy for all but less than a hundredth of its budget shows none", () => {
  const signs = new LifeSigns();
  const before = signs.read({ progress: 5, idleMs: 100 }, BUDGET_MS);
  for (let tenths = 1; tenths < 100; tenths++) {
    expect(signs.read({ progress: 5, idleMs: 100 + tenths / 10 }, BUDGET_MS)).toBe(before);
  }
  expect(signs.read({ progress: 5, idleMs: 110 }, BUDGET_MS)).not.toBe(before);
});

test("a loop that waits shows signs without any progress", () => {
  const signs = new LifeSigns();
  const seen = new Set<number>();
  for (let idleMs = 100; idleMs <= 5_000; idleMs += 100) {
    seen.add(signs.read({ progress: 5, idleMs }, BUDGET_MS));
  }
  expect(seen.size).toBe(50);
});

test("another thread in the loop's place is a sign of life", () => {
  const signs = new LifeSigns();
  const before = signs.read({ progress: 5, idleMs: 60_000 }, BUDGET_MS);
  expect(signs.read({ progress: 5, idleMs: 0 }, BUDGET_MS)).not.toBe(before);
});
