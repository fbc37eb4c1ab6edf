/** A data plane on a real store worker: when it is ready, and how it ends. */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, expect, test, vi } from "vitest";
import { createLogger, type Logger } from "#base/logger.ts";
import { MetricSlots } from "#base/metric-slots.ts";
import { crsqlitePath, sqlDeadlinePath } from "../bin/setup/paths.js";
import type { ServiceDocument } from "../replica/driver/store/objects.ts";
import { StoreClient } from "../replica/driver/store/store-client.ts";
import { startStore, type StoreThread } from "../replica/driver/store/store-thread.ts";
import { LoadSlots } from "../routing/core/load-slots.ts";
import { NO_QUARANTINE, type QuarantineState } from "../routing/core/quarantine.ts";
import { allocateLoops } from "../watchdog/core/shared-layout.ts";
import { attachLoop } from "../watchdog/watchdog.ts";
import { configFile } from "./config.ts";
import { DataPlane } from "./data-plane.ts";
import { loadFirstTable } from "./first-table.ts";
import { ProcessLimits } from "./listeners/core/process-limits.ts";
import { PROXY_METRICS } from "./metrics.ts";
import { TableSaver } from "./table-saver.ts";

const folder = mkdtempSync(join(tmpdir(), "patina-data-plane-"));
const closers: (() => Promise<void>)[] = [];

afterEach(async () => {
  for (const close of closers.splice(0).toReversed()) await close();
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test("it is ready with the table that holds what was committed before it was asked", async () => {
  const { plane, client } = await createPlane("ready");
  const ready = plane.becomeReady(client);
  await publish(client, 50);
  // The stream has yet to begin: nothing of the fifty is in the table.
  const later = plane.becomeReady(client).then(() => plane.table.machineCount);
  expect(plane.isReady).toBe(false);
  const following = plane.follow(client);
  expect(await ready).toBe(true);
  expect(await later).toBe(50);
  await plane.drain(0);
  await following;
});

test("rows that do not concern routing do not keep it from being ready", async () => {
  const { plane, client } = await createPlane("others");
  const following = plane.follow(client);
  await plane.becomeReady(client);
  await client.putObject("apps", { id: "a", name: "rows of this table are not followed" }, 1n);
  expect(await plane.becomeReady(client)).toBe(true);
  await plane.drain(0);
  await following;
});

test("a drain ends the change stream, and whoever waits to be ready is told", async () => {
  const { plane, client } = await createPlane("drain");
  const ready = plane.becomeReady(client);
  await publish(client, 1);
  const following = plane.follow(client);
  await plane.drain(0);
  await following;
  await ready;
  const unready = await createPlane("drain-unready");
  const never = unready.plane.becomeReady(unready.client);
  await unready.client.stats();
  await unready.plane.drain(0);
  expect(await never).toBe(false);
});

test("the next start has the table from its file, and follows from there", async () => {
  const { plane, client, path, log } = await createPlane("saved");
  const metrics = MetricSlots.allocate(PROXY_METRICS, 1).writer(0);
  const options = { databasePath: path, periodMs: 86_400_000, metrics, log };
  const saver = new TableSaver({ ...options, plane });
  const following = plane.follow(client);
  await publish(client, 20);
  await plane.becomeReady(client);
  await plane.drain(0);
  await following;
  await saver.stop();
  await publish(client, 30);
  const next = await createPlane("saved-next");
  const first = loadFirstTable(next.plane, { databasePath: path, log, cautiousUntil: 9 });
  expect(first).toMatchObject({ source: "file" });
  expect(next.plane.table.machineCount).toBe(20);
  const followingAgain = next.plane.follow(client);
  await next.plane.becomeReady(client);
  expect(next.plane.table.machineCount).toBe(30);
  expect(next.plane.table.stats.resets).toBe(0);
  await next.plane.drain(0);
  await followingAgain;
});

test("a file from before the first machine gives way to the database", async () => {
  const { plane, client, path, log } = await createPlane("saved-early");
  const metrics = MetricSlots.allocate(PROXY_METRICS, 1).writer(0);
  const saver = new TableSaver({ databasePath: path, periodMs: 86_400_000, metrics, log, plane });
  const following = plane.follow(client);
  await client.putObject("hostnames", { id: "a.test", appId: "a" }, 1n);
  await plane.becomeReady(client);
  await plane.drain(0);
  await following;
  await saver.stop();
  expect(existsSync(`${path}.table`)).toBe(true);
  await publish(client, 3);
  const next = await createPlane("saved-early-next");
  const options = { databasePath: path, log };
  expect(loadFirstTable(next.plane, { ...options, cautiousUntil: null })).toEqual({
    source: "database",
  });
  expect(next.plane.table.machineCount).toBe(3);
});

test("what waits for others is not lost by a restart, and applied when its time is over", async () => {
  const { plane, client, path, log } = await createPlane("canary");
  const metrics = MetricSlots.allocate(PROXY_METRICS, 1).writer(0);
  const saving = { databasePath: path, periodMs: 86_400_000, metrics, log };
  const following = plane.follow(client);
  await publish(client, 2);
  await plane.becomeReady(client);
  await plane.drain(0);
  await following;
  await new TableSaver({ ...saving, plane }).stop();
  const service = { name: "web", address: "127.0.0.1:80", protocol: "h2c" };
  await publish(client, 3, [{ ...service, softLimit: 0, hardLimit: 0 }]);
  const next = await createPlane("canary-next", { canaryMs: 86_400_000 });
  loadFirstTable(next.plane, { databasePath: path, log, cautiousUntil: null });
  const followingNext = next.plane.follow(client);
  await next.plane.becomeReady(client);
  // It was not yet known who else is there. What is ordinary in the same versions is in force.
  const names = next.plane.feed.waiting.map(({ change }) => `${change.table} ${change.key}`);
  expect(names.toSorted()).toEqual(["services m0,web", "services m1,web", "services m2,web"]);
  expect(next.plane.table.machineCount).toBe(3);
  await next.plane.drain(0);
  await followingNext;
  await new TableSaver({ ...saving, plane: next.plane }).stop();
  const last = await createPlane("canary-last", { canaryMs: 1 });
  loadFirstTable(last.plane, { databasePath: path, log, cautiousUntil: null });
  const followingLast = last.plane.follow(client);
  await last.plane.becomeReady(client);
  const row = { table: "services", key: ["m2", "web"] };
  await vi.waitFor(() => expect(last.plane.table.row(row)).toMatchObject({ protocol: "h2c" }));
  expect(last.plane.feed.waiting).toEqual([]);
  expect(last.plane.table.stats.resets).toBe(0);
  await last.plane.drain(0);
  await followingLast;
});

test("a held version is kept out while all else is followed, and let in by a release", async () => {
  const writer = await createPlane("held");
  await publish(writer.client, 4);
  const { actorId } = writer.client;
  const change = { actorId, version: 3, table: "machines", key: "m2", app: "a" };
  const hold = {
    id: "c1",
    change,
    isDown: false,
    previous: null,
    stallId: "s",
    heldMs: 0,
    stalls: 1,
  };
  const quarantine = { ...NO_QUARANTINE, holds: [{ ...hold, expiresMs: null }] };
  const { plane, told } = await createPlane("held-reader", { quarantine });
  const following = plane.follow(writer.client);
  await plane.becomeReady(writer.client);
  expect(plane.table.machineCount).toBe(3);
  plane.setQuarantine(NO_QUARANTINE, true);
  await publish(writer.client, 6);
  // The refeed has come to its end when the held row is there, whatever came first.
  while (plane.table.row({ table: "machines", key: ["m2"] }) === null) {
    await plane.becomeReady(writer.client);
  }
  await plane.becomeReady(writer.client);
  expect(plane.table.machineCount).toBe(6);
  expect(told).toEqual([]);
  await plane.drain(0);
  await following;
});

test("rows of a suspected batch are taken one by one until it is through", async () => {
  const { client } = await createPlane("caution");
  await publish(client, 5);
  const quarantine = { ...NO_QUARANTINE, cautiousUntil: 0 };
  const { plane, told } = await createPlane("caution-reader", { quarantine });
  const following = plane.follow(client);
  await plane.becomeReady(client);
  expect(plane.table.machineCount).toBe(5);
  // One rebuild of the app per machine, where a batch takes one for all.
  expect(plane.table.stats.rebuilds).toBeGreaterThanOrEqual(5);
  expect(told).toEqual(["caution over"]);
  await plane.drain(0);
  await following;
});

test("a damaged file is set aside, and the database is read instead", async () => {
  const { plane, client, path } = await createPlane("damaged");
  await publish(client, 5);
  writeFileSync(`${path}.table`, '{"format":"patina-table","version":1,"databaseId":"x"');
  const events: string[] = [];
  const log = createLogger({
    level: "warn",
    nowMs: () => 0,
    write: (line) => events.push((JSON.parse(line) as { event: string }).event),
  });
  const first = loadFirstTable(plane, { databasePath: path, log, cautiousUntil: null });
  expect(first).toEqual({ source: "database" });
  // Never what may have stalled the last start: the database with a batch that did, or either.
  const options = { databasePath: path, log };
  expect(loadFirstTable(plane, { ...options, cautiousUntil: 3 })).toBe(null);
  expect(loadFirstTable(plane, { ...options, cautiousUntil: 0 })).toBe(null);
  expect(plane.table.machineCount).toBe(5);
  expect(events).toEqual(["table-file-damaged"]);
  expect(existsSync(`${path}.table`)).toBe(false);
  expect(existsSync(`${path}.table.damaged`)).toBe(true);
});

async function createPlane(
  name: string,
  options: { quarantine?: QuarantineState; canaryMs?: number } = {},
): Promise<{
  plane: DataPlane;
  client: StoreClient;
  path: string;
  log: Logger;
  /** What the plane said of its quarantine. */
  told: string[];
}> {
  const told: string[] = [];
  const path = join(folder, `${name}.db`);
  const store = await openStore(path);
  const client = await StoreClient.connect(store.connect());
  const loop = attachLoop({ buffer: allocateLoops(1), loop: 0 });
  closers.push(async () => {
    loop.leave();
    client.close();
    await store.close();
  });
  const pem = "unused.pem";
  const clientTls = { cert_file: pem, key_file: pem };
  const config = configFile.parse({
    db: { path },
    gossip: {
      addr: "127.0.0.1:0",
      tls: { cert_file: pem, key_file: pem, ca_file: pem, client: clientTls },
    },
    replica: { node: "n", region: "here" },
    watchdog: options.canaryMs === undefined ? {} : { canary_ms: options.canaryMs },
  });
  const log = createLogger({ level: "error", nowMs: () => 0, write: () => undefined });
  const plane = new DataPlane({
    loop: "main",
    config,
    metrics: MetricSlots.allocate(PROXY_METRICS, 1).writer(0),
    beat: loop.beat,
    log,
    load: LoadSlots.allocate({}),
    limits: ProcessLimits.allocate([1, 2]),
    ticketKeys: new Uint8Array(48),
    quarantine: options.quarantine ?? NO_QUARANTINE,
    events: {
      superseded: (ids) => void told.push(...ids.map((id) => `superseded ${id}`)),
      cautionOver: () => void told.push("caution over"),
    },
  });
  return { plane, client, path, log, told };
}

async function publish(
  client: StoreClient,
  count: number,
  services: readonly ServiceDocument[] = [],
): Promise<void> {
  for (let index = 0; index < count; index += 1) {
    await client.putObject(
      "machines",
      {
        id: `m${index}`,
        appId: "a",
        region: "here",
        state: "started",
        services,
        checks: [],
      },
      1n,
    );
  }
}

function openStore(path: string): Promise<StoreThread> {
  const schema = new URL("../replica/schema/", import.meta.url);
  const schemaFiles = readdirSync(schema)
    .filter((name) => name.endsWith(".sql"))
    .map((name) => ({ name, text: readFileSync(new URL(name, schema), "utf8") }));
  return startStore({
    path,
    extensionPath: crsqlitePath(),
    deadlinePath: sqlDeadlinePath(),
    nodeId: "n",
    schemaFiles,
  });
}
