import { expect, test } from "vitest";
import { createPrng } from "./prng.ts";

test("the same seed gives the same sequence", () => {
  expect(take(createPrng(7), 50)).toEqual(take(createPrng(7), 50));
  expect(take(createPrng([1, 2, 3, 4]), 50)).toEqual(take(createPrng([1, 2, 3, 4]), 50));
});

test("neighbouring seeds give unrelated sequences", () => {
  const seen = new Set<number>();
  for (let seed = 0; seed < 100; seed += 1) seen.add(createPrng(seed).next());
  expect(seen.size).toBe(100);
});

test("every number is at least 0 and below 1, and their mean is near one half", () => {
  const numbers = take(createPrng(1), 20_000);
  expect(Math.min(...numbers)).toBeGreaterThanOrEqual(0);
  expect(Math.max(...numbers)).toBeLessThan(1);
  const mean = numbers.reduce((sum, number) => sum + number, 0) / numbers.length;
  expect(mean).toBeGreaterThan(0.49);
  expect(mean).toBeLessThan(0.51);
});

test("below reaches every value under its bound and no other", () => {
  const prng = createPrng(3);
  const seen = new Set(Array.from({ length: 1_000 }, () => prng.below(6)));
  expect([...seen].toSorted((left, right) => left - right)).toEqual([0, 1, 2, 3, 4, 5]);
  expect(prng.below(1)).toBe(0);
  expect(prng.below(0)).toBe(0);
});

test("shuffle keeps every element, and reaches every order of three", () => {
  const prng = createPrng(5);
  const orders = new Set(Array.from({ length: 500 }, () => prng.shuffle(["a", "b", "c"]).join("")));
  expect([...orders].toSorted()).toEqual(["abc", "acb", "bac", "bca", "cab", "cba"]);
});

test("sample takes distinct elements and leaves its input as it was", () => {
  const items = [1, 2, 3, 4, 5];
  const chosen = createPrng(9).sample(items, 3);
  expect(new Set(chosen).size).toBe(3);
  expect(items).toEqual([1, 2, 3, 4, 5]);
  expect(
    createPrng(9)
      .sample(items, 99)
      .toSorted((left, right) => left - right),
  ).toEqual(items);
});

test("pick of nothing is undefined", () => {
  expect(createPrng(1).pick([])).toBeUndefined();
});

function take(prng: { next(): number }, count: number): number[] {
  return Array.from({ length: count }, () => prng.next());
}
