/** Sync, with and without the help of broadcasts. */
import { describe, expect, test } from "vitest";
import { BRAKE_DEFAULTS } from "../core/brake/brake.ts";
import { startStory } from "./scenarios.ts";
import { drawSetup, type SimulationSetup } from "./setup.ts";
import type { SimReplica } from "./sim-replica.ts";
import { runSimulation, type SimulationResult } from "./simulation.ts";

describe("sync alone", () => {
  test("brings every change when no broadcast ever arrives", () => {
    for (let seed = 1001; seed <= 1030; seed += 1) {
      const drawn = drawSmall(seed);
      const setup = { ...drawn, network: { ...drawn.network, uniLoss: 1 } };
      expect(check(setup).marks).toContain("client: done");
    }
  });

  test("gets through although streams break again and again", () => {
    for (let seed = 2001; seed <= 2020; seed += 1) {
      const drawn = drawSmall(seed);
      const setup = { ...drawn, network: { ...drawn.network, uniLoss: 0.7, streamBreak: 0.2 } };
      expect(check(setup).marks).toContain("client: broken");
    }
  });
});

describe("a replica that starts empty", () => {
  test("fetches 20,000 versions in one round from several servers, each version once", () => {
    const { newcomer, servers, tookMs } = catchUp({ versions: 20_000, seed: 5 });
    const stats = newcomer.core?.syncClient.stats;
    expect(stats).toMatchObject({ versionsAsked: 20_000, versionsReceived: 20_000 });
    expect(stats?.changesetsDropped).toBe(0);
    const served = servers.filter((each) => (each.core?.syncServer.stats.changesetsSent ?? 0) > 0);
    expect(served.length).toBeGreaterThan(1);
    // 20,000 x 100 us of merging is the least possible.
    expect(tookMs).toBeLessThan(3_500);
  });
});

function drawSmall(seed: number): SimulationSetup {
  const drawn = drawSetup(seed);
  // Broadcasts play no part here, so there is nothing to brake.
  const traits = { ...drawn.traits, brake: BRAKE_DEFAULTS };
  return { ...drawn, traits, replicas: Math.min(drawn.replicas, 6) };
}

/** Runs a setup; a failed one says how to repeat it. */
function check(setup: SimulationSetup): SimulationResult {
  const result = runSimulation(setup);
  expect(result.failures, JSON.stringify(setup)).toEqual([]);
  return result;
}

/** Three replicas that hold one actor's versions, and a fourth that holds nothing. */
function catchUp(of: { versions: number; seed: number }): {
  newcomer: SimReplica;
  servers: SimReplica[];
  tookMs: number;
} {
  const world = startStory({
    seed: of.seed,
    replicas: 3,
    hasLatecomer: true,
    network: { latencyMs: { min: 20, max: 60 } },
    traits: { storeMs: 1 },
  });
  const { queue } = world;
  const [first, second, third, newcomer] = world.replicas as [
    SimReplica,
    SimReplica,
    SimReplica,
    SimReplica,
  ];
  const servers = [first, second, third];
  for (const server of servers) server.crash();
  for (let at = 0; at < of.versions; at += 1) {
    const pk = new Uint8Array([1, 17, at & 255, at >> 8]);
    const commit = first.store.transact([{ table: "t", pk, columns: { v: "x" } }], 1n);
    for (const other of [second, third]) other.store.apply(commit?.changesets ?? []);
  }
  for (const server of servers) server.start();
  queue.runUntil(queue.nowMs + 5_000);
  newcomer.start();
  const startedMs = queue.nowMs;
  const isDone = (): boolean =>
    newcomer.core?.books.head(first.actorId) === of.versions && !newcomer.core.books.isLacking();
  while (!isDone() && queue.nowMs < startedMs + 60_000) queue.runUntil(queue.nowMs + 50);
  return { newcomer, servers, tookMs: queue.nowMs - startedMs };
}
