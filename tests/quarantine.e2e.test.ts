/**
 * A change that stalls every edge that applies it, gossiped through a real cluster: each edge is
 * bounced, names the change, keeps it out and serves on from the row before. One edge stalls at the
 * row, one when it makes candidates of a batch, one ends by an exception.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { PatinaError } from "#base/errors.ts";
import { askAdmin } from "../replica/driver/admin/admin-client.ts";
import { until } from "./asking-fixture.ts";
import { Cluster, type LogLine, type TestHost } from "./cluster-fixture.ts";
import { runPatina } from "./process-fixture.ts";

const EDGES = ["at-row", "at-batch", "by-exception"] as const;
let cluster: Cluster;
let worker: TestHost;
let atRow: TestHost;
let actorId: string;
let poisonVersion = 0;

beforeAll(async () => {
  const edge = (name: string, at: string) => ({
    name,
    kind: "edge" as const,
    bootstrap: ["worker"],
    config: {
      fault: {
        enabled: true,
        stall_row: { table: "machines", column: "region", value: POISON, at },
      },
      // Each edge is to stall by itself: what others say of the change is tried in canary.e2e.
      watchdog: { allow_fault_injection: true, apply_ms: 1_000, jitter_ms: 0, notice_ms: 0 },
    },
  });
  cluster = await Cluster.create([
    { name: "worker", kind: "worker" },
    edge("at-row", "apply"),
    edge("at-batch", "rebuild"),
    edge("by-exception", "throw"),
  ]);
  worker = cluster.host("worker");
  atRow = cluster.host("at-row");
  await cluster.start("worker", ...EDGES);
  for (const id of ["one", "two"]) {
    const machine = await cluster.startMachine(id);
    await worker.publish(`${id}.test`, machine);
  }
  for (const name of EDGES) {
    await cluster.host(name).routes("one.test", "one");
    await cluster.host(name).routes("two.test", "two");
  }
  actorId = (await worker.status()).actor;
});

afterAll(async () => {
  await cluster.close();
});

test("every edge is bounced, names the change and serves with the row before", async () => {
  await execute(
    "UPDATE machines SET region = 'moved' WHERE id = 'two'",
    `UPDATE machines SET region = '${POISON}' WHERE id = 'one'`,
  );
  poisonVersion = (await worker.status()).heads[actorId] ?? 0;
  for (const name of EDGES) {
    const edge = cluster.host(name);
    const held = await edge.logged("change-held");
    expect(held).toMatchObject({
      level: "error",
      id: "c1",
      actorId,
      version: poisonVersion,
      table: "machines",
      key: "one",
      app: "one",
    });
    await edge.routes("one.test", "one");
    // The rest of the version is in force.
    await serves(edge, "two.test", "moved");
    expect(await regionOf(edge, "one.test")).toBe("test");
    expect(await edge.metric('patina_quarantine_holds{kind="change"}')).toBe(1);
  }
  // One bounce where the row is named, one more where a batch was.
  expect(bounces(atRow)).toHaveLength(1);
  expect(bounces(atRow)[0]).toMatchObject({
    kind: "stall",
    breadcrumb: { what: "row", key: "one", previous: { region: "test" } },
  });
  expect(bounces(cluster.host("by-exception"))).toMatchObject([{ kind: "crash" }]);
  const batch = bounces(cluster.host("at-batch"));
  expect(batch.map(({ breadcrumb }) => (breadcrumb as { what: string }).what)).toEqual([
    "batch",
    "row",
  ]);
});

test("the hold outlives a restart, and the list names actor, version, table, key and app", async () => {
  atRow.signal("SIGTERM");
  expect(await atRow.ending()).toMatchObject({ code: 0 });
  const list = ["quarantine", "list", "--config", atRow.configFile];
  const offline = await runPatina(list);
  expect(offline.stderr).toContain("does not run");
  const from = atRow.log.length;
  await cluster.start("at-row");
  // Until then the list comes from the file, and `show` finds nobody.
  await atRow.logged("replica-started", { from });
  const running = await runPatina(list);
  for (const { stdout } of [offline, running]) {
    expect(stdout).toMatch(
      new RegExp(`^c1 +held +machines one +app one +version ${poisonVersion} of ${actorId}`),
    );
  }
  const show = await runPatina(["quarantine", "show", "c1", "--config", atRow.configFile]);
  expect(JSON.parse(show.stdout)).toMatchObject({ previous: { id: "one", region: "test" } });
  const unknown = await runPatina(["quarantine", "show", "c9", "--config", atRow.configFile]);
  expect(unknown).toMatchObject({ stderr: expect.stringContaining("nothing is held as c9") });
  expect(unknown.code).not.toBe(0);
  await atRow.routes("one.test", "one");
  await serves(atRow, "one.test", "test");
});

test("a change that is released and still stalls is held again, for longer", async () => {
  const from = atRow.log.length;
  const released = await runPatina(["quarantine", "release", "c1", "--config", atRow.configFile]);
  expect(released).toMatchObject({ code: 0 });
  expect(await atRow.logged("hold-ended", { from })).toMatchObject({ why: "released" });
  const held = await atRow.logged("change-held", { from });
  expect(held).toMatchObject({ version: poisonVersion, key: "one", stalls: 2 });
  await atRow.routes("one.test", "one");
});

test("a down that stalls is in force all the same, and does not stall again", async () => {
  const from = atRow.log.length;
  await execute("UPDATE machines SET state = 'stopped' WHERE id = 'one'");
  expect(await atRow.logged("origin-held", { from })).toMatchObject({ actorId });
  await atRow.refuses("one.test", 503);
  await atRow.logged("table-current", { from });
  await atRow.refuses("one.test", 503);
  expect(bounces(atRow, from)).toHaveLength(1);
  // Everything of the origin is held now, and what goes down there still counts.
  await atRow.routes("two.test", "two");
  await execute("UPDATE machines SET state = 'stopped' WHERE id = 'two'");
  await atRow.refuses("two.test", 503);
  expect(await atRow.metric("patina_quarantine_denied_machines")).toBe(2);
});

test("a newer version of the row ends the hold where the origin is not held", async () => {
  const edge = cluster.host("by-exception");
  await until("the origin is held", async () => {
    return (await edge.metric('patina_quarantine_holds{kind="origin"}')) === 1;
  });
  const listed = await runPatina(["quarantine", "list", "--json", "--config", edge.configFile]);
  const { origins } = JSON.parse(listed.stdout) as { origins: { id: string }[] };
  await execute("UPDATE machines SET state = 'started', region = 'mended' WHERE id = 'one'");
  const from = edge.log.length;
  const id = origins[0]?.id ?? "";
  expect(await runPatina(["quarantine", "release", id, "--config", edge.configFile])).toMatchObject(
    {
      code: 0,
    },
  );
  await serves(edge, "one.test", "mended");
  expect(await edge.logged("hold-ended", { from })).toMatchObject({ why: "released" });
  await until("nothing is held any more", async () => {
    return (await edge.metric("patina_quarantine_holds")) === 0;
  });
  await edge.routes("one.test", "one");
});

test("a quarantine file that is cut short is set aside, and evidence still names what to hold", async () => {
  atRow.signal("SIGTERM");
  await atRow.ending();
  const file = join(atRow.folder, "state", "quarantine.json");
  writeFileSync(file, readFileSync(file, "utf8").slice(0, 100));
  const from = atRow.log.length;
  await cluster.start("at-row");
  await atRow.logged("quarantine-file-damaged", { from });
  expect(await atRow.logged("origin-held", { from })).toMatchObject({ actorId });
});

const POISON = "poison";

/** One transaction, so one version. */
async function execute(...statements: readonly string[]): Promise<void> {
  expect(await worker.api("POST", "/v1/transactions", statements)).toMatchObject({ status: 200 });
}

function bounces(edge: TestHost, from = 0): LogLine[] {
  return edge.log.slice(from).filter(({ event }) => event === "edge-bounced");
}

/** Region of the app's first candidate as the table has it; undefined while nobody says. */
async function regionOf(edge: TestHost, host: string): Promise<string | undefined> {
  const path = join(edge.folder, "state", "admin.sock");
  try {
    for await (const reply of askAdmin({ path }, { Edge: { Explain: { host } } })) {
      if (reply.kind !== "json") continue;
      return (reply.value as { candidates: { region: string }[] }).candidates[0]?.region;
    }
  } catch (error) {
    if ((error as PatinaError).code !== "ADMIN_UNREACHABLE") throw error;
  }
  return undefined;
}

async function serves(edge: TestHost, host: string, region: string): Promise<void> {
  await until(`${edge.options.name} serves ${host} from ${region}`, async () => {
    return (await regionOf(edge, host)) === region;
  });
}
