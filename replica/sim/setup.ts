/**
 * What a simulated run is made of, drawn from its seed: first which faults there are at all, then
 * how strong each is (swarm testing), so that some runs have no loss and others only pauses.
 */
import { createPrng } from "#base/prng.ts";
import { BRAKE_DEFAULTS } from "../core/brake/brake.ts";
import type { NetworkFaults } from "./sim-network.ts";
import type { SimReplicaTraits } from "./sim-replica-options.ts";

/** One run. */
export interface SimulationSetup {
  readonly seed: number;
  readonly replicas: number;
  /** How long there are writes and faults, virtual. */
  readonly faultsMs: number;
  /** Mean virtual time between two writes anywhere. */
  readonly writeEveryMs: number;
  readonly network: NetworkFaults;
  /** Mean virtual time between two faults of each kind; 0 = never. */
  readonly partitionEveryMs: number;
  readonly crashEveryMs: number;
  readonly pauseEveryMs: number;
  readonly powerLossEveryMs: number;
  /** Share of crashes that are orderly ends. */
  readonly leaveShare: number;
  /** Share of restarts at another address. */
  readonly moveShare: number;
  readonly traits: SimReplicaTraits;
  /**
   * One more replica that starts empty at the healing and gets everything by sync, from peers that
   * have overwritten different parts of it.
   */
  readonly hasLatecomer: boolean;
  /** Replicas whose addresses everybody is given at the start; these never move. */
  readonly seeds: number;
  /** Others, drawn at random, whose addresses each replica is given in place of the seeds'. */
  readonly links?: number;
  /** Rows that are written: few are fought over, of many the last fight stays visible. */
  readonly keys: number;
  /** Different values of a column: with one, concurrent writes always tie. */
  readonly values: number;
  /** Columns that one transaction may write: many make versions of several chunks. */
  readonly columnsMax: number;
}

/** Draws a run. */
export function drawSetup(seed: number): SimulationSetup {
  const prng = createPrng([seed, 1]);
  const maybe = (value: number): number => (prng.next() < 0.5 ? 0 : value * prng.next());
  const latency = 1 + prng.next() * 30;
  const replicas = prng.next() < 0.8 ? 2 + prng.below(5) : 7 + prng.below(24);
  const setup: Omit<SimulationSetup, "powerLossEveryMs"> = {
    seed,
    replicas,
    faultsMs: 10_000 + prng.below(10_000),
    writeEveryMs: 50 + prng.below(300),
    network: {
      datagramLoss: maybe(0.3),
      datagramDuplication: maybe(0.1),
      uniLoss: maybe(0.5),
      streamBreak: maybe(0.05),
      latencyMs: { min: latency, max: latency * (1 + 4 * prng.next()) },
      jitterMs: maybe(40),
      hasStatelessReset: prng.next() < 0.5,
    },
    partitionEveryMs: maybe(10_000),
    crashEveryMs: maybe(15_000),
    pauseEveryMs: maybe(10_000),
    leaveShare: maybe(1),
    moveShare: maybe(0.5),
    traits: {
      storeMs: maybe(60),
      changesetMs: 0.1 + maybe(2),
      isEncoding: prng.next() < 0.25,
      pieceVersions: prng.pick([1, 2, 10, 100]) ?? 100,
      pendingChangesMax: prng.pick([10, 50_000]) ?? 50_000,
      // So that a transaction of a few dozen columns is cut into several chunks.
      chunkBytes: 400,
      broadcast: {},
      brake: BRAKE_DEFAULTS,
    },
    hasLatecomer: prng.next() < 0.5,
    seeds: prng.pick([1, 3, replicas]) ?? replicas,
    keys: prng.pick([3, 20, 100]) ?? 3,
    values: 1 + prng.below(3),
    columnsMax: prng.next() < 0.5 ? 3 : 40,
  };
  // Drawn last, so that kept seeds go on to mean what they meant.
  const powerLossEveryMs = maybe(10_000);
  const method = prng.pick(["gossip", "plumtree"] as const) ?? "gossip";
  const brake = prng.pick([BRAKE_DEFAULTS, TIGHT_BRAKE]) ?? BRAKE_DEFAULTS;
  return { ...setup, powerLossEveryMs, traits: { ...setup.traits, broadcast: { method }, brake } };
}

/** So that writes of a few a second wait and are taken over. */
const TIGHT_BRAKE = { isEnabled: true, rowsPerSecondMin: 0.1, rowsPerSecondMax: 0.1 };

/** A network on which nothing goes wrong. */
export function calmNetwork(latencyMs: NetworkFaults["latencyMs"]): NetworkFaults {
  return {
    datagramLoss: 0,
    datagramDuplication: 0,
    uniLoss: 0,
    streamBreak: 0,
    latencyMs,
    jitterMs: 0,
    hasStatelessReset: true,
  };
}
