/**
 * The fleet's restart budget with real processes: two replicas say that they were bounced, which is
 * one more than the edge's budget has room for, and then the edge stalls. It comes up frozen: it
 * serves from its last known table, takes from the cluster what goes down and nothing else, and takes
 * part again when an operator or the clock says so.
 */
import { afterAll, beforeAll, expect, test } from "vitest";
import { get, until } from "./asking-fixture.ts";
import { Cluster, type TestHost } from "./cluster-fixture.ts";
import { runPatina } from "./process-fixture.ts";

let cluster: Cluster;
let edge: TestHost;
let workers: readonly TestHost[];

beforeAll(async () => {
  const worker = (name: string) => ({ name, kind: "worker" as const, bootstrap: ["edge"] });
  cluster = await Cluster.create([
    {
      name: "edge",
      kind: "edge",
      config: {
        proxy: { threads: 2 },
        fault: { enabled: true, stall_path: "/stall", loop: "main" },
        watchdog: {
          allow_fault_injection: true,
          steady_ms: 1_000,
          jitter_ms: 0,
          fleet_bounces_max: 1,
          // Longer than the test: what ends the first freeze is the operator.
          fleet_window_ms: 3_600_000,
        },
      },
    },
    worker("one"),
    worker("two"),
  ]);
  edge = cluster.host("edge");
  workers = [cluster.host("one"), cluster.host("two")];
  await cluster.start("edge", "one", "two");
  for (const id of ["stays", "goes", "fails"]) {
    await workers[0]?.publish(`${id}.test`, await cluster.startMachine(id));
    await edge.routes(`${id}.test`, id);
  }
});

afterAll(async () => {
  await cluster.close();
});

test("within the budget a bounce is an ordinary one", async () => {
  await bounced(workers[0]);
  await knows(1);
  await stall();
  await until("the table is current", async () => (await readyBody())["table"] === "current");
  expect(await edge.metric("patina_quarantine_frozen")).toBe(0);
  // Known to the others, whatever they make of it.
  await until("a peer has its word", async () => {
    const query = "SELECT count(*) AS n FROM edge_stalls WHERE node_id = 'edge' AND bounced_at > 0";
    const answer = await workers[0]?.api("POST", "/v1/queries", query);
    return answer?.text.includes("[1]") === true;
  });
});

test("beyond it the edge comes up frozen, says so, and serves what it knew", async () => {
  await bounced(workers[1]);
  await knows(2);
  const from = edge.log.length;
  const alert = await stall();
  expect(alert).toMatchObject({ fleet: { peers: 2, isSpent: true } });
  expect(String(alert["msg"])).toContain("2 other edges were bounced lately");
  expect(await edge.logged("edge-frozen", { from })).toMatchObject({ level: "error", peers: 2 });
  await until("it says so once it has met the others", async () => {
    return String((await readyBody())["reason"]).startsWith("frozen");
  });
  expect(await readyBody()).toMatchObject({ ready: true, table: "frozen", frozen: { peers: 2 } });
  expect(await edge.metric("patina_quarantine_frozen")).toBe(1);
  const status = await runPatina(["status", "--config", edge.configFile]);
  expect(status.stdout).toMatch(/^FROZEN +since .*2 others bounced/m);
  for (const id of ["stays", "goes", "fails"]) await edge.routes(`${id}.test`, id);
});

test("frozen it takes what goes down from every thread's picks, and nothing else", async () => {
  const [worker] = workers;
  await worker?.publish("new.test", await cluster.startMachine("new"));
  await execute("UPDATE machines SET region = 'moved' WHERE id = 'stays'");
  await execute("DELETE FROM machines WHERE id = 'goes'");
  await execute(
    "INSERT INTO checks (machine_id, service, name, status) VALUES ('fails', 'web', 'up', 'critical')",
  );
  await edge.refuses("goes.test", 503);
  await edge.refuses("fails.test", 503);
  // All of that came later than the new machine.
  for (let at = 0; at < 8; at++) {
    expect((await edge.request("new.test")).status).toBe(404);
    expect((await edge.request("goes.test")).status).toBe(503);
  }
  await execute("UPDATE checks SET status = 'passing' WHERE machine_id = 'fails'");
  await edge.routes("fails.test", "fails");
  await edge.routes("stays.test", "stays");
});

test("a freeze outlives a restart, with all that went down before it", async () => {
  edge.signal("SIGTERM");
  expect(await edge.ending()).toMatchObject({ code: 0 });
  const list = ["quarantine", "list", "--config", edge.configFile];
  expect((await runPatina(list)).stderr).toContain("frozen since");
  await cluster.start("edge");
  await edge.refuses("goes.test", 503);
  await edge.routes("stays.test", "stays");
  expect((await edge.request("new.test")).status).toBe(404);
});

test("thawed by an operator it takes everything that it has missed", async () => {
  const from = edge.log.length;
  const thaw = ["quarantine", "thaw", "--config", edge.configFile];
  await until("the edge is thawed", async () => (await runPatina(thaw)).code === 0);
  expect(await edge.logged("edge-thawed", { from })).toMatchObject({ why: "asked" });
  await edge.routes("new.test", "new");
  await edge.routes("stays.test", "stays");
  await edge.refuses("goes.test", 503);
  await until("the table is current", async () => (await readyBody())["table"] === "current");
  expect(await edge.metric("patina_quarantine_frozen")).toBe(0);
  expect(await edge.metric("patina_quarantine_denied_machines")).toBe(0);
  const again = await runPatina(thaw);
  expect(again).toMatchObject({ code: 12, stderr: expect.stringContaining("is not frozen") });
});

/** Has the main thread stall, and waits until the edge has been bounced and knows all again. */
async function stall(): Promise<Readonly<Record<string, unknown>>> {
  await until("there is a last known table", async () => {
    return (await edge.metric('patina_table_saves_total{result="done"}')) > 0;
  });
  const from = edge.log.length;
  // The other thread answers. One more after the one that is cut would stall the next process too.
  while ((await edge.request("stays.test", "/stall").catch(() => null)) !== null);
  const alert = await edge.logged("edge-bounced", { from });
  await edge.ready();
  await edge.logged("replica-started", { from });
  await edge.routes("stays.test", "stays");
  return alert;
}

/** What a replica's own watchdog would say for it. */
async function bounced(worker: TestHost | undefined): Promise<void> {
  const row = `'${worker?.options.name}', ${Date.now()}`;
  const insert = `INSERT INTO edge_stalls (node_id, bounced_at) VALUES (${row})`;
  expect(await worker?.api("POST", "/v1/transactions", [insert])).toMatchObject({ status: 200 });
}

async function knows(peers: number): Promise<void> {
  await until(`the edge knows of ${peers}`, async () => {
    return (await edge.metric("patina_watchdog_bounced_peers")) === peers;
  });
}

async function readyBody(): Promise<Readonly<Record<string, unknown>>> {
  const { text } = await get(edge.metricsPort, "/readyz");
  return JSON.parse(text) as Readonly<Record<string, unknown>>;
}

async function execute(statement: string): Promise<void> {
  const answer = await workers[0]?.api("POST", "/v1/transactions", [statement]);
  expect(answer).toMatchObject({ status: 200 });
}
