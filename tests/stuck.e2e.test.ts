/**
 * What waits and what is stuck, under real processes: an edge whose upstreams all hang for five
 * budgets is left alone, so is one whose database somebody else has locked, with an alert; one whose
 * loop turns without getting anywhere is bounced.
 */
import { once } from "node:events";
import { createServer, type AddressInfo, type Socket } from "node:net";
import { join } from "node:path";
import Database from "better-sqlite3";
import { afterAll, beforeAll, expect, test } from "vitest";
import { readStall } from "../watchdog/driver/stall-files.ts";
import { get, until } from "./asking-fixture.ts";
import { Cluster, type TestHost } from "./cluster-fixture.ts";

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
        perf: { apply_limit_secs: 1 },
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
  const taken = once(silent, "connection");
  await until("the silent machine is routed to", async () => {
    const answered = edge.request("silent.test").catch((error: unknown) => error);
    await Promise.race([answered, taken]);
    return sockets.length > 0;
  });
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

test("a replica whose database is locked is an alert with the change, and the edge serves on", async () => {
  const pid = edge.edgePid();
  const other = new Database(edge.databaseFile);
  other.exec("BEGIN IMMEDIATE");
  const { actor, heads } = await worker.status();
  const machine = { app: "good", region: "test", state: "started", services: [] };
  expect(await worker.api("PUT", "/v1/machines/late", machine)).toMatchObject({ status: 200 });
  const version = (heads[actor] ?? 0) + 1;
  const alert = await edge.logged("replica-stuck");
  expect(alert).toMatchObject({ level: "error", process: "supervisor", actorId: actor, version });
  expect((await edge.request("good.test")).text).toBe("good");
  other.exec("ROLLBACK");
  other.close();
  await edge.logged("replica-applies-again");
  expect(edge.edgePid()).toBe(pid);
});

test("a loop that turns without getting anywhere is bounced, and the evidence says so", async () => {
  const from = edge.log.length;
  await edge.request("good.test", LIVELOCK_PATH);
  const alert = await edge.logged("edge-bounced", { from });
  expect(alert).toMatchObject({ signal: "SIGKILL", kind: "stall", loop: "main", isLivelock: true });
  expect(alert["msg"]).toContain("loop main turned without getting anywhere");
  const evidence = readStall(join(edge.folder, "state"), String(alert["stall"]));
  const stack = evidence.ok ? evidence.value.stack : null;
  if (stack?.kind === "javascript") {
    expect(stack.frames.map((frame) => frame.function)).toContain("spinForEver");
  } else {
    // Short of CPU it may not stop for the inspector in time; what the kernel knows is said then.
    expect(stack).toMatchObject({ kind: "native", reason: expect.stringContaining("inspector") });
  }
  await edge.routes("good.test", "good");
});

async function publish(app: string, document: unknown): Promise<void> {
  await worker.put(`/v1/apps/${app}`, { name: app });
  await worker.put(`/v1/hostnames/${app}.test`, { app });
  await worker.put(`/v1/machines/${app}`, document);
}

async function beatsOfMain(): Promise<number> {
  const { text } = await get(edge.metricsPort, "/healthz");
  const { loops } = JSON.parse(text) as { loops: { name: string; beats: number }[] };
  return loops.find(({ name }) => name === "main")?.beats ?? 0;
}
