/**
 * Requests that wait for a machine below its hard limit: first come, first served per host, so that
 * one app's crowd does not hold up another's, and no more in all than a limit.
 */

/** Places for waiters, maybe shared with other queues. */
export interface Places {
  /** False = there is none left. */
  take(): boolean;
  give(): void;
}

/** Waiters by key, in the order they came. */
export class WaitQueue<Waiter> {
  readonly #places: Places;
  readonly #waitersByKey = new Map<string, Set<Waiter>>();
  #count = 0;

  constructor(places: Places) {
    this.#places = places;
  }

  get count(): number {
    return this.#count;
  }

  /** Whether somebody waits under this key: whoever comes now goes behind. */
  has(key: string): boolean {
    return this.#count > 0 && this.#waitersByKey.has(key);
  }

  /** Puts one at the end; false = there is no room. */
  add(key: string, waiter: Waiter): boolean {
    if (!this.#places.take()) return false;
    let waiters = this.#waitersByKey.get(key);
    if (waiters === undefined) {
      waiters = new Set();
      this.#waitersByKey.set(key, waiters);
    }
    waiters.add(waiter);
    this.#count += 1;
    return true;
  }

  /** Takes one out wherever it is. Idempotent. */
  remove(key: string, waiter: Waiter): void {
    const waiters = this.#waitersByKey.get(key);
    if (!waiters?.delete(waiter)) return;
    this.#count -= 1;
    this.#places.give();
    if (waiters.size === 0) this.#waitersByKey.delete(key);
  }

  /**
   * Lets waiters try, the first of each key first, until one of a key cannot be served. `tryIt`
   * takes the waiter out (`remove`) when it answers true. Cost: keys, plus waiters served.
   */
  serve(tryIt: (waiter: Waiter) => boolean): void {
    for (const waiters of this.#waitersByKey.values()) {
      for (const waiter of waiters) if (!tryIt(waiter)) break;
    }
  }
}
