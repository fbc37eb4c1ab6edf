import { expect, test } from "vitest";
import { SharedLimit } from "#base/shared-counts.ts";
import { WaitQueue } from "./wait-queue.ts";

test("waiters are served in order, and one key does not hold up another", () => {
  const queue = new WaitQueue<string>(SharedLimit.own(10));
  for (const waiter of ["a1", "a2", "b1", "a3"]) queue.add(waiter.slice(0, 1), waiter);
  const served: string[] = [];
  const room: Record<string, number> = { a: 1, b: 5 };
  const tryIt = (waiter: string): boolean => {
    const key = waiter.slice(0, 1);
    if (room[key] === 0) return false;
    room[key]! -= 1;
    queue.remove(key, waiter);
    served.push(waiter);
    return true;
  };
  queue.serve(tryIt);
  expect(served).toEqual(["a1", "b1"]);
  expect([queue.count, queue.has("a"), queue.has("b")]).toEqual([2, true, false]);
  room["a"] = 5;
  queue.serve(tryIt);
  expect(served).toEqual(["a1", "b1", "a2", "a3"]);
  expect(queue.count).toBe(0);
});

test("there is room for so many and no more, until one leaves", () => {
  const queue = new WaitQueue<number>(SharedLimit.own(2));
  expect([queue.add("a", 1), queue.add("b", 2), queue.add("b", 3)]).toEqual([true, true, false]);
  queue.remove("a", 1);
  queue.remove("a", 1);
  expect([queue.add("b", 3), queue.add("b", 4)]).toEqual([true, false]);
});

test("queues that share their places have no more together", () => {
  const places = SharedLimit.own(2);
  const [one, other] = [new WaitQueue<number>(places), new WaitQueue<number>(places)];
  expect([one.add("a", 1), other.add("a", 2), one.add("a", 3)]).toEqual([true, true, false]);
  other.remove("a", 2);
  expect(one.add("a", 3)).toBe(true);
});

test("with no room at all nobody waits", () => {
  const queue = new WaitQueue<number>(SharedLimit.own(0));
  expect(queue.add("a", 1)).toBe(false);
  expect(queue.has("a")).toBe(false);
});
