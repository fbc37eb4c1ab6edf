/**
 * Deadlines of a state machine: at most one per timer, the least of them for the driver.
 *
 * A machine sets and clears timers by name (or by name and key, for timers that exist once per
 * member, stream or version) and never schedules anything itself. There is no cancellation to race
 * with and no stale timer to recognise: what was cleared or replaced is gone. The idea is quinn's
 * `TimerTable`.
 */

/** A timer that came due. `key` is the empty string for a timer without a key. */
export interface DueTimer<Name extends string> {
  readonly name: Name;
  readonly key: string;
  /** When it was set to fire, monotonic milliseconds; at or before the time asked about. */
  readonly atMs: number;
}

/** The deadlines of one machine. Reading the least one is O(1) unless that one was just removed. */
export class TimerTable<Name extends string> {
  readonly #timerById = new Map<string, DueTimer<Name>>();
  /** The least deadline; stale (too small, never too great) while `#isStale`. */
  #leastMs = Number.POSITIVE_INFINITY;
  #isStale = false;

  /** Sets a timer, replacing an earlier deadline of the same name and key. */
  set(name: Name, atMs: number, key = ""): void {
    this.clear(name, key);
    this.#timerById.set(timerId(name, key), { name, key, atMs });
    if (atMs < this.#leastMs) {
      this.#leastMs = atMs;
      this.#isStale = false;
    }
  }

  /** Removes a timer; nothing happens when it is not set. */
  clear(name: Name, key = ""): void {
    const id = timerId(name, key);
    const timer = this.#timerById.get(id);
    if (timer === undefined) return;
    this.#timerById.delete(id);
    if (timer.atMs <= this.#leastMs) this.#isStale = true;
  }

  /** Removes every timer. */
  clearAll(): void {
    this.#timerById.clear();
    this.#leastMs = Number.POSITIVE_INFINITY;
    this.#isStale = false;
  }

  /** Whether a timer is set. */
  has(name: Name, key = ""): boolean {
    return this.#timerById.has(timerId(name, key));
  }

  /**
   * Takes out all timers due at `nowMs`, earliest first (equal ones in the order they were set). A
   * timer set while these are handled is not among them, even when already due. O(timers) when one
   * is due, O(1) when none is.
   */
  due(nowMs: number): DueTimer<Name>[] {
    if (nowMs < this.deadlineMs()) return [];
    const due: DueTimer<Name>[] = [];
    for (const timer of this.#timerById.values()) {
      if (timer.atMs <= nowMs) due.push(timer);
    }
    for (const timer of due) this.#timerById.delete(timerId(timer.name, timer.key));
    this.#isStale = true;
    return due.sort((one, other) => one.atMs - other.atMs);
  }

  /**
   * Moves every deadline later. For a machine that finds out it was not run for a while: time in
   * which it could hear nobody must not count against anybody.
   */
  postponeAll(byMs: number): void {
    for (const [id, timer] of this.#timerById) {
      this.#timerById.set(id, { ...timer, atMs: timer.atMs + byMs });
    }
    this.#isStale = true;
  }

  /** The least deadline in monotonic milliseconds; `Infinity` when no timer is set. */
  deadlineMs(): number {
    if (this.#isStale) {
      this.#leastMs = Number.POSITIVE_INFINITY;
      for (const timer of this.#timerById.values()) {
        if (timer.atMs < this.#leastMs) this.#leastMs = timer.atMs;
      }
      this.#isStale = false;
    }
    return this.#leastMs;
  }
}

/** Names are identifiers, so the space cannot make two timers collide. */
function timerId(name: string, key: string): string {
  return `${name} ${key}`;
}
