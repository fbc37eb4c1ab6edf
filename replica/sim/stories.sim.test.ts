/** Stories: one plot each, on several seeds. */
import { describe, expect, test } from "vitest";
import { createPrng } from "#base/prng.ts";
import {
  eventuallyMembersAgree,
  eventuallyNothingIsMissing,
  eventuallyRowsAgree,
} from "./checkers.ts";
import { runUntilHolds, startStory, watchVersions, writeRow } from "./scenarios.ts";
import { drawSetup } from "./setup.ts";
import type { SimReplica } from "./sim-replica.ts";
import { runSimulation } from "./simulation.ts";
import type { World } from "./world.ts";

describe("a replica that restarts at its address", () => {
  const restarts = [
    { downMs: 50, hasStatelessReset: true },
    { downMs: 50, hasStatelessReset: false },
    { downMs: 900, hasStatelessReset: true },
    { downMs: 900, hasStatelessReset: false },
    { downMs: 4_000, hasStatelessReset: false },
  ];

  test.each(restarts)("gets the first broadcast within a second (%o)", (restart) => {
    for (let seed = 1; seed <= 10; seed += 1) {
      const { world, victim, others } = bounce(seed, restart);
      const [writer] = others as [SimReplica];
      const before = world.commits;
      writeRow(writer, 1, "first after the restart");
      const isCommitted = (): boolean => world.commits > before;
      expect(runUntilHolds(world, { withinMs: 100, holds: isCommitted })).toBeLessThan(100);
      const tookMs = runUntilHolds(world, {
        withinMs: 5_000,
        holds: () => knowsAll(victim, world),
      });
      expect(tookMs, `seed ${seed}`).toBeLessThanOrEqual(1_000);
      world.queue.runUntil(world.queue.nowMs + 1_000);
      expect(world.trace.marks).toContain("renamed");
      const { forgotten, reset } = world.network.counts;
      expect(forgotten + reset).toBeGreaterThan(0);
    }
  });

  test("gets what was sent to the connections of its earlier life", () => {
    // Method: writes go on while it is down, to connections that nobody knows to be dead.
    for (let seed = 1; seed <= 10; seed += 1) {
      const { world, victim, others } = bounce(seed, { downMs: 400, hasStatelessReset: false }, 5);
      expect(world.network.counts.stale).toBeGreaterThan(0);
      const tookMs = runUntilHolds(world, {
        withinMs: 5_000,
        holds: () => knowsAll(victim, world),
      });
      expect(tookMs, `seed ${seed}`).toBeLessThanOrEqual(1_000);
      world.queue.runUntil(world.queue.nowMs + 1_000);
      const replayed = others.map(({ core }) => core?.broadcast.stats.replayed ?? 0);
      expect(Math.max(...replayed)).toBeGreaterThan(0);
    }
  });

  test("finds the others by its saved members when its seeds are gone", () => {
    const world = startStory({ seed: 7, replicas: 8 });
    const seeds = world.replicas.slice(0, 3);
    const victim = world.replicas[5] as SimReplica;
    for (const seed of seeds) seed.crash();
    victim.crash();
    world.queue.runUntil(world.queue.nowMs + 100);
    victim.start();
    const rest = world.replicas.filter((each) => !seeds.includes(each));
    const isKnown = (): boolean => (victim.core?.swim.peers.length ?? 0) >= rest.length - 1;
    expect(runUntilHolds(world, { withinMs: 2_000, holds: isKnown })).toBeLessThanOrEqual(2_000);
    expect(world.trace.marks).toContain("members restored");
  });
});

describe("deletes and bulk", () => {
  // Method: every replica writes bulk as fast as its store takes it, so that all have the others'
  // bulk waiting; then one replica writes one change more, and its delay at each of the others is
  // compared with that of the last bulk change.
  test.each([
    // One slice and one operation of the store, the slowest path, and a hop where a dial is due.
    { replicas: 5, bulk: 300, changesetMs: 2, delayMaxMs: 250 },
    // Not sent to all at once, so rounds and hops are added.
    { replicas: 30, bulk: 12, changesetMs: 8, delayMaxMs: 500 },
  ])("a delete overtakes the bulk that waits at each replica (%o)", (story) => {
    const { delaysMs, tailsMs } = changeBehindBulk({ ...story, isDelete: true });
    expect(Math.max(...delaysMs)).toBeLessThan(story.delayMaxMs);
    expect(Math.min(...tailsMs)).toBeGreaterThan(1_000);
  });

  test("an insert in its place waits for its turn", () => {
    const { delaysMs } = changeBehindBulk({
      replicas: 5,
      bulk: 300,
      changesetMs: 2,
      isDelete: false,
    });
    expect(Math.min(...delaysMs)).toBeGreaterThan(500);
  });
});

describe("a paused replica", () => {
  test("is suspected, refutes when it goes on, and catches up", () => {
    const world = startStory({ seed: 21, replicas: 5 });
    const [writer, victim] = world.replicas as [SimReplica, SimReplica];
    victim.pause(4_000);
    for (let key = 1; key <= 20; key += 1) writeRow(writer, key, "x");
    world.queue.runUntil(world.queue.nowMs + 3_900);
    expect(knowsAll(victim, world)).toBe(false);
    const tookMs = runUntilHolds(world, { withinMs: 3_000, holds: () => knowsAll(victim, world) });
    expect(tookMs).toBeLessThanOrEqual(1_000);
    world.queue.runUntil(world.queue.nowMs + 10_000);
    expect(eventuallyMembersAgree(world)).toEqual([]);
    expect(world.trace.marks).toContain("memberSuspect");
    expect(world.trace.marks).toContain("refuted");
    expect(world.trace.marks).not.toContain("memberDown");
  });
});

describe("larger clusters", () => {
  // After Corrosion's stress test.
  test("30 replicas that start with ten links each have 800 rows everywhere within 30 s", () => {
    const world = startStory({
      seed: 30,
      replicas: 30,
      links: 10,
      meetingMs: 0,
    });
    const prng = createPrng(30);
    for (let row = 0; row < 800; row += 1) {
      world.queue.after(500 + row * 5, () => writeRow(prng.pick(world.replicas)!, row, "x"));
    }
    const isThere = (): boolean =>
      world.commits === 800 &&
      eventuallyNothingIsMissing(world).length === 0 &&
      eventuallyRowsAgree(world).length === 0;
    expect(runUntilHolds(world, { withinMs: 30_000, holds: isThere })).toBeLessThan(30_000);
  }, 300_000);

  test("30 replicas with crashes, moves, partitions and loss agree after the healing", () => {
    const drawn = drawSetup(31);
    const result = runSimulation({
      ...drawn,
      replicas: 30,
      seeds: 3,
      network: { ...drawn.network, datagramLoss: 0.1, uniLoss: 0.1 },
      partitionEveryMs: 6_000,
      crashEveryMs: 1_500,
      pauseEveryMs: 3_000,
      leaveShare: 0.3,
      moveShare: 0.3,
      hasLatecomer: true,
    });
    expect(result.failures).toEqual([]);
    for (const mark of ["crash", "leave", "moved", "partition", "pause", "memberDown"]) {
      expect(result.marks).toContain(mark);
    }
  });
});

/** Delays after its commit of one change behind everybody's bulk, and of the bulk's tail. */
function changeBehindBulk(of: {
  replicas: number;
  bulk: number;
  changesetMs: number;
  isDelete: boolean;
}): {
  delaysMs: number[];
  tailsMs: number[];
} {
  const { replicas, bulk, changesetMs } = of;
  const world = startStory({ seed: 11, replicas, traits: { changesetMs, storeMs: 0 } });
  const writer = world.replicas[0] as SimReplica;
  const others = world.replicas.slice(1);
  writeRow(writer, 0, "a machine that will go");
  world.queue.runUntil(world.queue.nowMs + 3_000);
  expect(others.every((each) => knowsAll(each, world))).toBe(true);
  const times = watchVersions(world);
  for (const [at, replica] of world.replicas.entries()) {
    for (let key = 1; key <= bulk; key += 1) writeRow(replica, at * bulk + key, "x".repeat(200));
  }
  if (of.isDelete) writeRow(writer, 0, null);
  else writeRow(writer, 60_000, "one more");
  const last = bulk + 2;
  const isCommitted = (): boolean => world.committed.get(writer.actorId) === last;
  expect(runUntilHolds(world, { withinMs: 10_000, holds: isCommitted })).toBeLessThan(10_000);
  const committedMs = world.queue.nowMs;
  world.queue.runUntil(committedMs + 30_000);
  expect(eventuallyNothingIsMissing(world)).toEqual([]);
  const known = others.map(({ address }) => times.get(address) ?? new Map<string, number>());
  return {
    delaysMs: known.map(
      (each) => (each.get(`${writer.actorId} ${last}`) ?? Infinity) - committedMs,
    ),
    tailsMs: known.map((each) => Math.max(...each.values()) - committedMs),
  };
}

/** Five replicas of which one is down for a while, and writes of another meanwhile. */
function bounce(
  seed: number,
  of: { downMs: number; hasStatelessReset: boolean },
  writes = 0,
): { world: World; victim: SimReplica; others: SimReplica[] } {
  const { hasStatelessReset } = of;
  const world = startStory({ seed, replicas: 5, network: { hasStatelessReset } });
  const victim = world.replicas[1 + (seed % 4)] as SimReplica;
  const others = world.replicas.filter((each) => each !== victim);
  // Everybody has a connection to everybody.
  for (const [at, replica] of world.replicas.entries()) writeRow(replica, 1_000 + at, "hello");
  world.queue.runUntil(world.queue.nowMs + 2_000);
  victim.crash();
  for (let at = 0; at < writes; at += 1) {
    world.queue.after((of.downMs * at) / writes, () => {
      writeRow(others[0] as SimReplica, 2_000 + at, "into the void");
    });
  }
  world.queue.runUntil(world.queue.nowMs + of.downMs);
  victim.start();
  return { world, victim, others };
}

function knowsAll({ store }: SimReplica, { committed }: World): boolean {
  return [...committed].every(([actorId, head]) =>
    store.books.contains(actorId, { start: 1, end: head }),
  );
}
