/** The commands that ask and tell a running replica, on a worker, its peer and an edge. */
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { stringify } from "smol-toml";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { EXIT } from "../watchdog/supervisor/exit-codes.ts";
import { ROOT } from "./source-tree.ts";
import { until } from "./asking-fixture.ts";
import { Cluster, type TestHost } from "./cluster-fixture.ts";
import { runPatina, type Ending } from "./process-fixture.ts";

let cluster: Cluster;
let worker: TestHost;
let edge: TestHost;

beforeAll(async () => {
  const schema = { db: { path: "./patina.db", schema_paths: ["./schema.sql"] } };
  cluster = await Cluster.create([
    { name: "worker", kind: "worker", config: schema },
    { name: "edge", kind: "edge", bootstrap: ["worker"] },
  ]);
  worker = cluster.host("worker");
  edge = cluster.host("edge");
  writeFileSync(join(worker.folder, "schema.sql"), NOTES);
  await cluster.start("worker", "edge");
  await until("the two know each other", async () => {
    const all = [await worker.status(), await edge.status()];
    return all.every(({ members }) => members.some(({ state }) => state === "alive"));
  });
});

afterAll(async () => {
  await cluster.close();
});

describe("cluster", () => {
  test("members and states are printed as Corrosion has them", async () => {
    const members = valuesOf(await ask(worker, "cluster", "members"));
    expect(members).toEqual([
      {
        id: expect.any(String),
        state: expect.objectContaining({ addr: edge.gossip, cluster_id: 0, member_id: null }),
        rtts: expect.any(Array),
      },
    ]);
    expect(valuesOf(await ask(worker, "cluster", "membership-states"))).toEqual([
      {
        id: expect.objectContaining({ addr: edge.gossip }),
        incarnation: expect.any(Number),
        state: "Alive",
      },
    ]);
  });

  test("a rejoin takes a newer identity, which the peer hears of", async () => {
    const stampOf = async (): Promise<unknown> => {
      const [state] = valuesOf(await ask(edge, "cluster", "membership-states"));
      return (state as { id: { ts: string } }).id.ts;
    };
    const before = await stampOf();
    expect((await ask(worker, "cluster", "rejoin")).stderr).toContain("renewed identity");
    await until("the newer identity", async () => (await stampOf()) !== before);
  });

  test("another cluster id parts two replicas, over a restart too, and the first joins again", async () => {
    expect((await ask(edge, "cluster", "set-id", "9")).code).toBe(EXIT.ok);
    const clusterOfEdge = async (): Promise<unknown> => {
      const [member] = valuesOf(await ask(worker, "cluster", "members"));
      return (member as { state: { cluster_id: number } } | undefined)?.state.cluster_id;
    };
    await until("the other id", async () => (await clusterOfEdge()) === 9);
    await stop(edge);
    // Not ready before it is back: alone under its id, it has nobody to learn from.
    edge.start();
    await until("the kept id", async () => (await clusterOfEdge()) === 9);
    await ask(edge, "cluster", "set-id", "0");
    await edge.ready();
    await until("the first id", async () => (await clusterOfEdge()) === 0);
    expect((await ask(edge, "cluster", "set-id", "65536")).stderr).toContain("0 to 65535");
  });
});

describe("sync and actor", () => {
  test("the sync state has the heads, and nothing is needed", async () => {
    const [state] = valuesOf(await ask(worker, "sync", "generate"));
    const { actor } = await worker.status();
    expect(state).toMatchObject({ actor_id: actor, need: {}, partial_need: {} });
    expect((state as { heads: Record<string, number> }).heads[actor]).toBeGreaterThan(0);
  });

  test("the books agree with the rows, and there is nothing to mend", async () => {
    const ending = await ask(edge, "sync", "check-bookie-consistency");
    expect(ending.code).toBe(EXIT.ok);
    expect(valuesOf(ending)).toMatchObject([{ ok: true, findings: [], db_actors: 2 }]);
    expect((await ask(edge, "sync", "reconcile-gaps")).code).toBe(EXIT.ok);
  });

  test("a version is current, unknown or of nobody", async () => {
    const { actor } = await worker.status();
    expect(valuesOf(await ask(edge, "actor", "version", actor, "1"))).toEqual([
      { current: { version: 1 } },
    ]);
    expect(valuesOf(await ask(edge, "actor", "version", actor, "99999"))).toEqual([null]);
    const nobody = "00000000-0000-4000-8000-000000000000";
    expect(lineOf(await ask(edge, "actor", "version", nobody, "1"))).toContain("unknown actor");
    expect((await ask(edge, "actor", "version", "no one", "1")).stderr).toContain("A UUID is");
    const merge = await ask(
      edge,
      "sync",
      "process-buffered-changes",
      actor,
      "1",
      "--chunk-size",
      "9",
    );
    expect(lineOf(merge)).toContain("nothing is buffered");
  });
});

test("a reload brings new tables, and a bad file changes nothing", async () => {
  writeFileSync(join(worker.folder, "schema.sql"), `${NOTES}${MORE}`);
  expect((await ask(worker, "reload")).stderr).toContain("1 tables created");
  const insert = "INSERT INTO more (id) VALUES ('x')";
  expect((await ask(worker, "exec", insert)).stdout).toMatch(/^Rows affected: 1/);
  writeFileSync(join(worker.folder, "schema.sql"), `${NOTES}CREATE TABLE bad (x);`);
  const refused = await ask(worker, "reload");
  expect(refused.code).toBe(EXIT.refused);
  expect(lineOf(refused)).toContain("bad");
  writeFileSync(join(worker.folder, "schema.sql"), `${NOTES}${MORE}`);
});

test("so does the signal for it, whose end the log tells", async () => {
  const said = (event: string, text: string) => (): Promise<boolean> =>
    Promise.resolve(
      worker.log.some((line) => line.event === event && String(line["msg"]).includes(text)),
    );
  writeFileSync(join(worker.folder, "schema.sql"), `${NOTES}${MORE}CREATE TABLE bad (\n x);`);
  worker.signal("SIGHUP");
  await until("a refusal", said("schema-not-reloaded", "schema.sql:3: table"));
  const last = "CREATE TABLE last (id TEXT NOT NULL PRIMARY KEY);\n";
  writeFileSync(join(worker.folder, "schema.sql"), `${NOTES}${MORE}${last}`);
  worker.signal("SIGHUP");
  await until("the table", said("schema-reloaded", "1 tables created"));
  const insert = "INSERT INTO last (id) VALUES ('x')";
  expect((await ask(worker, "exec", insert)).stdout).toMatch(/^Rows affected: 1/);
});

test("a schema is planned and applied on a running replica, or on its file, or refused as a whole", async () => {
  const file = join(cluster.folder, "planned.sql");
  const planned = "CREATE TABLE planned (id TEXT NOT NULL PRIMARY KEY, v);";
  writeFileSync(file, planned);
  const plan = await ask(worker, "schema", "plan", file);
  expect(plan.code).toBe(EXIT.ok);
  expect(plan.stdout).toMatch(/^planned {2}\(.*planned\.sql:1\)\n {2}CREATE TABLE planned/);
  expect((await ask(worker, "query", "SELECT id FROM planned")).code).not.toBe(EXIT.ok);
  expect((await ask(worker, "schema", "apply", file)).stdout).toContain("1 tables created");
  const insert = "INSERT INTO planned (id) VALUES ('x')";
  expect((await ask(worker, "exec", insert)).stdout).toMatch(/^Rows affected: 1/);
  const second = join(cluster.folder, "second.sql");
  writeFileSync(second, "CREATE TABLE second (id TEXT NOT NULL PRIMARY KEY);\n");
  writeFileSync(file, "\nCREATE TABLE planned (id TEXT NOT NULL PRIMARY KEY,\n v INTEGER);");
  const refused = await ask(worker, "schema", "apply", second, file);
  expect(refused.code).toBe(EXIT.config);
  expect(lineOf(refused)).toMatch(/planned\.sql:3: table "planned": .*"v" cannot be changed/);
  expect((await ask(worker, "query", "SELECT id FROM second")).code).not.toBe(EXIT.ok);
  const nowhere = ["--admin-path", join(cluster.folder, "nobody.sock")];
  expect((await ask(worker, ...nowhere, "schema", "apply", second)).code).toBe(EXIT.storeLocked);
  await stop(worker);
  expect((await ask(worker, "schema", "apply", second)).stdout).toContain("1 tables created");
  worker.start();
  await worker.ready();
  expect((await ask(worker, "query", "SELECT id FROM second")).code).toBe(EXIT.ok);
});

test("subscriptions are listed and shown, by hash and by id, in Corrosion's field names", async () => {
  expect(valuesOf(await ask(worker, "subs", "list"))).toEqual([[]]);
  const aborter = new AbortController();
  const response = await fetch(`http://${worker.apiAddress}/v1/subscriptions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify("SELECT id,\n  text\nFROM notes"),
    signal: aborter.signal,
  });
  const id = response.headers.get("corro-query-id") ?? "";
  const hash = response.headers.get("corro-query-hash") ?? "";
  const common = { id, hash, ms_per_sec_cost: 0, readers: 1 };
  expect(valuesOf(await ask(worker, "subs", "list"))).toEqual([
    [{ ...common, sql: "SELECT id, text FROM notes" }],
  ]);
  const info = {
    ...common,
    path: join(worker.folder, "subscriptions", id.replaceAll("-", "")),
    last_change_id: 0,
    original_query: "SELECT id, text FROM notes",
    statements: [{ notes: expect.stringMatching(/^SELECT id[^]*WHERE .*"id" IN \(\?\)/) }],
  };
  expect(valuesOf(await ask(worker, "subs", "info", "--hash", hash))).toEqual([info]);
  expect(valuesOf(await ask(worker, "subs", "info", "--id", id))).toEqual([info]);
  expect(lineOf(await ask(worker, "subs", "info", "--hash", "0".repeat(16)))).toContain("unknown");
  expect(lineOf(await ask(worker, "subs", "info"))).toContain("specify hash or id");
  aborter.abort();
});

test("the level of the log changes while running, and goes back", async () => {
  expect((await ask(worker, "log", "set", "debug")).code).toBe(EXIT.ok);
  await until("a line of debug", async () => {
    await ask(worker, "status");
    return worker.log.some(({ level }) => level === "debug");
  });
  expect((await ask(worker, "log", "reset")).code).toBe(EXIT.ok);
  expect(lineOf(await ask(worker, "log", "set", "loud"))).toContain("names no level");
});

test("the status is a summary for people, and everything for programs", async () => {
  const text = (await ask(worker, "status")).stdout;
  expect(text).toMatch(/^actor {4}[0-9a-f-]{36} {2}incarnation \d+\n/);
  expect(text).toContain("needs    nothing");
  expect(text).toMatch(new RegExp(`${edge.gossip} +alive`));
  const value = JSON.parse((await ask(worker, "status", "--json")).stdout) as object;
  expect(value).toMatchObject({ gossip: worker.gossip, store: { queued: expect.any(Number) } });
});

test("an edge lists its routes and explains one; an agent has none", async () => {
  await worker.api("PUT", "/v1/apps/shop", { name: "Shop" });
  await worker.api("PUT", "/v1/hostnames/shop.test", { app: "shop" });
  for (const [id, state] of [
    ["one", "started"],
    ["two", "stopped"],
  ]) {
    await worker.api("PUT", `/v1/machines/${id}`, {
      app: "shop",
      region: "test",
      state,
      services: [{ name: "web", address: "127.0.0.1:9", protocol: "http", soft_limit: 5 }],
      checks: [],
    });
  }
  await until("the route", async () => /nearest one/.test((await ask(edge, "routes")).stdout));
  expect((await ask(edge, "routes")).stdout).toMatch(
    /^shop\.test {2}shop {2}1 taking traffic {2}1 not {2}nearest one \(test, [\d.]+ ms\)\n$/,
  );
  const explained = await ask(edge, "explain", "SHOP.test:80");
  expect(explained.stdout).toMatch(/1\. {2}one\/web {2}127\.0\.0\.1:9 .*0 in flight of 5\/any/);
  expect(explained.stdout).toContain('two/web  the machine\'s state is "stopped"');
  expect((await ask(edge, "explain", "nobody.test")).stdout).toContain("no app");
  expect(lineOf(await ask(worker, "routes"))).toContain("routes nothing");
});

test("a captured message is shown as JSON, and what is none is told so", async () => {
  const [vector] = JSON.parse(readFileSync(join(ROOT, "tests/vectors/swim.json"), "utf8")) as {
    hex: string;
    decoded: unknown;
  }[];
  const { hex, decoded } = vector!;
  const shown = await runPatina(["debug", "decode", "swim", "-"], { stdin: `${hex}\n` });
  expect(JSON.parse(shown.stdout)).toEqual(decoded);
  expect((await runPatina(["debug", "decode", "sync", hex])).code).toBe(EXIT.config);
  expect(lineOf(await runPatina(["debug", "decode", "swim", "xyz"]))).toContain("hexadecimal");
});

test("links of trees are an error where the method has none; dictionaries can be read anew", async () => {
  expect(lineOf(await ask(worker, "plumtree", "stats"))).toContain("by the method gossip");
  expect((await ask(worker, "reload-dicts")).code).toBe(EXIT.ok);
});

test("the socket is the owner's, and a replica that is gone is told apart from one that refuses", async () => {
  const socket = join(worker.folder, "state", "admin.sock");
  expect(statSync(socket).mode & 0o777).toBe(0o600);
  const nowhere = ["--admin-path", join(cluster.folder, "nobody.sock")];
  const ending = await runPatina([...nowhere, "cluster", "members"]);
  expect(ending.code).toBe(EXIT.unreachable);
  expect(lineOf(ending)).toMatch(/^patina: .*nobody\.sock: .*--admin-path/);
});

test("a backup of a running replica starts another, and is refused where one runs", async () => {
  const file = join(cluster.folder, "worker.backup");
  const taken = await ask(worker, "backup", file);
  expect(taken).toMatchObject({ code: EXIT.ok, stdout: expect.stringContaining("bytes") });
  expect((await ask(worker, "backup", file)).code).not.toBe(EXIT.ok);
  // With the file alone nobody can be told to let go of it.
  const refused = await runPatina(["--db-path", worker.databaseFile, "restore", file, "--yes"]);
  expect(refused.code).toBe(EXIT.storeLocked);
  const { actor } = await worker.status();
  await stop(worker);
  expect(existsSync(join(worker.folder, "state", "admin.sock"))).toBe(false);
  const kept = join(worker.folder, "subscriptions", "0".repeat(32));
  mkdirSync(kept, { recursive: true });
  const unasked = await ask(worker, "restore", file);
  expect(unasked.code).toBe(EXIT.config);
  expect(lineOf(unasked)).toContain("--yes");
  expect(unasked.stderr).toMatch(/^this replaces the database .* with .*worker\.backup, taken /);
  const restored = await ask(worker, "restore", file, "--yes");
  expect(restored).toMatchObject({ code: EXIT.ok, stdout: expect.stringContaining("as actor") });
  expect(existsSync(kept)).toBe(false);
  await cluster.start("worker");
  const status = await worker.status();
  expect(status.actor).not.toBe(actor);
  expect(status.heads[actor]).toBeGreaterThan(0);
  expect((await ask(worker, "query", "SELECT id FROM apps")).stdout).toBe("shop\n");
});

test("a config file of Corrosion's is taken as it is, with a warning for each key left out", async () => {
  const file = join(cluster.folder, "corrosion.toml");
  const folder = join(cluster.folder, "corrosion");
  const config = {
    db: { path: `${folder}/corrosion.db`, schema_paths: [], cache_size_kib: -1_048_576 },
    gossip: { addr: "127.0.0.1:0", bootstrap: [], plaintext: true, disable_gso: true },
    api: { bind_addr: ["127.0.0.1:0"], pg: { addr: "127.0.0.1:0" } },
    admin: { uds_path: `${folder}/admin.sock` },
    perf: { apply_channel_len: 2048, apply_queue_timeout: 10 },
    telemetry: { prometheus: { addr: "127.0.0.1:0" } },
    log: { format: "json", colors: false },
  };
  writeFileSync(file, stringify(config));
  const checked = await runPatina(["-c", file, "check"]);
  expect(checked.code).toBe(EXIT.ok);
  const warned = checked.stderr.split("\n").filter((line) => line.includes("a key of Corrosion's"));
  const keys = warned.map((line) => /: ([a-z._-]+): a key/.exec(line)?.[1] ?? "");
  expect(keys.toSorted((one, other) => (one < other ? -1 : 1))).toEqual([
    "api.pg",
    "db.cache_size_kib",
    "gossip.disable_gso",
    "log.colors",
    "log.format",
    "perf.apply_channel_len",
    "perf.apply_queue_timeout",
  ]);
  expect(JSON.parse(checked.stdout)).toMatchObject({
    api: { addr: ["127.0.0.1:0"] },
    admin: { path: `${folder}/admin.sock` },
    gossip: { plaintext: true },
  });
  const unknown = join(cluster.folder, "unknown.toml");
  writeFileSync(unknown, `${readFileSync(file, "utf8")}\n[gosip]\naddr = "x"\n`);
  const refused = await runPatina(["--config", unknown, "check"]);
  expect(refused.code).toBe(EXIT.config);
  expect(lineOf(refused)).toContain("gosip: unknown key");
  const taken = await runPatina(["check", "--agent", "--config", unknown]);
  expect(taken.code).toBe(EXIT.ok);
  expect(taken.stderr).toContain("gosip: unknown key, left out");
});

/** Runs a command on a host's config file, flags before the command as Corrosion takes them. */
async function ask(host: TestHost, ...args: readonly string[]): Promise<Ending> {
  return await runPatina(["-c", host.configFile, ...args]);
}

/** Ends a host in order. */
async function stop(host: TestHost): Promise<void> {
  host.signal("SIGTERM");
  expect((await host.ending()).code).toBe(EXIT.ok);
}

/** The JSON values printed one after another. */
function valuesOf(ending: Ending): unknown[] {
  return ending.stdout
    .split(/\n(?=[{["\dn])/)
    .filter((text) => text.trim() !== "")
    .map((text) => JSON.parse(text) as unknown);
}

function lineOf(ending: Ending): string {
  const lines = ending.stderr.split("\n").filter((line) => line.startsWith("patina: "));
  expect(lines).toHaveLength(1);
  return lines[0] ?? "";
}

const NOTES = "CREATE TABLE notes (id TEXT NOT NULL PRIMARY KEY, text TEXT);\n";
const MORE = "CREATE TABLE more (id TEXT NOT NULL PRIMARY KEY, text TEXT);\n";
