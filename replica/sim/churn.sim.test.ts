/**
 * A replica that was away for a day comes back to a cluster that has gone on: rows written over and
 * over, hosts moved, everybody restarted since.
 *
 * Method: the day is made in one step. Nobody runs while the clock jumps; the disks of the others are
 * given what a day of writes would have brought. Then the others start, and when they are at rest, the
 * one that was away. What the return costs is counted at every replica and compared with the same time
 * of rest just before.
 */
import { expect, test } from "vitest";
import type { Changeset } from "../types.ts";
import { eventuallyMembersAgree } from "./checkers.ts";
import { runUntilHolds, startStory, writeRow } from "./scenarios.ts";
import type { SimReplica } from "./sim-replica.ts";
import type { World } from "./world.ts";

test.each([1, 2, 3])(
  "a replica back after a day of churn catches up without a storm (seed %i)",
  (seed) => {
    const { world, victim, others } = startAfterChurn(seed);
    const missing = others.reduce((sum, other) => sum + missingAt(victim, other), 0);
    expect(missing).toBe(HOURS * WRITES_PER_HOUR * others.length);
    const rest = costOf(others);
    world.queue.runUntil(world.queue.nowMs + WATCHED_MS);
    const atRest = difference(costOf(others), rest);

    const before = costOf(others);
    victim.start();
    const startedMs = world.queue.nowMs;
    const isCaughtUp = (): boolean => agrees(victim, others);
    const tookMs = runUntilHolds(world, { withinMs: WATCHED_MS, holds: isCaughtUp });
    expect(tookMs).toBeLessThan(WATCHED_MS);
    world.queue.runUntil(startedMs + WATCHED_MS);
    const cost = difference(costOf(others), before);

    // Every version is asked of one replica, once.
    const client = victim.core?.syncClient.stats;
    expect(client).toMatchObject({ versionsAsked: missing, versionsReceived: missing });
    expect(client?.changesetsDropped).toBe(0);
    // A few rounds of a few sessions; the others have nothing to ask for and do as they did.
    expect(client?.sessions).toBeLessThanOrEqual(SESSIONS_MAX);
    expect(cost.sessions).toBeLessThanOrEqual(2 * atRest.sessions + SESSIONS_MAX);
    // What sync brought is old to the others: nobody broadcasts it.
    expect(cost.frames).toBe(0);
    expect(victim.core?.broadcast.stats.framesSent).toBe(0);
    // One more member that probes and is probed, and the news of it.
    expect(cost.packets).toBeLessThanOrEqual(2 * atRest.packets);
    expect(victim.core?.swim.stats.packetsSent).toBeLessThanOrEqual(cost.packets);
    expect(eventuallyMembersAgree(world)).toEqual([]);
  },
);

interface Cost {
  readonly packets: number;
  readonly frames: number;
  readonly sessions: number;
}

/** What the running replicas have sent and asked so far. */
function costOf(replicas: readonly SimReplica[]): Cost {
  const cores = replicas.map(({ core }) => core!);
  const sum = (count: (core: (typeof cores)[number]) => number): number =>
    cores.reduce((total, core) => total + count(core), 0);
  return {
    packets: sum(({ swim }) => swim.stats.packetsSent),
    frames: sum(({ broadcast }) => broadcast.stats.framesSent),
    sessions: sum(({ syncClient }) => syncClient.stats.sessions),
  };
}

function difference(later: Cost, earlier: Cost): Cost {
  return {
    packets: later.packets - earlier.packets,
    frames: later.frames - earlier.frames,
    sessions: later.sessions - earlier.sessions,
  };
}

/** The others at rest after a day, and the one that was away, not started yet. */
function startAfterChurn(seed: number): {
  world: World;
  victim: SimReplica;
  others: SimReplica[];
} {
  const world = startStory({ seed, replicas: 8, traits: { storeMs: 1 } });
  const { queue } = world;
  const victim = world.replicas[6] as SimReplica;
  const others = world.replicas.filter((each) => each !== victim);
  for (const [at, replica] of world.replicas.entries()) writeRow(replica, at, "before");
  queue.runUntil(queue.nowMs + 15_000);
  victim.crash();
  const isDown = ({ core }: SimReplica): boolean =>
    core?.swim.memberById(victim.actorId)?.state === "down";
  const noticed = { withinMs: 60_000, holds: () => others.every(isDown) };
  expect(runUntilHolds(world, noticed)).toBeLessThan(60_000);
  // So that they have saved it as down.
  queue.runUntil(queue.nowMs + 15_000);
  for (const other of others) other.crash();
  for (let hour = 0; hour < HOURS; hour += 1) churn(others, hour);
  queue.runUntil(queue.nowMs + HOURS * 3_600_000);
  for (const [at, other] of others.entries()) {
    other.start(at < 3 ? other.address : `10.9.0.${at}:8787`);
  }
  queue.runUntil(queue.nowMs + 30_000);
  expect(others.every((other) => agrees(other, others))).toBe(true);
  return { world, victim, others };
}

/** An hour of writes to the same few hundred rows; every disk of the cluster gets them. */
function churn(writers: readonly SimReplica[], hour: number): void {
  const written = writers.map(({ store }, at) => {
    const changesets: Changeset[] = [];
    for (let write = 0; write < WRITES_PER_HOUR; write += 1) {
      const pk = new Uint8Array([1, 17, (write * 7 + at) % 251, at]);
      const columns = { v: `${hour} ${write}` };
      const commit = store.transact([{ table: "t", pk, columns }], BigInt(hour + 1));
      changesets.push(...(commit?.changesets ?? []));
    }
    return changesets;
  });
  for (const [at, { store }] of writers.entries()) {
    for (const [from, changesets] of written.entries()) if (from !== at) store.apply(changesets);
  }
}

function missingAt(replica: SimReplica, writer: SimReplica): number {
  const { actorId, store } = writer;
  return store.books.head(actorId) - replica.store.books.head(actorId);
}

function agrees(replica: SimReplica, others: readonly SimReplica[]): boolean {
  const { books, rows } = replica.store;
  return (
    !books.isLacking() &&
    others.every(({ actorId, store }) => books.head(actorId) === store.books.head(actorId)) &&
    others.every(({ store }) => store.rows.digest() === rows.digest())
  );
}

const HOURS = 24;
/** Of each of the seven others: one write in about 20 s of each. */
const WRITES_PER_HOUR = 150;
const WATCHED_MS = 30_000;
/** Three servers in each of a dozen rounds; 25,000 versions in sessions of their own would be more. */
const SESSIONS_MAX = 36;
