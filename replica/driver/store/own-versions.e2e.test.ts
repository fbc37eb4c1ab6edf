/**
 * A version number of ours is given out once. Method: real database files, of which copies are made
 * while the store has them open, with the log cut back to an earlier commit: what a power loss
 * leaves behind. The machine's start is an argument.
 */
import { copyFileSync, existsSync, mkdirSync, statSync, truncateSync } from "node:fs";
import Database from "better-sqlite3";
import { afterEach, expect, test } from "vitest";
import type { ChangeStreamEvent } from "../../types.ts";
import type { Store } from "./store.ts";
import {
  actor,
  apply,
  copyAll,
  rowsOf,
  serve,
  SMALL_SCHEMA,
  StoreFolder,
  write,
} from "./store-fixture.ts";

let folder = new StoreFolder();
afterEach(() => {
  folder.remove();
  folder = new StoreFolder();
});

const SELF = { nodeId: "a", actorId: actor(1), bootId: "first boot" };
const AFTER_RESTART = { ...SELF, bootId: "second boot" };

test("after a power loss no version is given out twice: peers give them back first", () => {
  const { before, peer } = writeAndLose("lost");
  const store = folder.open("lost", AFTER_RESTART);
  expect(head(store)).toBe(3);
  expect(store.isInDoubt).toBe(true);
  expect(() => write(store, "INSERT INTO t (id, a) VALUES ('x', 9)")).toThrow(
    expect.objectContaining({ code: "STORE_BUSY" }),
  );

  const answers = apply(store, serve(peer, SELF.actorId, { start: 4, end: 6 }));
  expect(answers.map(({ kind }) => kind)).toEqual(["applied", "applied", "applied"]);
  store.settleOwnVersions(6);
  expect(rowsOf(store, "SELECT * FROM t ORDER BY id")).toEqual(
    rowsOf(before, "SELECT * FROM t ORDER BY id"),
  );

  const [next] = write(store, "INSERT INTO t (id, a) VALUES ('x', 9)");
  expect(next).toMatchObject({ version: 7 });
  copyAll(store, peer);
  expect(peer.ledger.books.head(SELF.actorId)).toBe(7);
  expect(rowsOf(peer, "SELECT * FROM t ORDER BY id")).toEqual(
    rowsOf(store, "SELECT * FROM t ORDER BY id"),
  );
});

test("after a power loss a position of the change stream counts for nothing", () => {
  // Local numbers of what is gone are given out again: one of before would skip what has them now.
  const { before } = writeAndLose("lost");
  const from = { databaseId: before.databaseId, dbVersion: before.ledger.lastLocal };
  const store = folder.open("lost", AFTER_RESTART);
  const { streams } = store.publisher;
  const events: ChangeStreamEvent[] = [];
  streams.add({ from, tables: null, credit: 1 }, (event) => events.push(event));
  expect(events).toEqual([{ kind: "reset", reason: "the position is of another database" }]);
});

test("what was taken back is served as our own", () => {
  const { peer } = writeAndLose("lost");
  const store = folder.open("lost", AFTER_RESTART);
  apply(store, serve(peer, SELF.actorId, { start: 4, end: 6 }));
  store.settleOwnVersions(6);
  const fresh = folder.open("fresh", { actorId: actor(3) });
  copyAll(store, fresh);
  expect(rowsOf(fresh, "SELECT * FROM t ORDER BY id")).toEqual(
    rowsOf(peer, "SELECT * FROM t ORDER BY id"),
  );
});

test("versions that others know of and cannot give stay a gap, and may still be filled", () => {
  const { peer } = writeAndLose("lost");
  const store = folder.open("lost", AFTER_RESTART);
  const [sixth, fifth] = serve(peer, SELF.actorId, { start: 5, end: 6 });
  apply(store, [fifth!]);
  store.settleOwnVersions(6);
  expect(store.ledger.books.gaps(SELF.actorId)).toEqual([
    { start: 4, end: 4 },
    { start: 6, end: 6 },
  ]);
  expect(write(store, "INSERT INTO t (id) VALUES ('x')")[0]).toMatchObject({ version: 7 });
  expect(apply(store, [sixth!])).toMatchObject([{ kind: "applied" }]);
  expect(apply(store, serve(peer, SELF.actorId, { start: 4, end: 4 }))).toMatchObject([
    { kind: "applied" },
  ]);
  expect(store.ledger.books.gaps(SELF.actorId)).toEqual([]);
});

test("the doubt outlives a restart, until it is settled", () => {
  writeAndLose("lost");
  folder.open("lost", AFTER_RESTART).close();
  const again = folder.open("lost", AFTER_RESTART);
  expect(again.isInDoubt).toBe(true);
  again.settleOwnVersions(3);
  again.close();
  expect(folder.open("lost", { ...SELF, bootId: "third boot" }).isInDoubt).toBe(false);
});

test("without a peer our rows are published whole under a greater actor id", () => {
  const { before, peer } = writeAndLose("lost");
  const store = folder.open("lost", AFTER_RESTART);
  const { databaseId } = store;
  const rows = rowsOf(store, "SELECT * FROM t ORDER BY id");
  store.requestNewIdentity();
  store.close();

  const renewed = folder.open("lost", { nodeId: "a", bootId: "second boot" });
  expect(renewed.actorId > SELF.actorId).toBe(true);
  expect(renewed.databaseId).not.toBe(databaseId);
  expect(renewed.isInDoubt).toBe(false);
  expect(head(renewed)).toBe(1);
  expect(renewed.ledger.books.head(SELF.actorId)).toBe(3);
  expect(renewed.checkBooks().findings).toEqual([]);
  expect(renewed.checkRows({ table: "t", afterKey: 0 }).findings).toEqual([]);
  expect(rowsOf(renewed, "SELECT * FROM t ORDER BY id")).toEqual(rows);

  const fresh = folder.open("fresh", { actorId: actor(3) });
  apply(fresh, serve(renewed, renewed.actorId, { start: 1, end: 1 }));
  expect(rowsOf(fresh, "SELECT * FROM t ORDER BY id")).toEqual(rows);

  // The peer still has what was lost, and everybody ends up with it.
  expect(peer.ledger.books.head(SELF.actorId)).toBe(6);
  const lostRows = rowsOf(before, "SELECT * FROM t ORDER BY id");
  copyAll(renewed, peer);
  copyAll(peer, renewed);
  copyAll(peer, fresh);
  for (const each of [renewed, peer, fresh]) {
    expect(rowsOf(each, "SELECT * FROM t ORDER BY id")).toEqual(lostRows);
  }
  expect(write(renewed, "INSERT INTO t (id) VALUES ('x')")[0]).toMatchObject({
    version: 2,
    actorId: renewed.actorId,
  });
});

test("a deletion of ours is published again too", () => {
  const store = folder.open("a", SELF);
  const peer = folder.open("b", { actorId: actor(2) });
  write(store, "INSERT INTO t (id, a) VALUES ('gone', 1)");
  copyAll(store, peer);
  write(store, "DELETE FROM t WHERE id = 'gone'");
  store.requestNewIdentity();
  store.close();
  const renewed = folder.open("a", { nodeId: "a" });
  apply(peer, serve(renewed, renewed.actorId, { start: 1, end: head(renewed) }));
  expect(rowsOf(peer, "SELECT * FROM t")).toEqual([]);
});

test("a process that was killed is not in doubt, on the same start of the machine", () => {
  writeAndLose("killed", { isWhole: true });
  const store = folder.open("killed", SELF);
  expect(store.isInDoubt).toBe(false);
  expect(head(store)).toBe(6);
});

test("with every commit synced a restart of the machine leaves no doubt", () => {
  writeAndLose("synced", { isWhole: true, synchronous: "full" });
  expect(folder.open("synced", AFTER_RESTART).isInDoubt).toBe(false);
});

test("where the machine's start cannot be told, a run without an end is in doubt", () => {
  writeAndLose("unknown", { isWhole: true });
  expect(folder.open("unknown", { ...SELF, bootId: null }).isInDoubt).toBe(true);
});

test("a database closed in good order is not in doubt after a restart of the machine", () => {
  const store = folder.open("a", SELF);
  write(store, "INSERT INTO t (id) VALUES ('x')");
  store.close();
  expect(folder.open("a", AFTER_RESTART).isInDoubt).toBe(false);
});

test("a copy that is put back is in doubt, whether of an earlier run or of the last", () => {
  const path = (name: string) => folder.options(name).path;
  const first = folder.open("a", SELF);
  write(first, "INSERT INTO t (id) VALUES ('x')");
  first.close();
  copyFileSync(path("a"), path("early"));
  const second = folder.open("a", SELF);
  write(second, "INSERT INTO t (id) VALUES ('y')");
  copyFiles("a", "during");
  second.close();

  copyFileSync(path("early"), path("a"));
  const restored = folder.open("a", SELF);
  expect(restored.isInDoubt).toBe(true);
  restored.close();

  copyFileSync(`${path("a")}.run`, `${path("during")}.run`);
  expect(folder.open("during", SELF).isInDoubt).toBe(true);
  expect(folder.open("early", SELF).isInDoubt).toBe(true);
});

test("a side file that cannot be written ends the start, and names the file", () => {
  mkdirSync(`${folder.options("a").path}.run`);
  expect(() => folder.open("a", SELF)).toThrow(
    expect.objectContaining({ code: "STORE_FULL", message: expect.stringContaining("a.db.run") }),
  );
});

test("a mark that cannot be read leaves a doubt", () => {
  const store = folder.open("a", SELF);
  write(store, "INSERT INTO t (id) VALUES ('x')");
  store.close();
  const database = new Database(folder.options("a").path);
  database.exec("UPDATE __patina_state SET value = 'no mark' WHERE key = 'run'");
  database.close();
  expect(folder.open("a", SELF).isInDoubt).toBe(true);
});

test("a database that never wrote anything and was closed in good order is not in doubt", () => {
  folder.open("a", SELF).close();
  expect(folder.open("a", AFTER_RESTART).isInDoubt).toBe(false);
});

test("an actor that lost all that it ever wrote is in doubt", () => {
  const before = folder.open("a", { ...SELF, schemaFiles: SMALL_SCHEMA });
  const { size } = statSync(`${folder.options("a").path}-wal`);
  write(before, "INSERT INTO t (id, a) VALUES ('1', 1)");
  copyFiles("a", "lost");
  truncateSync(`${folder.options("lost").path}-wal`, size);
  const store = folder.open("lost", AFTER_RESTART);
  expect(head(store)).toBe(0);
  expect(store.isInDoubt).toBe(true);
  expect(() => write(store, "INSERT INTO t (id, a) VALUES ('2', 2)")).toThrow(
    expect.objectContaining({ code: "STORE_BUSY" }),
  );
});

test("a copy from before anything was written is in doubt when it is put back", () => {
  folder.open("a", SELF).close();
  copyFiles("a", "empty");
  const store = folder.open("a", SELF);
  write(store, "INSERT INTO t (id) VALUES ('x')");
  store.close();
  copyFileSync(folder.options("empty").path, folder.options("a").path);
  expect(folder.open("a", SELF).isInDoubt).toBe(true);
});

/**
 * Writes six versions that a peer has, three of them after the point to which the log of the copy
 * called `name` is cut; unless it `isWhole`.
 */
function writeAndLose(
  name: string,
  options: { isWhole?: boolean; synchronous?: "normal" | "full" } = {},
): { before: Store; peer: Store } {
  const { isWhole = false, synchronous = "normal" } = options;
  const before = folder.open("a", { ...SELF, schemaFiles: SMALL_SCHEMA, synchronous });
  const peer = folder.open("b", { actorId: actor(2) });
  for (const id of ["1", "2", "3"]) write(before, "INSERT INTO t (id, a) VALUES (?, 1)", id);
  const log = `${folder.options("a").path}-wal`;
  const { size } = statSync(log);
  write(before, "UPDATE t SET a = 2 WHERE id = '1'");
  write(before, "DELETE FROM t WHERE id = '2'");
  write(before, "INSERT INTO t (id, a, b) VALUES ('4', 3, 'new')");
  expect(statSync(log).size).toBeGreaterThan(size);
  copyAll(before, peer);
  copyFiles("a", name);
  if (!isWhole) truncateSync(`${folder.options(name).path}-wal`, size);
  return { before, peer };
}

function copyFiles(source: string, target: string): void {
  for (const suffix of ["", "-wal", ".run"]) {
    const from = `${folder.options(source).path}${suffix}`;
    if (existsSync(from)) copyFileSync(from, `${folder.options(target).path}${suffix}`);
  }
}

function head(store: Store): number {
  return store.ledger.books.head(store.actorId);
}
