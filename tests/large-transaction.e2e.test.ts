/**
 * One transaction of 50 MB, sent through the HTTP API of one process, arrives whole at another one
 * over QUIC with mutual TLS. Broadcast drops most of what is more than its queues hold; sync brings
 * the rest.
 */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { afterAll, beforeAll, expect, test } from "vitest";
import { until } from "./asking-fixture.ts";
import { Cluster, type TestHost } from "./cluster-fixture.ts";
import { runPatina } from "./process-fixture.ts";

const ROWS = 2_000;
const ROW_BYTES = 25_000;
/** The body, its rows, the changes and their frames, in each thread's own copy, and Node itself. */
const PEAK_BYTES_MAX = 1.5e9;

let cluster: Cluster;
let source: TestHost;
let target: TestHost;

beforeAll(async () => {
  cluster = await Cluster.create([
    { name: "source", kind: "worker" },
    { name: "target", kind: "worker", bootstrap: ["source"] },
  ]);
  source = cluster.host("source");
  target = cluster.host("target");
  await cluster.start("source", "target");
  await until("members", async () => (await source.status()).members.length === 1);
});

afterAll(async () => {
  await cluster.close();
});

test("a transaction of 50 MB reaches the other replica whole, in bounded memory", async () => {
  const insert = "INSERT INTO apps (id, name, node_id) VALUES (?, ?, 'source')";
  const statements = Array.from({ length: ROWS }, (_, index) => [
    insert,
    [`app-${index}`, `${index}-`.repeat(ROW_BYTES).slice(0, ROW_BYTES)],
  ]);
  const answer = await source.api("POST", "/v1/transactions", statements);
  expect(answer.status).toBe(200);
  const { actor } = await source.status();
  const { version } = JSON.parse(answer.text) as { version: number };

  await until("nothing is needed", async () => {
    const { heads, needs } = await target.status();
    return heads[actor] === version && needs === 0;
  });
  const rows = await digestOf(target);
  expect(rows).toEqual(await digestOf(source));
  expect(rows.count).toBe(ROWS);
  for (const host of [source, target]) {
    const args = ["sync", "check-bookie-consistency", "--config", host.configFile];
    expect(await runPatina(args)).toMatchObject({ code: 0 });
    expect(peakBytes(host)).toBeLessThan(PEAK_BYTES_MAX);
    expect(host.log.filter(({ level }) => level === "error")).toEqual([]);
  }
});

/** How many rows there are, and a hash of all that is in them. */
async function digestOf(host: TestHost): Promise<{ count: number; hash: string }> {
  const sql = "SELECT id, name, node_id FROM apps ORDER BY id";
  const { text } = await host.api("POST", "/v1/queries", sql);
  const rows = text.split("\n").filter((line) => line.startsWith('{"row"'));
  return { count: rows.length, hash: createHash("sha256").update(rows.join("\n")).digest("hex") };
}

/** The most memory that the process of a replica has used. */
function peakBytes(host: TestHost): number {
  const status = readFileSync(`/proc/${host.edgePid()}/status`, "utf8");
  return Number(/VmHWM:\s+(\d+) kB/.exec(status)?.[1]) * 1024;
}
