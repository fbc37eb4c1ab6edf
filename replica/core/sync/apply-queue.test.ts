import { expect, test } from "vitest";
import type { Changeset, ColumnChange, FullChangeset } from "../../types.ts";
import { ApplyQueue, type ApplyBatch } from "./apply-queue.ts";

test("chunks of a version go in one batch when all are there", () => {
  const queue = new ApplyQueue(LIMITS);
  const [first, second, third] = chunks(7, [2, 2, 1]);
  queue.add(first, NEW);
  queue.add(second, NEW);
  expect(queue.take()).toBeNull();
  expect(queue).toMatchObject({ pendingChanges: 4, isEmpty: false });
  queue.add(third, NEW);
  expect(queue.take()?.changesets).toEqual([first, second, third]);
});

test("versions of one chunk, and Empty, go past a version that is not complete", () => {
  const queue = new ApplyQueue(LIMITS);
  const [half] = chunks(7, [2, 2]);
  const [whole] = chunks(6, [3]);
  const empty: Changeset = { kind: "empty", actorId: ACTOR, versions: range(1, 5), ts: null };
  for (const changeset of [half, whole, empty]) queue.add(changeset, NEW);
  expect(queue.take()?.changesets).toEqual([whole, empty]);
  expect(queue.pendingChanges).toBe(6);
});

test("what is held goes when nothing more will come", () => {
  const queue = new ApplyQueue(LIMITS);
  const [half] = chunks(7, [2, 2]);
  queue.add(half, NEW);
  queue.flush();
  const batch = queue.take();
  expect(batch?.changesets).toEqual([half]);
  expect(queue.finish(batch?.batchId ?? 0)).toBe(true);
  expect(queue).toMatchObject({ pendingChanges: 0, isEmpty: true });
});

test("a chunk of a version that is stored in part, or out of order, is not held", () => {
  const queue = new ApplyQueue(LIMITS);
  const [first] = chunks(7, [2, 2]);
  queue.add(first, { isPartial: true });
  expect(taken(queue.take())).toEqual([first]);
  const [start, , end] = chunks(8, [1, 1, 1]);
  queue.add(start, NEW);
  queue.add(end, NEW);
  queue.add(end, NEW);
  queue.flush();
  // The first batch is under way, and these do not fill one.
  expect(queue.take()).toBeNull();
  queue.finish(1);
  expect(taken(queue.take())).toEqual([start, end, end]);
});

test("a version larger than a batch goes on in pieces, each chunk once and in order", () => {
  const queue = new ApplyQueue(LIMITS);
  const all = chunks(7, [4, 4, 4, 4, 4, 4]);
  const sent: Changeset[] = [];
  for (const chunk of all) {
    queue.add(chunk, NEW);
    const batch = queue.take();
    if (batch === null) continue;
    sent.push(...batch.changesets);
    queue.finish(batch.batchId);
  }
  expect(sent).toEqual(all);
});

test("no more is held than two batches' worth: the oldest goes first", () => {
  const queue = new ApplyQueue(LIMITS);
  const halves = [1, 2, 3, 4, 5].map((version) => chunks(version, [5, 5])[0]);
  for (const half of halves) queue.add(half, NEW);
  expect(taken(queue.take())).toEqual([halves[0]]);
  expect(queue.take()).toBeNull();
});

test("what is held leaves room to ask for the rest of it", () => {
  const queue = new ApplyQueue({ ...LIMITS, pendingChangesMax: 6 });
  const [start] = chunks(7, [4, 4]);
  queue.add(start, NEW);
  expect(taken(queue.take())).toEqual([start]);
});

/** Chunks of one version with so many changes each. */
function chunks(version: number, sizes: readonly [number, ...number[]]): NonEmpty {
  const lastSeq = sizes.reduce((sum, size) => sum + size, 0) - 1;
  let seq = 0;
  const cut = sizes.map((size): FullChangeset => {
    const changes = Array.from({ length: size }, (_, at) => changeOf(seq + at));
    const seqs = range(seq, seq + size - 1);
    seq += size;
    return { kind: "full", actorId: ACTOR, version, changes, seqs, lastSeq, ts: 1n };
  });
  return cut as unknown as NonEmpty;
}

function changeOf(seq: number): ColumnChange {
  const pk = Uint8Array.of(1, 9, seq);
  return { table: "t", pk, cid: "a", val: 1n, colVersion: 1, seq, cl: 1 };
}

function range(start: number, end: number): { start: number; end: number } {
  return { start, end };
}

function taken(batch: ApplyBatch | null): readonly Changeset[] {
  return batch?.changesets ?? [];
}

type NonEmpty = readonly [FullChangeset, FullChangeset, FullChangeset, ...FullChangeset[]];

const ACTOR = "00000001-0000-4000-8000-000000000000";
const NEW = { isPartial: false };
const LIMITS = {
  applyBatchMax: 100,
  applyChangesMax: 10,
  applyInFlightMax: 2,
  pendingChangesMax: 100,
};
