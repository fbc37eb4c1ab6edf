/**
 * Deadlines of many connections under one timer.
 *
 * A connection moves its deadline many times per request and almost never reaches it, so moving
 * must cost one store: entries lie in a dense array and one sweep per tick compares them all. At
 * 10,000 connections a sweep takes about 50 µs; a timer per request would cost more than the
 * parse.
 */

/** Something with a deadline; `slot` belongs to `Deadlines`. */
export interface DeadlineEntry {
  /** Coarse monotonic milliseconds; `Infinity` = none. Write it freely. */
  deadlineMs: number;
  /** Place in the array, -1 = not in it. */
  slot: number;
  /** The deadline has passed. It must move the deadline or remove itself. */
  onDeadline(nowMs: number): void;
}

/** The entries and their coarse clock. */
export class Deadlines {
  /** Time of the last sweep: coarse, but free to read. */
  nowMs = 0;
  readonly #entries: DeadlineEntry[] = [];

  get count(): number {
    return this.#entries.length;
  }

  add(entry: DeadlineEntry): void {
    entry.slot = this.#entries.length;
    this.#entries.push(entry);
  }

  /** Idempotent; the last entry takes the freed place. */
  remove(entry: DeadlineEntry): void {
    if (entry.slot < 0) return;
    const last = this.#entries.pop() as DeadlineEntry;
    if (last !== entry) {
      this.#entries[entry.slot] = last;
      last.slot = entry.slot;
    }
    entry.slot = -1;
  }

  /**
   * Calls `onDeadline` of every entry that is due. Backwards, so that entries may remove
   * themselves.
   */
  sweep(nowMs: number): void {
    this.nowMs = nowMs;
    for (let index = this.#entries.length - 1; index >= 0; index -= 1) {
      const entry = this.#entries[index];
      if (entry !== undefined && entry.deadlineMs <= nowMs) entry.onDeadline(nowMs);
    }
  }

  /** Calls `visit` with every entry; entries may remove themselves. */
  each(visit: (entry: DeadlineEntry) => void): void {
    for (let index = this.#entries.length - 1; index >= 0; index -= 1) {
      const entry = this.#entries[index];
      if (entry !== undefined) visit(entry);
    }
  }
}
