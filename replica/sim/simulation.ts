/**
 * One simulated run: safety under random writes and faults, then healing, agreement within a stated
 * virtual time, and quiet. A run is a function of its setup.
 */
import { ANYTIME, CONVERGENCE_MAX_MS, EVENTUALLY, FINALLY, type Checker } from "./checkers.ts";
import type { SimulationSetup } from "./setup.ts";
import { World } from "./world.ts";

/** How a run ended. */
export interface SimulationResult {
  /** Empty when all checks held. */
  readonly failures: readonly string[];
  /** Virtual time from the healing to agreement; Infinity if there was none in time. */
  readonly convergedMs: number;
  /** Of everything that happened; equal for equal runs. */
  readonly hash: string;
  readonly events: number;
  readonly commits: number;
  /** Situations that arose. */
  readonly marks: ReadonlySet<string>;
}

/** Runs a setup to its end. Throws only on a broken invariant inside a replica. */
export function runSimulation(setup: SimulationSetup): SimulationResult {
  const world = new World(setup);
  const { queue, trace } = world;
  const failures: string[] = [];
  world.start();
  world.unleash();
  while (queue.nowMs < setup.faultsMs && failures.length === 0) {
    queue.runUntil(queue.nowMs + ANYTIME_EVERY_MS);
    failures.push(...contradictions(world, ANYTIME));
  }
  world.heal();
  const convergedMs = failures.length > 0 ? Infinity : converge(world, failures);
  if (failures.length === 0) {
    releaseBrakes(world);
    queue.runUntil(queue.nowMs + QUIET_MS);
    failures.push(...contradictions(world, [...ANYTIME, ...EVENTUALLY, ...FINALLY]));
  }
  failures.push(...world.broken);
  world.markFaults();
  const { hash, events, marks } = trace;
  return { failures, convergedMs, hash, events, commits: world.commits, marks };
}

/** Lets a healed world run until it agrees; returns how long that took. */
function converge(world: World, failures: string[]): number {
  const { queue, trace } = world;
  const healedMs = queue.nowMs;
  const heldMs = trace.marks.has("braked") ? HELD_MS_MAX : 0;
  // The last pauses may outlast the healing.
  queue.runUntil(Math.max(...world.replicas.map(({ pausedUntilMs }) => pausedUntilMs), healedMs));
  for (;;) {
    queue.runUntil(queue.nowMs + EVENTUALLY_EVERY_MS);
    const open = contradictions(world, EVENTUALLY);
    if (open.length === 0) return queue.nowMs - healedMs;
    if (queue.nowMs < healedMs + heldMs + CONVERGENCE_MAX_MS) continue;
    failures.push(...open.slice(0, SHOWN_MAX));
    return Infinity;
  }
}

/** Lets a world run until nothing waits behind a brake; what still does so after long is found queued. */
function releaseBrakes({ queue, replicas }: World): void {
  const untilMs = queue.nowMs + BRAKES_MAX_MS;
  const isBraked = (): boolean => replicas.some(({ core }) => (core?.brakes.rows ?? 0) > 0);
  while (isBraked() && queue.nowMs < untilMs) queue.runUntil(queue.nowMs + EVENTUALLY_EVERY_MS);
}

/** What contradicts the first checker that does not hold: later ones cost more. */
function contradictions(world: World, checkers: readonly Checker[]): string[] {
  for (const checker of checkers) {
    const found = checker(world);
    if (found.length > 0) return found.map((text) => `${checker.name}: ${text}`);
  }
  return [];
}

const ANYTIME_EVERY_MS = 500;
const EVENTUALLY_EVERY_MS = 250;
/** So long a change may wait behind a brake before it is left to sync. */
const HELD_MS_MAX = 40_000;
/** The tightest brake lets a row go each ten seconds. */
const BRAKES_MAX_MS = 120_000;
/** Longer than the last round of a broadcast waits, and than sync takes to find nothing. */
const QUIET_MS = 5_000;
/** Of a thousand contradictions the first few say it all. */
const SHOWN_MAX = 10;
