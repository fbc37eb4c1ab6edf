import { expect, test } from "vitest";
import { RetryBudget } from "./retry-budget.ts";

function repeatsOf(budget: RetryBudget): number {
  let count = 0;
  for (; !budget.isSpent && count < 10_000; count += 1) budget.spend();
  return count;
}

test("at first there is what ten seconds bring", () => {
  expect(repeatsOf(new RetryBudget({ share: 0.2, perSecond: 10 }))).toBe(100);
});

test("after that requests earn their share", () => {
  const budget = new RetryBudget({ share: 0.2, perSecond: 10 });
  repeatsOf(budget);
  for (let request = 0; request < 101; request += 1) budget.earn();
  expect(repeatsOf(budget)).toBe(20);
});

test("and time brings a few to those without traffic, up to ten seconds' worth", () => {
  const budget = new RetryBudget({ share: 0.2, perSecond: 10 });
  budget.tick(5_000);
  repeatsOf(budget);
  budget.tick(6_000);
  expect(repeatsOf(budget)).toBe(10);
  budget.tick(600_000);
  expect(repeatsOf(budget)).toBe(100);
});

test("without share and rate there is one, and then none", () => {
  const budget = new RetryBudget({ share: 0, perSecond: 0 });
  expect(repeatsOf(budget)).toBe(1);
  for (let request = 0; request < 1_000; request += 1) budget.earn();
  budget.tick(1_000_000);
  expect(repeatsOf(budget)).toBe(0);
});
