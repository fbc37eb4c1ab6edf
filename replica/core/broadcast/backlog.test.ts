import { expect, test } from "vitest";
import { ACTOR_A } from "../../../tests/wire-fixtures.ts";
import { Backlog } from "./backlog.ts";
import type { BroadcastEntry } from "./backlog.ts";

test("the most-sent goes first, then the oldest own, the oldest received, urgent ones last", () => {
  const backlog = new Backlog();
  const [urgent, received, ownOld, ownYoung, once, twice] = [1, 2, 3, 4, 5, 6].map((version) =>
    createEntry(version, { isLocal: version > 2, isUrgent: version === 1 }),
  ) as [
    BroadcastEntry,
    BroadcastEntry,
    BroadcastEntry,
    BroadcastEntry,
    BroadcastEntry,
    BroadcastEntry,
  ];
  for (const entry of [urgent, received, ownOld, ownYoung, once, twice]) backlog.add(entry);
  for (const entry of [once, twice, twice]) backlog.countRound(entry);
  const order: number[] = [];
  for (let victim = backlog.victim(); victim !== undefined; victim = backlog.victim()) {
    order.push(victim.version);
    backlog.remove(victim);
  }
  expect(order).toEqual([6, 5, 3, 4, 2, 1]);
  expect([backlog.size, backlog.bytes]).toEqual([0, 0]);
});

test("entries come due in order of their rounds and only once", () => {
  const backlog = new Backlog();
  const entries = [1, 2, 3].map((version) => createEntry(version, {}));
  for (const [index, entry] of entries.entries()) {
    backlog.add(entry);
    backlog.countRound(entry);
    backlog.wait(entry, 100 * (index + 1));
  }
  expect(backlog.nextDueMs()).toBe(100);
  expect(backlog.takeDue(200)).toEqual(entries.slice(0, 2));
  expect(backlog.takeDue(200)).toEqual([]);
  expect(backlog.nextDueMs()).toBe(300);
});

test("an entry removed while it waits is never due", () => {
  const backlog = new Backlog();
  const entry = createEntry(1, {});
  backlog.add(entry);
  backlog.wait(entry, 5);
  backlog.remove(entry);
  backlog.remove(entry);
  expect(backlog.has(entry)).toBe(false);
  expect([backlog.size, backlog.nextDueMs()]).toEqual([0, Number.POSITIVE_INFINITY]);
});

// ---------------------------------------------------------------- helpers

function createEntry(version: number, traits: Partial<BroadcastEntry>): BroadcastEntry {
  return {
    payload: new Uint8Array(10),
    origin: ACTOR_A,
    version,
    isLocal: true,
    isFromTree: false,
    isUrgent: false,
    bornMs: 0,
    rounds: 0,
    roundsMax: 3,
    dueMs: Number.POSITIVE_INFINITY,
    lanes: new Set(),
    inFlight: 0,
    sentTo: new Set(),
    ...traits,
  };
}
