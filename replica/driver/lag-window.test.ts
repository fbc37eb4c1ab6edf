import { expect, test } from "vitest";
import { unixMsToNtp64 } from "../core/hlc.ts";
import type { Changeset } from "../types.ts";
import { LagWindow } from "./lag-window.ts";

const NOW_MS = 1_750_000_000_000;

test("nothing is known before something was applied", () => {
  const window = new LagWindow();
  window.note([{ kind: "empty", actorId: "a", versions: { start: 1, end: 2 }, ts: null }], NOW_MS);
  expect(window.p99Seconds).toBeNull();
});

test("one in a hundred lags is above the 99th percentile, and old ones are forgotten", () => {
  const window = new LagWindow();
  for (let ms = 1; ms <= 100; ms += 1) window.note([stampedAgo(ms)], NOW_MS);
  expect(window.p99Seconds).toBeCloseTo(0.099, 3);
  for (let index = 0; index < 1_000; index += 1) window.note([stampedAgo(5)], NOW_MS);
  expect(window.p99Seconds).toBeCloseTo(0.005, 3);
});

test("a stamp from the future is no lag", () => {
  const window = new LagWindow();
  window.note([stampedAgo(-50)], NOW_MS);
  expect(window.p99Seconds).toBe(0);
});

function stampedAgo(ms: number): Changeset {
  const versions = { start: 1, end: 1 };
  return { kind: "empty", actorId: "a", versions, ts: unixMsToNtp64(NOW_MS - ms) };
}
