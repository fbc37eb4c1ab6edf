import { expect, test } from "vitest";
import { RefreshPace } from "./refresh-pace.ts";

test("what was never read, or not of late, is read at once, however long it takes", () => {
  const pace = new RefreshPace();
  expect(pace.dueMs).toBeLessThan(0);
  pace.note(1_000, 1_400);
  expect(pace.dueMs).toBeGreaterThan(1_400);
  pace.note(10_000, 10_090);
  expect(pace.dueMs).toBeLessThan(10_090);
});

test("a burst is read change by change, as long as all of it takes little", () => {
  const pace = new RefreshPace();
  for (let nowMs = 0; nowMs < 250; nowMs += 5) {
    expect(pace.dueMs).toBeLessThanOrEqual(nowMs);
    pace.note(nowMs, nowMs + 2);
  }
});

test.each([0.5, 5, 50, 500])(
  "a stream of changes takes a fifth of the time, at %s ms each",
  (ms) => {
    const pace = new RefreshPace();
    let nowMs = 0;
    let spentMs = 0;
    while (nowMs < 600_000) {
      nowMs = Math.max(nowMs, pace.dueMs);
      pace.note(nowMs, nowMs + ms);
      nowMs += ms;
      spentMs += ms;
    }
    expect(spentMs / nowMs).toBeGreaterThan(0.19);
    expect(spentMs / nowMs).toBeLessThan(0.21);
  },
);
