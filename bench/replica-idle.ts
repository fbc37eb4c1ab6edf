/**
 * What 10 replicas that have nothing to do send, compute and hold in memory; beside them one agent
 * as `patina agent` starts it, to tell what its supervisor holds.
 */
import { LocalCluster, sleep, type Host } from "./local-cluster.ts";
import { percentile, type Bench, type BenchContext, type Sample } from "./measure.ts";
import {
  childrenOf,
  cpuTimeMs,
  readSent,
  residentMemory,
  wireBytes,
  type Sent,
} from "./process-figures.ts";
import { startReplicas } from "./replica-cluster.ts";

/** Bytes are UDP payload and 28 for each packet, on average of all; memory is the largest one's. */
export const bench: Bench = {
  about: "10 idle replicas: sent, CPU, resident memory",
  figures: [
    { name: "sent per replica", unit: "kbit/s", target: { atMost: 3 }, corrosion: 1.9 },
    { name: "CPU per replica", unit: "%", target: { atMost: 1 }, corrosion: 0.7 },
    { name: "replica resident", unit: "MiB", target: { atMost: 150 }, corrosion: 40 },
    { name: "supervisor resident", unit: "MiB" },
  ],
  run,
};

async function* run(context: BenchContext): AsyncIterable<Sample> {
  const count = Number(context.flags.get("replicas") ?? REPLICAS);
  const hosts = await startReplicas(context, count);
  const cluster = await LocalCluster.create(context);
  const supervised = await cluster.start({ name: "supervised", kind: "agent", bootstrap: [] });
  await supervised.ready();
  context.note(`${count} replicas, idle for ${SETTLE_MS / 1000} s, then ${IDLE_MS / 1000} s`);
  context.note("the launcher, a Node of its own where there is one, is not counted");
  await sleep(SETTLE_MS);
  for (;;) yield { ...(await idle(hosts)), ...supervisorMemory(supervised) };
}

async function idle(hosts: readonly Host[]): Promise<Sample> {
  const read = async (): Promise<{
    readonly sent: Sent[];
    readonly cpuMs: number;
    readonly atMs: number;
  }> => {
    const sent = await Promise.all(hosts.map((host) => readSent(host.metricsPort)));
    const cpuMs = hosts.reduce((sum, { pid }) => sum + cpuTimeMs(pid), 0);
    return { sent, cpuMs, atMs: performance.now() };
  };
  const before = await read();
  await sleep(IDLE_MS);
  const after = await read();
  const tookMs = after.atMs - before.atMs;
  return {
    // Bits per millisecond are kbit/s.
    "sent per replica": (wireBytes(before.sent, after.sent) * 8) / tookMs / hosts.length,
    "CPU per replica": (100 * (after.cpuMs - before.cpuMs)) / tookMs / hosts.length,
    "replica resident": percentile(
      hosts.map(({ pid }) => residentMemory(pid).nowMiB),
      1,
    ),
  };
}

function supervisorMemory(host: Host): Sample {
  if (childrenOf(host.pid).length === 0) throw new Error("the supervisor has no child");
  return { "supervisor resident": residentMemory(host.pid).nowMiB };
}

const REPLICAS = 10;
/** Bootstrap and first rounds of sync are over. */
const SETTLE_MS = 10_000;
const IDLE_MS = 20_000;
