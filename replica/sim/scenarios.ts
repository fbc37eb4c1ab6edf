/**
 * Small worlds for stories with a plot of their own: replicas that start together, on a network
 * with nothing but the faults that the story brings.
 */
import { BRAKE_DEFAULTS } from "../core/brake/brake.ts";
import type { Address } from "../types.ts";
import { calmNetwork, type SimulationSetup } from "./setup.ts";
import type { NetworkFaults } from "./sim-network.ts";
import type { SimReplica } from "./sim-replica.ts";
import type { SimReplicaTraits } from "./sim-replica-options.ts";
import { World } from "./world.ts";

/** A quiet world; whatever is given differs from it. */
export interface StorySetup {
  readonly seed: number;
  readonly replicas: number;
  readonly network?: Partial<NetworkFaults>;
  readonly traits?: Partial<SimReplicaTraits>;
  /** Others that each is given the addresses of; absent = everybody gets those of the first three. */
  readonly links?: number;
  /** How long the members have to meet; 0 = nothing has happened yet. */
  readonly meetingMs?: number;
  /** One more replica, which does not start. */
  readonly hasLatecomer?: boolean;
}

/** Starts a world without writes and faults, and lets its members meet. */
export function startStory(story: StorySetup): World {
  const calm = calmNetwork({ min: 5, max: 60 });
  const setup: SimulationSetup = {
    seed: story.seed,
    replicas: story.replicas,
    faultsMs: 0,
    writeEveryMs: 0,
    network: { ...calm, jitterMs: 2, ...story.network },
    partitionEveryMs: 0,
    crashEveryMs: 0,
    pauseEveryMs: 0,
    powerLossEveryMs: 0,
    leaveShare: 0,
    moveShare: 0,
    traits: { ...STORY_TRAITS, ...story.traits },
    hasLatecomer: story.hasLatecomer ?? false,
    seeds: Math.min(3, story.replicas),
    ...(story.links === undefined ? {} : { links: story.links }),
    keys: 1,
    values: 1,
    columnsMax: 1,
  };
  const world = new World(setup);
  world.start();
  world.queue.runUntil(story.meetingMs ?? MEETING_MS);
  return world;
}

/** Writes one row of its own key, or deletes it. */
export function writeRow(replica: SimReplica, key: number, value: string | null): void {
  const pk = keyOf(key);
  replica.write([{ table: "t", pk, columns: value === null ? null : { v: value } }]);
}

/** The packed key of a row that `writeRow` writes. */
export function keyOf(key: number): Uint8Array {
  return new Uint8Array([1, 17, key & 255, key >> 8]);
}

/** Lets a world go on until a condition holds; returns the time that took, Infinity = too long. */
export function runUntilHolds(
  world: World,
  of: { readonly withinMs: number; readonly holds: () => boolean },
): number {
  const { queue } = world;
  const startedMs = queue.nowMs;
  while (!of.holds()) {
    if (queue.nowMs >= startedMs + of.withinMs) return Infinity;
    queue.runUntil(queue.nowMs + STEP_MS);
  }
  return queue.nowMs - startedMs;
}

/** Notes when each replica has each version on its disk, as `actor version` to virtual time. */
export function watchVersions(world: World): Map<Address, Map<string, number>> {
  const times = new Map<Address, Map<string, number>>();
  for (const { address } of world.replicas) times.set(address, new Map());
  world.onApplied = ({ address }, outcomes) => {
    const known = times.get(address);
    for (const { kind, changeset } of outcomes) {
      if (kind !== "applied" || changeset.kind === "empty") continue;
      const name = `${changeset.actorId} ${changeset.version}`;
      if (known?.has(name) === false) known.set(name, world.queue.nowMs);
    }
  };
  return times;
}

const STORY_TRAITS: SimReplicaTraits = {
  storeMs: 2,
  changesetMs: 0.1,
  pieceVersions: 100,
  pendingChangesMax: 50_000,
  isEncoding: false,
  chunkBytes: 8_192,
  broadcast: {},
  brake: BRAKE_DEFAULTS,
};
/** Long enough for everybody to have met everybody. */
const MEETING_MS = 15_000;
/** Resolution of times that stories measure. */
const STEP_MS = 5;
