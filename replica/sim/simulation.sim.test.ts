/**
 * Random writes under random faults: clusters of many sizes, the seeds that once failed, determinism.
 * The sweep of 300 seeds with 12 replicas is in sweep-first.sim.test.ts and sweep-second.sim.test.ts.
 */
import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { SMALL_CLUSTER_SITUATIONS } from "./situations.ts";
import { checkSeed } from "./sweep-fixture.ts";

describe("random writes under random faults", () => {
  test("40 seeds of clusters of 2 to 30 replicas, and what arises in small ones only", () => {
    const marks = new Set<string>();
    for (let seed = 1; seed <= 40; seed += 1) {
      for (const mark of checkSeed(seed).marks) marks.add(mark);
    }
    expect(SMALL_CLUSTER_SITUATIONS.filter((situation) => !marks.has(situation))).toEqual([]);
  }, 600_000);

  test.each(storiedSeeds())("seed %d, kept because %s", (seed) => {
    checkSeed(seed);
  });

  test("the same seed gives the same run, to the last event", () => {
    for (const seed of [3, 17, 42, 99, 143]) {
      const [first, second] = [checkSeed(seed), checkSeed(seed)];
      expect(second.hash).toBe(first.hash);
      expect(second.events).toBe(first.events);
    }
  });

  test("different seeds give different runs", () => {
    expect(checkSeed(1).hash).not.toBe(checkSeed(2).hash);
  });
});

/** Seeds that found something, with what they found. */
function storiedSeeds(): [seed: number, story: string][] {
  const text = readFileSync(new URL("../../tests/seeds.txt", import.meta.url), "utf8");
  return text
    .split("\n")
    .filter((line) => /^\d/.test(line))
    .map((line) => {
      const [seed, ...story] = line.split(" ");
      return [Number(seed), story.join(" ").trim()];
    });
}
