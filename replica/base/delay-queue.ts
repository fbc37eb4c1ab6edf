/**
 * Holds values until they are due, in order of their time and then of arrival: a binary heap served
 * by one timer of its owner. It knows nothing of values that are out of date: its owner drops them.
 */

/** A value and when it is due. */
export interface Due<Value> {
  readonly dueMs: number;
  readonly value: Value;
}

interface Entry<Value> extends Due<Value> {
  readonly order: number;
}

/** A queue ordered by due time. What changes it is O(log n). */
export class DelayQueue<Value> {
  readonly #heap: Entry<Value>[] = [];
  #order = 0;

  /** The first value, and when it is due; undefined = there is none. */
  get first(): Due<Value> | undefined {
    return this.#heap[0];
  }

  /** When the first value is due; `Infinity` when empty. */
  get dueMs(): number {
    return this.#heap[0]?.dueMs ?? Number.POSITIVE_INFINITY;
  }

  /** Values held. */
  get size(): number {
    return this.#heap.length;
  }

  /** Adds a value due at `dueMs`; equal times keep their order. */
  push(dueMs: number, value: Value): void {
    const entry = { dueMs, order: this.#order++, value };
    const heap = this.#heap;
    let at = heap.length;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const above = heap[parent];
      if (above === undefined || isBefore(above, entry)) break;
      heap[at] = above;
      at = parent;
    }
    heap[at] = entry;
  }

  /** Takes out the first value if it is due at `nowMs`. */
  take(nowMs: number): Value | undefined {
    const first = this.#heap[0];
    if (first === undefined || first.dueMs > nowMs) return undefined;
    const last = this.#heap.pop();
    if (last !== undefined && last !== first) this.#sink(last);
    return first.value;
  }

  #sink(entry: Entry<Value>): void {
    const heap = this.#heap;
    let at = 0;
    for (;;) {
      const left = at * 2 + 1;
      let child = heap[left];
      let childAt = left;
      const right = heap[left + 1];
      if (child !== undefined && right !== undefined && isBefore(right, child)) {
        child = right;
        childAt = left + 1;
      }
      if (child === undefined || isBefore(entry, child)) break;
      heap[at] = child;
      at = childAt;
    }
    heap[at] = entry;
  }
}

function isBefore<Value>(first: Entry<Value>, second: Entry<Value>): boolean {
  if (first.dueMs !== second.dueMs) return first.dueMs < second.dueMs;
  return first.order < second.order;
}
