/**
 * Virtual time: what is to happen, in the order of when, then of when it was planned.
 *
 * Nothing happens between two events, so a simulated minute takes as long as its work does.
 */

/** Something that happens at a virtual time. */
interface PlannedEvent {
  readonly atMs: number;
  readonly order: number;
  readonly run: () => void;
}

/** The clock and the future of a simulated world. */
export class EventQueue {
  /** Binary heap, least first. */
  readonly #heap: PlannedEvent[] = [];
  #nextOrder = 0;
  #nowMs = 0;

  /** Virtual milliseconds since the world began. */
  get nowMs(): number {
    return this.#nowMs;
  }

  /** Number of events that have not happened. */
  get size(): number {
    return this.#heap.length;
  }

  /** Plans `run` for `delayMs` from now; equal times happen in the order planned. */
  after(delayMs: number, run: () => void): void {
    this.at(this.#nowMs + Math.max(0, delayMs), run);
  }

  /** Plans `run` for a time; a past one means now. */
  at(atMs: number, run: () => void): void {
    const event = { atMs: Math.max(atMs, this.#nowMs), order: this.#nextOrder, run };
    this.#nextOrder += 1;
    this.#heap.push(event);
    this.#siftUp(this.#heap.length - 1);
  }

  /** Lets everything happen that is planned up to `untilMs`, and moves the clock there. */
  runUntil(untilMs: number): void {
    for (let next = this.#heap[0]; next && next.atMs <= untilMs; next = this.#heap[0]) {
      this.#removeFirst();
      this.#nowMs = next.atMs;
      next.run();
    }
    this.#nowMs = Math.max(this.#nowMs, untilMs);
  }

  #removeFirst(): void {
    const last = this.#heap.pop();
    if (last === undefined || this.#heap.length === 0) return;
    this.#heap[0] = last;
    this.#siftDown();
  }

  #siftUp(from: number): void {
    let at = from;
    while (at > 0) {
      const parent = (at - 1) >>> 1;
      if (!this.#isBefore(at, parent)) return;
      this.#swap(at, parent);
      at = parent;
    }
  }

  #siftDown(): void {
    for (let at = 0; ;) {
      let least = at;
      for (const child of [2 * at + 1, 2 * at + 2]) {
        if (child < this.#heap.length && this.#isBefore(child, least)) least = child;
      }
      if (least === at) return;
      this.#swap(at, least);
      at = least;
    }
  }

  #isBefore(one: number, other: number): boolean {
    const left = this.#heap[one] as PlannedEvent;
    const right = this.#heap[other] as PlannedEvent;
    return left.atMs < right.atMs || (left.atMs === right.atMs && left.order < right.order);
  }

  #swap(one: number, other: number): void {
    const moved = this.#heap[one] as PlannedEvent;
    this.#heap[one] = this.#heap[other] as PlannedEvent;
    this.#heap[other] = moved;
  }
}
