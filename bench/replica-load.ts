/**
 * 100 single-row writes a second, spread over 10 replicas: how long each takes to the line on
 * `/v1/updates` of every other one, what it costs on the wire, and in CPU time.
 *
 * The load is an open loop: a write is due at its time whether or not earlier ones were answered,
 * and its clock starts when it was due. Bytes are UDP payload and 28 for each packet of all
 * replicas, membership and acknowledgements included.
 */
import { sleep, type Host } from "./local-cluster.ts";
import { percentile, type Bench, type BenchContext, type Sample } from "./measure.ts";
import { cpuTimeMs, readSent, wireBytes, type Sent } from "./process-figures.ts";
import { openStreams, startReplicas, writeRow } from "./replica-cluster.ts";

/** Corrosion's bytes are Plumtree's; its gossip takes 2,297. */
export const bench: Bench = {
  about: "100 writes/s spread over 10 replicas -> lines elsewhere, bytes on the wire, CPU",
  figures: [
    { name: "load line p50", unit: "ms", corrosion: 19.3 },
    { name: "load line p99", unit: "ms", target: { atMost: 40 }, corrosion: 314 },
    { name: "bytes per change and replica", unit: "B", target: { atMost: 800 }, corrosion: 1281 },
    { name: "packets per change and replica", unit: "" },
    { name: "writes reached", unit: "/s" },
    { name: "CPU of all replicas", unit: "s", corrosion: 27 },
  ],
  run,
};

async function* run(context: BenchContext): AsyncIterable<Sample> {
  const count = Number(context.flags.get("replicas") ?? REPLICAS);
  const rate = Number(context.flags.get("rate") ?? RATE_PER_SECOND);
  const hosts = await startReplicas(context, count);
  context.note(`${count} replicas, ${rate} writes/s for ${SECONDS} s`);
  let from = 1;
  await load(hosts, { rate, from, writes: rate * WARM_UP_SECONDS });
  from += rate * WARM_UP_SECONDS;
  for (; ; from += rate * SECONDS) yield await load(hosts, { rate, from, writes: rate * SECONDS });
}

async function load(
  hosts: readonly Host[],
  parts: { readonly rate: number; readonly from: number; readonly writes: number },
): Promise<Sample> {
  const { writes } = parts;
  const dueMsById = new Map<number, number>();
  const takenMs: number[] = [];
  const streams = await openStreams(hosts, (at, id, nowMs) => {
    const dueMs = dueMsById.get(id);
    if (dueMs !== undefined && at !== id % hosts.length) takenMs.push(nowMs - dueMs);
  });
  await sleep(SETTLE_MS);
  const cpuBeforeMs = cpuOf(hosts);
  const before = await sentBy(hosts);
  const startMs = performance.now();
  const answers: Promise<void>[] = [];
  for (let at = 0; at < writes; at++) {
    const dueMs = startMs + (at * 1000) / parts.rate;
    await sleep(dueMs - performance.now());
    const id = parts.from + at;
    const host = hosts[id % hosts.length];
    if (!host) continue;
    dueMsById.set(id, dueMs);
    answers.push(writeRow(host, id));
  }
  await Promise.all(answers);
  const reachedS = (performance.now() - startMs) / 1000;
  await sleep(SETTLE_MS);
  const after = await sentBy(hosts);
  streams.close();
  const wanted = writes * (hosts.length - 1);
  if (takenMs.length < wanted) throw new Error(`${wanted - takenMs.length} lines are missing`);
  const packets = packetsOf(after) - packetsOf(before);
  return {
    "load line p50": percentile(takenMs, 0.5),
    "load line p99": percentile(takenMs, 0.99),
    "bytes per change and replica": wireBytes(before, after) / writes / hosts.length,
    "packets per change and replica": packets / writes / hosts.length,
    "writes reached": writes / reachedS,
    "CPU of all replicas": (cpuOf(hosts) - cpuBeforeMs) / 1000,
  };
}

function sentBy(hosts: readonly Host[]): Promise<Sent[]> {
  return Promise.all(hosts.map((host) => readSent(host.metricsPort)));
}

function packetsOf(all: readonly Sent[]): number {
  return all.reduce((sum, { packets }) => sum + packets, 0);
}

function cpuOf(hosts: readonly Host[]): number {
  return hosts.reduce((sum, { pid }) => sum + cpuTimeMs(pid), 0);
}

const REPLICAS = 10;
const RATE_PER_SECOND = 100;
const SECONDS = 20;
/** Code is compiled by then, as it is in a replica that has run for some minutes. */
const WARM_UP_SECONDS = 10;
/** Metrics are as much as a second old; lines of the last writes come in, too. */
const SETTLE_MS = 2_500;
