/**
 * A byte budget: so many bytes per second, with a burst of one second's worth.
 *
 * Whoever may send takes the whole message, so the level can fall below zero by one message; the next
 * waits until it is above zero again. Borrowers may go on until one second's worth is owed.
 */

/** A token bucket over monotonic milliseconds. */
export class TokenBucket {
  readonly #bytesPerSecond: number;
  #level: number;
  #atMs = Number.NEGATIVE_INFINITY;

  /** What others than borrowers owe at a time: it does not keep borrowers back. */
  readonly #owedByOthers: (nowMs: number) => number;

  /** Starts full. */
  constructor(bytesPerSecond: number, owedByOthers: (nowMs: number) => number = () => 0) {
    this.#bytesPerSecond = bytesPerSecond;
    this.#owedByOthers = owedByOthers;
    this.#level = bytesPerSecond;
  }

  /** Whether something may be sent at `nowMs`. */
  isOpen(nowMs: number): boolean {
    this.#refill(nowMs);
    return this.#level > 0;
  }

  /** Whether something urgent may be sent at `nowMs`. */
  isOpenForBorrowing(nowMs: number): boolean {
    this.#refill(nowMs);
    return this.#level > -this.#bytesPerSecond - this.#owedByOthers(nowMs);
  }

  /** Bytes below zero. */
  owed(nowMs: number): number {
    this.#refill(nowMs);
    return Math.max(0, -this.#level);
  }

  /** Takes the bytes of what is sent. */
  take(bytes: number): void {
    this.#level -= bytes;
  }

  /** When `isOpen` is next true, if nothing is taken; in the past if it is true already. */
  opensAtMs(): number {
    return this.#reachesAtMs(0);
  }

  /** When `isOpenForBorrowing` is next true, if nothing is taken. */
  opensForBorrowingAtMs(): number {
    return this.#reachesAtMs(-this.#bytesPerSecond - this.#owedByOthers(this.#atMs));
  }

  #reachesAtMs(level: number): number {
    // One byte above, so that rounding never answers a moment too early.
    const missing = level + 1 - this.#level;
    return this.#atMs + Math.ceil((missing * 1000) / this.#bytesPerSecond);
  }

  #refill(nowMs: number): void {
    if (nowMs <= this.#atMs) return;
    const gained = ((nowMs - this.#atMs) * this.#bytesPerSecond) / 1000;
    this.#level = Math.min(this.#bytesPerSecond, this.#level + gained);
    this.#atMs = nowMs;
  }
}
