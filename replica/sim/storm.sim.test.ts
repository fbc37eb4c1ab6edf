/**
 * Storms: workers that rewrite their machines in a loop, as after a certificate expired somewhere.
 *
 * Each is first shown to hurt with the brake off. `PATINA_STORM=1` runs it in its whole size: 40
 * replicas, 20 workers of 50 machines. That is 10,000 versions a second, each for 39 others: a virtual
 * second without the brake is 20 to 30 s of work, so that part is no longer than the harm takes to show.
 */
import { expect, test } from "vitest";
import { BRAKE_DEFAULTS } from "../core/brake/brake.ts";
import { eventuallyNothingIsMissing, eventuallyRowsAgree } from "./checkers.ts";
import { keyOf, runUntilHolds, startStory, watchVersions, writeRow } from "./scenarios.ts";
import type { SimReplica } from "./sim-replica.ts";
import type { World } from "./world.ts";

const SIZE =
  process.env["PATINA_STORM"] === "1"
    ? {
        replicas: 40,
        workers: 20,
        machines: 50,
        /** What a host may that wrote little lately. */
        limit: 50,
        changesetMs: 0.2,
        budget: 2 * 1024 * 1024,
        hurt: { warmMs: 2_000, watchedMs: 2_500 },
        braked: { warmMs: 3_000, watchedMs: 10_000 },
      }
    : {
        replicas: 5,
        workers: 3,
        machines: 10,
        limit: 10,
        changesetMs: 6,
        budget: 32 * 1024,
        hurt: { warmMs: 8_000, watchedMs: 10_000 },
        braked: { warmMs: 8_000, watchedMs: 10_000 },
      };

test("workers that rewrite every machine each 100 ms bury what others write; with the brake not", () => {
  const hurt = runStorm({ isBraked: false, isReal: true });
  expect(hurt.delayMs).toBeGreaterThan(SIZE.hurt.watchedMs);
  const storm = runStorm({ isBraked: true, isReal: true });
  const { workers, machines } = SIZE;
  expect(storm.delayMs).toBeLessThan(1_000);
  expect(storm.urgentMs).toBeLessThan(1_000);
  expect(storm.bytesPerSecond).toBeLessThan(hurt.bytesPerSecond / 2);
  // With everything that it sends, and what the uplink may give at once.
  const { braked, budget } = SIZE;
  expect(storm.bytesMax).toBeLessThan(budget * (braked.watchedMs / 1_000 + 1));
  expect(storm.braked).toBe(workers);
  expect(storm.coalesced).toBeGreaterThan(workers * machines);
  // Nothing is lost: also of rows that are still in the loop everybody learns again and again.
  expect(storm.staleMsMax).toBeLessThan(15_000);
  const { queue } = storm.world;
  const endMs = queue.nowMs + 60_000;
  while (queue.nowMs < endMs && !agree(storm.world)) queue.runUntil(queue.nowMs + 1_000);
  expect(queue.nowMs).toBeLessThan(endMs);
}, 900_000);

test("workers that rewrite every machine with what it says already send nothing", () => {
  const storm = runStorm({ isBraked: false, isReal: false });
  expect(storm.delayMs).toBeLessThan(1_000);
  // The first writing, and the two changes of the replica that is watched.
  const { workers, machines } = SIZE;
  expect(storm.world.commits).toBe(workers * machines + 3);
}, 600_000);

test("what a braked origin loses with its power hides no value from those who ask it for versions", () => {
  for (let seed = 1; seed <= 5; seed += 1) {
    const { world, origin } = askBehindBrake(seed);
    world.losePower(origin, Math.min(1, origin.store.unsynced));
    const holds = (): boolean => agree(world);
    expect(runUntilHolds(world, { withinMs: 60_000, holds }), `seed ${seed}`).toBeLessThan(60_000);
  }
});

test("nor when nobody answers the origin, and it starts as another actor", () => {
  for (let seed = 1; seed <= 5; seed += 1) {
    const { world, origin, others } = askBehindBrake(seed);
    const former = origin.actorId;
    world.losePower(origin, Math.min(1, origin.store.unsynced));
    world.network.partition(new Map([[origin.address, 1]]));
    const isRenewed = (): boolean => origin.actorId !== former && origin.core !== null;
    expect(runUntilHolds(world, { withinMs: 90_000, holds: isRenewed })).toBeLessThan(90_000);
    world.network.partition(null);
    const holds = (): boolean => agree(world);
    expect(runUntilHolds(world, { withinMs: 60_000, holds }), `seed ${seed}`).toBeLessThan(60_000);
    // All of its rows are the new actor's everywhere.
    for (const { store } of [origin, ...others]) expect(store.books.head(origin.actorId)).toBe(1);
  }
});

/**
 * An origin with a tight brake. One of the others has asked it by sync for a version of which a newer
 * one, that waits behind the brake and was written last, has taken everything.
 */
function askBehindBrake(seed: number) {
  const limit = 0.1;
  const brake = { isEnabled: true, rowsPerSecondMin: limit, rowsPerSecondMax: limit };
  const world = startStory({ seed, replicas: 4, traits: { brake } });
  const [origin, early, late, other] = world.replicas as SimReplica[] as Four;
  const { queue } = world;
  const after = (ms: number): void => queue.runUntil(queue.nowMs + ms);
  const knows = (replica: SimReplica, version: number): boolean =>
    replica.store.books.contains(origin.actorId, { start: 1, end: version });
  const deletable = Array.from({ length: 10 }, (_, key) => keyOf(100 + key));
  origin.write(deletable.map((pk) => ({ table: "t", pk, columns: { v: "will go" } })));
  after(25_000);
  writeRow(origin, 1, "first");
  writeRow(origin, 2, "of no matter");
  after(50);
  writeRow(origin, 1, "second");
  // What is urgent leaves at once, and the brake is owed ten seconds more.
  const urge = (): void => origin.write([{ table: "t", pk: deletable.pop()!, columns: null }]);
  for (let at = 0; at < 4; at += 1) queue.after(2_000 * at, urge);
  after(9_000);
  const isApart = new Map([late, other].map(({ address }) => [address, 1]));
  world.network.partition(isApart);
  after(1_100);
  // Whoever lacks a version asks when the next one comes.
  urge();
  const version = 4;
  const isAhead = (): boolean => knows(early, version);
  expect(runUntilHolds(world, { withinMs: 1_000, holds: isAhead })).toBeLessThan(1_000);
  early.crash();
  writeRow(origin, 1, "third, and lost");
  after(100);
  const last = world.committed.get(origin.actorId) ?? 0;
  expect(knows(late, version)).toBe(false);
  world.network.partition(null);
  after(500);
  writeRow(other, 3, "news");
  const hasAsked = (): boolean => knows(late, version);
  expect(runUntilHolds(world, { withinMs: 5_000, holds: hasAsked })).toBeLessThan(5_000);
  expect(knows(late, last)).toBe(false);
  early.start();
  return { world, origin, others: [early, late, other] };
}

/** A storm, and what becomes of a row written, and one deleted, by a replica that is no part of it. */
function runStorm(of: { isBraked: boolean; isReal: boolean }) {
  const { replicas, workers, machines, limit, changesetMs, budget } = SIZE;
  const { warmMs, watchedMs } = of.isBraked || !of.isReal ? SIZE.braked : SIZE.hurt;
  const bounds = { rowsPerSecondMin: limit, rowsPerSecondMax: limit };
  const brake = { ...BRAKE_DEFAULTS, ...bounds, isEnabled: of.isBraked };
  const broadcast = of.isBraked ? { budgetBytesPerSecond: budget } : {};
  const traits = { storeMs: 0, changesetMs, brake, broadcast };
  const world = startStory({ seed: 5, replicas, traits });
  const { queue } = world;
  const calm = world.replicas[replicas - 1] as SimReplica;
  writeRow(calm, 60_000, "a machine that will go");
  const endMs = queue.nowMs + warmMs + watchedMs;
  for (const [at, worker] of world.replicas.slice(0, workers).entries()) {
    for (let machine = 0; machine < machines; machine += 1) {
      const key = at * machines + machine;
      let round = 0;
      const rewrite = (): void => {
        if (queue.nowMs >= endMs) return;
        writeRow(worker, key, of.isReal ? `${"x".repeat(200)} ${round++}` : "same");
        queue.after(LOOP_MS, rewrite);
      };
      queue.after((LOOP_MS * machine) / machines, rewrite);
    }
  }
  queue.runUntil(endMs - watchedMs);
  const times = watchVersions(world);
  const staleness = watchStaleness(calm, { rows: workers * machines, world });
  const bytesBefore = bytesOf(world);
  const writtenMs = queue.nowMs;
  writeRow(calm, 60_001, "a machine that came up");
  const upVersion = 2;
  queue.runUntil(writtenMs + 1_000);
  writeRow(calm, 60_000, null);
  queue.runUntil(endMs);
  const bytes = bytesOf(world).map((sent, at) => sent - (bytesBefore[at] ?? 0));
  const knownAfterMs = (version: number, sinceMs: number): number => {
    const others = world.replicas.filter((each) => each !== calm);
    const name = `${calm.actorId} ${version}`;
    return (
      Math.max(...others.map(({ address }) => times.get(address)?.get(name) ?? Infinity)) - sinceMs
    );
  };
  const stats = world.replicas.map(({ core }) => core!.brakes.stats);
  return {
    world,
    delayMs: knownAfterMs(upVersion, writtenMs),
    urgentMs: knownAfterMs(upVersion + 1, writtenMs + 1_000),
    /** All that a replica sent while it was watched: the mean, and the most of any in that time. */
    bytesPerSecond: bytes.reduce((sum, sent) => sum + sent, 0) / replicas / (watchedMs / 1_000),
    bytesMax: Math.max(...bytes),
    braked: world.replicas.filter(({ core, actorId }) => core!.brakes.origins.includes(actorId))
      .length,
    coalesced: stats.reduce((sum, { rowsCoalesced }) => sum + rowsCoalesced, 0),
    /** Longest that a row in the loop kept one value at the replica that is no part of it. */
    staleMsMax: staleness.maxMs,
  };
}

function watchStaleness(
  watcher: SimReplica,
  of: { rows: number; world: World },
): { maxMs: number } {
  const { queue } = of.world;
  const seen = new Map<number, { value: unknown; sinceMs: number }>();
  const staleness = { maxMs: 0 };
  const look = (): void => {
    for (let key = 0; key < of.rows; key += 1) {
      const value = watcher.store.rows.columnValue({ table: "t", pk: keyOf(key), cid: "v" });
      const last = seen.get(key);
      if (last === undefined || last.value !== value)
        seen.set(key, { value, sinceMs: queue.nowMs });
      else staleness.maxMs = Math.max(staleness.maxMs, queue.nowMs - last.sinceMs);
    }
    queue.after(500, look);
  };
  look();
  return staleness;
}

/** Of broadcasts, sync and SWIM, by replica. */
function bytesOf({ replicas }: World): number[] {
  return replicas.map(({ core }) => {
    const { swimBytes, syncBytes } = core!.uplink.stats;
    return core!.broadcast.stats.bytesSent + swimBytes + syncBytes;
  });
}

function agree(world: World): boolean {
  return eventuallyNothingIsMissing(world).length === 0 && eventuallyRowsAgree(world).length === 0;
}

type Four = [SimReplica, SimReplica, SimReplica, SimReplica];

const LOOP_MS = 100;
