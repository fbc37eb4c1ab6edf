/**
 * Replicas in one process on loopback, each with a store worker: what starts and ends bring about,
 * and that a crowd of them agrees. `PATINA_CROWD=30` makes the crowd Corrosion's.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { createLogger } from "#base/logger.ts";
import { MetricSlots } from "#base/metric-slots.ts";
import { createPrng } from "#base/prng.ts";
import { freePorts } from "../bin/demo/ports.ts";
import { crsqlitePath, sqlDeadlinePath } from "../bin/setup/paths.js";
import { apiSection, dbSection, gossipSection, perfSection, replicaSection } from "./config.ts";
import {
  createCertificateAuthority,
  issueClientCertificate,
  issueServerCertificate,
  type CertificatePems,
} from "./driver/certificates/certificates.ts";
import { StoreClient } from "./driver/store/store-client.ts";
import { startStore, type StoreThread } from "./driver/store/store-thread.ts";
import { REPLICA_METRICS } from "./metrics.ts";
import { startReplica, type Replica } from "./replica.ts";

/** 30 replicas with ten links each and 800 rows between them take 25 s of CPU. */
const CROWD = Number(process.env["PATINA_CROWD"] ?? 12);
const CROWD_LINKS = Math.ceil(CROWD / 3);
const CROWD_ROWS = Math.ceil((CROWD * 800) / 30);

/** `PATINA_STORM=1` runs the storm in its whole size. */
const STORM =
  process.env["PATINA_STORM"] === "1"
    ? { replicas: 10, workers: 4, machines: 50 }
    : { replicas: 3, workers: 2, machines: 20 };
/** A row that is no worker's. */
const DOOMED = 999_999;

const DAY_MS = 86_400_000;
let issuer: CertificatePems;
const folder = mkdtempSync(join(tmpdir(), "patina-replica-"));
const closers: (() => Promise<void>)[] = [];

beforeAll(writeCertificates);
afterAll(() => rmSync(folder, { recursive: true, force: true }));
afterEach(async () => {
  for (const close of closers.splice(0).toReversed()) await close();
});

test("alone it counts as caught up; with a bootstrap name that does not resolve it does not", async () => {
  const alone = await startHost("alone", {});
  expect(alone.events).toEqual(["synced"]);
  const lost = await startHost("lost", { bootstrap: ["nobody.invalid:8787"] });
  expect(lost.events).toEqual([]);
});

test("a start that fails keeps the members that were saved", async () => {
  const seed = await startHost("seed", {});
  const first = await startHost("keeper", { bootstrap: [seed.replica.gossipAddress] });
  await first.waitFor("synced");
  await first.stop();
  expect((await membersIn("keeper")).map(({ actorId }) => actorId)).toEqual([seed.replica.actorId]);

  const taken = createServer().listen(0, "127.0.0.1");
  await once(taken, "listening");
  const apiPort = (taken.address() as AddressInfo).port;
  await expect(startHost("keeper", { apiPort })).rejects.toMatchObject({ code: "API_BIND" });
  taken.close();
  expect((await membersIn("keeper")).map(({ actorId }) => actorId)).toEqual([seed.replica.actorId]);
});

test("it finds the cluster again through the members it saved", async () => {
  const seed = await startHost("seed-2", {});
  const first = await startHost("finder", { bootstrap: [seed.replica.gossipAddress] });
  await first.waitFor("synced");
  await first.stop();
  const second = await startHost("finder", {});
  await second.waitFor(`up ${seed.replica.actorId}`);
});

test("with an expired certificate it goes on reading, says so, writes nothing at retries, and joins once renewed", async () => {
  const seed = await startHost("seed-4", {});
  const files = ["server.pem", "server.key", "client.pem", "client.key"] as const;
  const expired = await issueClientCertificate(issuer, {
    nowMs: Date.now() - 40 * DAY_MS,
    validityDays: 30,
  });
  for (const file of files) {
    writeFileSync(join(folder, `old-${file}`), readFileSync(join(folder, file)));
  }
  writeFileSync(join(folder, "old-client.pem"), expired.certificatePem);
  writeFileSync(join(folder, "old-client.key"), expired.keyPem);
  const bootstrap = [seed.replica.gossipAddress];
  const host = await startHost("expired", { bootstrap, certificates: "old-" });
  const { actorId } = host.replica;
  expect(host.replica.status()).toMatchObject({ certificate: { isExpired: true } });
  const failures = async (count: number): Promise<void> => {
    while (host.metric("patina_quic_dials_failed_total") < count) await setTimeout(20);
  };
  await host.write(1, "own");
  await host.rowCount(1);
  await failures(1);
  const headOf = (): number | undefined =>
    (host.replica.status() as { heads: Record<string, number> }).heads[actorId];
  const before = headOf();
  await failures(2);
  expect(headOf()).toBe(before);
  expect(host.events).not.toContain(`up ${seed.replica.actorId}`);
  for (const file of files) {
    writeFileSync(join(folder, `old-${file}`), readFileSync(join(folder, file)));
  }
  await host.waitFor(`up ${seed.replica.actorId}`);
  expect(host.replica.status()).toMatchObject({ certificate: { isExpired: false } });
  await seed.rowCount(1);
});

test("a host whose database was lost has its new actor id in its row, whichever is greater", async () => {
  const seed = await startHost("seed-3", {});
  const bootstrap = [seed.replica.gossipAddress];
  const actorIds: string[] = [];
  // The greater of two equally old values wins: of several losses in a row some go either way.
  for (const life of ["a", "b", "c", "d"]) {
    const host = await startHost("loser", { bootstrap, life });
    await host.waitFor("synced");
    actorIds.push(host.replica.actorId);
    await host.rowNames(host.replica.actorId);
    await seed.rowNames(host.replica.actorId);
    await host.stop();
  }
  expect(new Set(actorIds).size).toBe(4);
});

test(
  `${CROWD} replicas that start together, write together and know a few others each agree`,
  { timeout: 300_000 },
  async ({ signal }) => {
    // Corrosion's stress test. Every link is drawn at random, so some know none that know them.
    const prng = createPrng(Math.floor(Math.random() * 2 ** 32));
    const ports = await freePorts(CROWD);
    const crowd = await Promise.all(
      ports.map((gossipPort, at) => {
        const others = ports.filter((port) => port !== gossipPort);
        const bootstrap = prng.sample(others, CROWD_LINKS).map((port) => `127.0.0.1:${port}`);
        return startHost(`crowd-${at}`, { gossipPort, bootstrap });
      }),
    );
    await Promise.all(
      crowd.map(async (host, at) => {
        for (let id = at; id < CROWD_ROWS; id += CROWD) await host.write(id, `by ${at}`);
      }),
    );
    await Promise.all(crowd.map((host) => host.rowCount(CROWD_ROWS)));
    const standings = (): Standing[] => crowd.map(({ replica }) => standingOf(replica));
    await untilAgreed(standings, signal);
    const tables = await Promise.all(crowd.map((host) => host.rows()));
    expect(tables[0]).toHaveLength(CROWD_ROWS + CROWD);
    for (const table of tables) expect(table).toEqual(tables[0]);
    await Promise.all(crowd.map((host) => host.stop()));
  },
);

test(
  `${STORM.workers} of ${STORM.replicas} replicas write in a loop: a delete elsewhere is known everywhere meanwhile`,
  { timeout: 300_000 },
  async () => {
    const bytesPerSecond = 65_536;
    const brake = { rows_per_second_min: 5, rows_per_second_max: 5 };
    const startedMs = performance.now();
    const seed = await startHost("storm-0", { brake, bytesPerSecond });
    const bootstrap = [seed.replica.gossipAddress];
    const hosts = [seed];
    for (let at = 1; at < STORM.replicas; at += 1) {
      hosts.push(await startHost(`storm-${at}`, { bootstrap, brake, bytesPerSecond }));
    }
    for (const host of hosts) {
      for (const { replica } of hosts)
        if (replica !== host.replica) await host.waitFor(`up ${replica.actorId}`);
    }
    await seed.write(DOOMED, "a machine that goes down");
    await Promise.all(hosts.map((host) => host.rowIs(DOOMED, "a machine that goes down")));

    const workers = hosts.slice(-STORM.workers);
    const storm = new AbortController();
    const loops = workers.map((host, at) =>
      rewriteInLoop(host.replica.apiAddress, at, storm.signal),
    );
    // Each has used its burst of ten seconds up, so what it writes from here on waits.
    await Promise.all(loops.map(({ turns }) => turns(10)));
    for (const { replica } of workers) expect(brakedBy(replica)).toContain(replica.actorId);
    const before = loops.map(({ count }) => count());
    await seed.remove(DOOMED);
    await Promise.all(hosts.map((host) => host.rowIs(DOOMED, null)));
    // The storm went on all the time.
    await Promise.all(loops.map(({ turns }, at) => turns((before[at] ?? 0) + 1)));
    for (const { replica } of workers) expect(brakedBy(replica)).toContain(replica.actorId);
    storm.abort();
    const last = await Promise.all(loops.map(({ done }) => done));
    // What was written last is known everywhere, although most that was written never travelled.
    for (const host of hosts) {
      for (const [at, value] of last.entries()) await host.rowIs(stormRow(at, 0), value);
    }
    const seconds = (performance.now() - startedMs) / 1_000;
    for (const host of hosts) {
      const sent =
        host.metric("patina_broadcast_sent_bytes_total") +
        host.metric("patina_uplink_sync_bytes_total") +
        host.metric("patina_uplink_swim_bytes_total");
      // A second of burst, and what one urgent change and one answer of sync may go beyond.
      expect(sent).toBeLessThan(bytesPerSecond * (seconds + 2) + 200_000);
    }
    const coalesced = workers.map((host) => host.metric("patina_brake_coalesced_rows_total"));
    for (const rows of coalesced) expect(rows).toBeGreaterThan(STORM.machines);
    await Promise.all(hosts.map((host) => host.stop()));
  },
);

/** Rewrites all rows of one worker each 100 ms, until `signal` says so. */
function rewriteInLoop(apiAddress: string, worker: number, signal: AbortSignal) {
  let count = 0;
  const waiting = new Set<() => void>();
  const run = async (): Promise<string> => {
    let value = "";
    while (!signal.aborted) {
      value = `${"x".repeat(200)} ${count}`;
      const rows = Array.from({ length: STORM.machines }, (_, at) => stormRow(worker, at));
      const sql = "INSERT INTO t (id, v) VALUES (?, ?) ON CONFLICT DO UPDATE SET v = excluded.v";
      await transact(
        apiAddress,
        rows.map((id) => [sql, [id, value]]),
      );
      count += 1;
      for (const look of waiting) look();
      await setTimeout(100);
    }
    return value;
  };
  const turns = (wanted: number): Promise<void> =>
    new Promise((resolve) => {
      const look = (): void => {
        if (count < wanted) return;
        waiting.delete(look);
        resolve();
      };
      waiting.add(look);
      look();
    });
  return { done: run(), turns, count: () => count };
}

function stormRow(worker: number, machine: number): number {
  return 1_000 * (worker + 1) + machine;
}

function brakedBy(replica: Replica): readonly string[] {
  return (replica.status() as { braked: readonly string[] }).braked;
}

interface TestHost {
  readonly replica: Replica;
  /** `synced`, `up <actor id>`, `down <actor id>`. */
  readonly events: readonly string[];
  waitFor(event: string): Promise<void>;
  /** Waits until the row of the host `loser` carries this actor id. */
  rowNames(actorId: string): Promise<void>;
  /** Writes a row of `t` through the API. */
  write(id: number, v: string): Promise<void>;
  /** Deletes a row of `t` through the API. */
  remove(id: number): Promise<void>;
  /** Waits until a row of `t` has this value; null = until there is none. */
  rowIs(id: number, v: string | null): Promise<void>;
  /** A counter or gauge, at most a second old. */
  metric(name: string): number;
  /** Waits until `t` has so many rows. */
  rowCount(count: number): Promise<void>;
  /** Every row of `t` and `nodes`, as text. */
  rows(): Promise<string[]>;
  stop(): Promise<void>;
}

/** `life` names another database of the same host. */
async function startHost(
  node: string,
  options: {
    bootstrap?: readonly string[];
    apiPort?: number;
    gossipPort?: number;
    life?: string;
    brake?: { rows_per_second_min: number; rows_per_second_max: number };
    bytesPerSecond?: number;
    /** What the names of its certificate files begin with. */
    certificates?: string;
  },
): Promise<TestHost> {
  const path = join(folder, `${node}${options.life ?? ""}.db`);
  const store = await openStore(path, node);
  const { events, record, waitFor } = createEventLog();
  const { bytesPerSecond, brake } = options;
  const metrics = MetricSlots.allocate(REPLICA_METRICS, 1);
  const prefix = options.certificates ?? "";
  const starting = startReplica({
    db: dbSection.parse({ path }),
    gossip: gossipSection.parse({
      addr: `127.0.0.1:${options.gossipPort ?? 0}`,
      bootstrap: options.bootstrap ?? [],
      preset: "lan",
      ...(bytesPerSecond === undefined ? {} : { uplink: { bytes_per_second: bytesPerSecond } }),
      tls: {
        cert_file: join(folder, `${prefix}server.pem`),
        key_file: join(folder, `${prefix}server.key`),
        ca_file: join(folder, "ca.pem"),
        client: {
          cert_file: join(folder, `${prefix}client.pem`),
          key_file: join(folder, `${prefix}client.key`),
        },
      },
    }),
    api: apiSection.parse({ addr: `127.0.0.1:${options.apiPort ?? 0}` }),
    perf: perfSection.parse({}),
    identity: replicaSection.parse({ node, region: "here", ...(brake ? { brake } : {}) }),
    kind: "worker",
    storePort: store.connect(),
    extensionPath: crsqlitePath(),
    deadlinePath: sqlDeadlinePath(),
    log: createLogger({ level: "error", nowMs: () => 0, write: () => undefined }),
    metrics: metrics.writer(0),
    events: {
      rtt: () => undefined,
      host: (actorId, isDown) => record(`${isDown ? "down" : "up"} ${actorId}`),
      synced: () => record("synced"),
      storeFault: () => undefined,
      failed: (error) => record(`failed ${error.message}`),
    },
  });
  const replica = await starting.catch(async (error: unknown) => {
    await store.close();
    throw error;
  });
  const client = await StoreClient.connect(store.connect());
  let isStopped = false;
  const stop = async (): Promise<void> => {
    if (isStopped) return;
    isStopped = true;
    await replica.stop({ leave: true });
    client.close();
    await store.close();
  };
  closers.push(stop);
  const { apiAddress } = replica;
  return {
    replica,
    events,
    waitFor,
    stop,
    rowNames: (actorId) => rowNames(client, actorId),
    write: (id, v) => writeRow(apiAddress, id, v),
    remove: (id) => transact(apiAddress, [["DELETE FROM t WHERE id = ?", [id]]]),
    rowIs: (id, v) => waitForRow(client, id, v),
    metric: (name) => valueOf(metrics, name),
    rowCount: (count) => waitForRows(client, count),
    rows: () => rowsOf(client),
  };
}

/** One transaction of one row of `t`. */
function writeRow(apiAddress: string, id: number, v: string): Promise<void> {
  return transact(apiAddress, [["INSERT INTO t (id, v) VALUES (?, ?)", [id, v]]]);
}

async function transact(apiAddress: string, statements: readonly unknown[]): Promise<void> {
  const answer = await fetch(`http://${apiAddress}/v1/transactions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(statements),
  });
  if (!answer.ok) throw new Error(`${answer.status}: ${await answer.text()}`);
}

async function waitForRows(client: StoreClient, count: number): Promise<void> {
  const ids = new Set<unknown>();
  for await (const event of client.changes({ from: null, tables: ["t"] })) {
    if (event.kind === "rows") for (const { key } of event.rows) ids.add(key[0]);
    if (ids.size >= count) return;
  }
}

async function waitForRow(client: StoreClient, id: number, v: string | null): Promise<void> {
  let value: unknown = null;
  let isCaughtUp = false;
  for await (const event of client.changes({ from: null, tables: ["t"] })) {
    if (event.kind === "caughtUp") isCaughtUp = true;
    if (event.kind === "rows") {
      const mine = event.rows.findLast(({ key }) => key[0] === BigInt(id));
      if (mine !== undefined) value = mine.row?.["v"] ?? null;
    }
    if (isCaughtUp && value === v) return;
  }
}

function valueOf(metrics: MetricSlots, name: string): number {
  const metric = metrics.snapshot().find(({ declaration }) => declaration.name === name);
  const [only] = metric?.series ?? [];
  return typeof only?.value === "number" ? only.value : 0;
}

/** All rows of all tables that a crowd writes, each with who wrote it, in an order of their own. */
async function rowsOf(client: StoreClient): Promise<string[]> {
  const lines: string[] = [];
  for await (const event of client.changes({ from: null, tables: ["t", "nodes"] })) {
    if (event.kind === "caughtUp") break;
    if (event.kind !== "rows") continue;
    for (const { table, row, actorId } of event.rows) {
      const values = Object.entries(row ?? {}).map(
        ([column, value]) => `${column}=${String(value)}`,
      );
      lines.push(`${table} ${values.toSorted().join(" ")} by ${actorId}`);
    }
  }
  return lines.toSorted();
}

async function rowNames(client: StoreClient, actorId: string): Promise<void> {
  for await (const event of client.changes({ from: null, tables: ["nodes"] })) {
    if (event.kind !== "rows") continue;
    const mine = event.rows.findLast(({ key }) => key[0] === "loser");
    if (mine?.row?.["actor_id"] === actorId) return;
  }
}

function createEventLog() {
  const events: string[] = [];
  const waiting = new Set<() => void>();
  return {
    events,
    record: (event: string): void => {
      events.push(event);
      for (const look of waiting) look();
    },
    waitFor: (event: string): Promise<void> =>
      new Promise((resolve) => {
        const look = (): void => {
          if (!events.includes(event)) return;
          waiting.delete(look);
          resolve();
        };
        waiting.add(look);
        look();
      }),
  };
}

async function membersIn(node: string) {
  const store = await openStore(join(folder, `${node}.db`), node);
  const client = await StoreClient.connect(store.connect());
  const members = await client.loadMembers();
  client.close();
  await store.close();
  return members;
}

function openStore(path: string, nodeId: string): Promise<StoreThread> {
  const schema = new URL("schema/", import.meta.url);
  const own = readdirSync(schema)
    .filter((name) => name.endsWith(".sql"))
    .map((name) => ({ name, text: readFileSync(new URL(name, schema), "utf8") }));
  const text = "CREATE TABLE t (id INTEGER NOT NULL PRIMARY KEY, v TEXT NOT NULL DEFAULT '');";
  const schemaFiles = [...own, { name: "t.sql", text }];
  return startStore({
    path,
    extensionPath: crsqlitePath(),
    deadlinePath: sqlDeadlinePath(),
    nodeId,
    schemaFiles,
  });
}

async function writeCertificates(): Promise<void> {
  const nowMs = Date.now();
  const authority = await createCertificateAuthority({ nowMs });
  issuer = authority;
  const server = await issueServerCertificate(authority, { nowMs, addresses: ["127.0.0.1"] });
  const client = await issueClientCertificate(authority, { nowMs });
  const files = {
    "ca.pem": authority.certificatePem,
    "server.pem": server.certificatePem,
    "server.key": server.keyPem,
    "client.pem": client.certificatePem,
    "client.key": client.keyPem,
  };
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
}

/** What a replica says of itself that all of a crowd must agree about. */
interface Standing {
  readonly heads: string;
  readonly needs: number;
  readonly members: number;
}

function standingOf(replica: Replica): Standing {
  const status = replica.status() as {
    heads: Readonly<Record<string, number>>;
    needs: number;
    members: readonly { state: string }[];
  };
  const heads = Object.entries(status.heads).map(([actor, head]) => `${actor} ${head}`);
  const members = status.members.filter(({ state }) => state === "alive").length;
  return { heads: heads.toSorted().join("\n"), needs: status.needs, members };
}

/** Waits until nobody needs anything, all heads are the same, and everybody counts as alive. */
async function untilAgreed(
  standings: () => readonly Standing[],
  signal: AbortSignal,
): Promise<void> {
  const isAgreed = (): boolean => {
    const all = standings();
    const heads = new Set(all.map((one) => one.heads));
    const isWhole = all.every(({ needs, members }) => needs === 0 && members === all.length - 1);
    return isWhole && heads.size === 1;
  };
  while (!isAgreed()) await setTimeout(25, undefined, { signal });
}
