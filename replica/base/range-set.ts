/**
 * A mutable set of integers kept as ascending inclusive ranges that neither overlap nor touch.
 *
 * Adjacent ranges merge, so the representation of a set is unique: two equal sets have equal
 * ranges. Cost depends on the number of ranges, never on how wide they are, which is what makes a
 * range of 2^53 integers from a hostile peer harmless. `insert` and `remove` return which ranges
 * disappeared and which appeared, so that an owner who stores one row per range can follow.
 */

/** Integers from `start` to `end`, both included; empty when `end < start`. */
export interface IntegerRange {
  readonly start: number;
  readonly end: number;
}

/** How the stored ranges changed: rows to delete, then rows to insert. Both ascending. */
export interface RangeSetChange {
  readonly deleted: readonly IntegerRange[];
  readonly inserted: readonly IntegerRange[];
}

/** Ascending, disjoint, non-adjacent inclusive ranges of integers. */
export class RangeSet {
  #ranges: IntegerRange[] = [];

  /** Builds a set from ranges in any order, overlapping or not. */
  static from(ranges: Iterable<IntegerRange>): RangeSet {
    const set = new RangeSet();
    for (const range of ranges) set.insert(range);
    return set;
  }

  /** An independent copy. O(ranges). */
  clone(): RangeSet {
    const copy = new RangeSet();
    copy.#ranges = this.#ranges.slice();
    return copy;
  }

  /** Whether the set holds nothing. */
  get isEmpty(): boolean {
    return this.#ranges.length === 0;
  }

  /** Number of stored ranges. */
  get rangeCount(): number {
    return this.#ranges.length;
  }

  /** Number of integers in the set; loses precision above 2^53. O(ranges). */
  get total(): number {
    let total = 0;
    for (const range of this.#ranges) total += range.end - range.start + 1;
    return total;
  }

  /** The ranges, ascending. A live view: copy it before changing the set. */
  get ranges(): readonly IntegerRange[] {
    return this.#ranges;
  }

  /** The ranges, ascending. */
  [Symbol.iterator](): Iterator<IntegerRange> {
    return this.#ranges[Symbol.iterator]();
  }

  /** Whether `value` is in the set. O(log ranges). */
  contains(value: number): boolean {
    const range = this.#ranges[this.#firstEndingAt(value)];
    return range !== undefined && range.start <= value;
  }

  /** Whether every integer of `range` is in the set; true for an empty range. O(log ranges). */
  containsRange(range: IntegerRange): boolean {
    if (range.end < range.start) return true;
    const candidate = this.#ranges[this.#firstEndingAt(range.start)];
    return candidate !== undefined && candidate.start <= range.start && range.end <= candidate.end;
  }

  /** Whether any integer of `range` is in the set. O(log ranges). */
  overlaps(range: IntegerRange): boolean {
    if (range.end < range.start) return false;
    const candidate = this.#ranges[this.#firstEndingAt(range.start)];
    return candidate !== undefined && candidate.start <= range.end;
  }

  /** Adds every integer of `range`, merging with what it overlaps or touches. */
  insert(range: IntegerRange): RangeSetChange {
    if (range.end < range.start || this.containsRange(range)) return UNCHANGED;
    const from = this.#firstEndingAt(range.start - 1);
    let to = from;
    let { start, end } = range;
    for (let next = this.#ranges[to]; next && next.start <= end + 1; next = this.#ranges[++to]) {
      start = Math.min(start, next.start);
      end = Math.max(end, next.end);
    }
    const merged = { start, end };
    const deleted = this.#ranges.splice(from, to - from, merged);
    return { deleted, inserted: [merged] };
  }

  /** Takes out every integer of `range`, cutting what it overlaps. */
  remove(range: IntegerRange): RangeSetChange {
    if (!this.overlaps(range)) return UNCHANGED;
    const from = this.#firstEndingAt(range.start);
    let to = from;
    const kept: IntegerRange[] = [];
    for (let next = this.#ranges[to]; next && next.start <= range.end; next = this.#ranges[++to]) {
      if (next.start < range.start) kept.push({ start: next.start, end: range.start - 1 });
      if (next.end > range.end) kept.push({ start: range.end + 1, end: next.end });
    }
    const deleted = this.#ranges.splice(from, to - from, ...kept);
    return { deleted, inserted: kept };
  }

  /** The integers that are in both sets. O(ranges of both). */
  intersect(other: RangeSet): RangeSet {
    const result = new RangeSet();
    let left = 0;
    let right = 0;
    for (;;) {
      const ours = this.#ranges[left];
      const theirs = other.#ranges[right];
      if (ours === undefined || theirs === undefined) return result;
      const start = Math.max(ours.start, theirs.start);
      const end = Math.min(ours.end, theirs.end);
      if (start <= end) result.#ranges.push({ start, end });
      if (ours.end < theirs.end) left += 1;
      else right += 1;
    }
  }

  /** The integers of `range` that are in the set, ascending. */
  within(range: IntegerRange): IntegerRange[] {
    const result: IntegerRange[] = [];
    for (let at = this.#firstEndingAt(range.start); ; at += 1) {
      const next = this.#ranges[at];
      if (next === undefined || next.start > range.end) return result;
      const start = Math.max(next.start, range.start);
      const end = Math.min(next.end, range.end);
      if (start <= end) result.push({ start, end });
    }
  }

  /** The integers of `range` that are not in the set, ascending. */
  missing(range: IntegerRange): IntegerRange[] {
    const result: IntegerRange[] = [];
    let start = range.start;
    for (const known of this.within(range)) {
      if (start < known.start) result.push({ start, end: known.start - 1 });
      start = known.end + 1;
    }
    if (start <= range.end) result.push({ start, end: range.end });
    return result;
  }

  /** The integers of this set that are not in `other`. O(ranges of both). */
  subtract(other: RangeSet): RangeSet {
    const result = new RangeSet();
    for (const range of this.#ranges) result.#ranges.push(...other.missing(range));
    return result;
  }

  /** Index of the first range whose end is at or above `value`; the length when there is none. */
  #firstEndingAt(value: number): number {
    let low = 0;
    let high = this.#ranges.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const range = this.#ranges[middle];
      if (range !== undefined && range.end < value) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

const UNCHANGED: RangeSetChange = { deleted: [], inserted: [] };
