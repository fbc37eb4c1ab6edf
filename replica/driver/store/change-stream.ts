/**
 * The reader's end of the change stream: an async iterator over the events on a port, which grants
 * the store worker credit for each batch of rows that was taken.
 */
import type { MessagePort } from "node:worker_threads";
import type { ChangeStreamEvent } from "../../types.ts";
import { storeError } from "./errors.ts";

/**
 * Iterates over the events that arrive on `port`. `subscribed` settles when the worker took the
 * subscription; its failure ends the iteration. Only one `next` may wait at a time. `credit`: of the
 * batches that may be on their way, as `subscribe` was told.
 */
export function readChangeStream(
  port: MessagePort,
  subscribed: Promise<unknown>,
  credit: number,
): AsyncIterableIterator<ChangeStreamEvent> {
  const reader = new ChangeStreamReader(port, Math.ceil(credit / 2));
  subscribed.catch((error: unknown) => reader.fail(error));
  return reader;
}

interface Waiting {
  readonly resolve: (result: IteratorResult<ChangeStreamEvent>) => void;
  readonly reject: (error: unknown) => void;
}

class ChangeStreamReader implements AsyncIterableIterator<ChangeStreamEvent> {
  readonly #port: MessagePort;
  /** At most the credit granted, and the few events that need none. */
  readonly #arrived: ChangeStreamEvent[] = [];
  #waiting: Waiting | null = null;
  #isDone = false;
  #error: unknown = null;
  /** Batches for which credit is granted together: each grant wakes the store's thread. */
  readonly #lump: number;
  /** Batches taken since the last grant. */
  #taken = 0;

  constructor(port: MessagePort, lump: number) {
    this.#port = port;
    this.#lump = lump;
    port.on("message", (event: ChangeStreamEvent) => this.#onEvent(event));
    port.on("close", () =>
      this.fail(storeError("STORE_CLOSED", "the store ended the change stream")),
    );
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  next(): Promise<IteratorResult<ChangeStreamEvent>> {
    const event = this.#arrived.shift();
    if (event !== undefined) return Promise.resolve(this.#take(event));
    if (this.#error !== null) return Promise.reject(this.#error);
    if (this.#isDone) return Promise.resolve(DONE);
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
    });
  }

  return(): Promise<IteratorResult<ChangeStreamEvent>> {
    this.#isDone = true;
    this.#arrived.length = 0;
    this.#port.close();
    this.#waiting?.resolve(DONE);
    this.#waiting = null;
    return Promise.resolve(DONE);
  }

  /** Ends the iteration with an error, after what has arrived. */
  fail(error: unknown): void {
    if (this.#isDone || this.#error !== null) return;
    this.#error = error;
    this.#waiting?.reject(error);
    this.#waiting = null;
  }

  #onEvent(event: ChangeStreamEvent): void {
    const waiting = this.#waiting;
    this.#waiting = null;
    if (waiting === null) this.#arrived.push(event);
    else waiting.resolve(this.#take(event));
  }

  #take(event: ChangeStreamEvent): IteratorResult<ChangeStreamEvent> {
    if (event.kind === "rows" && !this.#isDone && ++this.#taken >= this.#lump) {
      this.#port.postMessage(this.#taken);
      this.#taken = 0;
    }
    return { done: false, value: event };
  }
}

const DONE: IteratorResult<ChangeStreamEvent> = { done: true, value: undefined };
