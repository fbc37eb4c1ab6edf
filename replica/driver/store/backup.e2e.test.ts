/** Backups of stores, and what goes on from them. */
import { copyFileSync, existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import Database from "better-sqlite3";
import { afterAll, expect, test } from "vitest";
import { backupDatabase, restoreDatabase, type RestoreSource } from "./backup.ts";
import { actor, copyAll, rowsOf, StoreFolder, write } from "./store-fixture.ts";
import type { Store } from "./store.ts";

const folder = new StoreFolder();
afterAll(() => folder.remove());

test("a backup of a running store has its rows and nothing that is its own", () => {
  const { store, path } = filled("running", 1);
  store.saveClusterId(7);
  const target = join(folder.path, "running.backup");
  expect(backupDatabase({ source: path, target })).toBeGreaterThan(4096);
  const backup = new Database(target, { readonly: true });
  const all = (sql: string): unknown[] => backup.prepare(sql).pluck().all();
  expect(all("SELECT count(*) FROM t")).toEqual([5]);
  expect(all("SELECT site_id FROM crsql_site_id WHERE ordinal = 0")).toEqual([]);
  expect(all("SELECT count(*) FROM crsql_site_id")).toEqual([2]);
  expect(all("SELECT count(*) FROM t__crsql_clock WHERE site_id = 0")).toEqual([0]);
  expect(all("SELECT count(*) FROM __patina_versions WHERE actor = 0")).toEqual([0]);
  expect(all("SELECT count(*) FROM __patina_state")).toEqual([0]);
  expect(all("SELECT count(*) FROM __corro_members")).toEqual([0]);
  backup.close();
  write(store, "INSERT INTO t VALUES ('after', 1, 'b')");
  expect(existsSync(`${target}-wal`)).toBe(false);
  expect(readdirSync(folder.path).filter((name) => name.includes("part-"))).toEqual([]);
});

test("a replica restored under a new actor id goes on beside the one it came from", async () => {
  const { store, path } = filled("source", 2);
  const backup = join(folder.path, "source.backup");
  backupDatabase({ source: path, target: backup });
  const target = join(folder.path, "fresh.db");
  const actorId = await restoreDatabase({
    source: file(backup),
    target,
    identity: { kind: "new" },
  });
  const fresh = folder.open("fresh");
  expect(fresh.actorId).toBe(actorId);
  expect(fresh.databaseId).not.toBe(store.databaseId);
  expect(fresh.clusterId).toBeNull();
  expect(fresh.ledger.books.head(store.actorId)).toBe(3);
  expect(rowsOf(fresh, TABLE)).toEqual(rowsOf(store, TABLE));
  expect(fresh.checkBooks()).toMatchObject({ mismatched: [], findings: [] });
  write(fresh, "UPDATE t SET a = 9 WHERE id = 'row 1'");
  write(store, "DELETE FROM t WHERE id = 'row 0'");
  copyAll(fresh, store);
  copyAll(store, fresh);
  expect(rowsOf(fresh, TABLE)).toEqual(rowsOf(store, TABLE));
  expect(fresh.ledger.books.head(actorId)).toBe(1);
  // What a third one learns from the restored replica alone is everything.
  const third = folder.open("third");
  copyAll(fresh, third);
  expect(rowsOf(third, TABLE)).toEqual(rowsOf(store, TABLE));
});

test("a replica restored as itself goes on with its own versions once others were asked; readers start over", async () => {
  const { store, path } = filled("self", 3);
  const before = { actorId: store.actorId, databaseId: store.databaseId };
  const backup = join(folder.path, "self.backup");
  backupDatabase({ source: path, target: backup });
  store.close();
  const identity = { kind: "self" } as const;
  expect(await restoreDatabase({ source: file(backup), target: path, identity })).toBe(
    before.actorId,
  );
  const again = folder.open("self");
  expect(again.databaseId).not.toBe(before.databaseId);
  expect(again.ledger.books.head(before.actorId)).toBe(3);
  expect(again.isInDoubt).toBe(true);
  again.settleOwnVersions(3);
  write(again, "INSERT INTO t VALUES ('more', 1, 'b')");
  expect(again.ledger.books.head(before.actorId)).toBe(4);
  expect(again.checkBooks()).toMatchObject({ mismatched: [], findings: [] });
});

test("a restore under a given actor id takes over what is known of that actor", async () => {
  const { path } = filled("given", 4);
  const backup = join(folder.path, "given.backup");
  backupDatabase({ source: path, target: backup });
  const target = join(folder.path, "other.db");
  await restoreDatabase({
    source: file(backup),
    target,
    identity: { kind: "given", actorId: actor(9) },
  });
  const other = folder.open("other");
  expect(other.actorId).toBe(actor(9));
  expect(other.ledger.books.head(actor(9))).toBe(2);
  expect(other.isInDoubt).toBe(true);
  other.settleOwnVersions(2);
  write(other, "INSERT INTO t VALUES ('own', 1, 'b')");
  expect(other.ledger.books.head(actor(9))).toBe(3);
});

test("a restore is refused while a store owns the file, which goes on", async () => {
  const { store, path } = filled("owned", 5);
  const backup = join(folder.path, "owned.backup");
  backupDatabase({ source: path, target: backup });
  const restore = (): Promise<unknown> =>
    restoreDatabase({ source: file(backup), target: path, identity: { kind: "new" } });
  await expect(restore()).rejects.toThrow(expect.objectContaining({ code: "STORE_LOCKED" }));
  write(store, "INSERT INTO t VALUES ('still', 1, 'b')");
  store.close();
  await expect(restore()).resolves.toEqual(expect.any(String));
});

test("a database that is no backup, or damaged, is refused and the target is as it was", async () => {
  const { store, path } = filled("kept", 6);
  store.close();
  const before = readFileSync(path);
  const [text, foreign, damaged] = ["text.db", "foreign.db", "damaged.db"].map((name) =>
    join(folder.path, name),
  ) as [string, string, string];
  writeFileSync(text, "no database at all, but long enough to be looked at".repeat(100));
  new Database(foreign).exec("CREATE TABLE x (y)").close();
  copyFileSync(path, damaged);
  writeFileSync(damaged, readFileSync(path).fill(0xff, 8192, 40_000));
  for (const backup of [text, foreign, damaged, join(folder.path, "absent.db")]) {
    await expect(
      restoreDatabase({ source: file(backup), target: path, identity: { kind: "new" } }),
      backup,
    ).rejects.toThrow(expect.objectContaining({ code: "BACKUP_SOURCE" }));
  }
  expect(readFileSync(path).equals(before)).toBe(true);
});

test("a backup overwrites nothing", () => {
  const { path } = filled("careful", 7);
  const target = join(folder.path, "precious.txt");
  writeFileSync(target, "precious");
  expect(() => backupDatabase({ source: path, target })).toThrow(
    expect.objectContaining({ code: "BACKUP_TARGET" }),
  );
  expect(readFileSync(target, "utf8")).toBe("precious");
});

/** A store with three versions of its own and two of another actor. */
function filled(name: string, index: number): { store: Store; path: string } {
  const store = folder.open(name, { actorId: actor(index) });
  const peer = folder.open(`${name}-peer`, { actorId: actor(9) });
  for (let row = 0; row < 3; row += 1) {
    write(store, "INSERT INTO t VALUES (?, 1, 'b')", `row ${row}`);
    if (row < 2) write(peer, "INSERT INTO t VALUES (?, 2, 'c')", `peer ${row}`);
  }
  copyAll(peer, store);
  peer.close();
  return { store, path: join(folder.path, `${name}.db`) };
}

function file(path: string): RestoreSource {
  return { kind: "file", path };
}

const TABLE = "SELECT id, a, b FROM t ORDER BY id";
