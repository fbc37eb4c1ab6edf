/** Runs seeds of the simulation in tests, and says of a failed one how to repeat it. */
import { drawSetup } from "./setup.ts";
import { runSimulation, type SimulationResult } from "./simulation.ts";

/** Runs one seed, with as many replicas as it draws or as given. */
export function checkSeed(seed: number, replicas?: number): SimulationResult {
  const drawn = drawSetup(seed);
  // As `npm run sim -- --replicas` does.
  const sized = replicas === undefined ? {} : { replicas, seeds: Math.min(drawn.seeds, 3) };
  const result = runSimulation({ ...drawn, ...sized });
  if (result.failures.length > 0) {
    const size = replicas === undefined ? "" : ` --replicas ${replicas}`;
    const repeat = `SEED=${seed} npm run sim -- --seed ${seed}${size}`;
    throw new Error([...result.failures, repeat].join("\n"));
  }
  return result;
}

/** Runs seeds with 12 replicas each; returns every situation that arose. */
export function sweepTwelve(seeds: { readonly first: number; readonly last: number }): Set<string> {
  const marks = new Set<string>();
  for (let seed = seeds.first; seed <= seeds.last; seed += 1) {
    for (const mark of checkSeed(seed, 12).marks) marks.add(mark);
  }
  return marks;
}
