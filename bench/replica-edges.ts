/**
 * One change of a machine at a worker -> in the routing tables of 20 edges, real processes on one
 * machine; the clock is that of `change.ts`.
 *
 * Beside it stands what a proxy sees that follows Corrosion through a subscription.
 */
import { last, startEdges, type Change } from "./change.ts";
import { percentile, type Bench, type BenchContext, type Sample } from "./measure.ts";

/** `last` = the slowest edge of a change, `each` = every pair of a change and an edge. */
export const bench: Bench = {
  about: "one write -> in the routing table of each of 20 edges",
  figures: [
    { name: "table last p50", unit: "ms", target: { atMost: 15 }, corrosion: 359 },
    { name: "table last p99", unit: "ms", target: { atMost: 30 }, corrosion: 629 },
    { name: "table each p50", unit: "ms", corrosion: 322 },
    { name: "table each p99", unit: "ms", corrosion: 613 },
  ],
  run,
};

async function* run(context: BenchContext): AsyncIterable<Sample> {
  const count = Number(context.flags.get("edges") ?? EDGES);
  const names = Array.from({ length: count }, (_, at) => `edge-${at + 1}`);
  const changes = await startEdges(context, names, { gossip: { preset: "wan" } });
  context.note(`${count} edges, ${CHANGES} changes`);
  for (let at = 0; at < WARM_UP; at++) await changes.move();
  for (;;) {
    const moves: Change[] = [];
    for (let at = 0; at < CHANGES; at++) moves.push(await changes.move());
    const lastMs = moves.map(last);
    const eachMs = moves.flatMap(({ edgesMs }) => edgesMs);
    yield {
      "table last p50": percentile(lastMs, 0.5),
      "table last p99": percentile(lastMs, 0.99),
      "table each p50": percentile(eachMs, 0.5),
      "table each p99": percentile(eachMs, 0.99),
    };
  }
}

const EDGES = 20;
const CHANGES = 300;
const WARM_UP = 300;
