import fc from "fast-check";
import { expect, test } from "vitest";
import { DelayQueue } from "./delay-queue.ts";

test("values come out by due time, equal times in order of arrival", () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: 9 })), (dueTimes) => {
      const queue = new DelayQueue<number>();
      dueTimes.forEach((dueMs, order) => queue.push(dueMs, order));
      const taken: number[] = [];
      for (let at = queue.take(9); at !== undefined; at = queue.take(9)) taken.push(at);
      const expected = dueTimes
        .map((dueMs, order) => ({ dueMs, order }))
        .sort((first, second) => first.dueMs - second.dueMs || first.order - second.order);
      expect(taken).toEqual(expected.map(({ order }) => order));
      expect(queue.size).toBe(0);
    }),
  );
});

test("nothing comes out before it is due", () => {
  const queue = new DelayQueue<string>();
  expect(queue.dueMs).toBe(Number.POSITIVE_INFINITY);
  queue.push(20, "later");
  queue.push(10, "sooner");
  expect(queue.dueMs).toBe(10);
  expect(queue.take(9)).toBeUndefined();
  expect(queue.take(15)).toBe("sooner");
  expect(queue.take(15)).toBeUndefined();
  expect(queue.take(20)).toBe("later");
});

test("the earliest comes first, in whatever order it was added and taken", () => {
  const step = fc.oneof(fc.nat({ max: 50 }), fc.constant(null));
  fc.assert(
    fc.property(fc.array(step, { maxLength: 100 }), (steps) => {
      const queue = new DelayQueue<number>();
      let model: number[] = [];
      for (const dueMs of steps) {
        if (dueMs === null) {
          queue.take(Infinity);
          model = model.slice(1);
        } else {
          queue.push(dueMs, dueMs);
          model = [...model, dueMs].toSorted((a, b) => a - b);
        }
        expect([queue.size, queue.first?.value]).toEqual([model.length, model[0]]);
      }
    }),
  );
});
