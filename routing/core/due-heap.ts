/** A binary heap of what is due when: the earliest is looked at in one step, added and taken in log n. */

/** One entry; equal times come in any order. */
export interface Due<Value> {
  readonly dueMs: number;
  readonly value: Value;
}

/** The earliest first. It knows nothing of entries that are out of date: its owner drops them. */
export class DueHeap<Value> {
  /** Children of the entry at `i` are at `2i + 1` and `2i + 2`, and no earlier than it. */
  readonly #entries: Due<Value>[] = [];

  /** Entries held, out of date or not. */
  get size(): number {
    return this.#entries.length;
  }

  /** The earliest; undefined = there is none. */
  get first(): Due<Value> | undefined {
    return this.#entries[0];
  }

  add(entry: Due<Value>): void {
    const entries = this.#entries;
    let at = entries.push(entry) - 1;
    while (at > 0) {
      const parentAt = (at - 1) >> 1;
      const parent = entries[parentAt];
      if (parent === undefined || parent.dueMs <= entry.dueMs) break;
      entries[at] = parent;
      at = parentAt;
    }
    entries[at] = entry;
  }

  /** Takes the earliest out. */
  shift(): void {
    const entries = this.#entries;
    const last = entries.pop();
    if (last === undefined || entries.length === 0) return;
    let at = 0;
    for (;;) {
      const leftAt = 2 * at + 1;
      const [left, right] = [entries[leftAt], entries[leftAt + 1]];
      if (left === undefined) break;
      const isRight = right !== undefined && right.dueMs < left.dueMs;
      const child = isRight ? right : left;
      if (last.dueMs <= child.dueMs) break;
      entries[at] = child;
      at = isRight ? leftAt + 1 : leftAt;
    }
    entries[at] = last;
  }
}
