import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { expect, test } from "vitest";
import { SharedCounts } from "#base/shared-counts.ts";
import { LoadSlots, type LoadPlan } from "./load-slots.ts";

test("all threads count a service in one slot, and other services elsewhere", () => {
  const { one, other } = twoThreads();
  const slot = one.hold("m1/web");
  one.take(slot, 0);
  expect(other.hold("m1/web")).toBe(slot);
  expect(other.inFlight(slot)).toBe(1);
  expect(other.hold("m2/web")).not.toBe(slot);
});

test("a slot is free when no thread's table has the service and nothing is in flight", () => {
  const { one, other, used } = twoThreads();
  const slot = one.hold("m1/web");
  other.hold("m1/web");
  other.take(slot, 0);
  one.letGo(slot);
  other.letGo(slot);
  expect(used()).toBe(1);
  expect(one.hold("m1/web")).toBe(slot);
  expect(one.inFlight(slot)).toBe(1);
  one.letGo(slot);
  expect(used()).toBe(1);
  other.give(slot);
  expect(used()).toBe(0);
});

test("a service that comes back while it has requests in flight goes on with them", () => {
  const { one, used } = twoThreads();
  const slot = one.hold("m1/web");
  one.take(slot, 0);
  for (let round = 0; round < 3; round += 1) {
    one.letGo(slot);
    expect(one.hold("m1/web")).toBe(slot);
  }
  one.give(slot);
  expect([used(), one.inFlight(slot)]).toEqual([1, 0]);
  one.letGo(slot);
  expect(used()).toBe(0);
});

test("a service that two of a table's apps have for a moment is held until both let it go", () => {
  const { one, used } = twoThreads();
  const slot = one.hold("m1/web");
  expect(one.hold("m1/web")).toBe(slot);
  one.letGo(slot);
  expect(used()).toBe(1);
  one.letGo(slot);
  expect(used()).toBe(0);
});

test("a service behind one that is gone keeps its slot", () => {
  const { one, used } = twoThreads();
  const slots = Array.from({ length: 7 }, (_, index) => one.hold(`s${index}`));
  expect(new Set(slots).size).toBe(7);
  for (let index = 0; index < 6; index += 1) one.letGo(slots[index] as number);
  expect(one.hold("s6")).toBe(slots[6]);
  expect(used()).toBe(1);
});

test("a full table counts nothing for further services rather than wrongly", () => {
  const { one } = twoThreads();
  const slots = Array.from({ length: 20 }, (_, index) => one.hold(`s${index}`));
  expect(slots.filter((slot) => slot !== 0).length).toBe(7);
  expect(one.take(0, 1)).toBe(true);
  expect(one.inFlight(0)).toBe(0);
  one.give(0);
  one.letGo(0);
});

test("what a thread had when it ended is taken out, and nothing else", () => {
  const { one, other, plan, used } = twoThreads();
  const [busy, quiet, leaving] = ["m1", "m2", "m3"].map((key) => other.hold(key)) as [
    number,
    number,
    number,
  ];
  one.hold("m1");
  one.take(busy, 0);
  other.take(busy, 0);
  other.take(busy, 0);
  other.take(quiet, 0);
  other.give(quiet);
  other.take(leaving, 0);
  other.letGo(leaving);
  expect([one.inFlight(busy), used()]).toEqual([3, 3]);
  one.forget(plan);
  expect([one.inFlight(busy), used()]).toEqual([1, 1]);
  const replacement = new LoadSlots(plan);
  expect(replacement.hold("m1")).toBe(busy);
  replacement.take(busy, 0);
  one.forget(plan);
  expect([one.inFlight(busy), used()]).toEqual([1, 1]);
});

/**
 * Goal: slots change hands safely. Threads hold, count, and let go of few services in fewer
 * slots as fast as they can; two that had different slots for one service would both be the only one
 * inside. All go on until one was refused, so that there was a race.
 */
test("threads that race for slots count each service together", async () => {
  const plan = LoadSlots.allocate({ capacity: 3 });
  const first = new LoadSlots(plan);
  const cells = SharedCounts.allocate(3 + SERVICES);
  const url = new URL("./load-slots.ts", import.meta.url).href;
  await Promise.all(
    [1, 2, 3].map(async () => {
      const workerData = { plan: first.planOfThread(), cells, url, services: SERVICES, threads: 3 };
      await once(new Worker(RACE, { eval: true, workerData }), "exit");
    }),
  );
  const [come, refused, wrong, ...inside] = new Int32Array(cells);
  expect({ come, wrong, isRaced: (refused ?? 0) > 0 }).toEqual({
    come: 3,
    wrong: 0,
    isRaced: true,
  });
  expect(inside.every((count) => count === 0)).toBe(true);
  expect([usedOf(plan), [...new Int32Array(plan.counts)]]).toEqual([0, [0, 0, 0]]);
});

const SERVICES = 3;

/** Cells: threads that have come, refusals, two inside at once, and who is inside by service. */
const RACE = `
const { workerData: { plan, url, services, threads, cells: buffer } } = require("node:worker_threads");
import(url).then(({ LoadSlots }) => {
  const load = new LoadSlots(plan);
  const cells = new Int32Array(buffer);
  Atomics.add(cells, 0, 1);
  while (Atomics.load(cells, 0) < threads);
  for (let round = 0; round < 50000 || Atomics.load(cells, 1) === 0; round += 1) {
    const service = round % services;
    const slot = load.hold("service-" + service);
    if (slot === 0) continue;
    if (load.take(slot, 1)) {
      if (Atomics.add(cells, 3 + service, 1) !== 0) Atomics.add(cells, 2, 1);
      Atomics.sub(cells, 3 + service, 1);
      if (round % 2 === 0) { load.letGo(slot); load.give(slot); continue; }
      load.give(slot);
    } else Atomics.add(cells, 1, 1);
    load.letGo(slot);
  }
});
`;

function twoThreads() {
  const first = LoadSlots.allocate({ capacity: 8 });
  const one = new LoadSlots(first);
  const plan = one.planOfThread();
  return { one, other: new LoadSlots(plan), plan, used: () => usedOf(first) };
}

/** Slots that are not free. */
function usedOf({ slots }: LoadPlan): number {
  const cells = [...new Int32Array(slots)].slice(1);
  return cells.filter((cell, at) => at % 3 === 0 && cell !== 0).length;
}
