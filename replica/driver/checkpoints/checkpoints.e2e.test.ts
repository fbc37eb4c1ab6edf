/** Checkpoints in folders and in a real S3 server, and what is made of bad ones. */
import { copyFileSync, existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { zstdDecompressSync } from "node:zlib";
import Database from "better-sqlite3";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { checkpointsSection, type CheckpointsConfig } from "../../config.ts";
import { actor, rowsOf, StoreFolder, write } from "../store/store-fixture.ts";
import type { Store } from "../store/store.ts";
import {
  chooseCheckpoint,
  manifestOf,
  openTarget,
  refuseOtherCluster,
  restoreCheckpoint,
  takeCheckpoint,
  verifyCheckpoint,
} from "./checkpoints.ts";
import { decodeHeader, encodeHeader, headerLength } from "./manifest.ts";
import { S3Fixture } from "./s3-fixture.ts";

const folder = new StoreFolder();
let s3: S3Fixture;
let store: Store;
let source: string;

beforeAll(async () => {
  s3 = await S3Fixture.start(join(folder.path, "s3"));
  store = folder.open("source", { actorId: actor(1) });
  source = join(folder.path, "source.db");
  for (let row = 0; row < 50; row += 1) {
    write(store, "INSERT INTO t VALUES (?, 1, ?)", `row ${row}`, `${row} `.repeat(200));
  }
  store.saveClusterId(7);
});
afterEach(() => {
  s3.fault = null;
});
afterAll(async () => {
  await s3.close();
  folder.remove();
});

test("a checkpoint in a store is listed, verified, and starts another replica", async () => {
  const taken = await take("s3://bucket/edge/", s3.config());
  expect(taken.text).toMatch(
    /^s3:\/\/bucket\/edge\/checkpoint-\d{8}T\d{6}Z-7-[0-9a-f]{8}\.db\.zst$/,
  );
  expect(taken.manifest).toMatchObject({
    clusterId: 7,
    actor: actor(1),
    heads: { [actor(1)]: 50 },
  });
  expect(taken.bytes).toBeLessThan(taken.manifest.database.bytes);
  const place = await openTarget("s3://bucket/edge", s3.config());
  expect(await place.target.list()).toEqual([
    expect.objectContaining({ name: taken.name, bytes: taken.bytes }),
  ]);
  expect(await verifyCheckpoint(place.target, taken.name)).toEqual(taken.manifest);
  await restore("from-store", "s3://bucket/edge", s3.config());
  const fresh = folder.open("from-store");
  expect(rowsOf(fresh, TABLE)).toEqual(rowsOf(store, TABLE));
  expect(fresh.ledger.books.head(actor(1))).toBe(50);
  expect(fresh.clusterId).toBeNull();
  await place.target.remove(taken.name);
  expect(await place.target.list()).toEqual([]);
  expect(scratchFiles()).toEqual([]);
});

test("the newest of a folder is taken, and it is a SQLite file for stock zstd", async () => {
  const path = join(folder.path, "kept");
  const { name, text } = await take(`${path}/`);
  const older = name.replace(/-\d{8}T/, "-20200101T");
  copyFileSync(text, join(path, older));
  writeFileSync(join(path, "notes.txt"), "no checkpoint");
  const place = await openTarget(path, CONFIG);
  expect((await place.target.list()).map((kept) => kept.name)).toEqual([name, older]);
  expect(await chooseCheckpoint(place, 7)).toBe(name);
  const none = { code: "CHECKPOINT_NONE", message: expect.stringContaining("of cluster 8") };
  await expect(chooseCheckpoint(place, 8)).rejects.toMatchObject(none);
  const plain = join(folder.path, "plain.db");
  writeFileSync(plain, zstdDecompressSync(readFileSync(text)));
  const database = new Database(plain, { readonly: true });
  expect(database.prepare("SELECT count(*) FROM t").pluck().get()).toBe(50);
  database.close();
});

test("a checkpoint overwrites nothing, and is refused where nobody may write", async () => {
  const path = join(folder.path, "precious.txt");
  writeFileSync(path, "precious");
  await expect(take(path)).rejects.toThrow(expect.objectContaining({ code: "BACKUP_TARGET" }));
  expect(readFileSync(path, "utf8")).toBe("precious");
  await expect(take(join(path, "below/"))).rejects.toMatchObject({ code: /^CHECKPOINT_/ });
});

test("one cut anywhere, or with any other byte, is refused, and the database is as it was", async () => {
  const { text, manifest } = await take(join(folder.path, "whole.db.zst"));
  const whole = readFileSync(text);
  const bad = join(folder.path, "bad.db.zst");
  const body = whole.length - manifest.compressed.bytes;
  const cuts = [0, 3, 51, body - 1, body, body + 1, (body + whole.length) >> 1, whole.length - 1];
  const before = await databaseToKeep("kept-one");
  for (const length of cuts) {
    writeFileSync(bad, whole.subarray(0, length));
    await expect(restore("kept-one", bad), `${length} bytes`).rejects.toMatchObject({
      code: "CHECKPOINT_DAMAGED",
      message: expect.stringContaining("bad.db.zst"),
    });
  }
  const flips = [
    0,
    9,
    17,
    25,
    60,
    body - 1,
    body,
    body + 5,
    (body + whole.length) >> 1,
    whole.length - 1,
  ];
  for (const at of flips) {
    const spoilt = Buffer.from(whole);
    spoilt[at]! ^= 0x10;
    writeFileSync(bad, spoilt);
    await expect(restore("kept-one", bad), `byte ${at}`).rejects.toMatchObject({
      code: at === 17 ? "CHECKPOINT_FORMAT" : "CHECKPOINT_DAMAGED",
    });
  }
  writeFileSync(bad, Buffer.concat([whole, Buffer.from("more")]));
  await expect(restore("kept-one", bad)).rejects.toMatchObject({ code: "CHECKPOINT_DAMAGED" });
  expect(readFileSync(join(folder.path, "kept-one.db")).equals(before)).toBe(true);
  expect(scratchFiles()).toEqual([]);
});

test("one whose manifest tells other sums than its bytes have is refused", async () => {
  const { text } = await take(join(folder.path, "honest.db.zst"));
  const whole = readFileSync(text);
  const length = headerLength(whole, text);
  const manifest = decodeHeader(whole.subarray(0, length), text);
  const database = { ...manifest.database, bytes: manifest.database.bytes - 1 };
  const header = encodeHeader({ ...manifest, database }, length);
  const bad = join(folder.path, "dishonest.db.zst");
  writeFileSync(bad, Buffer.concat([header, whole.subarray(length)]));
  await expect(restore("nowhere", bad)).rejects.toMatchObject({ code: "CHECKPOINT_DAMAGED" });
  expect(existsSync(join(folder.path, "nowhere.db"))).toBe(false);
});

test("one of a newer format says so, and one of another cluster is refused", async () => {
  const { text, manifest } = await take(join(folder.path, "future.db.zst"));
  const bytes = readFileSync(text);
  bytes.writeUInt32LE(2, 16);
  const future = join(folder.path, "format-2.db.zst");
  writeFileSync(future, bytes);
  await expect(restore("nowhere", future)).rejects.toMatchObject({
    code: "CHECKPOINT_FORMAT",
    message: expect.stringContaining("format 2"),
  });
  expect(() => refuseOtherCluster({ text, manifest }, 8)).toThrow(/cluster 7.*cluster 8/);
  expect(() => refuseOtherCluster({ text, manifest }, 7)).not.toThrow();
});

test("a store that ends half-way, falls silent, refuses the key or is not there is told apart", async () => {
  await take("s3://bucket/bad", s3.config());
  const before = await databaseToKeep("kept-two");
  const attempt = (config: CheckpointsConfig, text = "s3://bucket/bad"): Promise<unknown> =>
    restore("kept-two", text, config);
  s3.fault = "cut";
  await expect(attempt(s3.config())).rejects.toMatchObject({ code: "CHECKPOINT_STORE" });
  s3.fault = "silence";
  await expect(attempt(s3.config({ timeout_secs: 1 }))).rejects.toMatchObject({
    code: "CHECKPOINT_STORE",
    message: expect.stringContaining("nothing came for 1 s (checkpoints.timeout_secs)"),
  });
  s3.fault = null;
  const wrongKey = { ...s3.section, secret_access_key: "wrong" };
  const denied = { code: "CHECKPOINT_DENIED", message: expect.stringContaining("403") };
  const wrongId = { ...s3.section, access_key_id: "wrong" };
  await expect(attempt(s3.config({ s3: wrongId }))).rejects.toMatchObject(denied);
  await expect(attempt(s3.config({ s3: wrongKey }))).rejects.toMatchObject(denied);
  await expect(take("s3://bucket/bad", s3.config({ s3: wrongKey }))).rejects.toMatchObject(denied);
  const none = { code: "CHECKPOINT_NONE" };
  await expect(attempt(s3.config(), "s3://bucket/elsewhere")).rejects.toMatchObject(none);
  await expect(attempt(s3.config(), "s3://no-bucket/x")).rejects.toMatchObject(none);
  const closed = { ...s3.section, endpoint: "http://127.0.0.1:1" };
  await expect(attempt(s3.config({ s3: closed }))).rejects.toMatchObject({
    code: "CHECKPOINT_STORE",
    message: expect.stringContaining("ECONNREFUSED"),
  });
  expect(readFileSync(join(folder.path, "kept-two.db")).equals(before)).toBe(true);
});

test("scratch files of a process that was killed go with the next checkpoint", async () => {
  const leftover = `${source}.checkpoint-999999999.zst`;
  writeFileSync(leftover, "half a file");
  await take(join(folder.path, "after-kill.db.zst"));
  expect(existsSync(leftover)).toBe(false);
});

function take(
  target: string,
  config: CheckpointsConfig = CONFIG,
): ReturnType<typeof takeCheckpoint> {
  return takeCheckpoint({ source, target, clusterId: 0, config });
}

async function restore(
  name: string,
  text: string,
  config: CheckpointsConfig = CONFIG,
): Promise<void> {
  const { target, name: named } = await openTarget(text, config);
  try {
    const place = { target, name: await chooseCheckpoint({ target, name: named }, null) };
    await manifestOf(target, place.name);
    await restoreCheckpoint({
      place,
      target: join(folder.path, `${name}.db`),
      identity: { kind: "new" },
      accept: () => undefined,
    });
  } finally {
    target.close();
  }
}

/** A database that a restore must leave alone, and its bytes. */
async function databaseToKeep(name: string): Promise<Buffer> {
  const kept = folder.open(name);
  write(kept, "INSERT INTO t VALUES ('own', 1, 'b')");
  kept.close();
  return readFileSync(join(folder.path, `${name}.db`));
}

function scratchFiles(): string[] {
  return readdirSync(folder.path).filter((name) => /\.(?:checkpoint|restore|part)-/.test(name));
}

const CONFIG = checkpointsSection.parse({});
const TABLE = "SELECT id, a, b FROM t ORDER BY id";
