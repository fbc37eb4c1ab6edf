import fc from "fast-check";
import { expect, test } from "vitest";
import { ReceivedPackets } from "./received-packets.ts";

const policy = { delayMs: 20, packetsMax: 2 };
const asking = { isAckEliciting: true, nowMs: 100 };

test("any order of numbers gives the ranges of the set, from the top down", () => {
  fc.assert(
    fc.property(fc.array(fc.nat({ max: 120 }), { maxLength: 150 }), (numbers) => {
      const received = new ReceivedPackets(policy);
      const set = new Set<number>();
      for (const number of numbers) {
        expect(received.has(number)).toBe(set.has(number));
        if (!set.has(number)) received.add(number, asking);
        set.add(number);
        expect(received.largest).toBe(Math.max(...set));
      }
      expect(received.ranges).toEqual(rangesOf(set));
    }),
  );
});

test("of more ranges than there is room for, the lowest count as received for good", () => {
  const received = new ReceivedPackets(policy);
  for (let number = 0; number < 1_000; number += 2) received.add(number, asking);
  expect(received.ranges).toHaveLength(128);
  expect(received.ranges.slice(0, 4)).toEqual([998, 998, 996, 996]);
  expect(received.has(1)).toBe(true);
  expect(received.has(997)).toBe(false);
});

test("what the peer knows that we have is forgotten, and still counts as received", () => {
  const received = new ReceivedPackets(policy);
  for (const number of [0, 1, 3, 4, 6]) received.add(number, asking);
  received.forget(4);
  expect(received.ranges).toEqual([6, 6]);
  expect([2, 3, 5, 6].map((number) => received.has(number))).toEqual([true, true, false, true]);
  received.forget(6);
  expect(received.ranges).toEqual([6, 6]);
});

test("a single packet waits for company, the second is told at once", () => {
  const received = new ReceivedPackets(policy);
  received.add(0, { isAckEliciting: true, nowMs: 0 });
  received.acknowledged();
  received.add(1, { isAckEliciting: true, nowMs: 100 });
  expect(received.ackDueMs).toBe(120);
  received.add(2, { isAckEliciting: true, nowMs: 105 });
  expect(received.ackDueMs).toBe(105);
  expect(received.delayMs(107)).toBe(2);
  received.acknowledged();
  expect([received.ackDueMs, received.owesAck]).toEqual([Number.POSITIVE_INFINITY, false]);
});

test("one packet a second is told at once, so that the peer sees how long the path is", () => {
  const received = new ReceivedPackets(policy);
  const waitsMs = [0, 300, 600, 1_000, 1_300, 1_999, 2_000].map((nowMs, number) => {
    received.add(number, { isAckEliciting: true, nowMs });
    const waitMs = received.ackDueMs - nowMs;
    received.acknowledged();
    return waitMs;
  });
  expect(waitsMs).toEqual([0, 20, 20, 0, 20, 20, 0]);
});

test("a packet out of order is told at once, one that asks for nothing never", () => {
  const received = new ReceivedPackets(policy);
  received.add(0, { isAckEliciting: false, nowMs: 100 });
  expect([received.ackDueMs, received.owesAck]).toEqual([Number.POSITIVE_INFINITY, false]);
  received.add(2, { isAckEliciting: true, nowMs: 101 });
  expect(received.ackDueMs).toBe(101);
  received.acknowledged();
  received.add(1, { isAckEliciting: true, nowMs: 102 });
  expect(received.ackDueMs).toBe(102);
});

test("a peer in a hurry is told at once what is owed, and nothing else", () => {
  const received = new ReceivedPackets(policy);
  received.hurry(90);
  expect(received.ackDueMs).toBe(Number.POSITIVE_INFINITY);
  received.add(0, { isAckEliciting: true, nowMs: 0 });
  received.acknowledged();
  received.add(1, { isAckEliciting: true, nowMs: 100 });
  received.hurry(101);
  expect(received.ackDueMs).toBe(101);
});

function rangesOf(set: ReadonlySet<number>): number[] {
  const ranges: number[] = [];
  for (const number of [...set].sort((first, second) => second - first)) {
    if (ranges.at(-2) === number + 1) ranges[ranges.length - 2] = number;
    else ranges.push(number, number);
  }
  return ranges;
}
