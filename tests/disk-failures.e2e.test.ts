/**
 * A disk that takes no more writes, under a real process. Method: the kernel's limit on the size of
 * files, set on the running process from outside, which needs no rights and counts for root too: 0
 * refuses every write, like a file system that went read-only; a bit above the log's size is a disk
 * that fills up amid a transaction. Where the test may mount, the database is on a small file system
 * that is filled as well. Whatever was answered with 200 must be there in the end.
 */
import { execFileSync } from "node:child_process";
import { mkdirSync, rmSync, statfsSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { get, until, type Answer } from "./asking-fixture.ts";
import { Cluster, type TestHost } from "./cluster-fixture.ts";
import { canMount, runPatina } from "./process-fixture.ts";

const ROOM_BYTES = 200_000;
const ROW_BYTES = 50_000;

let cluster: Cluster;
let host: TestHost;
let peer: TestHost;
/** Of the host's database. */
let folder: string;
const acknowledged: string[] = [];

beforeAll(async () => {
  cluster = await Cluster.create([
    { name: "host", kind: "worker", config: { db: { path: "./data/patina.db" } } },
    { name: "peer", kind: "worker", bootstrap: ["host"] },
  ]);
  host = cluster.host("host");
  peer = cluster.host("peer");
  folder = join(host.folder, "data");
  mkdirSync(folder);
  if (canMount()) execFileSync("mount", ["-t", "tmpfs", "-o", "size=24m", "tmpfs", folder]);
  await cluster.start("host", "peer");
  await until("members", async () => (await peer.status()).members.length === 1);
});

afterAll(async () => {
  await Promise.all([host.end(), peer.end()]);
  if (canMount()) execFileSync("umount", ["-l", folder]);
  await cluster.close();
});

test.each([
  { disk: "that went read-only", take: () => limitFiles(0), give: liftLimit },
  { disk: "that fills up", take: () => limitFiles(logBytes() + ROOM_BYTES), give: liftLimit },
  ...(canMount() ? [{ disk: "without a free byte", take: fillDisk, give: emptyDisk }] : []),
])("a disk $disk is told, loses nothing, and is over when there is room", async (given) => {
  expect((await write(host)).status).toBe(200);
  const from = host.log.length;
  given.take();
  const refused = await writeUntilRefused();
  expect(refused.status).toBe(507);
  expect(JSON.parse(refused.text)).toMatchObject({
    results: [{ error: expect.any(String) }],
    version: null,
  });
  const reason = expect.stringMatching(/patina\.db cannot be written: ./);
  expect(await host.logged("store-cannot-write", { from })).toMatchObject({
    level: "error",
    msg: reason,
  });
  expect(await host.status()).toMatchObject({ fault: reason });
  await until("no traffic is asked for", async () => (await readiness()).status === 503);
  expect(JSON.parse((await readiness()).text)).toMatchObject({ ready: false, reason });
  // It goes on reading, and others go on writing.
  expect(await rowsIn(host)).toEqual(acknowledged.toSorted());
  expect((await write(peer)).status).toBe(200);

  given.give();
  await host.logged("store-writes-again", { from });
  await host.ready();
  expect(await host.status()).toMatchObject({ fault: null });
  expect((await write(host)).status).toBe(200);
  await expectAllEverywhere();
  await expectBooksRight();
  const told = host.log.slice(from).filter(({ event }) => event === "store-cannot-write");
  expect(told).toHaveLength(1);
});

test("killed while the disk is full, it comes back with all that was acknowledged", async () => {
  limitFiles(logBytes() + ROOM_BYTES);
  expect((await writeUntilRefused()).status).toBe(507);
  const from = host.log.length;
  // Its successor has the room again: the limit was the process's own.
  process.kill(host.edgePid(), "SIGKILL");
  await host.logged("replica-started", { from });
  await host.ready();
  await expectBooksRight();
  expect((await write(host)).status).toBe(200);
  await expectAllEverywhere();
});

test.skipIf(!canMount())(
  "started without a free byte, it waits for room and says so, instead of ending again and again",
  async () => {
    fillDisk();
    expect((await writeUntilRefused()).status).toBe(507);
    const from = host.log.length;
    process.kill(host.edgePid(), "SIGKILL");
    await host.logged("edge-bounced", { from });
    const bounced = host.log.length;
    await host.logged("store-cannot-write", { from: bounced });
    const pid = host.edgePid();
    await until("it is told outside", async () =>
      /patina\.db cannot be written/.test((await readiness()).text),
    );
    expect((await readiness()).status).toBe(503);

    emptyDisk();
    await host.logged("replica-started", { from: bounced });
    await host.ready();
    expect(host.edgePid()).toBe(pid);
    const told = host.log.slice(bounced).map(({ event }) => event);
    expect(told.filter((event) => event === "store-cannot-write")).toHaveLength(1);
    expect(told).not.toContain("edge-bounced");
    expect((await write(host)).status).toBe(200);
    await expectAllEverywhere();
    await expectBooksRight();
  },
);

test("told to stop on a disk that takes no writes, it ends in good order", async () => {
  limitFiles(0);
  expect((await writeUntilRefused()).status).toBe(507);
  host.signal("SIGTERM");
  expect((await host.ending()).code).toBe(0);
  host.start();
  await host.ready();
  expect((await write(host)).status).toBe(200);
  await expectAllEverywhere();
});

/** Sends a row; remembers it when it was acknowledged. */
async function write(target: TestHost): Promise<Answer> {
  const id = `row-${sent++}`;
  const insert = "INSERT INTO apps (id, name, node_id) VALUES (?, ?, '')";
  const answer = await target.api("POST", "/v1/transactions", [
    [insert, [id, "x".repeat(ROW_BYTES)]],
  ]);
  if (answer.status === 200) acknowledged.push(id);
  return answer;
}

async function writeUntilRefused(): Promise<Answer> {
  for (;;) {
    const answer = await write(host);
    if (answer.status !== 200) return answer;
  }
}

/** Both have every acknowledged row and no other. */
async function expectAllEverywhere(): Promise<void> {
  await until("both know the same", async () => {
    const statuses = await Promise.all([host.status(), peer.status()]);
    const [mine, theirs] = statuses.map(({ heads }) => heads);
    return isDeepStrictEqual(mine, theirs) && statuses.every(({ needs }) => needs === 0);
  });
  const expected = acknowledged.toSorted();
  expect([await rowsIn(host), await rowsIn(peer)]).toEqual([expected, expected]);
}

/** Books in memory, on the disk, and rows. */
async function expectBooksRight(): Promise<void> {
  const args = ["sync", "check-bookie-consistency", "--config", host.configFile];
  expect(await runPatina(args)).toMatchObject({ code: 0 });
}

async function rowsIn(one: TestHost): Promise<string[]> {
  const { text } = await one.api("POST", "/v1/queries", "SELECT id FROM apps");
  return [...text.matchAll(/"(row-\d+)"/g)].map(([, id]) => id ?? "").toSorted();
}

function readiness(): Promise<Answer> {
  return get(host.metricsPort, "/readyz");
}

/** Bytes of the database's log, where commits go. */
function logBytes(): number {
  return statSync(join(folder, "patina.db-wal")).size;
}

/** The size beyond which the process can write to no file. */
function limitFiles(bytes: number | "unlimited"): void {
  // Only the soft one: a hard one could not be lifted again.
  execFileSync("prlimit", [`--fsize=${bytes}:`, "--pid", String(host.edgePid())]);
}

function liftLimit(): void {
  limitFiles("unlimited");
}

function fillDisk(): void {
  const { bavail, bsize } = statfsSync(folder);
  writeFileSync(join(folder, "ballast"), Buffer.alloc(bavail * bsize, 1));
}

function emptyDisk(): void {
  rmSync(join(folder, "ballast"));
}

let sent = 0;
