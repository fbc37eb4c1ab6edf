/**
 * A cluster whose tables are full of rubbish starts over while it serves; and a replica that runs gets an
 * older database by a restore. No request fails in either.
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { tableFileOf } from "../proxy/table-file.ts";
import { EXIT } from "../watchdog/supervisor/exit-codes.ts";
import { until } from "./asking-fixture.ts";
import { Cluster, type TestHost, type TestMachine } from "./cluster-fixture.ts";
import { runPatina } from "./process-fixture.ts";
import { Traffic } from "./traffic-fixture.ts";

let cluster: Cluster;
let hosts: readonly TestHost[];
let machines: readonly TestMachine[];

beforeAll(async () => {
  cluster = await Cluster.create([
    { name: "one-worker", kind: "worker" },
    { name: "two-worker", kind: "worker", bootstrap: ["one-worker"] },
    { name: "edge", kind: "edge", bootstrap: ["one-worker"] },
  ]);
  hosts = ["one-worker", "two-worker", "edge"].map((name) => cluster.host(name));
  machines = [await cluster.startMachine("one"), await cluster.startMachine("two")];
  await cluster.start("one-worker", "two-worker", "edge");
  for (const [at, machine] of machines.entries()) {
    await hosts[at]!.publish(`${machine.id}.test`, machine);
    await edge().routes(`${machine.id}.test`, machine.id);
  }
});

afterAll(async () => {
  await cluster.close();
});

test("a meltdown is survived: every table is right again, and every request was answered", async () => {
  const traffic = new Traffic(edge());
  await traffic.flows();
  await melt();
  expect(await counts()).toEqual([202, 202, 202]);
  // The process that takes over goes by the table that the one before has saved.
  await until("the saved table has it, too", () => {
    return readFileSync(tableFileOf(edge().databaseFile), "utf8").includes("ghost-199");
  });
  const refused = await runPatina(["rebuild", "7", "--config", edge().configFile]);
  expect(refused.code).toBe(EXIT.config);
  expect(refused.stderr).toContain("only what is published anew will be in it");
  await rebuild(edge());
  for (const [at, machine] of machines.entries()) await rebuild(hosts[at]!, machine);
  await until("every replica has both machines", async () => {
    return (await counts()).every((count) => count === 2);
  });
  // The rubbish is counted too, and will never come again: that takes somebody's word.
  expect(existsSync(`${edge().databaseFile}.rebuilding`)).toBe(true);
  await traffic.flows();
  const finished = await runPatina(["rebuild", "finish", "--yes", "--config", edge().configFile]);
  expect(finished).toMatchObject({ code: EXIT.ok });
  await edge().logged("rebuild-done");
  await edge().refuses("ghost.test", 404);
  await traffic.flows();
  expect(await traffic.stop()).toEqual([]);
  await edge().routes("two.test", "two");
  // Typed again it only publishes, and that is no news.
  const again = await rebuild(hosts[0]!, machines[0]);
  expect(again).toContain("of generation 7 already");
  expect(again).toContain("one: no change");
});

test("a replica that runs gets the database of a checkpoint", async () => {
  const worker = hosts[0]!;
  const file = join(cluster.folder, "checkpoint");
  const { configFile } = worker;
  expect(await runPatina(["backup", file, "--config", configFile])).toMatchObject({ code: 0 });
  const { actor } = await worker.status();
  const from = worker.log.length;
  const restore = ["restore", file, "--self-actor-id", "--config", configFile];
  const refused = await runPatina(restore);
  expect(refused.stderr).toContain("rows that only it has are lost");
  expect(refused.code).toBe(EXIT.config);
  const done = await runPatina([...restore, "--yes"]);
  expect(done).toMatchObject({ code: EXIT.ok });
  await worker.logged("database-replaced", { from });
  await until("it is the same replica", async () => (await worker.status()).actor === actor);
  expect(existsSync(`${worker.databaseFile}.before`)).toBe(true);
  await edge().routes("one.test", "one");
});

function edge(): TestHost {
  return hosts[2]!;
}

/** 200 machines that nobody runs, and wrong words in the rows of those that run. */
async function melt(): Promise<void> {
  const numbers = Array.from({ length: 200 }, (_, at) => at);
  const statements = [
    "UPDATE machines SET region = 'nowhere'",
    "UPDATE apps SET name = 'rubbish'",
    "INSERT INTO apps (id, name) VALUES ('ghost', 'ghost')",
    "INSERT INTO hostnames (hostname, app_id) VALUES ('ghost.test', 'ghost')",
    ...numbers.map((at) => `INSERT INTO machines (id, app_id) VALUES ('ghost-${at}', 'ghost')`),
  ];
  const { status, text } = await hosts[0]!.api("POST", "/v1/transactions", statements);
  expect({ status, text }).toMatchObject({ status: 200 });
  await until("it is everywhere", async () => (await counts()).every((count) => count === 202));
}

async function counts(): Promise<number[]> {
  return await Promise.all(
    hosts.map(async (host) => {
      const sql = "SELECT count(*) FROM machines";
      const { text } = await host.api("POST", "/v1/queries", sql).catch(() => ({ text: "" }));
      return Number(/"row":\[1,\[(\d+)\]\]/.exec(text)?.[1] ?? -1);
    }),
  );
}

async function rebuild(host: TestHost, machine?: TestMachine): Promise<string> {
  const flags: string[] = [];
  if (machine !== undefined) {
    const { id } = machine;
    const file = join(host.folder, "truth.json");
    const truth = {
      apps: [{ id, name: id }],
      hostnames: [{ id: `${id}.test`, app: id }],
      machines: [{ id, ...(machine.document(id) as object) }],
    };
    writeFileSync(file, JSON.stringify(truth));
    flags.push("--from", file);
  }
  const args = ["rebuild", "7", "--yes", "--config", host.configFile, ...flags];
  const { code, stdout, stderr } = await runPatina(args);
  // What went wrong is in the logs alone.
  const said = code === EXIT.ok ? "" : `${stderr}\n${host.tail()}`;
  expect({ code, said }).toEqual({ code: EXIT.ok, said: "" });
  return stdout;
}
