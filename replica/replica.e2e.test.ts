/** Replicas in one process on loopback, each with a store worker: what starts and ends bring about. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { createLogger } from "#base/logger.ts";
import { MetricSlots } from "#base/metric-slots.ts";
import { crsqlitePath, sqlDeadlinePath } from "../bin/setup/paths.js";
import { apiSection, dbSection, gossipSection, perfSection, replicaSection } from "./config.ts";
import {
  createCertificateAuthority,
  issueClientCertificate,
  issueServerCertificate,
} from "./driver/certificates/certificates.ts";
import { StoreClient } from "./driver/store/store-client.ts";
import { startStore, type StoreThread } from "./driver/store/store-thread.ts";
import { REPLICA_METRICS } from "./metrics.ts";
import { startReplica, type Replica } from "./replica.ts";

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

interface TestHost {
  readonly replica: Replica;
  /** `synced`, `up <actor id>`, `down <actor id>`. */
  readonly events: readonly string[];
  waitFor(event: string): Promise<void>;
  /** Waits until the row of the host `loser` carries this actor id. */
  rowNames(actorId: string): Promise<void>;
  stop(): Promise<void>;
}

/** `life` names another database of the same host. */
async function startHost(
  node: string,
  options: { bootstrap?: readonly string[]; apiPort?: number; life?: string },
): Promise<TestHost> {
  const path = join(folder, `${node}${options.life ?? ""}.db`);
  const store = await openStore(path, node);
  const { events, record, waitFor } = createEventLog();
  const starting = startReplica({
    db: dbSection.parse({ path }),
    gossip: gossipSection.parse({
      addr: "127.0.0.1:0",
      bootstrap: options.bootstrap ?? [],
      preset: "lan",
      tls: {
        cert_file: join(folder, "server.pem"),
        key_file: join(folder, "server.key"),
        ca_file: join(folder, "ca.pem"),
        client: { cert_file: join(folder, "client.pem"), key_file: join(folder, "client.key") },
      },
    }),
    api: apiSection.parse({ addr: `127.0.0.1:${options.apiPort ?? 0}` }),
    perf: perfSection.parse({}),
    identity: replicaSection.parse({ node, region: "here" }),
    kind: "worker",
    storePort: store.connect(),
    extensionPath: crsqlitePath(),
    deadlinePath: sqlDeadlinePath(),
    log: createLogger({ level: "error", nowMs: () => 0, write: () => undefined }),
    metrics: MetricSlots.allocate(REPLICA_METRICS, 1).writer(0),
    events: {
      rtt: () => undefined,
      host: (actorId, isDown) => record(`${isDown ? "down" : "up"} ${actorId}`),
      synced: () => record("synced"),
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
  return { replica, events, waitFor, stop, rowNames: (actorId) => rowNames(client, actorId) };
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
  const schemaFiles = readdirSync(schema)
    .filter((name) => name.endsWith(".sql"))
    .map((name) => ({ name, text: readFileSync(new URL(name, schema), "utf8") }));
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
