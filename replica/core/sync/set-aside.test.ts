import { expect, test } from "vitest";
import { RangeSet } from "#base/range-set.ts";
import { Bookkeeping } from "../bookkeeping/bookkeeping.ts";
import { ACTOR_A } from "../../../tests/wire-fixtures.ts";
import type { ActorNeeds } from "./needs.ts";
import { SetAside } from "./set-aside.ts";

const actorId = ACTOR_A;

test("a version may fail thrice; then the pauses double, up to an hour and a bit", () => {
  const setAside = new SetAside(new Bookkeeping());
  const pauses: number[] = [];
  let nowMs = 0;
  for (let time = 0; time < 12; time += 1) {
    setAside.failed({ actorId, version: 5 }, nowMs);
    const askedAtMs = [0, 30, 60, 120, 240, 480, 960, 1920, 3840]
      .map((seconds) => nowMs + seconds * 1000)
      .find((atMs) => neededAt(setAside, atMs).includes(5));
    pauses.push(((askedAtMs ?? Number.NaN) - nowMs) / 1000);
    nowMs = askedAtMs ?? Number.NaN;
  }
  expect(pauses).toEqual([0, 0, 30, 60, 120, 240, 480, 960, 1920, 3840, 3840, 3840]);
});

test("only what failed is withheld, whole or in part, until it has come after all", () => {
  const books = new Bookkeeping();
  const setAside = new SetAside(books);
  for (let time = 0; time < 3; time += 1) setAside.failed({ actorId, version: 5 }, 0);
  expect(neededAt(setAside, 0)).toEqual([4, 6]);
  expect(setAside.size).toBe(1);
  books.recordComplete(actorId, { start: 5, end: 5 });
  neededAt(setAside, 0);
  expect(setAside.size).toBe(0);
});

test("however many fail, what is remembered is bounded: the oldest is asked again", () => {
  const setAside = new SetAside(new Bookkeeping());
  for (let version = 1; version <= 10_000; version += 1) {
    for (let time = 0; time < 3; time += 1) setAside.failed({ actorId, version }, 0);
  }
  expect(setAside.size).toBe(4_096);
  expect(neededAt(setAside, 0)).toContain(5);
});

/** Which of 4, 5 (also in part) and 6 are asked for. */
function neededAt(setAside: SetAside, nowMs: number): number[] {
  const needs = new Map<string, ActorNeeds>([
    [actorId, { full: RangeSet.from([{ start: 4, end: 6 }]), partial: new Map([[5, []]]) }],
  ]);
  setAside.withhold(needs, nowMs);
  const { full, partial } = needs.get(actorId) ?? { full: new RangeSet(), partial: new Map() };
  const whole = [4, 5, 6].filter((version) => full.contains(version));
  return [...new Set([...whole, ...partial.keys()])];
}
