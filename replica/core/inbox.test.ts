import { expect, test } from "vitest";
import type { Changeset, EmptyChangeset, FullChangeset } from "../types.ts";
import { Inbox } from "./inbox.ts";

test("urgent changesets go first, whatever ordinary ones are under way", () => {
  const inbox = createInbox({ inFlightMax: 1 });
  inbox.add(full(1), false);
  expect(versionsOf(inbox.take())).toEqual([1]);
  inbox.add(full(2), false);
  inbox.add(full(3), true);
  inbox.add(full(4), true);
  const urgent = inbox.take();
  expect(urgent?.isUrgent).toBe(true);
  expect(versionsOf(urgent)).toEqual([3, 4]);
  expect(inbox.take()).toBeNull();
});

test("a storm of urgent ones fills batches, and holds back no ordinary ones", () => {
  const inbox = createInbox({ inFlightMax: 1 });
  inbox.add(full(1), true);
  const first = inbox.take();
  for (const version of [2, 3]) inbox.add(full(version), true);
  inbox.add(full(4), false);
  expect(inbox.take()).toMatchObject({ isUrgent: false });
  expect(inbox.take()).toBeNull();
  inbox.finish(first?.batchId ?? 0);
  expect(versionsOf(inbox.take())).toEqual([2, 3]);
});

test("what arrives while batches are under way goes together in the next one", () => {
  const inbox = createInbox({ inFlightMax: 1 });
  inbox.add(full(1), false);
  const first = inbox.take();
  for (const version of [2, 3, 4]) inbox.add(full(version), false);
  expect(inbox.take()).toBeNull();
  expect(inbox.finish(first?.batchId ?? 0)).toEqual(first);
  expect(versionsOf(inbox.take())).toEqual([2, 3, 4]);
});

test("a batch holds no more than its limit", () => {
  const inbox = createInbox({ batchMax: 2, inFlightMax: 2 });
  for (const version of [1, 2, 3, 4, 5]) inbox.add(full(version), false);
  expect(versionsOf(inbox.take())).toEqual([1, 2]);
  expect(versionsOf(inbox.take())).toEqual([3, 4]);
  expect(inbox.take()).toBeNull();
});

test("a changeset is taken once while it waits or is under way, and again after that", () => {
  const inbox = createInbox({});
  inbox.add(full(1), false);
  inbox.add(full(1), true);
  expect(inbox.size).toBe(1);
  const batch = inbox.take();
  inbox.add(full(1), false);
  expect([inbox.has(full(1)), inbox.size, inbox.take()]).toEqual([true, 1, null]);
  inbox.finish(batch?.batchId ?? 0);
  expect([inbox.has(full(1)), inbox.size]).toEqual([false, 0]);
  inbox.add(full(1), false);
  expect(versionsOf(inbox.take())).toEqual([1]);
});

test("chunks of one version, actors and empty ranges are told apart", () => {
  const inbox = createInbox({});
  const chunk: FullChangeset = { ...full(1), seqs: { start: 0, end: 0 } };
  const rest: FullChangeset = { ...full(1), seqs: { start: 1, end: 9 } };
  const other: FullChangeset = { ...full(1), actorId: "b" };
  const empty: EmptyChangeset = {
    kind: "empty",
    actorId: "a",
    versions: { start: 1, end: 1 },
    ts: null,
  };
  for (const one of [chunk, rest, other, empty]) inbox.add(one, false);
  expect(inbox.size).toBe(4);
});

test.each([true, false])("beyond the limit the oldest waiting one is dropped (%s)", (isUrgent) => {
  const inbox = createInbox({ waitingMax: 2 });
  const dropped = [1, 2, 3].map((version) => inbox.add(full(version), isUrgent));
  expect(dropped).toEqual([null, null, full(1)]);
  expect([inbox.stats.dropped, inbox.has(full(1))]).toEqual([1, false]);
  expect(versionsOf(inbox.take())).toEqual([2, 3]);
});

test("the end of a batch that is not known changes nothing", () => {
  const inbox = createInbox({ inFlightMax: 1 });
  inbox.add(full(1), false);
  const batch = inbox.take();
  expect(inbox.finish(99)).toBeNull();
  expect(inbox.finish(batch?.batchId ?? 0)).toEqual(batch);
  expect(inbox.finish(batch?.batchId ?? 0)).toBeNull();
  expect(inbox.size).toBe(0);
});

function createInbox(limits: Partial<ConstructorParameters<typeof Inbox>[0]>): Inbox {
  return new Inbox({ waitingMax: 100, batchMax: 10, inFlightMax: 2, ...limits });
}

function full(version: number): FullChangeset {
  const seqs = { start: 0, end: 0 };
  return { kind: "full", actorId: "a", version, changes: [], seqs, lastSeq: 0, ts: 1n };
}

function versionsOf(batch: { readonly changesets: readonly Changeset[] } | null): number[] {
  const changesets = batch?.changesets ?? [];
  return changesets.map((one) => (one.kind === "full" ? one.version : one.versions.start));
}
