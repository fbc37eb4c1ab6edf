/**
 * Upgrades of a real edge in a real cluster, asked for by the command, under steady traffic on new and
 * on kept connections. Not one request may fail or be refused, whether another process takes over or
 * the attempt is undone.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, expect, test } from "vitest";
import { until } from "./asking-fixture.ts";
import { Cluster, type TestHost, type TestMachine } from "./cluster-fixture.ts";
import { runPatina } from "./process-fixture.ts";
import { Traffic } from "./traffic-fixture.ts";

let cluster: Cluster;
let edge: TestHost;
let worker: TestHost;
let machine: TestMachine;

beforeAll(async () => {
  const proxy = { threads: 2, drain_wait_ms: 500 };
  cluster = await Cluster.create([
    { name: "worker", kind: "worker" },
    { name: "edge", kind: "edge", bootstrap: ["worker"], config: { proxy } },
  ]);
  edge = cluster.host("edge");
  worker = cluster.host("worker");
  machine = await cluster.startMachine("one");
  await cluster.start("worker", "edge");
  await worker.publish("one.test", machine);
  await edge.routes("one.test", "one");
});

afterAll(async () => {
  await cluster.close();
});

test("another process takes over under traffic, and it is the same replica", async () => {
  const before = { pid: edge.edgePid(), actor: (await edge.status()).actor };
  const traffic = new Traffic(edge);
  await traffic.flows();
  const { code, stdout } = await upgrade();
  expect(code).toBe(0);
  const pid = Number(/pid (\d+)/.exec(stdout)?.[1]);
  expect(pid).not.toBe(before.pid);
  await edge.logged("stopped");
  await traffic.flows();
  expect(await traffic.stop()).toEqual([]);

  expect((await edge.status()).actor).toBe(before.actor);
  await until("the old process has ended", () => edge.edgePid() === pid);
  // It left nobody: the worker never saw it go, and has one member of that address.
  const members = (await worker.status()).members.filter(({ address }) => address === edge.gossip);
  expect(members).toMatchObject([{ actor: before.actor, state: "alive" }]);
  await worker.publish("after.test", machine);
  await everyConnectionGets("after.test");
});

test("a new process that cannot open its replica is undone, and the old one learns on", async () => {
  const pid = edge.edgePid();
  const from = edge.log.length;
  const config = readFileSync(edge.configFile, "utf8");
  writeFileSync(edge.configFile, config.replace('"server.key"', '"none.key"'));
  const traffic = new Traffic(edge);
  await traffic.flows();
  const { code, stderr } = await upgrade();
  writeFileSync(edge.configFile, config);
  expect(stderr).toContain("not upgraded: the new edge process ended (exit code 8)");
  expect(code).toBe(10);
  await edge.logged("resumed", { from });
  await traffic.flows();
  expect(await traffic.stop()).toEqual([]);
  expect(edge.edgePid()).toBe(pid);
  const alert = await edge.logged("upgrade-rolled-back", { from });
  expect(alert).toMatchObject({ level: "error", step: "takingOver", cause: "exited", code: 8 });

  // Both threads follow the store again, and what is published now arrives.
  await worker.publish("undone.test", machine);
  await everyConnectionGets("undone.test");
  await edge.ready();
  // A bounce starts the edge by the config that was good.
  process.kill(pid, "SIGKILL");
  await edge.routes("undone.test", "one");
});

test("a config that breaks a rule, or moves what cannot move, is refused before anything starts", async () => {
  const pid = edge.edgePid();
  const wrong = await upgrade("--set", "proxy.threads=no");
  expect(wrong).toMatchObject({ code: 2, stdout: "" });
  const moved = await upgrade("--set", "proxy.threads=1");
  expect(moved.code).toBe(10);
  expect(moved.stderr).toContain("another number of threads");
  const elsewhere = await upgrade("--set", "db.path=/nowhere/else.db");
  expect(elsewhere).toMatchObject({ code: 11 });
  expect(edge.edgePid()).toBe(pid);
});

test("an agent is upgraded as well, and keeps its actor id", async () => {
  const { actor } = await worker.status();
  const pid = worker.edgePid();
  const { code } = await runPatina(["upgrade", "--config", worker.configFile]);
  expect(code).toBe(0);
  await until("the old process has ended", () => worker.edgePid() !== pid);
  expect((await worker.status()).actor).toBe(actor);
  await worker.publish("agent.test", machine);
  await edge.routes("agent.test", "one");
});

function upgrade(...flags: readonly string[]): ReturnType<typeof runPatina> {
  return runPatina(["upgrade", "--config", edge.configFile, ...flags]);
}

/** Enough new connections that both threads have some. */
async function everyConnectionGets(host: string): Promise<void> {
  await until(`${host} is routed on every connection`, async () => {
    const answers = await Promise.all(Array.from({ length: 16 }, () => edge.request(host)));
    return answers.every(({ status, text }) => status === 200 && text === "one");
  });
}
