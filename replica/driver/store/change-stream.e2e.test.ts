/** The change stream from a store to readers at their own pace, over real message ports. */
import { MessageChannel } from "node:worker_threads";
import { afterAll, expect, test } from "vitest";
import { createPrng } from "#base/prng.ts";
import { STREAM_LIMITS } from "../../core/change-stream/stream-publisher.ts";
import type { ChangeStreamEvent, RowChange, Watermark } from "../../types.ts";
import { readChangeStream } from "./change-stream.ts";
import type { Store } from "./store.ts";
import { StoreFolder, actor, apply, rowsOf, serve, write, writeAll } from "./store-fixture.ts";

const folder = new StoreFolder();
afterAll(() => folder.remove());

test("a reader without a position is reset, gets all rows, then a batch per commit", async () => {
  const store = open();
  write(store, "INSERT INTO t VALUES ('x', 1, 'b')");
  const reader = subscribe(store, { from: null });
  expect(await reader.take(3)).toMatchObject([
    { kind: "reset" },
    {
      kind: "rows",
      rows: [{ table: "t", key: ["x"], row: { id: "x", a: 1n, b: "b" }, version: 1 }],
    },
    {
      kind: "caughtUp",
      watermark: { databaseId: store.databaseId, dbVersion: store.ledger.lastLocal },
    },
  ]);
  writeAll(store, [{ sql: "INSERT INTO k VALUES ('y')" }, { sql: "DELETE FROM t" }]);
  const [batch] = await reader.take(1);
  expect(batch).toMatchObject({ kind: "rows", watermark: { dbVersion: store.ledger.lastLocal } });
  expect(rowsIn(batch)).toEqual(
    expect.arrayContaining([
      { table: "t", key: ["x"], row: null, actorId: store.actorId, version: 2 },
      { table: "k", key: ["y"], row: { id: "y" }, actorId: store.actorId, version: 2 },
    ]),
  );
  await reader.end();
});

test("merged changes carry the origin's actor and version", async () => {
  const [source, target] = [open(), open()];
  write(source, "INSERT INTO k VALUES ('unseen')");
  const changesets = write(source, "INSERT INTO t VALUES ('x', 1, 'b')");
  const reader = subscribe(target, { from: null });
  await reader.take(2);
  apply(target, changesets);
  const [batch] = await reader.take(1);
  expect(rowsIn(batch)).toMatchObject([{ key: ["x"], actorId: source.actorId, version: 2 }]);
  await reader.end();
});

test("a watcher hears of a commit once, and of none before it has looked", async () => {
  const store = open();
  const { port1, port2 } = new MessageChannel();
  const isTold = new Int32Array(new SharedArrayBuffer(4));
  store.publisher.watchers.add({ port: port1, isTold });
  const heard: number[] = [];
  let wake: () => void = () => undefined;
  port2.on("message", (position: number) => {
    heard.push(position);
    wake();
  });
  const next = (): Promise<void> => new Promise((resolve) => (wake = resolve));
  let told = next();
  for (const id of ["a", "b", "c"]) write(store, `INSERT INTO k VALUES ('${id}')`);
  await told;
  const seen = store.ledger.lastLocal;
  Atomics.store(isTold, 0, 0);
  told = next();
  for (const id of ["d", "e"]) write(store, `INSERT INTO k VALUES ('${id}')`);
  await told;
  expect(heard).toEqual([seen - 2, seen + 1]);
  port2.close();
});

test("a reader grants credit for half of what may be on its way at a time", async () => {
  const store = open();
  const { port1, port2 } = new MessageChannel();
  const events = readChangeStream(port2, Promise.resolve(), 4);
  const grants: number[] = [];
  let wake: () => void = () => undefined;
  const granted = new Promise<void>((resolve) => (wake = resolve));
  port1.on("message", (credit: number) => {
    if (grants.push(credit) === 2) wake();
  });
  const watermark = { databaseId: store.databaseId, dbVersion: 0 };
  for (let at = 0; at < 5; at += 1) port1.postMessage({ kind: "rows", rows: [], watermark });
  for (let at = 0; at < 5; at += 1) await events.next();
  await granted;
  expect(grants).toEqual([2, 2]);
  await events.return?.();
});

test("a reader that gives its watermark gets what it missed, without a reset", async () => {
  const store = open();
  write(store, "INSERT INTO t VALUES ('x', 1, 'b')");
  const from = { databaseId: store.databaseId, dbVersion: store.ledger.lastLocal };
  write(store, "INSERT INTO t VALUES ('y', 1, 'b')");
  write(store, "UPDATE t SET a = 2 WHERE id = 'y'");
  write(store, "DELETE FROM t WHERE id = 'x'");
  const reader = subscribe(store, { from });
  const [batch, end] = await reader.take(2);
  expect(rowsIn(batch)).toMatchObject([
    { key: ["y"], row: { a: 2n }, version: 3 },
    { key: ["x"], row: null, version: 4 },
  ]);
  expect(end).toMatchObject({ kind: "caughtUp" });
  await reader.end();
});

test.each([
  [
    "of another database",
    (store: Store) => ({ databaseId: "other", dbVersion: store.ledger.lastLocal }),
  ],
  ["beyond the present", (store: Store) => ({ databaseId: store.databaseId, dbVersion: 99 })],
  [
    "older than what is retained",
    (store: Store) => ({ databaseId: store.databaseId, dbVersion: -1 }),
  ],
])("a position %s leads to a reset", async (_label, positionOf) => {
  const store = open();
  write(store, "INSERT INTO t VALUES ('x', 1, 'b')");
  const reader = subscribe(store, { from: positionOf(store) });
  expect((await reader.take(3)).map((event) => event.kind)).toEqual(["reset", "rows", "caughtUp"]);
  await reader.end();
});

test("a reader of some tables sees nothing of the others", async () => {
  const store = open();
  const reader = subscribe(store, { from: null, tables: ["k"] });
  await reader.take(2);
  write(store, "INSERT INTO t VALUES ('x', 1, 'b')");
  write(store, "INSERT INTO k VALUES ('y')");
  const [batch] = await reader.take(1);
  expect(rowsIn(batch)).toMatchObject([{ table: "k" }]);
  await reader.end();
});

test("without credit nothing is sent; what was missed comes at once, each row once", async () => {
  const store = open();
  const { port1, port2 } = new MessageChannel();
  const events: ChangeStreamEvent[] = [];
  port2.on("message", (event: ChangeStreamEvent) => events.push(event));
  const stream = { from: null, tables: null, credit: 1 };
  store.publisher.subscribe(port1, stream, () => drive(store));
  for (let index = 0; index < 10; index += 1) {
    write(
      store,
      "INSERT INTO t VALUES ('x', ?, '') ON CONFLICT DO UPDATE SET a = excluded.a",
      BigInt(index),
    );
  }
  await settle(() => events.length >= 3);
  expect(events.map((event) => event.kind)).toEqual(["reset", "caughtUp", "rows"]);
  port2.postMessage(5);
  await settle(() => events.length >= 4);
  expect(rowsIn(events[3])).toMatchObject([{ row: { a: 9n }, version: 10 }]);
  port2.close();
});

test("a reader that falls too far behind is reset", async () => {
  const { backlogRowsMax } = STREAM_LIMITS;
  const store = open();
  const { port1, port2 } = new MessageChannel();
  const events: ChangeStreamEvent[] = [];
  port2.on("message", (event: ChangeStreamEvent) => events.push(event));
  store.publisher.subscribe(port1, { from: null, tables: null, credit: 0 }, () => drive(store));
  port2.postMessage(1);
  await settle(() => events.length >= 2);
  const insert =
    "WITH RECURSIVE n(i) AS (SELECT ? UNION ALL SELECT i + 1 FROM n WHERE i < ?)" +
    " INSERT INTO k SELECT i FROM n";
  write(store, "INSERT INTO t VALUES ('first', 1, '')");
  write(store, insert, 1n, 1n);
  write(store, insert, 10n, BigInt(backlogRowsMax + 100));
  port2.postMessage(1000);
  await settle(() => events.filter((event) => event.kind === "caughtUp").length === 2);
  const resets = events.filter((event) => event.kind === "reset");
  expect(resets).toHaveLength(2);
  expect(fold(events).size).toBe(backlogRowsMax + 93);
  port2.close();
});

test("what a reader folds is what the tables hold, however it pauses and resumes", async () => {
  for (let seed = 1; seed <= 10; seed += 1) await checkFold(seed);
});

async function checkFold(seed: number): Promise<void> {
  const prng = createPrng(seed);
  const [source, store] = [open(), open()];
  let reader = subscribe(store, { from: null });
  const seen: ChangeStreamEvent[] = [];
  for (let step = 0; step < 60; step += 1) {
    const writer = prng.below(2) === 0 ? source : store;
    const id = `k${prng.below(6)}`;
    if (prng.below(3) === 0) write(writer, "DELETE FROM t WHERE id = ?", id);
    else write(writer, "REPLACE INTO t VALUES (?, ?, 'b')", id, BigInt(prng.below(100)));
    const head = source.ledger.books.head(source.actorId);
    if (prng.below(2) === 0 && head > 0) {
      const version = 1 + prng.below(head);
      apply(store, serve(source, source.actorId, { start: version, end: version }));
    }
    if (prng.below(10) === 0) {
      await reader.caughtUp(store, seen);
      await reader.end();
      reader = subscribe(store, { from: lastWatermark(seen) });
    }
  }
  await reader.caughtUp(store, seen);
  await reader.end();
  const folded = [...fold(seen).values()].map((change) => Object.values(change.row ?? {}));
  folded.sort((left, right) => (String(left[0]) < String(right[0]) ? -1 : 1));
  expect(folded, `seed ${seed}`).toEqual(rowsOf(store, "SELECT * FROM t ORDER BY id"));
}

let counter = 0;

function open(): Store {
  counter += 1;
  return folder.open(`s${counter}`, { actorId: actor(counter % 10) });
}

/** A reader of a store in this thread; its pages are driven as the worker would. */
function subscribe(store: Store, options: { from: Watermark | null; tables?: string[] }) {
  const { port1, port2 } = new MessageChannel();
  const stream = { from: options.from, tables: options.tables ?? null, credit: 4 };
  store.publisher.subscribe(port1, stream, () => drive(store));
  const events = readChangeStream(port2, Promise.resolve(), stream.credit);
  const take = async (count: number): Promise<ChangeStreamEvent[]> => {
    const taken: ChangeStreamEvent[] = [];
    while (taken.length < count) taken.push((await events.next()).value as ChangeStreamEvent);
    return taken;
  };
  return {
    take,
    end: async () => events.return?.(),
    /** Reads on until the store's present position, adding to `seen`. */
    caughtUp: async (target: Store, seen: ChangeStreamEvent[]) => {
      // A row of its own marks the present: what comes before it is all there was.
      write(target, "INSERT INTO t VALUES ('mark', 0, '')");
      write(target, "DELETE FROM t WHERE id = 'mark'");
      const present = target.ledger.lastLocal;
      for (;;) {
        const [event] = await take(1);
        if (event !== undefined) seen.push(event);
        if (event?.kind !== "reset" && event?.watermark.dbVersion === present) return;
      }
    },
  };
}

function drive(store: Store): void {
  while (store.publisher.hasWork()) store.publisher.step();
}

async function settle(isDone: () => boolean): Promise<void> {
  while (!isDone()) await new Promise<void>((resolve) => setImmediate(resolve));
}

function rowsIn(event: ChangeStreamEvent | undefined): readonly RowChange[] {
  return event?.kind === "rows" ? event.rows : [];
}

function lastWatermark(seen: readonly ChangeStreamEvent[]): Watermark | null {
  return seen.findLast((event) => event.kind !== "reset")?.watermark ?? null;
}

function fold(events: readonly ChangeStreamEvent[]): Map<string, RowChange> {
  const rows = new Map<string, RowChange>();
  for (const event of events) {
    if (event.kind === "reset") rows.clear();
    for (const change of rowsIn(event)) {
      const label = `${change.table} ${change.key.join(" ")}`;
      if (change.row === null) rows.delete(label);
      else rows.set(label, change);
    }
  }
  return rows;
}
