import fc from "fast-check";
import { expect, test } from "vitest";
import { createPrng } from "#base/prng.ts";
import { PLUMTREE_CORROSION } from "../core/broadcast/plumtree-types.ts";
import { TreeNetwork } from "./tree-network-fixture.ts";

test("a message goes wherever links of the living lead, and everywhere once the dead are known", () => {
  // Links are few, so before anybody knows of the dead they may be all that announced to some
  // replica: such a one is for sync, which asks (see simulation.sim.test.ts).
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 1_000_000 }),
      fc.integer({ min: 3, max: 40 }),
      fc.integer({ min: 1, max: 6 }),
      (seed, size, places) => {
        const { network, ring } = createPlaces({ seed, size, places });
        const unreached = network.unreached(size - 1);
        const unnoticed = network.write(size - 1, 1);
        network.queue.runUntil(5_000);
        expect(unreached).toEqual(expect.arrayContaining(network.lacking(unnoticed)));
        network.bury(ring);
        network.queue.runUntil(10_000);
        const later = network.write(size - 2, 1);
        network.queue.runUntil(15_000);
        expect(network.lacking(later)).toEqual([]);
      },
    ),
    // The first has a replica to which only the dead have links.
    { numRuns: Number(process.env["PATINA_TREE_RUNS"] ?? 30), examples: [[3, 24, 3]] },
  );
});

test("of 24 replicas that lose a third unnoticed, one in hundreds is out of reach", () => {
  let living = 0;
  let unreached = 0;
  for (let seed = 1; seed <= 60; seed += 1) {
    const { network } = createPlaces({ seed, size: 24, places: 3 });
    living += network.machines.filter((machine) => machine !== null).length;
    unreached += network.unreached(23).length;
  }
  expect(unreached / living).toBeLessThan(0.005);
});

test("a tree that has settled brings about one copy of each message", () => {
  for (const places of [1, 5, 20]) {
    const methods = Array.from({ length: 20 }, () => ({}));
    const ring = (one: number, other: number): number => (one % places === other % places ? 0 : 3);
    const network = new TreeNetwork({ seed: 1, methods, ring });
    network.queue.runUntil(100);
    for (let version = 1; version <= 2000; version += 1) {
      network.write(version % 20, version);
      network.queue.runUntil(network.queue.nowMs + 20);
      if (version === 1600) network.copies = 0;
    }
    const copies = network.copies / (400 * 20);
    expect({ places, isFew: copies <= 1, copies }).toMatchObject({ isFew: true });
  }
});

test("in a mixed cluster replicas of both methods get what those of the other write", () => {
  const methods = Array.from({ length: 12 }, (_, n) => (n % 3 === 0 ? ("gossip" as const) : {}));
  const network = new TreeNetwork({ seed: 7, methods });
  network.queue.runUntil(100);
  const keys = methods.map((_, n) => network.write(n, 1));
  network.queue.runUntil(5_000);
  for (const key of keys) expect(network.lacking(key)).toEqual([]);
});

test("replicas with Corrosion's rules and with ours make one tree", () => {
  const methods = Array.from({ length: 16 }, (_, n) => (n % 2 === 0 ? PLUMTREE_CORROSION : {}));
  const network = new TreeNetwork({ seed: 8, methods });
  network.queue.runUntil(100);
  const keys = methods.map((_, n) => network.write(n, 1));
  network.queue.runUntil(2_000);
  for (const key of keys) expect(network.lacking(key)).toEqual([]);
});

test("a tenth of all streams lost costs time, not messages", () => {
  let lossShare = 0.1;
  const methods = Array.from({ length: 25 }, () => ({}));
  const network = new TreeNetwork({ seed: 3, methods, lossShare: () => lossShare });
  network.queue.runUntil(100);
  const keys = methods.map((_, n) => network.write(n, 1));
  network.queue.runUntil(1_000);
  lossShare = 0;
  network.queue.runUntil(5_000);
  const lacking = keys.flatMap((key) => network.lacking(key));
  // Who lost the change and all announcements of it is left to sync; there are few.
  expect(lacking.length).toBeLessThanOrEqual(0.01 * 25 * 25);
});

/** Replicas in several places, of which a third have just died and nobody knows. */
function createPlaces(of: { seed: number; size: number; places: number }) {
  const { seed, size, places } = of;
  const ring = (one: number, other: number): number =>
    one % places === other % places ? 0 : 1 + ((one + other) % 4);
  const methods = Array.from({ length: size }, () => ({}));
  const network = new TreeNetwork({ seed, methods, ring });
  const prng = createPrng(seed);
  network.queue.runUntil(100);
  for (let n = 0; n < size - 2; n += 1) if (prng.next() < 0.3) network.kill(n);
  return { network, ring };
}
