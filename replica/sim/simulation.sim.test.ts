/** Random writes under random faults: a sweep of seeds, the seeds that once failed, determinism. */
import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { drawSetup } from "./setup.ts";
import { runSimulation, type SimulationResult } from "./simulation.ts";
import { SITUATIONS } from "./situations.ts";

describe("random writes under random faults", () => {
  test("200 seeds: promises hold, healed replicas agree, and every situation arises", () => {
    const marks = new Set<string>();
    for (let seed = 1; seed <= 200; seed += 1) {
      for (const mark of check(seed).marks) marks.add(mark);
    }
    expect(SITUATIONS.filter((situation) => !marks.has(situation))).toEqual([]);
  }, 240_000);

  test.each(storiedSeeds())("seed %d, kept because %s", (seed) => {
    check(seed);
  });

  test("the same seed gives the same run, to the last event", () => {
    for (const seed of [3, 17, 42, 99, 143]) {
      const [first, second] = [check(seed), check(seed)];
      expect(second.hash).toBe(first.hash);
      expect(second.events).toBe(first.events);
    }
  });

  test("different seeds give different runs", () => {
    expect(check(1).hash).not.toBe(check(2).hash);
  });
});

/** Runs a seed; a failed one says in its last line how to repeat it. */
function check(seed: number): SimulationResult {
  const result = runSimulation(drawSetup(seed));
  if (result.failures.length > 0) {
    const repeat = `SEED=${seed} npm run sim -- --seed ${seed}`;
    throw new Error([...result.failures, repeat].join("\n"));
  }
  return result;
}

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
