/**
 * A replica loses its last versions with the machine's power. Method: real replicas on loopback; the
 * database is copied while it is open, with the log cut back to an earlier commit, and started again
 * under another boot id.
 */
import { copyFileSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { statSync, truncateSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, expect, test } from "vitest";
import { createLogger } from "#base/logger.ts";
import { MetricSlots } from "#base/metric-slots.ts";
import { crsqlitePath, sqlDeadlinePath } from "../bin/setup/paths.js";
import { apiSection, dbSection, gossipSection, perfSection, replicaSection } from "./config.ts";
import { StoreClient } from "./driver/store/store-client.ts";
import { startStore } from "./driver/store/store-thread.ts";
import { REPLICA_METRICS } from "./metrics.ts";
import { startReplica } from "./replica.ts";

const folder = mkdtempSync(join(tmpdir(), "patina-own-versions-"));
const closers: (() => Promise<void>)[] = [];

afterAll(() => rmSync(folder, { recursive: true, force: true }));
afterEach(async () => {
  for (const close of closers.splice(0).toReversed()) await close();
});

test("with a peer that has them, lost versions come back and none is given out twice", async () => {
  const peer = await startHost("peer", {});
  const { actorId, head } = await writeAndLose("lost", peer);

  const again = await startHost("lost", { bootId: "second", bootstrap: [peer.gossip] });
  expect(again.actorId).toBe(actorId);
  await again.waitFor("own-versions-settled");
  expect(await again.head(actorId)).toBeGreaterThanOrEqual(head);
  await again.ownNode();
  await again.write("after");
  await peer.rowOf("after");
  expect(await peer.head(actorId)).toBe(await again.head(actorId));
  expect(await peer.head(actorId)).toBeGreaterThan(head);
  const ids = ["1", "2", "3", "4", "5", "6", "after"];
  expect(await again.rowIds()).toEqual(ids);
  expect(await peer.rowIds()).toEqual(ids);
});

test("without a peer it starts as another actor with its rows, and meets its past later", async () => {
  const peer = await startHost("peer-2", {});
  const { actorId, head } = await writeAndLose("alone", peer);

  // As a host through which others join: nobody is configured.
  const waiting = await startHost("alone", { bootId: "second", aloneMs: 500 });
  await expect(waiting.write("early")).rejects.toThrow("503");
  await waiting.waitFor("failed STORE_RENEWED");
  await waiting.stop();

  const renewed = await startHost("alone", { bootId: "second", bootstrap: [peer.gossip] });
  expect(renewed.actorId).not.toBe(actorId);
  // Newest first: the sixth comes before the others.
  for (const id of ["4", "5", "6"]) await renewed.rowOf(id);
  await renewed.write("after");
  await peer.rowOf("after");
  expect(await peer.head(actorId)).toBe(head);
  expect(await renewed.head(actorId)).toBe(head);
  const ids = ["1", "2", "3", "4", "5", "6", "after"];
  expect(await renewed.rowIds()).toEqual(ids);
  expect(await peer.rowIds()).toEqual(ids);
});

type Host = Awaited<ReturnType<typeof startHost>>;

/** Writes six rows that `peer` has; the database called `name` is left with three of them. */
async function writeAndLose(name: string, peer: Host): Promise<{ actorId: string; head: number }> {
  const source = `${name}-before`;
  const host = await startHost(source, { bootId: "first", bootstrap: [peer.gossip] });
  await host.waitFor("synced");
  for (const id of ["1", "2", "3"]) await host.write(id);
  const { size } = statSync(`${pathOf(source)}-wal`);
  for (const id of ["4", "5", "6"]) await host.write(id);
  for (const suffix of ["", "-wal", ".run"]) {
    copyFileSync(`${pathOf(source)}${suffix}`, `${pathOf(name)}${suffix}`);
  }
  truncateSync(`${pathOf(name)}-wal`, size);
  for (const id of ["1", "2", "3", "4", "5", "6"]) await peer.rowOf(id);
  await host.stop();
  return { actorId: host.actorId, head: await peer.head(host.actorId) };
}

async function startHost(
  node: string,
  options: {
    readonly bootId?: string;
    readonly bootstrap?: readonly string[];
    readonly aloneMs?: number;
  },
) {
  const path = pathOf(node);
  const nodeId = node.replace("-before", "");
  const { bootId = "only", bootstrap = [], aloneMs = 60_000 } = options;
  const store = await startStore({
    path,
    bootId,
    extensionPath: crsqlitePath(),
    deadlinePath: sqlDeadlinePath(),
    nodeId,
    schemaFiles,
  });
  const { record, waitFor } = createEventLog();
  const replica = await startReplica({
    db: dbSection.parse({ path }),
    gossip: gossipSection.parse({ addr: "127.0.0.1:0", bootstrap, preset: "lan", plaintext: true }),
    api: apiSection.parse({ addr: "127.0.0.1:0" }),
    perf: perfSection.parse({}),
    identity: replicaSection.parse({ node: nodeId, region: "here" }),
    kind: "worker",
    storePort: store.connect(),
    extensionPath: crsqlitePath(),
    deadlinePath: sqlDeadlinePath(),
    log: createLogger({
      level: "info",
      nowMs: () => 0,
      write: (line) => record((JSON.parse(line) as { event: string }).event),
    }),
    metrics: MetricSlots.allocate(REPLICA_METRICS, 1).writer(0),
    recovery: { aloneMs, calmMs: 50, silentMs: 20_000, retryMs: 100 },
    events: {
      rtt: () => undefined,
      host: () => undefined,
      synced: () => record("synced"),
      storeFault: () => undefined,
      failed: (error) => record(`failed ${"code" in error ? String(error.code) : error.message}`),
    },
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
  return {
    actorId: replica.actorId,
    gossip: replica.gossipAddress,
    waitFor,
    stop,
    /** As stored: the machine's books follow a little later. */
    head: async (actorId: string): Promise<number> => {
      const fresh = await StoreClient.connect(store.connect());
      fresh.close();
      return fresh.books.get(actorId)?.head ?? 0;
    },
    /** Waits until the own row names this life's address: the last that is written unasked. */
    ownNode: () => ownNode(client, replica.gossipAddress),
    write: async (id: string): Promise<void> => {
      const answer = await fetch(`http://${replica.apiAddress}/v1/transactions`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify([["INSERT INTO t (id, v) VALUES (?, 'x')", [id]]]),
      });
      if (!answer.ok) throw new Error(`${answer.status}: ${await answer.text()}`);
    },
    rowOf: (id: string) => rowOf(client, id),
    rowIds: () => rowIds(client),
  };
}

/** Waits for a row of `t`. */
async function rowOf(client: StoreClient, id: string): Promise<void> {
  for await (const event of client.changes({ from: null, tables: ["t"] })) {
    if (event.kind === "rows" && event.rows.some(({ key }) => key[0] === id)) return;
  }
}

async function ownNode(client: StoreClient, address: string): Promise<void> {
  for await (const event of client.changes({ from: null, tables: ["nodes"] })) {
    if (event.kind !== "rows") continue;
    if (event.rows.some(({ row }) => row?.["address"] === address)) return;
  }
}

async function rowIds(client: StoreClient): Promise<string[]> {
  const ids: string[] = [];
  for await (const event of client.changes({ from: null, tables: ["t"] })) {
    if (event.kind === "caughtUp") break;
    if (event.kind === "rows") ids.push(...event.rows.map(({ key }) => String(key[0])));
  }
  return ids.toSorted();
}

function createEventLog() {
  const events: string[] = [];
  const waiting = new Set<() => void>();
  return {
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

function pathOf(node: string): string {
  return join(folder, `${node}.db`);
}

const schemaFolder = new URL("schema/", import.meta.url);
const schemaFiles = [
  ...readdirSync(schemaFolder)
    .filter((name) => name.endsWith(".sql"))
    .map((name) => ({ name, text: readFileSync(new URL(name, schemaFolder), "utf8") })),
  { name: "t.sql", text: "CREATE TABLE t (id TEXT NOT NULL PRIMARY KEY, v TEXT);" },
];
