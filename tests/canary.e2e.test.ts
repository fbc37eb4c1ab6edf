/**
 * A change that stalls every edge, of a shape that none has applied, gossiped through a real
 * cluster of a worker and three edges: the two canaries stall once each and tell, the third never does.
 */
import { afterAll, beforeAll, expect, test } from "vitest";
import { until } from "./asking-fixture.ts";
import { Cluster, type TestHost } from "./cluster-fixture.ts";
import { runPatina } from "./process-fixture.ts";

const EDGES = ["first", "second", "third"] as const;
let cluster: Cluster;
let worker: TestHost;
let spared: TestHost;
const actors = new Map<string, string>();

beforeAll(async () => {
  cluster = await Cluster.create([
    { name: "worker", kind: "worker" },
    ...EDGES.map((name) => ({
      name,
      kind: "edge" as const,
      bootstrap: ["worker"],
      config: {
        fault: {
          enabled: true,
          stall_row: { table: "services", column: "protocol", value: "h2c" },
        },
        watchdog: { allow_fault_injection: true, apply_ms: 1_000, jitter_ms: 0, canary_ms: 6_000 },
      },
    })),
  ]);
  worker = cluster.host("worker");
  await cluster.start("worker", ...EDGES);
  const machine = await cluster.startMachine("one");
  await worker.publish("one.test", machine);
  for (const name of EDGES) {
    await cluster.host(name).routes("one.test", "one");
    await until(`${name} knows the other edges`, async () => {
      const { members, actor } = await cluster.host(name).status();
      actors.set(name, actor);
      return members.filter(({ state }) => state === "alive").length === EDGES.length;
    });
  }
});

afterAll(async () => {
  await cluster.close();
});

test("two edges stall and tell; the third holds the change without having applied it", async () => {
  await execute("UPDATE services SET protocol = 'h2c' WHERE machine_id = 'one'");
  await until("two edges say what they hold", async () => {
    const held = EDGES.filter((name) => cluster.host(name).log.some(isHeld));
    return held.length === 2;
  });
  const name = EDGES.find((one) => !cluster.host(one).log.some(isHeld));
  spared = cluster.host(name ?? "none");
  await until("both notices have come", () =>
    Promise.resolve(spared.log.filter(({ event }) => event === "notice-taken").length >= 2),
  );
  const listed = await list();
  expect(listed.waiting).toMatchObject([
    { change: { table: "services", key: "one,web" }, victims: 2 },
  ]);
  // Far beyond its own wait, and that for one victim.
  expect(listed.waiting[0]?.leftMs).toBeGreaterThan(60_000);
  for (const edge of EDGES) await cluster.host(edge).routes("one.test", "one");
  // Before it was killed, and not after its next start.
  for (const victim of EDGES.filter((edge) => edge !== name)) {
    const taken = spared.log.find(
      (line) => line.event === "notice-taken" && line["actorId"] === actors.get(victim),
    );
    const held = cluster.host(victim).log.find(isHeld);
    expect(String(taken?.["time"]) < String(held?.["time"])).toBe(true);
  }
  const bounces = EDGES.map((edge) => cluster.host(edge).log.filter(isBounce).length);
  expect(bounces.toSorted((a, b) => a - b)).toEqual([0, 1, 1]);
});

test("what goes down passes the change that waits", async () => {
  await execute("UPDATE machines SET state = 'stopped' WHERE id = 'one'");
  for (const edge of EDGES) await cluster.host(edge).refuses("one.test", 503);
  await execute("UPDATE machines SET state = 'started' WHERE id = 'one'");
  for (const edge of EDGES) await cluster.host(edge).routes("one.test", "one");
});

test("a forged notice is dropped and counted, and holds nothing", async () => {
  const forged = JSON.stringify({ certificate: "none", entries: [{ change: "x" }] });
  await execute(`INSERT INTO edge_stalls (node_id, notices) VALUES ('nobody', '${forged}')`);
  await until("it is counted", async () => {
    return (await spared.metric('patina_quarantine_notices_total{result="forged"}')) === 1;
  });
  expect(spared.log.filter(isBounce)).toEqual([]);
});

test("an operator can have the change applied all the same: it stalls, and is held", async () => {
  const id = (await list()).waiting[0]?.id ?? "";
  const released = await runPatina(["quarantine", "release", id, "--config", spared.configFile]);
  expect(released).toMatchObject({ code: 0 });
  expect(await spared.logged("change-held")).toMatchObject({ table: "services", key: "one,web" });
  await spared.routes("one.test", "one");
  expect((await list()).waiting).toEqual([]);
});

interface Listing {
  readonly waiting: readonly { readonly id: string; readonly leftMs: number }[];
}

async function list(): Promise<Listing> {
  const command = ["quarantine", "list", "--json", "--config", spared.configFile];
  return JSON.parse((await runPatina(command)).stdout) as Listing;
}

async function execute(statement: string): Promise<void> {
  expect(await worker.api("POST", "/v1/transactions", [statement])).toMatchObject({ status: 200 });
}

function isHeld({ event }: { readonly event: string }): boolean {
  return event === "change-held";
}

function isBounce({ event }: { readonly event: string }): boolean {
  return event === "edge-bounced";
}
