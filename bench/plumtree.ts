/**
 * How a change spreads over 2,000 replicas by the method `plumtree`, in virtual time (the model is in
 * `tree-world.ts`): our overlay, and beside it Corrosion's rules in the same world, which show how
 * near this model comes to Corrosion's own simulation.
 *
 * Flags: --replicas N, --messages N, --seed N, --rules corrosion for the figures of these. A run is a
 * function of its flags, so further runs only repeat it.
 */
import {
  PLUMTREE_CORROSION,
  PLUMTREE_DEFAULTS,
  type PlumtreeConfig,
} from "../replica/core/broadcast/plumtree-types.ts";
import type { Bench, BenchContext, Sample } from "./measure.ts";
import { type MessageTrack, TreeWorld } from "./tree-world.ts";

/** The simulated table. */
export const bench: Bench = {
  about: "spreading a change over 2,000 simulated replicas by plumtree",
  figures: [
    { name: "delivery p50", unit: "ms", target: { atMost: 47 }, corrosion: 47 },
    { name: "delivery p99", unit: "ms", target: { atMost: 121 }, corrosion: 121 },
    { name: "direct way p50", unit: "ms" },
    { name: "direct way p99", unit: "ms" },
    { name: "whole cluster p50", unit: "ms", corrosion: 119 },
    { name: "whole cluster p99", unit: "ms", corrosion: 162 },
    { name: "whole cluster max", unit: "ms", corrosion: 243 },
    { name: "hops p50", unit: "", corrosion: 7 },
    { name: "hops p99", unit: "", corrosion: 13 },
    { name: "hops max", unit: "", corrosion: 25 },
    { name: "duplicates, first tenth", unit: "", target: { atMost: 1 }, corrosion: 4.1 },
    { name: "duplicates, last tenth", unit: "", target: { atMost: 1 }, corrosion: 3.9 },
    { name: "gossip per delivery", unit: "", corrosion: 4.94 },
    { name: "IHave per delivery", unit: "", corrosion: 0.48 },
    { name: "eager peers at the start", unit: "", corrosion: 10 },
    { name: "eager peers at the end", unit: "", corrosion: 5.2 },
    { name: "most eager peers of one", unit: "" },
    { name: "Grafts and Prunes per delivery", unit: "" },
    { name: "undelivered", unit: "", target: { atMost: 0 } },
  ],
  run,
};

async function* run({ flags, note }: BenchContext): AsyncIterable<Sample> {
  const rules = flags.get("rules") === "corrosion" ? PLUMTREE_CORROSION : PLUMTREE_DEFAULTS;
  const plumtree: PlumtreeConfig = { ...rules, ...JSON.parse(flags.get("set") ?? "{}") };
  const seed = Number(flags.get("seed") ?? 42);
  const replicas = Number(flags.get("replicas") ?? 2000);
  const messages = Number(flags.get("messages") ?? 1000);
  const isEqual = flags.get("shares") === "equal";
  note(`${replicas} replicas, ${messages} messages, 200 a second, seed ${seed}`);
  for (;;) {
    const world = new TreeWorld({ seed, replicas, messages, everyMs: 5, plumtree, isEqual });
    world.run();
    yield describeWorld(world, replicas);
    // A signal is heard between runs.
    await new Promise((resolve) => setImmediate(resolve));
  }
}

function describeWorld(world: TreeWorld, replicas: number): Sample {
  const { tracks, machines } = world;
  const delays = sorted(tracks.flatMap((track) => track.delays));
  const hops = sorted(tracks.flatMap((track) => track.hops));
  const whole = sorted(tracks.map((track) => track.delays.at(-1) ?? Infinity));
  const direct = sorted(tracks.flatMap((track) => track.directMs));
  const tenth = Math.ceil(tracks.length / 10);
  const perDelivery = (count: (stats: (typeof machines)[number]["stats"]["plumtree"]) => number) =>
    machines.reduce((sum, { stats }) => sum + count(stats.plumtree), 0) / delays.length;
  return {
    "delivery p50": quantile(delays, 0.5),
    "delivery p99": quantile(delays, 0.99),
    "direct way p50": quantile(direct, 0.5),
    "direct way p99": quantile(direct, 0.99),
    "whole cluster p50": quantile(whole, 0.5),
    "whole cluster p99": quantile(whole, 0.99),
    "whole cluster max": quantile(whole, 1),
    "hops p50": quantile(hops, 0.5),
    "hops p99": quantile(hops, 0.99),
    "hops max": quantile(hops, 1),
    "duplicates, first tenth": duplicates(tracks.slice(0, tenth), replicas),
    "duplicates, last tenth": duplicates(tracks.slice(-tenth), replicas),
    "gossip per delivery": perDelivery(({ gossipSent }) => gossipSent),
    "IHave per delivery": perDelivery(({ iHavesSent }) => iHavesSent),
    "eager peers at the start": world.eagerAtStart,
    "eager peers at the end": world.eagerAtEnd,
    "most eager peers of one": Math.max(...machines.map(({ stats }) => stats.plumtree.eagerPeers)),
    "Grafts and Prunes per delivery": perDelivery((stats) => stats.graftsSent + stats.prunesSent),
    undelivered: tracks.length * (replicas - 1) - delays.length,
  };
}

function duplicates(tracks: readonly MessageTrack[], replicas: number): number {
  const copies = tracks.reduce((sum, track) => sum + track.copies, 0);
  return copies / (tracks.length * replicas);
}

function sorted(values: readonly number[]): Float64Array {
  return Float64Array.from(values).sort();
}

function quantile(values: Float64Array, share: number): number {
  return values[Math.min(values.length - 1, Math.ceil(share * values.length) - 1)] ?? Number.NaN;
}
