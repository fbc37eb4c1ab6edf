/**
 * Whether a body moves fast enough: a client that drips bytes, or takes them drop by drop, must not
 * hold a request for ever, although something always moves in time.
 *
 * Kept as credit in milliseconds: waiting uses it up, each byte earns as much as it may take at the
 * least rate. Credit is capped, so a fast start does not pay for an hour of dripping.
 */

/** How fast is fast enough. */
export interface BodyRateLimits {
  /** Bytes per second; 0 = any rate will do. */
  readonly bytesPerSecondMin: number;
  /** Credit at the start, and the most there can be, in milliseconds. */
  readonly graceMs: number;
}

/** The credit of one body; reusable. */
export class BodyRate {
  readonly #msPerByte: number;
  readonly #graceMs: number;
  #creditMs = 0;
  /** When waiting began, -1 = the other side does not wait for this one. */
  #waitingSinceMs = -1;

  constructor({ bytesPerSecondMin, graceMs }: BodyRateLimits) {
    this.#msPerByte = bytesPerSecondMin > 0 ? 1000 / bytesPerSecondMin : Infinity;
    this.#graceMs = graceMs;
  }

  /** A body begins; nobody waits for it yet. */
  start(): void {
    this.#creditMs = this.#graceMs;
    this.#waitingSinceMs = -1;
  }

  /** Bytes came; they are waited for from here on. */
  took(bytes: number, nowMs: number): void {
    this.#settle(nowMs);
    this.#waitingSinceMs = nowMs;
    this.#creditMs = Math.min(this.#graceMs, this.#creditMs + bytes * this.#msPerByte);
  }

  /** Nobody waits for bytes: the receiver is behind. `took(0)` ends it. */
  rest(nowMs: number): void {
    this.#settle(nowMs);
    this.#waitingSinceMs = -1;
  }

  /** Milliseconds from the last `took` until it is too slow; `Infinity` = any rate will do. */
  get leftMs(): number {
    return this.#msPerByte === Infinity ? Infinity : Math.max(0, this.#creditMs);
  }

  /** The same while so many bytes are on their way: each may take as long as it does at that rate. */
  leftMsFor(bytes: number): number {
    if (this.#msPerByte === Infinity) return Infinity;
    return Math.max(0, this.#creditMs + bytes * this.#msPerByte);
  }

  #settle(nowMs: number): void {
    if (this.#waitingSinceMs >= 0) this.#creditMs -= nowMs - this.#waitingSinceMs;
  }
}
