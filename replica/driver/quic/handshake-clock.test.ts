import { expect, test } from "vitest";
import { HandshakeClock } from "./handshake-clock.ts";

test("a peer has its timeout by a loop that runs", () => {
  const clock = new HandshakeClock({ startedMs: 1_000, timeoutMs: 5_000 });
  expect(clock.deadlineMs).toBe(6_000);
  clock.forgive(10, 2_000);
  expect(clock.deadlineMs).toBe(6_000);
  expect(clock.elapsedMs(2_000)).toBe(1_000);
});

test("what the loop was late by is no time that the peer had", () => {
  const clock = new HandshakeClock({ startedMs: 1_000, timeoutMs: 5_000 });
  clock.forgive(1_500, 3_000);
  expect(clock.elapsedMs(3_000)).toBe(450);
  expect(clock.deadlineMs).toBe(7_550);
});

test("a loop that comes after the deadline reads what is there before it judges", () => {
  const clock = new HandshakeClock({ startedMs: 0, timeoutMs: 300 });
  clock.forgive(300, 600);
  expect(clock.deadlineMs).toBeGreaterThan(600);
});

test("lateness from before the handshake began is none of it", () => {
  const clock = new HandshakeClock({ startedMs: 1_000, timeoutMs: 5_000 });
  clock.forgive(3_000, 1_200);
  expect(clock.elapsedMs(1_200)).toBe(0);
  expect(clock.deadlineMs).toBe(6_200);
});

test("a silent peer is found out by a loop that is late all the time", () => {
  const clock = new HandshakeClock({ startedMs: 0, timeoutMs: 5_000 });
  let nowMs = 0;
  while (nowMs < clock.deadlineMs) clock.forgive(1_000, (nowMs += 1_000));
  expect(nowMs).toBe(30_000);
});
