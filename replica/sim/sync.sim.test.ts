import { createPrng } from "#base/prng.ts";
import { describe, expect, test } from "vitest";

import type { ActorId } from "../types.ts";
import { EventQueue } from "./event-queue.ts";
import { SimNetwork } from "./sim-network.ts";
import { SimReplica } from "./sim-replica.ts";
import {
  CONVERGENCE_MAX_MS,
  drawSetup,
  runSimulation,
  type SimulationResult,
  type SimulationSetup,
} from "./simulation.ts";
import { Trace } from "./trace.ts";

describe("random writes under random faults", () => {
  test("200 seeds: healed replicas agree with the reference, and every situation arises", () => {
    // Method: whatever happened under faults, heads are equal, nothing is missing, and rows are
    // those of a replica that heard every commit at once.
    const marks = new Set<string>();
    for (let seed = 1; seed <= 200; seed += 1) {
      const result = check(drawSetup(seed));
      for (const mark of result.marks) marks.add(mark);
    }
    expect(SITUATIONS.filter((situation) => !marks.has(situation))).toEqual([]);
  }, 240_000);

  test("the same seed gives the same run, to the last event", () => {
    for (const seed of [3, 17, 42, 99, 143]) {
      const first = check(drawSetup(seed));
      const second = check(drawSetup(seed));
      expect(second.hash).toBe(first.hash);
      expect(second.events).toBe(first.events);
    }
  });

  test("different seeds give different runs", () => {
    expect(check(drawSetup(1)).hash).not.toBe(check(drawSetup(2)).hash);
  });
});

describe("sync alone", () => {
  test("brings every change when no broadcast ever arrives", () => {
    for (let seed = 1001; seed <= 1030; seed += 1) {
      const drawn = drawSetup(seed);
      const setup = { ...drawn, network: { ...drawn.network, uniLoss: 1 } };
      expect(check(setup).marks).toContain("client: done");
    }
  });

  test("gets through although streams break again and again", () => {
    for (let seed = 2001; seed <= 2020; seed += 1) {
      const drawn = drawSetup(seed);
      const setup = { ...drawn, network: { ...drawn.network, uniLoss: 0.7, streamBreak: 0.2 } };
      expect(check(setup).marks).toContain("client: broken");
    }
  });
});

describe("a replica that starts empty", () => {
  test("fetches 20,000 versions in one round from several servers, each version once", () => {
    const { newcomer, servers, batches, tookMs } = catchUp({ versions: 20_000, seed: 5 });
    const stats = newcomer.core?.syncClient.stats;
    expect(stats).toMatchObject({ versionsAsked: 20_000, versionsReceived: 20_000 });
    expect(stats?.changesetsDropped).toBe(0);
    const served = servers.filter((each) => (each.core?.syncServer.stats.changesetsSent ?? 0) > 0);
    expect(served.length).toBeGreaterThan(1);
    expect(Math.max(...batches)).toBe(1_000);
    // 20,000 x 100 us of merging is the least possible.
    expect(tookMs).toBeLessThan(3_500);
  });
});

/** What a sweep must have been through, or it shows less than it seems to. */
const SITUATIONS = [
  "broadcast dropped",
  "client: broken",
  "client: nothing needed",
  "client: open failed",
  "client: rejected: maxConcurrencyReached",
  "client: timed out",
  "commit of several chunks",
  "crash",
  "crashed between effect and answer",
  "crashed with store work open",
  "empty served",
  "identityRenewed",
  "memberDown",
  "network: broken",
  "network: cut",
  "network: doubled",
  "network: framesLost",
  "network: lost",
  "outcome: buffered",
  "outcome: known",
  "partial asked",
  "partition",
  "pause",
  "refuted",
  "renamed",
];

/** Runs a setup; a failed one says how to repeat it. */
function check(setup: SimulationSetup): SimulationResult {
  const result = runSimulation(setup);
  const story = `within ${CONVERGENCE_MAX_MS} ms; SEED=${setup.seed} ${JSON.stringify(setup)}`;
  expect(result.failures, story).toEqual([]);
  return result;
}

/** Three replicas that hold one actor's versions, and a fourth that holds nothing. */
function catchUp(of: { versions: number; seed: number }): {
  newcomer: SimReplica;
  servers: SimReplica[];
  batches: number[];
  tookMs: number;
} {
  const queue = new EventQueue();
  const latencyMs = { min: 20, max: 60 };
  const network = new SimNetwork({
    queue,
    prng: createPrng(of.seed),
    faults: {
      datagramLoss: 0,
      datagramDuplication: 0,
      uniLoss: 0,
      streamBreak: 0,
      latencyMs,
      jitterMs: 2,
    },
  });
  const addresses = [1, 2, 3, 4].map((at) => `10.0.0.${at}:8787`);
  const replicas = addresses.map((address, at) => {
    const actorId: ActorId = `0000000${at}-0000-4000-8000-000000000000`;
    const bootstrap = addresses.filter((other) => other !== address);
    return new SimReplica({
      actorId,
      address,
      bootstrap,
      queue,
      network,
      trace: new Trace(),
      prng: createPrng([of.seed, at]),
      storeMs: 1,
      storeChangeMs: 0.1,
      pieceVersions: 100,
      skewMs: 0,
      isEncoding: false,
      chunkBytes: 8_192,
      onCommit: () => {},
    });
  });
  const [first, ...others] = replicas as [SimReplica, ...SimReplica[]];
  for (let at = 0; at < of.versions; at += 1) {
    const pk = new Uint8Array([1, 17, at & 255, at >> 8]);
    const commit = first.store.transact([{ table: "t", pk, columns: { v: "x" } }], 1n);
    for (const other of others.slice(0, 2)) other.store.apply(commit?.changesets ?? []);
  }
  const newcomer = others[2] as SimReplica;
  const batches: number[] = [];
  const apply = newcomer.store.apply.bind(newcomer.store);
  newcomer.store.apply = (changesets) => {
    batches.push(changesets.length);
    return apply(changesets);
  };
  for (const server of [first, ...others.slice(0, 2)]) server.start();
  queue.runUntil(5_000);
  newcomer.start();
  const startedMs = queue.nowMs;
  const isDone = (): boolean =>
    newcomer.core?.books.head(first.actorId) === of.versions && !newcomer.core.books.isLacking();
  while (!isDone() && queue.nowMs < startedMs + 60_000) queue.runUntil(queue.nowMs + 50);
  const tookMs = queue.nowMs - startedMs;
  return { newcomer, servers: [first, ...others.slice(0, 2)], batches, tookMs };
}
