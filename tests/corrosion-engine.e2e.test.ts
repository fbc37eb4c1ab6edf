/** An edge that follows an API as Corrosion's, with the tables and the config that the document shows. */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parse, stringify } from "smol-toml";
import { afterAll, beforeAll, expect, test } from "vitest";
import { until } from "./asking-fixture.ts";
import { Cluster, type TestHost, type TestMachine } from "./cluster-fixture.ts";
import { ROOT } from "./source-tree.ts";

const text = readFileSync(join(ROOT, "docs/corrosion-engine.md"), "utf8");
const [, tables = ""] = /```sql\n(.*?)```/s.exec(text)!;
const [, config = ""] = /```toml\n(.*?)```/s.exec(text)!;
const { replica } = parse(config) as { replica: { corrosion: Record<string, unknown> } };

let cluster: Cluster;
let source: TestHost;
let edge: TestHost;
let machines: readonly TestMachine[];

beforeAll(async () => {
  cluster = await Cluster.create([
    { name: "source", kind: "worker", config: { db: { schema_paths: ["schemas"] } } },
    { name: "edge", kind: "edge" },
  ]);
  source = cluster.host("source");
  edge = cluster.host("edge");
  mkdirSync(join(source.folder, "schemas"));
  writeFileSync(join(source.folder, "schemas", "fleet.sql"), tables);
  const corrosion = { ...replica.corrosion, api: `http://${source.apiAddress}` };
  const { gossip: _unused, ...sections } = edge.config([]);
  const own = { ...sections, replica: { ...replica, node: "edge", corrosion } };
  writeFileSync(edge.configFile, stringify(own));
  machines = [await cluster.startMachine("one"), await cluster.startMachine("two")];
  await cluster.start("source");
  await write([
    "INSERT INTO fleet_hostnames (hostname, app_id) VALUES ('shop.test', 7)",
    ...statementsFor(machines[0]!),
  ]);
  await cluster.start("edge");
});

afterAll(async () => {
  await cluster.close();
});

test("it routes by the rows that there are, and by changes as they come", async () => {
  await edge.routes("shop.test", "one");
  await write([
    ...statementsFor(machines[1]!),
    "UPDATE fleet_machines SET state = 'stopped' WHERE id = 'one'",
  ]);
  await edge.routes("shop.test", "two");
  expect(await edge.metric("patina_corrosion_followed_tables")).toBe(3);
});

test("while the API is away it goes on by what it knows, and then hears what it missed", async () => {
  await source.end();
  await edge.logged("corrosion-not-followed");
  expect(await edge.request("shop.test")).toMatchObject({ status: 200, text: "two" });
  const from = edge.log.length;
  await cluster.start("source");
  await write(["UPDATE fleet_machines SET state = 'started' WHERE id = 'one'"]);
  await write(["UPDATE fleet_machines SET state = 'stopped' WHERE id = 'two'"]);
  await edge.routes("shop.test", "one");
  await edge.logged("corrosion-followed", { from });
});

test("a start without the API serves the last known table", async () => {
  await edge.end();
  await source.end();
  edge.start();
  await edge.ready();
  expect(await edge.request("shop.test")).toMatchObject({ status: 200, text: "one" });
  expect(await edge.metric("patina_route_stale")).toBe(1);
  await cluster.start("source");
  await until("it is current", async () => (await edge.metric("patina_route_stale")) === 0);
});

async function write(statements: readonly string[]): Promise<void> {
  const { status, text: answer } = await source.api("POST", "/v1/transactions", statements);
  expect({ status, answer }).toMatchObject({ status: 200 });
}

function statementsFor({ id, address }: TestMachine): string[] {
  const [host, port] = address.split(":");
  return [
    `INSERT INTO fleet_machines (id, app_id, node, region, state) VALUES ('${id}', 7, 'n', 'ams', 'started')`,
    `INSERT INTO fleet_services (machine_id, internal_port, address) VALUES ('${id}', ${port}, '${host}')`,
  ];
}
