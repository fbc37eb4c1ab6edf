/**
 * One thread of subscriptions as its owner sees it: the streams that it feeds, and its end.
 */
import { Worker } from "node:worker_threads";
import { errorText } from "#base/errors.ts";
import type { PatinaError } from "#base/errors.ts";
import { recordToError } from "../store/errors.ts";
import { subscriptionError } from "./errors.ts";
import {
  type StreamTarget,
  type SubscriptionEvent,
  type SubscriptionFilter,
  type SubscriptionRequest,
  type SubscriptionView,
  type SubscriptionWorkerOptions,
} from "./subscription-messages.ts";

/** What a thread is started with. */
export interface SubscriptionLaneOptions extends SubscriptionWorkerOptions {
  /** Something that an operator may want to know. */
  readonly onNotice: (text: string) => void;
}

/**
 * A stream of lines. `texts` are whole lines with line feeds; the next is asked for when the last
 * was taken. End it with `return` (leaving a `for await` does). Throws `SUBSCRIPTION_LOST`.
 */
export interface LineStream {
  readonly queryId: string;
  /** Hash of the query's text; null for updates. */
  readonly queryHash: string | null;
  readonly texts: AsyncIterableIterator<string>;
}

/** The running thread. */
export class SubscriptionLane {
  readonly #worker: Worker;
  readonly #streamById = new Map<number, ReaderStream>();
  readonly #openings = new Map<number, Opening>();
  readonly #asked = new Map<number, PromiseWithResolvers<readonly SubscriptionView[]>>();
  readonly #exited: Promise<void>;
  readonly #onNotice: (text: string) => void;
  readonly #lump: number;
  #nextId = 1;
  #isOver = false;

  private constructor(
    worker: Worker,
    { onNotice, limits }: Pick<SubscriptionLaneOptions, "onNotice" | "limits">,
  ) {
    this.#worker = worker;
    this.#onNotice = onNotice;
    this.#lump = Math.ceil(limits.creditMax / LUMPS);
    this.#exited = new Promise((resolve) => worker.once("exit", () => resolve()));
    worker.on("message", (event: SubscriptionEvent) => this.#onEvent(event));
    worker.on("error", (thrown) => {
      onNotice(`the thread of subscriptions failed: ${errorText(thrown)}`);
      this.#lose();
    });
    worker.on("exit", () => this.#lose());
  }

  /** Starts the thread. Rejects with a code of the store when the database cannot be read. */
  static async start(options: SubscriptionLaneOptions): Promise<SubscriptionLane> {
    const { onNotice, ...workerData } = options;
    const { commits, limits } = workerData;
    const worker = new Worker(new URL("./subscription-worker.ts", import.meta.url), {
      name: "subscriptions",
      workerData,
      transferList: [commits.port],
      execArgv: [],
    });
    worker.unref();
    const thread = new SubscriptionLane(worker, { onNotice, limits });
    await new Promise<void>((resolve, reject) => {
      worker.once("error", reject);
      worker.once("exit", () => reject(lost()));
      worker.on("message", (event: SubscriptionEvent) => {
        if (event.kind === "broken") reject(recordToError(event.error));
        if (event.kind === "ready") resolve();
      });
    });
    return thread;
  }

  /** Whether no stream can be opened here any more. */
  get isOver(): boolean {
    return this.#isOver;
  }

  /** Streams that are open. */
  get streamCount(): number {
    return this.#streamById.size;
  }

  /** Of these, those that tell of a table's updates. */
  get updatesCount(): number {
    let count = 0;
    for (const { isUpdates } of this.#streamById.values()) if (isUpdates) count += 1;
    return count;
  }

  /**
   * Opens a stream. Rejects with `SUBSCRIPTION_QUERY`, `SUBSCRIPTION_TABLE`, `SUBSCRIPTION_FROM`,
   * `SUBSCRIPTION_UNKNOWN`, `SUBSCRIPTION_BUSY`, `SUBSCRIPTION_LOST`, `STORE_SQL` or
   * `STORE_TIMEOUT`.
   */
  open(target: StreamTarget): Promise<LineStream> {
    if (this.#isOver) return Promise.reject(lost());
    if (this.#streamById.size + this.#openings.size >= STREAMS_MAX) {
      const text = `${STREAMS_MAX} streams are open`;
      return Promise.reject(subscriptionError("SUBSCRIPTION_BUSY", text));
    }
    const readerId = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#openings.set(readerId, { resolve, reject });
      this.#post({ kind: "open", readerId, target });
    });
  }

  /** Shows subscriptions, as `SubscriptionDesk.views`. Rejects with `SUBSCRIPTION_LOST`. */
  views(filter: SubscriptionFilter): Promise<readonly SubscriptionView[]> {
    if (this.#isOver) return Promise.reject(lost());
    const askId = this.#nextId++;
    const answer = Promise.withResolvers<readonly SubscriptionView[]>();
    this.#asked.set(askId, answer);
    this.#post({ kind: "view", askId, filter });
    return answer.promise;
  }

  /** Ends every stream in order, keeps what is subscribed to, and ends the thread. */
  async close(): Promise<void> {
    this.#post({ kind: "close" });
    let timer: NodeJS.Timeout | undefined;
    const limit = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, CLOSE_LIMIT_MS);
    });
    await Promise.race([this.#exited, limit]);
    clearTimeout(timer);
    this.#lose();
    // Its end is not waited for: it may be in the middle of a query.
    void this.#worker.terminate();
  }

  #post(request: SubscriptionRequest): void {
    if (!this.#isOver) this.#worker.postMessage(request);
  }

  #onEvent(event: SubscriptionEvent): void {
    switch (event.kind) {
      case "ready":
      case "broken":
        return;
      case "notice":
        return this.#onNotice(event.text);
      case "views":
        this.#asked.get(event.askId)?.resolve(event.views);
        return void this.#asked.delete(event.askId);
      case "opened":
        return this.#onOpened(event);
      case "refused":
        this.#openings.get(event.readerId)?.reject(recordToError(event.error));
        return void this.#openings.delete(event.readerId);
      case "chunk":
        return this.#streamById.get(event.readerId)?.push(event.text);
      case "end":
        this.#streamById.get(event.readerId)?.finish(null);
        return void this.#streamById.delete(event.readerId);
    }
  }

  #onOpened(event: Extract<SubscriptionEvent, { kind: "opened" }>): void {
    const { readerId, queryId, queryHash } = event;
    const texts = new ReaderStream({
      isUpdates: queryHash === null,
      lump: this.#lump,
      onTaken: (size) => this.#post({ kind: "credit", readerId, size }),
      onLeave: () => this.#post({ kind: "leave", readerId }),
    });
    this.#streamById.set(readerId, texts);
    this.#openings.get(readerId)?.resolve({ queryId, queryHash, texts });
    this.#openings.delete(readerId);
  }

  #lose(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    for (const opening of this.#openings.values()) opening.reject(lost());
    for (const asked of this.#asked.values()) asked.reject(lost());
    for (const stream of this.#streamById.values()) stream.finish(lost());
    this.#openings.clear();
    this.#asked.clear();
    this.#streamById.clear();
  }
}

interface Opening {
  readonly resolve: (stream: LineStream) => void;
  readonly reject: (error: PatinaError) => void;
}

interface StreamOwner {
  readonly isUpdates: boolean;
  /** Characters that are told as taken together: each word of it wakes the thread. */
  readonly lump: number;
  onTaken(size: number): void;
  onLeave(): void;
}

/** One stream: what has arrived and is not taken is bounded by its credit. */
class ReaderStream implements AsyncIterableIterator<string> {
  readonly isUpdates: boolean;
  readonly #owner: StreamOwner;
  readonly #arrived: string[] = [];
  #waiting: PromiseWithResolvers<IteratorResult<string, undefined>> | null = null;
  #isOver = false;
  #error: PatinaError | null = null;
  /** Characters taken and not told yet. */
  #taken = 0;

  constructor(owner: StreamOwner) {
    this.isUpdates = owner.isUpdates;
    this.#owner = owner;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  next(): Promise<IteratorResult<string, undefined>> {
    const text = this.#arrived.shift();
    if (text !== undefined) return Promise.resolve(this.#take(text));
    if (this.#error !== null) {
      const error = this.#error;
      this.#error = null;
      return Promise.reject(error);
    }
    if (this.#isOver) return Promise.resolve(DONE);
    this.#waiting = Promise.withResolvers();
    return this.#waiting.promise;
  }

  return(): Promise<IteratorResult<string, undefined>> {
    this.#arrived.length = 0;
    if (!this.#isOver) this.#owner.onLeave();
    this.finish(null);
    return Promise.resolve(DONE);
  }

  push(text: string): void {
    if (this.#isOver) return;
    const waiting = this.#waiting;
    this.#waiting = null;
    if (waiting === null) this.#arrived.push(text);
    else waiting.resolve(this.#take(text));
  }

  /** No text follows. */
  finish(error: PatinaError | null): void {
    if (this.#isOver) return;
    this.#isOver = true;
    const waiting = this.#waiting;
    this.#waiting = null;
    if (waiting === null) this.#error = error;
    else if (error === null) waiting.resolve(DONE);
    else waiting.reject(error);
  }

  #take(text: string): IteratorResult<string, undefined> {
    this.#taken += text.length;
    if (!this.#isOver && this.#taken >= this.#owner.lump) {
      this.#owner.onTaken(this.#taken);
      this.#taken = 0;
    }
    return { done: false, value: text };
  }
}

function lost(): PatinaError {
  return subscriptionError("SUBSCRIPTION_LOST", "the thread of subscriptions ended");
}

const DONE: IteratorReturnResult<undefined> = { done: true, value: undefined };
/** Readers at once; each costs a connection and, when slow, some memory in the thread. */
const STREAMS_MAX = 4_096;
/** A reader's credit comes back in so many parts. */
const LUMPS = 4;
const CLOSE_LIMIT_MS = 2_000;
