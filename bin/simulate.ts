/**
 * `npm run sim`: runs seeds of the simulation and tells how each ended.
 *
 *   npm run sim                              seeds 1 to 200
 *   npm run sim -- --seed 42                 one seed
 *   npm run sim -- --seeds 1-1000            a range, both ends included
 *   npm run sim -- --replicas 300            in place of the number drawn
 *   npm run sim -- --faults-seconds 60       virtual time of writes and faults, in place of that drawn
 *   npm run sim -- --jobs 1                  processes; one per core unless given
 *
 * Exit code 1 when a seed failed (the last line says how to repeat it) or when a sweep of 200 seeds
 * or more missed a situation; 2 when an argument is wrong.
 */
import { spawn } from "node:child_process";
import { availableParallelism } from "node:os";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { drawSetup, type SimulationSetup } from "../replica/sim/setup.ts";
import { runSimulation } from "../replica/sim/simulation.ts";
import {
  RARE_SITUATIONS,
  SITUATIONS,
  SMALL_CLUSTER_SITUATIONS,
} from "../replica/sim/situations.ts";

/** What the arguments ask for. */
interface Plan {
  readonly first: number;
  readonly last: number;
  readonly replicas: number | null;
  readonly faultsMs: number | null;
  readonly jobs: number;
  /** Part of a plan that is shared out: every `jobs`-th seed, from this one on. */
  readonly share: number | null;
}

/** What one process found. */
interface Findings {
  readonly marks: Set<string>;
  readonly failed: number[];
}

const plan = readPlan(process.argv.slice(2));
if (plan === null) {
  process.stderr.write(
    "usage: npm run sim -- [--seed N | --seeds A-B] [--replicas N] [--faults-seconds N] [--jobs N]\n",
  );
  process.exitCode = 2;
} else if (plan.share !== null) {
  const { marks, failed } = runShare(plan, plan.share);
  process.send?.({ marks: [...marks], failed });
} else {
  process.exitCode = report(plan, await runAll(plan));
}

/** Runs a plan in this process, or in several when there is enough to do. */
async function runAll(all: Plan): Promise<Findings> {
  const jobs = Math.min(all.jobs, all.last - all.first + 1);
  if (jobs === 1) return runShare({ ...all, jobs }, 0);
  const shares = Array.from({ length: jobs }, (_, share) => runChild({ ...all, jobs }, share));
  const found = await Promise.all(shares);
  return {
    marks: new Set(found.flatMap(({ marks }) => [...marks])),
    failed: found.flatMap(({ failed }) => failed).toSorted((one, other) => one - other),
  };
}

function runChild(all: Plan, share: number): Promise<Findings> {
  const { first, last, replicas, faultsMs, jobs } = all;
  const args = [`--seeds=${first}-${last}`, `--jobs=${jobs}`, `--share=${share}`];
  if (replicas !== null) args.push(`--replicas=${replicas}`);
  if (faultsMs !== null) args.push(`--faults-seconds=${faultsMs / 1_000}`);
  const child = spawn(process.execPath, [fileURLToPath(import.meta.url), ...args], {
    stdio: ["ignore", "inherit", "inherit", "ipc"],
  });
  return new Promise((resolve, reject) => {
    let found: Findings | null = null;
    child.on("message", (message: { marks: string[]; failed: number[] }) => {
      found = { marks: new Set(message.marks), failed: message.failed };
    });
    child.on("error", reject);
    child.on("exit", (code) => {
      if (found === null) reject(new Error(`a simulating process ended with code ${code}`));
      else resolve(found);
    });
  });
}

function runShare(all: Plan, share: number): Findings {
  const found: Findings = { marks: new Set(), failed: [] };
  for (let seed = all.first + share; seed <= all.last; seed += all.jobs) {
    runSeed(all, seed, found);
  }
  return found;
}

function runSeed(all: Plan, seed: number, found: Findings): void {
  const setup = setupOf(all, seed);
  const startedMs = performance.now();
  const { failures, convergedMs, events, commits, marks, hash } = runOrCatch(setup);
  for (const mark of marks) found.marks.add(mark);
  if (failures.length > 0) found.failed.push(seed);
  const seconds = ((performance.now() - startedMs) / 1_000).toFixed(1);
  const verdict = failures.length > 0 ? "FAILED" : `agreed after ${convergedMs / 1_000} s`;
  process.stdout.write(
    `seed ${seed}: ${setup.replicas} replicas, ${commits} commits, ${events} events, ` +
      `${verdict}, took ${seconds} s, trace ${hash}\n`,
  );
  for (const failure of failures) process.stdout.write(`  ${failure}\n`);
}

/** A broken invariant inside a replica is a failed run, too. */
function runOrCatch(setup: SimulationSetup): ReturnType<typeof runSimulation> {
  try {
    return runSimulation(setup);
  } catch (error) {
    const failures = [error instanceof Error ? (error.stack ?? error.message) : String(error)];
    const nothing = { convergedMs: Infinity, events: 0, commits: 0, hash: "none" };
    return { ...nothing, failures, marks: new Set() };
  }
}

function setupOf({ replicas, faultsMs }: Plan, seed: number): SimulationSetup {
  const drawn = drawSetup(seed);
  return {
    ...drawn,
    faultsMs: faultsMs ?? drawn.faultsMs,
    replicas: replicas ?? drawn.replicas,
    // Everybody as everybody's seed is a matter of small clusters.
    seeds: replicas === null ? drawn.seeds : Math.min(drawn.seeds, 3),
  };
}

function report(all: Plan, { marks, failed }: Findings): number {
  const count = all.last - all.first + 1;
  const small = all.replicas === null ? SMALL_CLUSTER_SITUATIONS : [];
  const expected = [...SITUATIONS, ...RARE_SITUATIONS, ...small];
  const missed = count >= 200 ? expected.filter((situation) => !marks.has(situation)) : [];
  process.stdout.write(`${count - failed.length} seeds passed, ${failed.length} failed\n`);
  if (missed.length > 0) process.stdout.write(`never happened: ${missed.join("; ")}\n`);
  const [seed] = failed;
  if (seed !== undefined) {
    const replicas = all.replicas === null ? "" : ` --replicas ${all.replicas}`;
    const faults = all.faultsMs === null ? "" : ` --faults-seconds ${all.faultsMs / 1_000}`;
    process.stdout.write(`SEED=${seed} npm run sim -- --seed ${seed}${replicas}${faults}\n`);
  }
  return failed.length + missed.length > 0 ? 1 : 0;
}

function readPlan(args: readonly string[]): Plan | null {
  const flags = readFlags(args);
  if (flags === null) return null;
  const range = /^(\d+)-(\d+)$/.exec(flags.seeds ?? "1-200");
  const seed = readNumber(flags.seed, 0);
  const [first, last] = seed === null ? [Number(range?.[1]), Number(range?.[2])] : [seed, seed];
  const replicas = readNumber(flags.replicas, 2);
  const seconds = readNumber(flags["faults-seconds"], 0);
  const jobs = readNumber(flags.jobs, 1) ?? availableParallelism();
  const share = readNumber(flags.share, 0);
  const isRead = [first, last, replicas, seconds, jobs, share].every((one) => !Number.isNaN(one));
  if (!isRead || first > last || (flags.seed !== undefined && flags.seeds !== undefined))
    return null;
  return {
    first,
    last,
    replicas,
    faultsMs: seconds === null ? null : seconds * 1_000,
    jobs,
    share,
  };
}

function readFlags(args: readonly string[]): Record<string, string | undefined> | null {
  const text = { type: "string" } as const;
  const options = { seed: text, seeds: text, replicas: text, jobs: text, share: text };
  try {
    return parseArgs({ args: [...args], options: { ...options, "faults-seconds": text } }).values;
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    process.stderr.write(`${error.message}\n`);
    return null;
  }
}

/** A whole number from `least` on; null = not given, NaN = not one. */
function readNumber(text: string | undefined, least: number): number | null {
  if (text === undefined) return null;
  return /^\d{1,9}$/.test(text) && Number(text) >= least ? Number(text) : Number.NaN;
}
