/**
 * A query under way: columns, then pages when they are asked for, within its time.
 *
 * The thread keeps the deadline. Here a timer some time later watches for the case that it cannot,
 * because SQLite does not come back.
 */
import type { PatinaError } from "#base/errors.ts";
import type { SqlValue } from "../../types.ts";
import { queryTimeout } from "./errors.ts";
import type { LaneListener, QueryLane } from "./query-lane.ts";
import type { QueryEvent } from "./query-messages.ts";

/** Rows of a page. */
export type QueryPage = readonly (readonly SqlValue[])[];

/** What a query is started with. */
export interface RunningQueryOptions {
  readonly id: number;
  readonly lane: QueryLane;
  readonly timeoutMs: number;
  /** How much later than its deadline a query may answer before its thread is given up. */
  readonly marginMs: number;
  /** Called when the deadline and the margin are over and SQLite still looks for a row of ours. */
  readonly onStuck: () => void;
  /** Called once, when the query has ended: with an error, or (null) otherwise. */
  readonly onEnd: (error: PatinaError | null) => void;
}

interface Waiter<Value> {
  readonly resolve: (value: Value) => void;
  readonly reject: (error: PatinaError) => void;
}

/** One query; iterate it at most once, and end it with `return` if not to its end. */
export class RunningQuery implements LaneListener, AsyncIterableIterator<QueryPage> {
  readonly #options: RunningQueryOptions;
  readonly #guard: NodeJS.Timeout;
  #columns: Waiter<readonly string[]> | null = null;
  #waiter: Waiter<IteratorResult<QueryPage, undefined>> | null = null;
  #failure: PatinaError | null = null;
  #isOver = false;

  constructor(options: RunningQueryOptions) {
    this.#options = options;
    this.#guard = setTimeout(() => {
      // An answer that has arrived is taken in first: this loop itself may have been late.
      setImmediate(() => this.#onLate());
    }, options.timeoutMs + options.marginMs);
    this.#guard.unref();
  }

  /** Resolves with the columns; rejects when the statement is not right. Call once, at once. */
  started(): Promise<readonly string[]> {
    return new Promise((resolve, reject) => {
      this.#columns = { resolve, reject };
    });
  }

  /** The next page. One call at a time. */
  next(): Promise<IteratorResult<QueryPage, undefined>> {
    if (this.#failure !== null) {
      const failure = this.#failure;
      this.#failure = null;
      return Promise.reject(failure);
    }
    if (this.#isOver) return Promise.resolve(DONE);
    return new Promise((resolve, reject) => {
      this.#waiter = { resolve, reject };
      this.#options.lane.askPage(this.#options.id);
    });
  }

  /** Ends the query; a `next` that waits is done. */
  return(): Promise<IteratorResult<QueryPage, undefined>> {
    this.#failure = null;
    if (!this.#isOver) {
      const { lane, id } = this.#options;
      lane.close(id);
      // The guard stays while SQLite looks for a row of ours: nobody else watches for its end.
      this.#finish(null, { keepGuard: lane.steppingId === id });
    }
    this.#settle((waiter) => waiter.resolve(DONE));
    return Promise.resolve(DONE);
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  columns(columns: readonly string[]): void {
    this.#columns?.resolve(columns);
    this.#columns = null;
  }

  page({ rows, isLast }: Extract<QueryEvent, { kind: "page" }>): void {
    if (isLast) this.#finish(null, { keepGuard: false });
    const isEmptyEnd = isLast && rows.length === 0;
    this.#settle((waiter) => waiter.resolve(isEmptyEnd ? DONE : { done: false, value: rows }));
  }

  failed(error: PatinaError): void {
    if (this.#isOver) return;
    this.#finish(error, { keepGuard: false });
    const waiter = this.#columns ?? this.#waiter;
    this.#columns = null;
    this.#waiter = null;
    if (waiter === null) this.#failure = error;
    else waiter.reject(error);
  }

  #onLate(): void {
    const { lane, id, timeoutMs } = this.#options;
    const isStuck = lane.steppingId === id;
    if (!this.#isOver) {
      lane.close(id);
      this.failed(queryTimeout(timeoutMs));
    }
    if (isStuck) this.#options.onStuck();
  }

  #settle(how: (waiter: Waiter<IteratorResult<QueryPage, undefined>>) => void): void {
    const waiter = this.#waiter;
    this.#waiter = null;
    if (waiter !== null) how(waiter);
  }

  #finish(error: PatinaError | null, { keepGuard }: { keepGuard: boolean }): void {
    this.#isOver = true;
    if (!keepGuard) clearTimeout(this.#guard);
    this.#options.onEnd(error);
  }
}

const DONE: IteratorReturnResult<undefined> = { done: true, value: undefined };
