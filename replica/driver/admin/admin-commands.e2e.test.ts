/** Requests that repair, on a real store whose file a foreign hand changed. */
import { afterAll, expect, test } from "vitest";
import { Bookkeeping } from "../../core/bookkeeping/bookkeeping.ts";
import type { ApplyOutcome, Changeset, FullChangeset } from "../../types.ts";
import { actorBytes } from "../store/ledger.ts";
import { actor, apply, rowsOf, StoreFolder, writeAll } from "../store/store-fixture.ts";
import type { Store } from "../store/store.ts";
import { performAdmin, type AdminContext } from "./admin-commands.ts";
import type { AdminRequest } from "./admin-messages.ts";
import type { AdminNote } from "./admin-server.ts";

const folder = new StoreFolder();
afterAll(() => folder.remove());

test("a version whose buffer is whole is merged when asked to, one that lacks seqs is not", async () => {
  const { target, whole } = buffered("merge");
  const { context, books } = contextOf(target);
  const request = { kind: "processBufferedChanges", actorId: whole.actorId, version: 1 } as const;
  await expect(perform(context, request)).rejects.toMatchObject({
    code: "ADMIN_REFUSED",
    message: expect.stringContaining("lacks seqs 1-1"),
  });
  // As a process would leave it that ended between buffering the last rows and merging them.
  const database = target.databaseForTests;
  const { table, pk, cid, val, colVersion, seq, cl } = whole.changes[1]!;
  const numbers = [BigInt(colVersion), actorBytes(whole.actorId), BigInt(seq), BigInt(cl)];
  const values = [table, pk, cid, val, ...numbers];
  database
    .prepare("INSERT INTO __corro_buffered_changes VALUES (?, ?, ?, ?, ?, 1, ?, ?, ?)")
    .run(values);
  database.exec("UPDATE __corro_seq_bookkeeping SET end_seq = 1");
  target.ledger.undo();
  books.load(target.ledger.books.snapshot());
  expect(await perform(context, request)).toEqual([
    { kind: "log", msg: expect.stringContaining("rows changed: 1") },
  ]);
  expect(rowsOf(target, "SELECT id, a, b FROM t")).toEqual([["x", 5n, "b"]]);
  expect(books.contains(whole.actorId, { start: 1, end: 1 })).toBe(true);
  await expect(perform(context, request)).rejects.toThrow(/nothing is buffered/);
});

test("a consistency check that finds something ends with an error, and the repair mends it", async () => {
  const { target, whole } = buffered("check");
  const { context, books } = contextOf(target);
  target.databaseForTests.exec("DELETE FROM __corro_seq_bookkeeping");
  const found: AdminNote[] = [];
  const check = async (): Promise<void> => {
    for await (const note of performAdmin(context, { kind: "checkBookieConsistency" })) {
      found.push(note);
    }
  };
  await expect(check()).rejects.toThrow(/value_mismatch=1, .* findings=1/);
  expect(found.at(-1)).toMatchObject({
    kind: "json",
    value: { ok: false, value_mismatch_actors: [whole.actorId] },
  });
  expect(await perform(context, { kind: "reconcileGaps" })).toContainEqual({
    kind: "log",
    msg: expect.stringContaining(`reconciled ${whole.actorId}`),
  });
  expect(books.gaps(whole.actorId)).toEqual([{ start: 1, end: 1 }]);
  await expect(check()).resolves.toBeUndefined();
});

/** A store with the first of two seqs of a version. */
function buffered(name: string): { target: Store; whole: FullChangeset } {
  const source = folder.open(`${name}-source`, { actorId: actor(3) });
  const target = folder.open(name, { actorId: actor(4) });
  const sql = "INSERT INTO t VALUES ('x', 5, 'b')";
  const [whole] = writeAll(source, [{ sql }]) as FullChangeset[];
  apply(target, [{ ...whole!, seqs: { start: 0, end: 0 }, changes: whole!.changes.slice(0, 1) }]);
  return { target, whole: whole! };
}

/** What these requests use of a replica, over a store in this thread. */
function contextOf(store: Store): { context: AdminContext; books: Bookkeeping } {
  const books = new Bookkeeping(store.ledger.books.snapshot());
  const client = {
    checkBooks: () => Promise.resolve(store.checkBooks()),
    checkRows: (slice: Parameters<Store["checkRows"]>[0]) =>
      Promise.resolve(store.checkRows(slice)),
    repairBooks: () => Promise.resolve(store.repairBooks()),
    apply: (changesets: readonly Changeset[]) =>
      Promise.resolve(
        apply(store, changesets).map(
          (record, at) => ({ ...record, changeset: changesets[at] }) as unknown as ApplyOutcome,
        ),
      ),
  };
  const context = { core: { books }, driver: { run: () => undefined }, store: client };
  return { context: context as unknown as AdminContext, books };
}

async function perform(context: AdminContext, request: AdminRequest): Promise<AdminNote[]> {
  return Array.fromAsync(performAdmin(context, request));
}
