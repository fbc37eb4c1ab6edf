import { expect, test } from "vitest";
import { ACTOR_A, ACTOR_B } from "../../../tests/wire-fixtures.ts";
import type { Changeset } from "../../types.ts";
import { SeenCache } from "./seen-cache.ts";

test("a changeset is known by actor, version and seqs", () => {
  const cache = new SeenCache(100);
  expect(cache.add(full(1))).toBe(true);
  expect(cache.add(full(1))).toBe(false);
  const others: Changeset[] = [
    full(2),
    { ...full(1), actorId: ACTOR_B },
    { ...full(1), seqs: { start: 0, end: 1 } },
    { kind: "empty", actorId: ACTOR_A, versions: { start: 1, end: 1 }, ts: null },
  ];
  expect(others.map((changeset) => cache.has(changeset))).toEqual([false, false, false, false]);
});

test("the cache stays bounded and keeps at least the younger half", () => {
  const cache = new SeenCache(10);
  for (let version = 1; version <= 1000; version += 1) {
    cache.add(full(version));
    expect(cache.size).toBeLessThanOrEqual(10);
  }
  expect([996, 997, 998, 999, 1000].every((version) => cache.has(full(version)))).toBe(true);
  expect(cache.has(full(900))).toBe(false);
});

test("a forgotten changeset counts as new", () => {
  const cache = new SeenCache(10);
  cache.add(full(1));
  cache.delete(full(1));
  expect(cache.add(full(1))).toBe(true);
});

// ---------------------------------------------------------------- helpers

function full(version: number): Extract<Changeset, { kind: "full" }> {
  const seqs = { start: 0, end: 0 };
  return { kind: "full", actorId: ACTOR_A, version, changes: [], seqs, lastSeq: 0, ts: 1n };
}
