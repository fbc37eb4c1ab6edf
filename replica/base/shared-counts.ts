/**
 * Counters in memory that threads share: how many there are of something in the whole process.
 *
 * Each thread adds to the same cells. A thread that may end alone also keeps what it counted itself,
 * in a share of its own, so that another can take it out when the thread is gone.
 *
 * Layout: `Int32` per counter, of the counts as of a share.
 */

/** What is handed to a thread so that it counts with the others. */
export interface SharedCountsPlan {
  readonly counts: SharedArrayBuffer;
  /** What this thread counts itself; null where the process ends with the thread. */
  readonly share: SharedArrayBuffer | null;
}

/** Counters of all threads that hold the same buffer. */
export class SharedCounts {
  readonly #counts: Int32Array;
  readonly #share: Int32Array | null;

  constructor({ counts, share }: SharedCountsPlan) {
    this.#counts = new Int32Array(counts);
    this.#share = share === null ? null : new Int32Array(share);
  }

  /** Memory for so many counters, at 0; it also makes a share. Touched only where it is counted. */
  static allocate(length: number): SharedArrayBuffer {
    return new SharedArrayBuffer(length * 4);
  }

  /** The plan of a thread that may end alone. */
  planOfThread(): SharedCountsPlan {
    const counts = this.#counts.buffer as SharedArrayBuffer;
    return { counts, share: SharedCounts.allocate(this.#counts.length) };
  }

  /** Counted by all threads together. */
  count(at: number): number {
    return Atomics.load(this.#counts, at);
  }

  /** Counts one more; the answer is how many there are with it. */
  add(at: number): number {
    const before = Atomics.add(this.#counts, at, 1);
    if (this.#share !== null) this.#share[at] = (this.#share[at] as number) + 1;
    return before + 1;
  }

  /** Counts one more unless there are `max`; false = nothing was counted. Never more than `max`. */
  take(at: number, max: number): boolean {
    // A guess, which the exchange puts right.
    let before = this.#counts[at] as number;
    while (before < max) {
      const found = Atomics.compareExchange(this.#counts, at, before, before + 1);
      if (found === before) {
        if (this.#share !== null) this.#share[at] = (this.#share[at] as number) + 1;
        return true;
      }
      before = found;
    }
    return false;
  }

  /** Counts one less; once per `add`, and per `take` that said true. */
  give(at: number): void {
    Atomics.sub(this.#counts, at, 1);
    if (this.#share !== null) this.#share[at] = (this.#share[at] as number) - 1;
  }

  /**
   * Takes out what a thread that has ended counted, and clears its share. It must run no more. A
   * thread that ended between its two steps of one count leaves that count wrong by one. Cost: one
   * look at each counter.
   */
  forget(share: SharedArrayBuffer): void {
    const own = new Int32Array(share);
    for (let at = 0; at < own.length; at += 1) {
      const count = own[at] as number;
      if (count !== 0) Atomics.sub(this.#counts, at, count);
    }
    own.fill(0);
  }
}

/** One counter with its limit. */
export class SharedLimit {
  readonly #counts: SharedCounts;
  readonly #at: number;
  readonly #max: number;

  constructor(counts: SharedCounts, { at, max }: { readonly at: number; readonly max: number }) {
    this.#counts = counts;
    this.#at = at;
    this.#max = max;
  }

  /** A limit of one thread alone. */
  static own(max: number): SharedLimit {
    const counts = new SharedCounts({ counts: SharedCounts.allocate(1), share: null });
    return new SharedLimit(counts, { at: 0, max });
  }

  /** Takes one; false = there is none left. */
  take(): boolean {
    return this.#counts.take(this.#at, this.#max);
  }

  /** Gives one back. */
  give(): void {
    this.#counts.give(this.#at);
  }
}
