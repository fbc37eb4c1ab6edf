import fc from "fast-check";
import { expect, test } from "vitest";
import { createPrng } from "#base/prng.ts";
import { PLUMTREE_CORROSION } from "../core/broadcast/plumtree-types.ts";
import { TreeNetwork } from "./tree-network-fixture.ts";

test("every live replica gets every message, whichever replicas die and whatever is lost", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 1000 }),
      fc.integer({ min: 3, max: 40 }),
      fc.integer({ min: 1, max: 6 }),
      (seed, size, places) => {
        const methods = Array.from({ length: size }, () => ({}));
        const ring = (one: number, other: number): number =>
          one % places === other % places ? 0 : 1 + ((one + other) % 4);
        const network = new TreeNetwork({ seed, methods, ring });
        const prng = createPrng(seed);
        network.queue.runUntil(100);
        for (let n = 0; n < size - 2; n += 1) if (prng.next() < 0.3) network.kill(n);
        // Nobody knows of the dead yet: announcements find the way around them.
        const unnoticed = network.write(size - 1, 1);
        network.queue.runUntil(5_000);
        expect(network.lacking(unnoticed)).toEqual([]);
        network.bury(ring);
        network.queue.runUntil(10_000);
        const later = network.write(size - 2, 1);
        network.queue.runUntil(15_000);
        expect(network.lacking(later)).toEqual([]);
      },
    ),
    { numRuns: 30 },
  );
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
