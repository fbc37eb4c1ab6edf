/**
 * Checkpoints as they come about by themselves: replicas that share a store take turns, a new one
 * starts from the newest, and a store that is away holds nobody up.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openTarget, verifyCheckpoint } from "../replica/driver/checkpoints/checkpoints.ts";
import { S3Fixture } from "../replica/driver/checkpoints/s3-fixture.ts";
import { until } from "./asking-fixture.ts";
import { Cluster, type TestHost } from "./cluster-fixture.ts";

const folder = mkdtempSync(join(tmpdir(), "patina-checkpoints-"));
const TARGET = "s3://bucket/test";
let s3: S3Fixture;
let cluster: Cluster;

beforeAll(async () => {
  s3 = await S3Fixture.start(join(folder, "s3"));
  const checkpoints = { target: TARGET, every_secs: 1, keep: 1, s3: s3.section };
  const config = { checkpoints };
  const onlyBoots = { checkpoints: { ...checkpoints, every_secs: 0 } };
  const stranger = { checkpoints, gossip: { cluster_id: 9 } };
  cluster = await Cluster.create([
    { name: "worker", kind: "worker", config },
    // Nobody to learn from: what it has comes from the checkpoint.
    {
      name: "newcomer",
      kind: "worker",
      config: { checkpoints: { ...checkpoints, every_secs: 0 } },
    },
    { name: "stranger", kind: "worker", config: stranger },
    { name: "late", kind: "worker", bootstrap: ["worker"], config: onlyBoots },
  ]);
});
afterAll(async () => {
  await cluster.close();
  await s3.close();
  rmSync(folder, { recursive: true, force: true });
});

test("checkpoints are taken on schedule, and the newest are kept", async () => {
  await cluster.start("worker");
  const worker = cluster.host("worker");
  expect((await worker.logged("checkpoint-absent")).msg).toContain("no checkpoint of cluster 0");
  await worker.api("PUT", "/v1/apps/shop", { app_id: "shop" });
  for (let taken = 0; taken < 2; taken += 1) await nextLine(worker, "checkpoint-taken");
  expect(await worker.metric("patina_checkpoints_taken_total")).toBeGreaterThanOrEqual(2);
  expect(await worker.metric("patina_checkpoint_newest_timestamp_seconds")).toBeGreaterThan(1e9);
  const { target } = await openTarget(TARGET, s3.config());
  const kept = await target.list();
  // One may just have been put there.
  expect([1, 2]).toContain(kept.length);
  await expect(verifyCheckpoint(target, kept[0]!.name)).resolves.toMatchObject({ clusterId: 0 });
  target.close();
});

test("a replica without a database starts from the newest one, as an actor of its own", async () => {
  const worker = cluster.host("worker");
  const newcomer = cluster.host("newcomer");
  newcomer.start();
  await newcomer.logged("checkpoint-booted");
  await newcomer.ready();
  const { actor } = await worker.status();
  const status = await newcomer.status();
  expect(status.actor).not.toBe(actor);
  expect(status.heads[actor]).toBeGreaterThan(0);
  expect((await newcomer.api("GET", "/v1/apps/shop")).status).toBe(200);
  await newcomer.end();
});

test("a replica of another cluster starts empty, and takes checkpoints beside the others", async () => {
  await cluster.start("stranger");
  const stranger = cluster.host("stranger");
  await stranger.logged("checkpoint-taken");
  expect((await stranger.api("GET", "/v1/apps/shop")).status).toBe(404);
  const { target } = await openTarget(TARGET, s3.config());
  const clusters = new Set((await target.list()).map(({ clusterId }) => clusterId));
  target.close();
  expect(clusters).toEqual(new Set([0, 9]));
  await stranger.end();
});

test("while the store is away replicas warn, go on, and start without it", async () => {
  const worker = cluster.host("worker");
  await s3.close();
  const failed = await nextLine(worker, "checkpoint-failed");
  expect(failed).toMatchObject({ level: "warn", code: "CHECKPOINT_STORE" });
  expect(await worker.metric("patina_checkpoints_failed_total")).toBe(1);
  await worker.ready();
  expect((await worker.api("PUT", "/v1/apps/more", { app_id: "more" })).status).toBe(200);
  const late = cluster.host("late");
  late.start();
  expect(await late.logged("checkpoint-boot-failed")).toMatchObject({ level: "warn" });
  await late.ready();
  await until("the late one learns from the worker", async () => {
    return (await late.api("GET", "/v1/apps/more")).status === 200;
  });
  s3 = await S3Fixture.start(join(folder, "s3"));
});

/** The first such line that is logged after this call. */
function nextLine(host: TestHost, event: string): ReturnType<TestHost["logged"]> {
  return host.logged(event, { from: host.log.length });
}
