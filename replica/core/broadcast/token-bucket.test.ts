import fc from "fast-check";
import { expect, test } from "vitest";
import { TokenBucket } from "./token-bucket.ts";

test("a full bucket gives one second's worth, then opens again as it fills", () => {
  const bucket = new TokenBucket(1000);
  expect(bucket.isOpen(0)).toBe(true);
  bucket.take(1000);
  expect(bucket.isOpen(0)).toBe(false);
  expect(bucket.opensAtMs()).toBe(1);
  expect(bucket.isOpen(1)).toBe(true);
});

test("a long quiet time saves up no more than one second's worth", () => {
  const bucket = new TokenBucket(1000);
  bucket.isOpen(0);
  bucket.isOpen(1_000_000);
  bucket.take(1000);
  expect(bucket.isOpen(1_000_000)).toBe(false);
});

test("borrowing goes on until one second's worth is owed", () => {
  const bucket = new TokenBucket(1000);
  bucket.isOpen(0);
  bucket.take(1999);
  expect([bucket.isOpen(0), bucket.isOpenForBorrowing(0)]).toEqual([false, true]);
  bucket.take(1);
  expect(bucket.isOpenForBorrowing(0)).toBe(false);
  expect(bucket.opensForBorrowingAtMs()).toBe(1);
});

test("at the moment that it names it is open, whatever was taken", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 1e8 }),
      fc.array(fc.tuple(fc.nat({ max: 5000 }), fc.nat({ max: 1e7 })), { minLength: 1 }),
      (bytesPerSecond, takings) => {
        const bucket = new TokenBucket(bytesPerSecond);
        let now = 0;
        for (const [waitMs, bytes] of takings) {
          now += waitMs;
          bucket.isOpen(now);
          bucket.take(bytes);
        }
        expect(bucket.isOpenForBorrowing(Math.max(now, bucket.opensForBorrowingAtMs()))).toBe(true);
        expect(bucket.isOpen(Math.max(now, bucket.opensAtMs()))).toBe(true);
      },
    ),
  );
});
