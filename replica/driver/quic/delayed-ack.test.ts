import { expect, test } from "vitest";
import { DelayedAck } from "./delayed-ack.ts";

test("small packets wait together, for as long as the first of them may", () => {
  const ack = new DelayedAck();
  expect([ack.isOwed, ack.mayWait(0)]).toEqual([false, false]);
  ack.received(200, 100);
  ack.received(200, 130);
  expect([ack.isOwed, ack.dueMs]).toEqual([true, 140]);
  expect([ack.mayWait(139), ack.mayWait(140)]).toEqual([true, false]);
});

test("two full packets are acknowledged at once", () => {
  const ack = new DelayedAck();
  ack.received(1200, 100);
  expect(ack.mayWait(100)).toBe(true);
  ack.received(1200, 103);
  expect([ack.dueMs, ack.mayWait(103)]).toEqual([103, false]);
});

test("what was sent settles the debt, and the next packet begins anew", () => {
  const ack = new DelayedAck();
  ack.received(1200, 0);
  ack.received(1200, 1);
  ack.settled();
  expect([ack.isOwed, ack.dueMs, ack.mayWait(1)]).toEqual([false, Infinity, false]);
  ack.received(40, 50);
  expect([ack.dueMs, ack.mayWait(50)]).toEqual([90, true]);
});

test("where others are acknowledged, what is owed is due; where nothing is, nothing", () => {
  const ack = new DelayedAck();
  ack.hasten(5);
  expect(ack.dueMs).toBe(Infinity);
  ack.received(40, 10);
  ack.hasten(12);
  expect([ack.dueMs, ack.mayWait(12)]).toEqual([12, false]);
  ack.hasten(14);
  expect(ack.dueMs).toBe(12);
});
