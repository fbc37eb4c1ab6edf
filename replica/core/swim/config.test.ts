import { expect, test } from "vitest";
import { createPrng } from "#base/prng.ts";
import { Announcer } from "./announcer.ts";
import { lanPreset, maxTransmissions, suspectToDownMs, wanPreset } from "./config.ts";

test.each([
  [0, 1],
  [1, 1],
  [10, 4],
  [100, 8],
  [1_000, 12],
])("with Corrosion's timing an update among %i members is sent %i times", (members, times) => {
  expect(maxTransmissions(wanPreset, members)).toBe(times);
});

test.each([
  [1, 30_000],
  [10, 30_000],
  [100, 60_000],
  [1_000, 90_000],
])("with Corrosion's timing a suspect among %i members has %i ms to refute", (members, graceMs) => {
  expect(suspectToDownMs(wanPreset, members)).toBe(graceMs);
});

test.each([
  ["wan", wanPreset],
  ["lan", lanPreset],
])("the %s preset leaves time for an indirect probe, and room in every datagram", (_, preset) => {
  expect(preset.probeRttMs).toBeLessThan(preset.probePeriodMs);
  expect(preset.sendBytesMax).toBeLessThanOrEqual(1_162);
  expect(preset.sendBytesMax).toBeLessThanOrEqual(preset.receiveBytesMax);
});

test("announcements back off from 5 s to 120 s within 30 %, then come every 300 s", () => {
  const announcer = new Announcer(wanPreset.announcer, createPrng(1));
  const delays = Array.from({ length: 12 }, () => announcer.nextDelayMs());
  for (const [round, seconds] of [5, 10, 20, 40, 80, 120, 120, 120, 120, 120].entries()) {
    expect(delays[round]).toBeGreaterThanOrEqual(seconds * 700);
    expect(delays[round]).toBeLessThanOrEqual(seconds * 1_300);
  }
  expect(delays.slice(10)).toEqual([300_000, 300_000]);
  announcer.restart();
  expect(announcer.nextDelayMs()).toBeLessThanOrEqual(6_500);
});

test("a round goes to at most ten bootstrap addresses, never to ourselves", () => {
  const announcer = new Announcer(wanPreset.announcer, createPrng(1));
  const many = Array.from({ length: 20 }, (_, index) => `10.0.0.${index}:4001`);
  const { added, refused } = announcer.setBootstrap([...many, "nonsense"], "10.0.0.3:4001");
  expect(added).toHaveLength(19);
  expect(refused).toBe(1);
  const targets = announcer.targets(() => []);
  expect(targets).toHaveLength(10);
  expect(targets).not.toContain("10.0.0.3:4001");
});

test("without bootstrap addresses a round goes to members", () => {
  const announcer = new Announcer(wanPreset.announcer, createPrng(1));
  expect(announcer.targets(() => ["10.0.0.9:4001"])).toEqual(["10.0.0.9:4001"]);
});
