import { describe, expect, test } from "vitest";
import { Awareness } from "./awareness.ts";
import { Suspicions } from "./suspicions.ts";

describe("awareness", () => {
  test("each sign of lateness stretches times by their length, each good probe shrinks them", () => {
    const awareness = new Awareness(7);
    expect(awareness.stretch(1_000)).toBe(1_000);
    awareness.worsen();
    awareness.worsen();
    expect(awareness.stretch(1_000)).toBe(3_000);
    awareness.improve();
    expect(awareness.stretch(1_000)).toBe(2_000);
  });

  test("the score stays between 0 and the greatest", () => {
    const awareness = new Awareness(2);
    awareness.improve();
    expect(awareness.score).toBe(0);
    for (let sign = 0; sign < 5; sign += 1) awareness.worsen();
    expect(awareness.score).toBe(2);
    awareness.improve();
    expect(awareness.score).toBe(1);
  });

  test("with 0 as the greatest score no time is ever stretched", () => {
    const awareness = new Awareness(0);
    awareness.worsen();
    expect(awareness.stretch(1_000)).toBe(1_000);
  });
});

describe("a suspicion that may last 5 to 20 s", () => {
  const start = { nowMs: 0, leastMs: 5_000, longestMs: 20_000, teller: "us", others: 28 };
  const confirm = (teller: string, nowMs: number) => ({ teller, nowMs, graceMs: 1_000 });

  test.each([
    [0, 20_000],
    [1, 12_500],
    [2, 8_113],
    [3, 5_000],
    [4, 5_000],
  ])("lasts, with %i confirmations at once, %i ms", (count, lastsMs) => {
    const suspicions = new Suspicions();
    let deadlineMs = suspicions.begin("x", start);
    for (let index = 0; index < count; index += 1) {
      deadlineMs = suspicions.confirm("x", confirm(`peer ${index}`, 0)) ?? deadlineMs;
    }
    expect(Math.round(deadlineMs)).toBe(lastsMs);
  });

  test("is not shortened by whoever told it first, nor twice by the same", () => {
    const suspicions = new Suspicions();
    suspicions.begin("x", start);
    expect(suspicions.confirm("x", confirm("us", 0))).toBeNull();
    expect(suspicions.confirm("x", confirm("a", 0))).not.toBeNull();
    expect(suspicions.confirm("x", confirm("a", 0))).toBeNull();
  });

  test("leaves a refutation behind the last confirmation time to be read", () => {
    const suspicions = new Suspicions();
    suspicions.begin("x", start);
    suspicions.confirm("x", confirm("a", 0));
    // Its time would have been over at 8,113 ms.
    expect(suspicions.confirm("x", confirm("b", 10_000))).toBe(11_000);
  });

  test("takes the least time at once where nobody could confirm it", () => {
    expect(new Suspicions().begin("x", { ...start, others: 0 })).toBe(5_000);
  });

  test("moves with the timers when we were not run", () => {
    const suspicions = new Suspicions();
    suspicions.begin("x", start);
    suspicions.postponeAll(4_000);
    expect(suspicions.confirm("x", confirm("a", 4_000))).toBe(16_500);
  });

  test("is extended at its end if we have become later meanwhile, and not beyond that", () => {
    const suspicions = new Suspicions();
    suspicions.begin("x", { ...start, longestMs: 10_000 });
    expect(suspicions.extend("x", { nowMs: 10_000, longestMs: 10_000 })).toBeNull();
    expect(suspicions.extend("x", { nowMs: 10_000, longestMs: 20_000 })).toBe(20_000);
    expect(suspicions.extend("x", { nowMs: 20_000, longestMs: 5_000 })).toBeNull();
  });

  test("that enough others confirm is not extended", () => {
    const suspicions = new Suspicions();
    suspicions.begin("x", start);
    for (const teller of ["a", "b", "c"]) suspicions.confirm("x", confirm(teller, 0));
    expect(suspicions.extend("x", { nowMs: 5_000, longestMs: 40_000 })).toBeNull();
  });

  test("that was refuted is not confirmed", () => {
    const suspicions = new Suspicions();
    suspicions.begin("x", start);
    suspicions.end("x");
    expect(suspicions.confirm("x", confirm("a", 0))).toBeNull();
  });
});
