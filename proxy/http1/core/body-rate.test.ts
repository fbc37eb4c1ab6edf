import { expect, test } from "vitest";
import { BodyRate } from "./body-rate.ts";

const LIMITS = { bytesPerSecondMin: 100, graceMs: 10_000 };

test("waiting uses credit up and bytes earn it, up to the grace", () => {
  const rate = new BodyRate(LIMITS);
  rate.start();
  rate.took(0, 0);
  expect(rate.leftMs).toBe(10_000);
  rate.took(100, 4_000);
  expect(rate.leftMs).toBe(7_000);
  rate.took(1_000_000, 5_000);
  expect(rate.leftMs).toBe(10_000);
});

test("a drip in good time is still too slow in the end", () => {
  const rate = new BodyRate(LIMITS);
  rate.start();
  let nowMs = 0;
  rate.took(0, nowMs);
  while (rate.leftMs > 0) {
    nowMs += 1_000;
    rate.took(1, nowMs);
  }
  // Each second costs 1,000 ms and earns 10.
  expect(nowMs).toBe(11_000);
});

test("what is on its way has the time that it may take, and earns it once it has arrived", () => {
  const rate = new BodyRate(LIMITS);
  rate.start();
  rate.took(0, 0);
  expect(rate.leftMsFor(1_000)).toBe(20_000);
  rate.took(0, 15_000);
  expect([rate.leftMsFor(1_000), rate.leftMs]).toEqual([5_000, 0]);
  rate.took(1_000, 16_000);
  expect(rate.leftMs).toBe(4_000);
  expect(new BodyRate({ ...LIMITS, bytesPerSecondMin: 0 }).leftMsFor(0)).toBe(Infinity);
});

test("time in which the receiver is behind costs nothing", () => {
  const rate = new BodyRate(LIMITS);
  rate.start();
  rate.took(0, 0);
  rate.rest(1_000);
  rate.took(0, 900_000);
  expect(rate.leftMs).toBe(9_000);
});

test("a new body starts with full credit", () => {
  const rate = new BodyRate(LIMITS);
  rate.start();
  rate.took(0, 0);
  rate.took(0, 9_999);
  rate.start();
  rate.took(0, 20_000);
  expect(rate.leftMs).toBe(10_000);
});

test("without a rate there is no end", () => {
  const rate = new BodyRate({ bytesPerSecondMin: 0, graceMs: 10_000 });
  rate.start();
  rate.took(1, 0);
  rate.took(0, 1_000_000);
  expect(rate.leftMs).toBe(Infinity);
});
