import { expect, test } from "vitest";
import { DelayedAck } from "./delayed-ack.ts";

test("a single packet waits a few milliseconds, a second one makes both due at once", () => {
  const ack = new DelayedAck();
  expect(ack.mayWait(0)).toBe(false);
  ack.received(100);
  expect([ack.dueMs, ack.mayWait(119), ack.mayWait(120)]).toEqual([120, true, false]);
  ack.received(103);
  expect([ack.dueMs, ack.mayWait(103)]).toEqual([103, false]);
});

test("what was sent settles the debt, and the next packet begins anew", () => {
  const ack = new DelayedAck();
  ack.received(0);
  ack.received(1);
  ack.settled();
  expect([ack.dueMs, ack.mayWait(1)]).toEqual([Infinity, false]);
  ack.received(50);
  expect([ack.dueMs, ack.mayWait(50)]).toEqual([70, true]);
});
