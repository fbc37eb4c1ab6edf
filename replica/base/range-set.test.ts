import fc from "fast-check";
import { describe, expect, test } from "vitest";

import { type IntegerRange, RangeSet } from "#base/range-set.ts";

describe("examples", () => {
  test("adjacent ranges merge and the change names the rows to replace", () => {
    const set = RangeSet.from([
      { start: 1, end: 3 },
      { start: 7, end: 9 },
    ]);
    expect(set.insert({ start: 4, end: 6 })).toEqual({
      deleted: [
        { start: 1, end: 3 },
        { start: 7, end: 9 },
      ],
      inserted: [{ start: 1, end: 9 }],
    });
    expect(set.ranges).toEqual([{ start: 1, end: 9 }]);
  });

  test("removal out of the middle leaves two ranges", () => {
    const set = RangeSet.from([{ start: 1, end: 9 }]);
    expect(set.remove({ start: 4, end: 6 })).toEqual({
      deleted: [{ start: 1, end: 9 }],
      inserted: [
        { start: 1, end: 3 },
        { start: 7, end: 9 },
      ],
    });
  });

  test("what is already so changes nothing", () => {
    const set = RangeSet.from([{ start: 1, end: 9 }]);
    expect(set.insert({ start: 2, end: 8 })).toEqual({ deleted: [], inserted: [] });
    expect(set.remove({ start: 10, end: 20 })).toEqual({ deleted: [], inserted: [] });
    expect(set.insert({ start: 5, end: 4 })).toEqual({ deleted: [], inserted: [] });
  });

  test("a range as wide as the safe integers costs one entry", () => {
    const set = RangeSet.from([{ start: 0, end: Number.MAX_SAFE_INTEGER - 1 }]);
    set.remove({ start: 5, end: 5 });
    expect(set.rangeCount).toBe(2);
  });
});

describe("laws, against a set of single integers", () => {
  test("any sequence of inserts and removes holds the same integers as the naive set", () => {
    fc.assert(
      fc.property(fc.array(operation), (operations) => {
        const { set, naive } = replay(operations);
        expect(expand(set)).toEqual([...naive].sort((a, b) => a - b));
        expect(set.total).toBe(naive.size);
        for (let value = -1; value <= 41; value += 1) {
          expect(set.contains(value)).toBe(naive.has(value));
        }
      }),
    );
  });

  test("ranges stay ascending, disjoint and non-adjacent", () => {
    fc.assert(
      fc.property(fc.array(operation), (operations) => {
        const { ranges } = replay(operations).set;
        for (const [at, range] of ranges.entries()) {
          expect(range.start).toBeLessThanOrEqual(range.end);
          const next = ranges[at + 1];
          if (next) expect(next.start).toBeGreaterThan(range.end + 1);
        }
      }),
    );
  });

  test("a change applied to a copy of the rows gives the ranges afterwards", () => {
    fc.assert(
      fc.property(fc.array(operation), (operations) => {
        const set = new RangeSet();
        const rows = new Map<number, number>();
        for (const [kind, range] of operations) {
          const change = kind === "insert" ? set.insert(range) : set.remove(range);
          for (const row of change.deleted) {
            expect(rows.get(row.start)).toBe(row.end);
            rows.delete(row.start);
          }
          for (const row of change.inserted) rows.set(row.start, row.end);
        }
        const sorted = [...rows].sort(([a], [b]) => a - b);
        expect(sorted.map(([start, end]) => ({ start, end }))).toEqual(set.ranges);
      }),
    );
  });

  test("intersection, difference, within, missing, overlaps and containsRange agree", () => {
    fc.assert(
      fc.property(fc.array(operation), fc.array(operation), range, (left, right, probe) => {
        const a = replay(left);
        const b = replay(right);
        const isIn = (value: number): boolean => a.naive.has(value);
        expect(expand(a.set.intersect(b.set))).toEqual(ascending(a.naive.intersection(b.naive)));
        expect(expand(a.set.subtract(b.set))).toEqual(ascending(a.naive.difference(b.naive)));
        expect(expand(a.set.within(probe))).toEqual(integers(probe).filter(isIn));
        expect(expand(a.set.missing(probe))).toEqual(integers(probe).filter((v) => !isIn(v)));
        expect(a.set.overlaps(probe)).toBe(integers(probe).some(isIn));
        expect(a.set.containsRange(probe)).toBe(integers(probe).every(isIn));
      }),
    );
  });

  test("a clone is not changed through its original", () => {
    fc.assert(
      fc.property(fc.array(operation), range, (operations, extra) => {
        const { set } = replay(operations);
        const copy = set.clone();
        const before = expand(copy);
        set.insert(extra);
        set.remove({ start: 0, end: 5 });
        expect(expand(copy)).toEqual(before);
      }),
    );
  });
});

const range = fc
  .tuple(fc.nat({ max: 40 }), fc.nat({ max: 8 }))
  .map(([start, width]): IntegerRange => ({ start, end: start + width - 1 }));
const operation = fc.tuple(fc.constantFrom("insert" as const, "remove" as const), range);

function replay(operations: readonly (readonly ["insert" | "remove", IntegerRange])[]): {
  set: RangeSet;
  naive: Set<number>;
} {
  const set = new RangeSet();
  const naive = new Set<number>();
  for (const [kind, each] of operations) {
    if (kind === "insert") {
      set.insert(each);
      for (const value of integers(each)) naive.add(value);
    } else {
      set.remove(each);
      for (const value of integers(each)) naive.delete(value);
    }
  }
  return { set, naive };
}

function expand(ranges: Iterable<IntegerRange>): number[] {
  return [...ranges].flatMap(integers);
}

function integers({ start, end }: IntegerRange): number[] {
  return Array.from({ length: Math.max(0, end - start + 1) }, (_, at) => start + at);
}

function ascending(values: Set<number>): number[] {
  return [...values].sort((a, b) => a - b);
}
