import fc from "fast-check";
import { expect, test } from "vitest";
import { TimerTable } from "./timer-table.ts";

type Name = "a" | "b";

test("an empty table never comes due", () => {
  const timers = new TimerTable<Name>();
  expect(timers.deadlineMs()).toBe(Number.POSITIVE_INFINITY);
  expect(timers.due(1e12)).toEqual([]);
});

test("due timers come out once, earliest first, and only when their time has come", () => {
  const timers = new TimerTable<Name>();
  timers.set("a", 30);
  timers.set("b", 10);
  timers.set("b", 20, "key");
  expect(timers.deadlineMs()).toBe(10);
  expect(timers.due(9)).toEqual([]);
  expect(timers.due(20)).toEqual([
    { name: "b", key: "", atMs: 10 },
    { name: "b", key: "key", atMs: 20 },
  ]);
  expect(timers.due(20)).toEqual([]);
  expect(timers.deadlineMs()).toBe(30);
});

test("setting a timer again replaces its deadline", () => {
  const timers = new TimerTable<Name>();
  timers.set("a", 10);
  timers.set("a", 50);
  expect(timers.deadlineMs()).toBe(50);
  expect(timers.due(49)).toEqual([]);
});

test("a timer with a key is another timer than the one without", () => {
  const timers = new TimerTable<Name>();
  timers.set("a", 10);
  timers.set("a", 20, "x");
  timers.clear("a");
  expect(timers.has("a")).toBe(false);
  expect(timers.has("a", "x")).toBe(true);
  expect(timers.deadlineMs()).toBe(20);
});

test("postponing moves every deadline by the same amount", () => {
  const timers = new TimerTable<Name>();
  timers.set("a", 10);
  timers.set("b", 20);
  timers.postponeAll(100);
  expect(timers.deadlineMs()).toBe(110);
  expect(timers.due(200).map((timer) => timer.atMs)).toEqual([110, 120]);
});

test("the deadline is the least one after any sequence of sets, clears and expiries", () => {
  const step = fc.record({
    action: fc.constantFrom("set", "clear", "due"),
    key: fc.constantFrom("", "x", "y", "z"),
    atMs: fc.nat(50),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const timers = new TimerTable<Name>();
      const model = new Map<string, number>();
      for (const { action, key, atMs } of steps) {
        if (action === "set") {
          timers.set("a", atMs, key);
          model.set(key, atMs);
        } else if (action === "clear") {
          timers.clear("a", key);
          model.delete(key);
        } else {
          const due = [...model].filter(([, at]) => at <= atMs).map(([name]) => name);
          for (const name of due) model.delete(name);
          expect(
            timers
              .due(atMs)
              .map((timer) => timer.key)
              .toSorted(),
          ).toEqual(due.toSorted());
        }
        expect(timers.deadlineMs()).toBe(Math.min(...model.values()));
      }
    }),
  );
});
