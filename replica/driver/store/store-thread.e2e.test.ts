/** The store as other threads and processes meet it: worker, lock, crash, file. */
import { execFileSync, spawn } from "node:child_process";
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import Database from "better-sqlite3";
import { afterEach, expect, test } from "vitest";
import { changeBytes, EncodedChangeset } from "../../core/wire/encoded-changeset.ts";
import { packKey } from "../../core/wire/packed-key.ts";
import type { FullChangeset } from "../../types.ts";
import { StoreClient } from "./store-client.ts";
import { StoreFolder, TS, actor } from "./store-fixture.ts";
import type { StoreOptions } from "./store.ts";
import type { StoreThread } from "./store-thread.ts";
import { startStore } from "./store-thread.ts";
import { readTableSnapshot } from "./table-snapshot.ts";

let folder = new StoreFolder();
const threads: StoreThread[] = [];

afterEach(async () => {
  for (const thread of threads.splice(0)) await thread.close();
  folder.remove();
  folder = new StoreFolder();
});

test("calls from other threads are carried out, and changes come back as a stream", async () => {
  const { client } = await start(folder.options("a"));
  const stream = client.changes({ from: null });
  const answer = await client.transact([{ sql: "INSERT INTO t VALUES ('x', 7, 'b')" }], TS);
  expect(answer.commit?.changesets).toMatchObject([{ kind: "full", version: 1 }]);
  const seen: unknown[] = [];
  for await (const event of stream) {
    if (event.kind === "rows") seen.push(...event.rows);
    if (event.kind !== "reset" && event.watermark.dbVersion > 0) break;
  }
  // A row written while the first rows are read may come twice.
  expect(seen.at(-1)).toMatchObject({ table: "t", key: ["x"], row: { a: 7n } });
  const need = { kind: "full", versions: { start: 1, end: 1 } } as const;
  expect(await client.readVersions({ actorId: client.actorId, need, chunkBytes: 8192 })).toEqual(
    answer.commit?.changesets,
  );
});

test("outcomes come in the order of the changesets, and refusals say why", async () => {
  const { client } = await start(folder.options("a"));
  const good = changesetOf(1, "x");
  const bad = {
    ...changesetOf(2, "y"),
    changes: [{ ...changesetOf(2, "y").changes[0]!, cid: "b", val: null }],
  };
  const outcomes = await client.apply([good, bad, good]);
  expect(outcomes).toEqual([
    { kind: "applied", changeset: good, rowsChanged: 1 },
    { kind: "refused", changeset: bad, reason: "NULL for t.b" },
    { kind: "known", changeset: good },
  ]);
  expect(await client.apply([])).toEqual([]);
});

test("encoded changesets are applied and read like any, and handed over; a bad one alone is refused", async () => {
  const { client } = await start(folder.options("a"));
  const good = EncodedChangeset.of(changesetOf(1, "x"));
  const bytes = EncodedChangeset.of(changesetOf(2, "y")).bytes.slice();
  // The name of the column.
  bytes[bytes.lastIndexOf(0x61)] = 0xff;
  const bad = new EncodedChangeset({ ...changesetOf(2, "y"), changeCount: 1 }, bytes);
  const plain = changesetOf(3, "z");
  const outcomes = await client.apply([good, bad, plain]);
  expect(outcomes.map(({ kind }) => kind)).toEqual(["applied", "refused", "applied"]);
  expect(outcomes[1]).toMatchObject({ reason: "text-malformed", changeset: { version: 2 } });
  expect([good.bytes.length, bytes.length > 0]).toEqual([0, true]);
  const need = { kind: "full", versions: { start: 1, end: 3 } } as const;
  const request = { actorId: actor(5), need, chunkBytes: 8192 };
  const read = await client.readVersions(request, { isEncoded: true });
  const plainly = await client.readVersions(request);
  expect(plainly).toEqual([plain, changesetOf(1, "x")]);
  expect(read.map(changeBytes)).toEqual(plainly.map(changeBytes));
});

test("an urgent change and a local write overtake bulk work that was sent before", async () => {
  const { client } = await start(folder.options("a"));
  const order: string[] = [];
  const note = (label: string) => (): number => order.push(label);
  const bulk = Array.from({ length: 3000 }, (_, index) => changesetOf(index + 1, `k${index}`));
  const urgent = [changesetOf(9000, "down")];
  const work = [
    client.apply(bulk).then(note("bulk")),
    client.transact([{ sql: "INSERT INTO k VALUES ('own')" }], TS).then(note("write")),
    client.apply(urgent, { isUrgent: true }).then(note("urgent")),
  ];
  await Promise.all(work);
  expect(order.at(-1)).toBe("bulk");
  expect((await client.stats()).apply.slices).toBeGreaterThan(2);
});

test("what peers are told of versions rests on what the disk has, at most once per own commit", async () => {
  const { client } = await start(folder.options("a"));
  const need = { kind: "full", versions: { start: 1, end: 1 } } as const;
  const ask = () => client.readVersions({ actorId: client.actorId, need, chunkBytes: 8192 });
  const sql = "INSERT OR REPLACE INTO t VALUES ('x', ?, 'b')";
  for (const value of [1n, 2n]) await client.transact([{ sql, params: [value] }], TS);
  expect((await client.stats()).logSyncs).toBe(0);
  expect(await ask()).toMatchObject([{ kind: "empty", versions: { start: 1, end: 1 } }]);
  await ask();
  await client.apply([changesetOf(1, "of another")]);
  await ask();
  await client.makeDurable();
  expect((await client.stats()).logSyncs).toBe(1);
  await client.transact([{ sql, params: [3n] }], TS);
  await client.makeDurable();
  await ask();
  expect((await client.stats()).logSyncs).toBe(2);
});

test("members are kept over a restart", async () => {
  const members = [
    { actorId: actor(3), address: "[::1]:8787", state: `{"a":1}`, rttMinMs: 12, updatedAtMs: 5 },
    { actorId: actor(4), address: "127.0.0.1:1", state: "{}", rttMinMs: null, updatedAtMs: 6 },
  ];
  const first = await start(folder.options("a"));
  await first.client.saveMembers([members[1]!]);
  await first.client.saveMembers(members);
  await first.thread.close();
  const second = await start(folder.options("a"));
  expect(await second.client.loadMembers()).toEqual(members);
});

test("a database has one owner at a time; the next may come when the first has gone", async () => {
  const { thread } = await start(folder.options("a"));
  await expect(startStore(folder.options("a"))).rejects.toMatchObject({ code: "STORE_LOCKED" });
  await thread.close();
  const { client } = await start(folder.options("a"));
  expect(client.books.size).toBe(0);
});

test("calls after the end of the store are answered with STORE_CLOSED", async () => {
  const { thread, client } = await start(folder.options("a"));
  const stream = client.changes({ from: null });
  await thread.close();
  await expect(client.stats()).rejects.toMatchObject({ code: "STORE_CLOSED" });
  const drained = (async () => {
    for await (const _event of stream) continue;
  })();
  await expect(drained).rejects.toMatchObject({ code: "STORE_CLOSED" });
});

test("a configured identity is taken by a new database and checked by an old one", async () => {
  const { thread, client } = await start(folder.options("a", { actorId: actor(7) }));
  expect(client.actorId).toBe(actor(7));
  await thread.close();
  const other = startStore(folder.options("a", { actorId: actor(8) }));
  await expect(other).rejects.toMatchObject({ code: "STORE_IDENTITY" });
  const again = await start(folder.options("a"));
  expect(again.client.actorId).toBe(actor(7));
});

test("a missing extension, a file of another kind and a bad schema are told apart", async () => {
  const missing = startStore(folder.options("a", { extensionPath: "/nowhere/crsqlite.so" }));
  await expect(missing).rejects.toMatchObject({ code: "STORE_EXTENSION" });
  const options = folder.options("b");
  writeFileSync(options.path, "this is no database ".repeat(1000));
  await expect(startStore(options)).rejects.toMatchObject({ code: "STORE_CORRUPT" });
  const text = "CREATE TABLE z (id TEXT)";
  const bad = startStore(folder.options("c", { schemaFiles: [{ name: "z.sql", text }] }));
  await expect(bad).rejects.toMatchObject({ code: "STORE_SCHEMA" });
});

test("a snapshot is read from the file without extension, while the store writes", async () => {
  const options = folder.options("a");
  expect(readTableSnapshot(options.path, ["t"])).toBeNull();
  const { client } = await start(options);
  expect(readTableSnapshot(options.path, ["t"])?.watermark.dbVersion).toBe(0);
  await client.transact([{ sql: "INSERT INTO t VALUES ('x', 7, 'b')" }], TS);
  const snapshot = readTableSnapshot(options.path, ["t", "absent"]);
  expect(snapshot?.tables).toEqual(
    new Map([
      ["t", [{ id: "x", a: 7n, b: "b" }]],
      ["absent", []],
    ]),
  );
  const stream = client.changes({ from: snapshot?.watermark ?? null });
  expect((await stream.next()).value).toEqual({ kind: "caughtUp", watermark: snapshot?.watermark });
  await stream.return?.();
  writeFileSync(join(folder.path, "no.db"), "this is no database ".repeat(1000));
  const broken = (): unknown => readTableSnapshot(join(folder.path, "no.db"), ["t"]);
  expect(broken).toThrow(expect.objectContaining({ code: "STORE_CORRUPT" }));
});

test("a process killed while it writes loses nothing that it acknowledged", async () => {
  for (let round = 0; round < 3; round += 1) {
    const options = folder.options(`kill${round}`);
    const acknowledged = await killWhileWriting(options, 20 + round * 37);
    expect(acknowledged).toBeGreaterThanOrEqual(20);
    const { client, thread } = await start(options);
    const head = client.books.get(client.actorId)?.head ?? 0;
    expect(head).toBeGreaterThanOrEqual(acknowledged);
    await thread.close();
    const database = new Database(options.path, { readonly: true });
    const count = database.prepare("SELECT count(*) FROM t").pluck().get();
    expect(count, "each version wrote one row").toBe(head);
    expect(database.pragma("integrity_check", { simple: true })).toBe("ok");
    database.close();
  }
});

const cli = ["/usr/bin/sqlite3", "/usr/local/bin/sqlite3"].find((path) => existsSync(path));

test.skipIf(cli === undefined)(
  "stock sqlite3 reads the file while the store runs (needs the sqlite3 tool)",
  async () => {
    const options = folder.options("a");
    const { client } = await start(options);
    await client.transact([{ sql: "INSERT INTO t VALUES ('x', 7, 'b')" }], TS);
    const output = execFileSync(cli ?? "", [options.path, "SELECT id, a, b FROM t"], {
      encoding: "utf8",
    });
    expect(output.trim()).toBe("x|7|b");
    expect((await client.transact([{ sql: "UPDATE t SET a = 8" }], TS)).commit?.version).toBe(2);
  },
);

async function start(options: StoreOptions): Promise<{ thread: StoreThread; client: StoreClient }> {
  const thread = await startStore(options);
  threads.push(thread);
  return { thread, client: await StoreClient.connect(thread.connect()) };
}

/** Kills a writing child after `count` acknowledged versions; returns how many there were. */
function killWhileWriting(options: StoreOptions, count: number): Promise<number> {
  const script = `
    import { startStore } from ${JSON.stringify(join(import.meta.dirname, "store-thread.ts"))};
    import { StoreClient } from ${JSON.stringify(join(import.meta.dirname, "store-client.ts"))};
    const thread = await startStore(${JSON.stringify(options)});
    const client = await StoreClient.connect(thread.connect());
    for (let index = 0; ; index += 1) {
      const params = ["k" + index, BigInt(index)];
      const sql = "INSERT INTO t VALUES (?, ?, '')";
      const answer = await client.transact([{ sql, params }], 1n);
      process.stdout.write(answer.commit.version + "\\n");
    }
  `;
  const path = `${options.path}.mjs`;
  writeFileSync(path, script);
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [path], { stdio: ["ignore", "pipe", "inherit"] });
    let acknowledged = 0;
    let text = "";
    child.stdout.setEncoding("utf8").on("data", (chunk: string) => {
      text += chunk;
      const lines = text.split("\n");
      text = lines.pop() ?? "";
      for (const line of lines) acknowledged = Number(line);
      if (acknowledged >= count) child.kill("SIGKILL");
    });
    child.on("error", reject);
    child.on("close", () => resolve(acknowledged));
  });
}

function changesetOf(version: number, id: string): FullChangeset {
  const change = { table: "t", pk: packKey([id]), cid: "a", val: 1n, colVersion: 1, seq: 0, cl: 1 };
  const seqs = { start: 0, end: 0 };
  return { kind: "full", actorId: actor(5), version, changes: [change], seqs, lastSeq: 0, ts: TS };
}
