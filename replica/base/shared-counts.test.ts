import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { expect, test } from "vitest";
import { SharedCounts, SharedLimit } from "./shared-counts.ts";

test("a limit holds for all who count together, and what is given back can be taken again", () => {
  const plan = { counts: SharedCounts.allocate(3), share: null };
  const [one, other] = [1, 2].map(
    () => new SharedLimit(new SharedCounts(plan), { at: 1, max: 3 }),
  ) as [SharedLimit, SharedLimit];
  expect([one.take(), other.take(), one.take(), other.take()]).toEqual([true, true, true, false]);
  one.give();
  expect([other.take(), one.take()]).toEqual([true, false]);
  expect([...new Int32Array(plan.counts)]).toEqual([0, 3, 0]);
});

test("with a limit of none, none is taken", () => {
  expect(SharedLimit.own(0).take()).toBe(false);
});

test("what a thread that ended had counted is taken out, and its share can be used again", () => {
  const all = new SharedCounts({ counts: SharedCounts.allocate(2), share: null });
  const plan = all.planOfThread();
  const ended = new SharedCounts(plan);
  all.add(0);
  ended.add(0);
  ended.take(1, 5);
  ended.take(1, 5);
  ended.give(1);
  expect([all.count(0), all.count(1)]).toEqual([2, 1]);
  all.forget(plan.share as SharedArrayBuffer);
  expect([all.count(0), all.count(1)]).toEqual([1, 0]);
  all.forget(plan.share as SharedArrayBuffer);
  expect(all.count(0)).toBe(1);
});

/**
 * Goal: never more than the limit, with threads that take and give as fast as they can. Each counts
 * those inside in a cell of the test's own too, and how often there were 1, 2 and 3. All go on until
 * one was refused while two were inside, so that there was a race.
 */
test("threads that race for the last ones never have more than the limit", async () => {
  const counts = SharedCounts.allocate(7);
  const url = new URL("./shared-counts.ts", import.meta.url).href;
  const workerData = { counts, url, threads: 3 };
  await Promise.all(
    [1, 2, 3].map(async () => {
      const worker = new Worker(RACE, { eval: true, workerData });
      await once(worker, "exit");
    }),
  );
  const [left, inside, come, refused, , two, three] = new Int32Array(counts);
  expect({ left, inside, come, three }).toEqual({ left: 0, inside: 0, come: 3, three: 0 });
  expect([refused, two].every((count) => count !== undefined && count > 0)).toBe(true);
});

/** Cells: what is tested, those inside, threads that have come, refusals, and how many saw 1 to 3. */
const RACE = `
const { workerData } = require("node:worker_threads");
import(workerData.url).then(({ SharedCounts }) => {
  const counts = new SharedCounts({ counts: workerData.counts, share: null });
  const cells = new Int32Array(workerData.counts);
  const isLacking = (cell) => Atomics.load(cells, cell) === 0;
  Atomics.add(cells, 2, 1);
  while (Atomics.load(cells, 2) < workerData.threads);
  for (let round = 0; round < 100000 || isLacking(3) || isLacking(5); round += 1) {
    if (!counts.take(0, 2)) { Atomics.add(cells, 3, 1); continue; }
    Atomics.add(cells, 4 + Atomics.add(cells, 1, 1), 1);
    Atomics.sub(cells, 1, 1);
    counts.give(0);
  }
});
`;
