/**
 * A loop that waits and one that only turns, under real processes: an edge whose upstreams all hang
 * for five budgets is left alone, one whose loop turns without getting anywhere is bounced.
 */
import { once } from "node:events";
import { createServer, type AddressInfo, type Socket } from "node:net";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Cluster, get, until, type TestHost } from "./cluster-fixture.ts";

const LIVELOCK_PATH = "/__livelock";
const STEADY_MS = 1_000;
const BUDGETS = 5;
/** A loop beats ten times a second. */
const BEAT_MS = 100;
let cluster: Cluster;
let worker: TestHost;
let edge: TestHost;
const sockets: Socket[] = [];
/** Accepts and reads, and says nothing. */
const silent = createServer((socket) => {
  sockets.push(socket);
  socket.on("error", () => socket.destroy());
  socket.resume();
});

beforeAll(async () => {
  cluster = await Cluster.create([
    { name: "worker", kind: "worker" },
    {
      name: "edge",
      kind: "edge",
      bootstrap: ["worker"],
      config: {
        fault: { enabled: true, livelock_path: LIVELOCK_PATH },
        watchdog: { allow_fault_injection: true, steady_ms: STEADY_MS, apply_ms: STEADY_MS },
      },
    },
  ]);
  worker = cluster.host("worker");
  edge = cluster.host("edge");
  silent.listen(0, "127.0.0.1");
  await once(silent, "listening");
  await cluster.start("worker", "edge");
  const machine = await cluster.startMachine("good");
  const { port } = silent.address() as AddressInfo;
  const services = [{ name: "web", address: `127.0.0.1:${port}` }];
  await publish("good", machine.document("good"));
  await publish("silent", { app: "silent", region: "test", state: "started", services });
  await edge.routes("good.test", "good");
});

afterAll(async () => {
  await cluster.close();
  for (const socket of sockets) socket.destroy();
  silent.close();
});

test("upstreams that all hang for five budgets, and long polls, bounce nobody", async () => {
  const pid = edge.edgePid();
  const waiting = Array.from({ length: 20 }, (_, index) => {
    const [host, path] = index % 2 === 0 ? ["silent.test", "/"] : ["good.test", "/slow"];
    return edge.request(host, path).catch((error: unknown) => error);
  });
  await until("upstreams have their requests", () => sockets.length >= 10);
  const from = await beatsOfMain();
  await until("five budgets are over", async () => {
    return (await beatsOfMain()) - from > (BUDGETS * STEADY_MS) / BEAT_MS;
  });
  expect(await edge.metric('patina_loop_suspicions_total{loop="main"}')).toBe(0);
  expect(edge.edgePid()).toBe(pid);
  expect(edge.log.filter(({ event }) => event === "edge-bounced")).toEqual([]);
  // Nobody had an answer meanwhile, so nothing progressed.
  for (const socket of sockets) socket.destroy();
  await edge.request("good.test", "/finish");
  await Promise.all(waiting);
  await edge.routes("good.test", "good");
});

test("a loop that turns without getting anywhere is bounced, and the evidence says so", async () => {
  const from = edge.log.length;
  await edge.request("good.test", LIVELOCK_PATH);
  const alert = await edge.logged("edge-bounced", { from });
  expect(alert).toMatchObject({ signal: "SIGKILL", kind: "stall", loop: "main", isLivelock: true });
  expect(alert["msg"]).toContain("loop main turned without getting anywhere");
  expect(alert["at"]).toContain("spinForEver");
  await edge.routes("good.test", "good");
});

async function publish(app: string, document: unknown): Promise<void> {
  for (const [path, body] of [
    [`/v1/apps/${app}`, { name: app }],
    [`/v1/hostnames/${app}.test`, { app }],
    [`/v1/machines/${app}`, document],
  ] as const) {
    expect(await worker.api("PUT", path, body)).toMatchObject({ status: 200 });
  }
}

async function beatsOfMain(): Promise<number> {
  const { text } = await get(edge.metricsPort, "/healthz");
  const { loops } = JSON.parse(text) as { loops: { name: string; beats: number }[] };
  return loops.find(({ name }) => name === "main")?.beats ?? 0;
}
