/**
 * The way of a change through a whole cluster of real processes: two edges, two workers, and a third
 * edge that joins late. Tests build on each other's cluster but not on each other's objects.
 */
import { execFileSync } from "node:child_process";
import { afterAll, beforeAll, expect, test } from "vitest";
import { get, until } from "./asking-fixture.ts";
import { Cluster, type TestHost, type TestMachine } from "./cluster-fixture.ts";

let cluster: Cluster;
let east: TestHost;
let west: TestHost;
let late: TestHost;
let first: TestHost;
let second: TestHost;

beforeAll(async () => {
  const through = { bootstrap: ["first", "second"] };
  cluster = await Cluster.create([
    { name: "first", kind: "worker" },
    { name: "second", kind: "worker", bootstrap: ["first"] },
    { name: "east", kind: "edge", ...through },
    { name: "west", kind: "edge", ...through },
    { name: "late", kind: "edge", ...through },
  ]);
  east = cluster.host("east");
  west = cluster.host("west");
  late = cluster.host("late");
  first = cluster.host("first");
  second = cluster.host("second");
  await cluster.start("first", "second", "east", "west");
});

afterAll(async () => {
  await cluster.close();
});

test("a machine that a worker publishes is routed by every edge until it is stopped", async () => {
  const machine = await cluster.startMachine("stoppable");
  await publish(first, "stop.test", machine);
  await Promise.all([east, west].map((edge) => edge.routes("stop.test", "stoppable")));
  await first.put("/v1/machines/stoppable", machine.document("stop.test", { state: "stopped" }));
  await Promise.all([east, west].map((edge) => edge.refuses("stop.test", 503)));
  await first.put("/v1/machines/stoppable", machine.document("stop.test"));
  await Promise.all([east, west].map((edge) => edge.routes("stop.test", "stoppable")));
});

test("a machine that is deleted is routed no longer", async () => {
  const machine = await cluster.startMachine("deletable");
  await publish(first, "delete.test", machine);
  await Promise.all([east, west].map((edge) => edge.routes("delete.test", "deletable")));
  expect((await first.api("DELETE", "/v1/machines/deletable")).status).toBe(200);
  await Promise.all([east, west].map((edge) => edge.refuses("delete.test", 503)));
});

test("a worker cannot overwrite or delete another worker's machine", async () => {
  const machine = await cluster.startMachine("owned");
  await publish(first, "owned.test", machine);
  await until("the second worker knows it", async () => {
    return (await second.api("GET", "/v1/machines/owned")).status === 200;
  });
  const refused = await second.api("PUT", "/v1/machines/owned", machine.document("owned.test"));
  expect(refused.status).toBe(409);
  expect(JSON.parse(refused.text).error).toContain("first");
  expect((await second.api("DELETE", "/v1/machines/owned")).status).toBe(409);
  await east.routes("owned.test", "owned");
});

test("publishing an equal machine uses no version", async () => {
  const machine = await cluster.startMachine("equal");
  await publish(first, "equal.test", machine);
  const { version } = await first.put("/v1/machines/equal", machine.document("equal.test"));
  expect(version).toBeNull();
});

test("changes made by SQL at two workers reach an edge that starts empty, and all heads agree", async () => {
  const machines = [await cluster.startMachine("sql-0"), await cluster.startMachine("sql-1")];
  for (const [index, worker] of [first, second].entries()) {
    const { address } = machines[index]!;
    const node = worker.options.name;
    await transact(worker, [
      ["INSERT INTO apps (id, name, node_id) VALUES (?, 'SQL', ?)", [`sql-${index}`, node]],
      [
        "INSERT INTO hostnames (hostname, app_id, node_id) VALUES (?, ?, ?)",
        [`sql-${index}.test`, `sql-${index}`, node],
      ],
      [
        "INSERT INTO machines (id, app_id, node_id, region, state) VALUES (?, ?, ?, '', 'started')",
        [`sql-${index}`, `sql-${index}`, node],
      ],
      [
        "INSERT INTO services (machine_id, name, node_id, address, protocol) VALUES (?, 'web', ?, ?, 'http')",
        [`sql-${index}`, node, address],
      ],
    ]);
  }
  // Versions enough that catching up is more than one exchange.
  for (let round = 0; round < 20; round++) {
    await transact(second, [["UPDATE apps SET name = ? WHERE id = 'sql-1'", [`round ${round}`]]]);
  }
  await east.routes("sql-0.test", "sql-0");
  await east.routes("sql-1.test", "sql-1");

  await cluster.start("late");
  for (const index of [0, 1]) await late.routes(`sql-${index}.test`, `sql-${index}`);
  const all = [east, west, late, first, second];
  await until("heads are equal and nothing is needed", async () => {
    const statuses = await Promise.all(all.map((host) => host.status()));
    const heads = new Set(
      statuses.map((one) => JSON.stringify(Object.entries(one.heads).sort(byActor))),
    );
    return heads.size === 1 && statuses.every((one) => one.needs === 0);
  });
  await until("its metrics tell of the sync", async () => {
    return (await late.metric("patina_sync_versions_received_total")) > 0;
  });
});

test("no request fails when a machine dies unannounced and another can serve", async () => {
  const dying = await cluster.startMachine("dying");
  const staying = await cluster.startMachine("staying");
  // One request fills a machine, so several at once use both.
  const limits = { softLimit: 1 };
  await publish(first, "pair.test", dying, limits);
  await second.put("/v1/machines/staying", staying.document("pair.test", limits));
  const seen = new Set<string>();
  await until("both machines answer", async () => {
    const answers = await Promise.all(Array.from({ length: 8 }, () => east.request("pair.test")));
    for (const { text } of answers) seen.add(text);
    return seen.has("dying") && seen.has("staying");
  });

  const failures: string[] = [];
  const served = { byDying: 0, afterKill: 0 };
  let isKilled = false;
  const client = async (): Promise<void> => {
    for (let after = 0; after < 40;) {
      const { status, text, headers } = await east.request("pair.test");
      if (status !== 200) failures.push(`${status} ${JSON.stringify(headers)} ${text}`);
      if (text === "dying") served.byDying++;
      if (served.byDying >= 20 && !isKilled) {
        isKilled = true;
        dying.kill();
      }
      if (isKilled) after++;
      if (isKilled && text === "staying") served.afterKill++;
    }
  };
  await Promise.all(Array.from({ length: 8 }, client));
  expect(failures).toEqual([]);
  expect(served.afterKill).toBeGreaterThan(0);
});

test.skipIf(!hasSqlite3())("stock sqlite3 reads the database while Patina runs", async () => {
  const sql = "PRAGMA integrity_check; SELECT id, kind FROM nodes ORDER BY id;";
  const output = execFileSync("sqlite3", [west.databaseFile, sql], { encoding: "utf8" });
  const lines = output.trim().split("\n");
  expect(lines[0]).toBe("ok");
  expect(lines).toEqual(expect.arrayContaining(["first|worker", "second|worker", "west|edge"]));
});

test("an edge and a worker killed together come back with their data and learn both ways", async () => {
  const before = await cluster.startMachine("before-kill");
  await publish(first, "kill.test", before);
  await east.routes("kill.test", "before-kill");
  const from = { east: east.log.length, first: first.log.length };
  const pids = [east.edgePid(), first.edgePid()];
  for (const pid of pids) process.kill(pid, "SIGKILL");
  await Promise.all([
    east.logged("replica-started", { from: from.east }),
    first.logged("replica-started", { from: from.first }),
  ]);
  expect([east.edgePid(), first.edgePid()]).not.toEqual(pids);
  expect((await first.api("GET", "/v1/machines/before-kill")).status).toBe(200);
  await east.routes("kill.test", "before-kill");

  const after = await cluster.startMachine("after-kill");
  await publish(first, "after-kill.test", after);
  await Promise.all([east, west].map((edge) => edge.routes("after-kill.test", "after-kill")));
  const app = { name: "published at the edge" };
  await east.put("/v1/apps/from-east", app);
  await until("the worker has what the edge published", async () => {
    return (await first.api("GET", "/v1/apps/from-east")).status === 200;
  });
  const errors = east.log.filter(({ level, event }) => level === "error" && event !== BOUNCE);
  expect(errors).toEqual([]);
});

test("SIGTERM finishes the request in flight, leaves the cluster at once and ends with 0", async () => {
  const machine = await cluster.startMachine("draining");
  await publish(first, "drain.test", machine);
  await west.routes("drain.test", "draining");
  const inFlight = west.request("drain.test", "/slow");
  await until("the request is in flight", async () => {
    return (await west.metric("patina_http_connections")) >= 1;
  });
  const from = east.log.length;
  const actor = (await west.status()).actor;
  west.signal("SIGTERM");
  await until("it is not ready any more", async () => {
    return (await get(west.metricsPort, "/readyz")).status === 503;
  });
  await east.request("drain.test", "/finish");
  const answer = await inFlight;
  expect(answer.text).toBe("begun and ended");
  expect(await west.ending()).toMatchObject({ code: 0, signal: null });
  const down = await east.logged("member-down", { from });
  expect(down["peer"]).toBe(actor);
  // Told, not found out: nobody had to suspect it first.
  const suspected = east.log.slice(from).filter(({ event }) => event === "member-suspect");
  expect(suspected.map((line) => line["peer"])).not.toContain(actor);
});

async function publish(
  worker: TestHost,
  host: string,
  machine: TestMachine,
  options: { softLimit?: number } = {},
): Promise<void> {
  await worker.put(`/v1/apps/${host}`, { name: host });
  await worker.put(`/v1/hostnames/${host}`, { app: host });
  await worker.put(`/v1/machines/${machine.id}`, machine.document(host, options));
}

async function transact(worker: TestHost, statements: readonly unknown[]): Promise<void> {
  const { status, text } = await worker.api("POST", "/v1/transactions", statements);
  expect({ status, text }).toMatchObject({ status: 200 });
}

function byActor([left]: [string, unknown], [right]: [string, unknown]): number {
  return left < right ? -1 : 1;
}

/** The supervisor's alert: an error line, because a human must look at it. */
const BOUNCE = "edge-bounced";

function hasSqlite3(): boolean {
  try {
    execFileSync("sqlite3", ["--version"]);
    return true;
  } catch (error) {
    if (error instanceof Error) return false;
    throw error;
  }
}
