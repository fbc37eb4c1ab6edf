/**
 * Many replicas on one machine, each a process of its own without launcher and supervisor, all
 * holding the table `t (id, v)`; and the streams of its changes.
 */
import { request } from "undici";
import { LocalCluster, sleep, type Host } from "./local-cluster.ts";
import type { BenchContext } from "./measure.ts";
import { readMetrics } from "./process-figures.ts";

/**
 * Starts `count` replicas and waits until each knows all. Every one joins through the first two, as
 * hosts do that are given a few addresses.
 */
export async function startReplicas(context: BenchContext, count: number): Promise<Host[]> {
  const cluster = await LocalCluster.create(context);
  const schema = cluster.writeSchema(SCHEMA);
  const hosts: Host[] = [];
  for (let at = 0; at < count; at++) {
    const host = await cluster.start({
      name: `replica-${at + 1}`,
      kind: "agent",
      isBare: true,
      bootstrap: hosts.slice(0, 2),
      config: {
        db: { path: "./patina.db", schema_paths: [schema] },
        // The timing of Corrosion, whose figures stand beside these.
        gossip: { preset: "wan" },
      },
    });
    await host.ready();
    hosts.push(host);
  }
  await untilAllKnow(hosts, count);
  return hosts;
}

/** Waits until each of these counts so many members, itself among them. */
export async function untilAllKnow(hosts: readonly Host[], count: number): Promise<void> {
  const deadlineMs = performance.now() + JOIN_LIMIT_MS;
  for (const host of hosts) {
    while ((await membersOf(host)) < count) {
      if (performance.now() > deadlineMs) throw new Error(`${host.name} does not know all`);
      await sleep(200);
    }
  }
}

async function membersOf(host: Host): Promise<number> {
  return (await readMetrics(host.metricsPort)).get("patina_swim_members") ?? 0;
}

/** Writes one row of `t`, of 60 characters. */
export async function writeRow(host: Host, id: number): Promise<void> {
  await host.post("transactions", [["INSERT INTO t (id, v) VALUES (?, ?)", [id, TEXT]]]);
}

/** A line of a stream of updates: which replica said it, of which row, when by `performance.now`. */
export type OnLine = (at: number, id: number, nowMs: number) => void;

/** Opens `/v1/updates/t` at every host; resolves when all streams are open. Closed by `close`. */
export async function openStreams(
  hosts: readonly Host[],
  onLine: OnLine,
): Promise<{ close(): void }> {
  const abort = new AbortController();
  await Promise.all(
    hosts.map(async (host, at) => {
      const response = await request(`http://127.0.0.1:${host.apiPort}/v1/updates/t`, {
        method: "POST",
        signal: abort.signal,
        bodyTimeout: 0,
      });
      if (response.statusCode !== 200) throw new Error(`${host.name}: ${response.statusCode}`);
      let rest = "";
      response.body.setEncoding("utf8");
      response.body.on("data", (text: string) => {
        const nowMs = performance.now();
        const lines = (rest + text).split("\n");
        rest = lines.pop() ?? "";
        for (const line of lines) {
          const { notify } = JSON.parse(line) as { notify?: [string, [number]] };
          if (notify) onLine(at, notify[1][0], nowMs);
        }
      });
      // The abort's own error; a stream that breaks otherwise is missed by its lines.
      response.body.on("error", () => undefined);
    }),
  );
  return { close: () => abort.abort() };
}

const SCHEMA = `CREATE TABLE t (
  id INTEGER NOT NULL PRIMARY KEY,
  v TEXT NOT NULL DEFAULT ''
);
`;
const TEXT = "x".repeat(60);
const JOIN_LIMIT_MS = 60_000;
