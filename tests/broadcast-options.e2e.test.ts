/**
 * Two workers that broadcast by Plumtree and compress with a dictionary, one of which lacks the
 * dictionary at first.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { DICTIONARY, DICTIONARY_ID } from "../replica/driver/compression/dictionary-fixture.ts";
import { EXIT } from "../watchdog/supervisor/exit-codes.ts";
import { until } from "./asking-fixture.ts";
import { Cluster, type TestHost } from "./cluster-fixture.ts";
import { runPatina } from "./process-fixture.ts";

let cluster: Cluster;
let writer: TestHost;
let reader: TestHost;

beforeAll(async () => {
  const db = { path: "./patina.db", schema_paths: ["./schema.sql"] };
  const gossip = (compression: object) => ({ broadcast: "plumtree", compression });
  cluster = await Cluster.create([
    {
      name: "writer",
      kind: "worker",
      config: { db, gossip: gossip({ enabled: true, level: 19, dict_file: "./own.zdict" }) },
    },
    {
      name: "reader",
      kind: "worker",
      bootstrap: ["writer"],
      config: { db, gossip: gossip({ enabled: true, dict_dir: "./dictionaries" }) },
    },
  ]);
  writer = cluster.host("writer");
  reader = cluster.host("reader");
  for (const { folder } of [writer, reader]) writeFileSync(join(folder, "schema.sql"), NOTES);
  writeFileSync(join(writer.folder, "own.zdict"), DICTIONARY);
  mkdirSync(join(reader.folder, "dictionaries"));
  await cluster.start("writer", "reader");
  for (const host of [writer, reader]) {
    await until("the other as an eager peer", async () => (await links(host)).length === 1);
  }
});

afterAll(async () => {
  await cluster.close();
});

test("links and counters of the tree are shown, in Corrosion's field names", async () => {
  const { actor } = await reader.status();
  const ending = await ask(writer, "plumtree", "stats");
  expect(ending.code).toBe(EXIT.ok);
  expect(JSON.parse(ending.stdout)).toMatchObject({
    eager_peers: [actor],
    lazy_peers: [],
    known_peers: 1,
    gossip_sent: expect.any(Number),
  });
  await counts(writer, "corro_plumtree_eager_peers", 1);
});

test("a change of a dictionary that is lacking is counted, and comes by repair all the same", async () => {
  await write("one");
  await until("it is there", async () => (await notes()).includes("one"));
  const errors = 'corro_decompression_errors_total{traffic="broadcast"}';
  await counts(reader, errors, 1);
  await counts(reader, 'corro_sync_changes_recv{traffic="sync"}', 1);
});

test("once the dictionary is there and read anew, changes come by the tree, compressed", async () => {
  writeFileSync(join(reader.folder, "dictionaries", `${DICTIONARY_ID}.zdict`), DICTIONARY);
  expect((await ask(reader, "reload-dicts")).stderr).toContain("dictionaries loaded: 1");
  const errors = 'corro_decompression_errors_total{traffic="broadcast"}';
  const errorsBefore = await reader.metric(errors);
  const gossip = 'corro_plumtree_messages{msg_type="gossip"}';
  const before = await reader.metric(gossip);
  const extraBefore = await reader.metric("corro_decompression_bytes_extra");
  await write("two");
  await until("it is there", async () => (await notes()).includes("two"));
  await until("it came by the tree", async () => (await reader.metric(gossip)) > before);
  const extra = await reader.metric("corro_decompression_bytes_extra");
  expect(extra).toBeGreaterThan(extraBefore);
  expect(await reader.metric(errors)).toBe(errorsBefore);
  await counts(writer, 'corro_compression_used_total{traffic="broadcast"}', 2);
  await counts(writer, "corro_compression_bytes_saved", 1);
  await counts(writer, "corro_plumtree_send_spawn", 1);
  expect(await writer.metric("corro_broadcast_recv_count")).toBe(0);
});

test("answers of repair are compressed for a replica that takes such", async () => {
  reader.signal("SIGTERM");
  expect((await reader.ending()).code).toBe(EXIT.ok);
  await write("long ".repeat(200));
  await cluster.start("reader");
  await until("it is there", async () => (await notes()).includes("long"));
  await counts(writer, 'corro_compression_used_total{traffic="sync"}', 1);
});

/** Waits until a metric is at least so much; a scrape shows what was counted a second ago. */
async function counts(host: TestHost, metric: string, least: number): Promise<void> {
  await until(`${metric} of ${least}`, async () => (await host.metric(metric)) >= least);
}

async function links(host: TestHost): Promise<unknown[]> {
  const { stdout } = await ask(host, "plumtree", "stats");
  return (JSON.parse(stdout) as { eager_peers: unknown[] }).eager_peers;
}

/** A row whose words the dictionary was trained on, so that it gets smaller with it. */
async function write(id: string): Promise<void> {
  const text = "machine-99 state started region ams app app-7 note load check passing";
  const statement = ["INSERT INTO notes VALUES (?, ?)", [id, text]];
  expect(await writer.api("POST", "/v1/transactions", [statement])).toMatchObject({ status: 200 });
}

async function notes(): Promise<string> {
  return (await reader.api("POST", "/v1/queries", "SELECT id FROM notes")).text;
}

async function ask(host: TestHost, ...args: readonly string[]) {
  return await runPatina(["-c", host.configFile, ...args]);
}

const NOTES = "CREATE TABLE notes (id TEXT NOT NULL PRIMARY KEY, text TEXT);\n";
