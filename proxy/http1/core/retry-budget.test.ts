import { expect, test } from "vitest";
import { RetryBudget } from "./retry-budget.ts";

/** One that nothing is spent of. */
function budgetOf(share: number, perSecond: number): RetryBudget {
  return new RetryBudget({ share, perSecond, threads: 1 }, new Int32Array(1));
}

function repeatsOf(budget: RetryBudget): number {
  let count = 0;
  for (; !budget.isSpent && count < 10_000; count += 1) expect(budget.spend()).toBe(true);
  expect(budget.spend()).toBe(false);
  return count;
}

test("at first there is what ten seconds bring", () => {
  expect(repeatsOf(budgetOf(0.2, 10))).toBe(100);
});

test("after that requests earn their share", () => {
  const budget = budgetOf(0.2, 10);
  repeatsOf(budget);
  for (let request = 0; request < 101; request += 1) budget.earn();
  expect(repeatsOf(budget)).toBe(20);
});

test("and time brings a few to those without traffic, up to ten seconds' worth", () => {
  const budget = budgetOf(0.2, 10);
  budget.tick(5_000);
  repeatsOf(budget);
  budget.tick(6_000);
  expect(repeatsOf(budget)).toBe(10);
  budget.tick(600_000);
  expect(repeatsOf(budget)).toBe(100);
});

test("without share and rate there is one, and then none", () => {
  const budget = budgetOf(0, 0);
  expect(repeatsOf(budget)).toBe(1);
  for (let request = 0; request < 1_000; request += 1) budget.earn();
  budget.tick(1_000_000);
  expect(repeatsOf(budget)).toBe(0);
});

test("threads have one budget: what one spends is gone for all, what each earns is there for all", () => {
  const missing = new Int32Array(new SharedArrayBuffer(4));
  const limits = { share: 0.2, perSecond: 9, threads: 3 };
  const [one, two, three] = Array.from({ length: 3 }, () => new RetryBudget(limits, missing));
  // Each has a clock of its own.
  for (const [at, budget] of [one!, two!, three!].entries()) budget.tick(1_000 + at * 7_000);
  expect(repeatsOf(one!)).toBe(90);
  expect([two!.isSpent, three!.spend()]).toEqual([true, false]);
  for (let request = 0; request < 10; request += 1) two!.earn();
  two!.tick(8_000);
  expect(repeatsOf(three!)).toBe(2);
  for (const [at, budget] of [one!, two!, three!].entries()) budget.tick(2_000 + at * 7_000);
  expect(repeatsOf(two!)).toBe(9);
});

test("what a full budget has no room for is lost", () => {
  const budget = budgetOf(1, 1);
  for (let request = 0; request < 500; request += 1) budget.earn();
  expect(repeatsOf(budget)).toBe(10);
  expect(repeatsOf(budget)).toBe(0);
});
