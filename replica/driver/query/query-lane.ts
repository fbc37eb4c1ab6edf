/**
 * One query thread as its owner sees it: the messages of its queries, and its end.
 */
import { Worker } from "node:worker_threads";
import type { PatinaError } from "#base/errors.ts";
import { errorText } from "#base/errors.ts";
import { recordToError } from "../store/errors.ts";
import { queryError } from "./errors.ts";
import type { QueryEvent, QueryRequest, QueryWorkerOptions } from "./query-messages.ts";

/** What a query of a lane hears. */
export interface LaneListener {
  columns(columns: readonly string[]): void;
  page(event: Extract<QueryEvent, { kind: "page" }>): void;
  /** Last: the query is closed in the thread, or the thread is gone. */
  failed(error: PatinaError): void;
}

/** A running query thread. */
export class QueryLane {
  readonly #worker: Worker;
  readonly #stepping = new Int32Array(new SharedArrayBuffer(4));
  readonly #listenerById = new Map<number, LaneListener>();
  /** Queries whose last request is not answered. */
  readonly #unanswered = new Set<number>();
  #heardMs = performance.now();
  #isOver = false;
  /** Resolves when the database is open; rejects when it cannot be. */
  readonly ready: Promise<void>;
  /** Resolves when the thread has ended, which one that is stuck in SQLite does late or never. */
  readonly exited: Promise<void>;

  constructor(options: Omit<QueryWorkerOptions, "stepping">) {
    const workerData: QueryWorkerOptions = { ...options, stepping: this.#stepping };
    this.#worker = new Worker(new URL("./query-worker.ts", import.meta.url), {
      name: "query",
      workerData,
    });
    this.#worker.unref();
    this.ready = new Promise((resolve, reject) => {
      this.#worker.once("message", (event: QueryEvent) =>
        event.kind === "broken" ? reject(recordToError(event.error)) : resolve(),
      );
      this.#worker.once("exit", () => reject(queryError("QUERY_LOST", "the query thread ended")));
    });
    // Whoever started the lane awaits it or hears of it through its queries.
    this.ready.catch(() => undefined);
    this.exited = new Promise((resolve) => this.#worker.once("exit", () => resolve()));
    this.#worker.on("message", (event: QueryEvent) => this.#onEvent(event));
    this.#worker.on("error", (thrown) =>
      this.#lose(`the query thread failed: ${errorText(thrown)}`),
    );
    this.#worker.on("exit", () => this.#lose("the query thread ended"));
  }

  /** Queries open here. */
  get size(): number {
    return this.#listenerById.size;
  }

  /** Whether no query can be opened here any more. */
  get isOver(): boolean {
    return this.#isOver;
  }

  /** Id of the query whose next row SQLite is looking for; 0 = none. */
  get steppingId(): number {
    return Atomics.load(this.#stepping, 0);
  }

  /** Milliseconds for which answers have been due; 0 = none is. */
  silenceMs(nowMs: number): number {
    return this.#unanswered.size === 0 ? 0 : nowMs - this.#heardMs;
  }

  /** Sends a request of a query; `open` comes first and names its listener. */
  open(request: Extract<QueryRequest, { kind: "open" }>, listener: LaneListener): void {
    this.#listenerById.set(request.id, listener);
    this.#ask(request);
  }

  /** Asks for the next page. */
  askPage(id: number): void {
    this.#ask({ kind: "page", id });
  }

  /** Ends a query; its listener hears nothing more. A row that is looked for is found first. */
  close(id: number): void {
    if (this.#listenerById.delete(id)) this.#post({ kind: "close", id });
  }

  /** Gives the thread up: queries fail with `reason`; it ends when SQLite returns to it. */
  abandon(reason: string): void {
    this.#lose(reason);
    // Its end is watched through `exited`.
    void this.#worker.terminate();
  }

  #ask(request: QueryRequest): void {
    if (this.#unanswered.size === 0) this.#heardMs = performance.now();
    this.#unanswered.add(request.id);
    this.#post(request);
  }

  #post(request: QueryRequest): void {
    if (!this.#isOver) this.#worker.postMessage(request);
  }

  #onEvent(event: QueryEvent): void {
    this.#heardMs = performance.now();
    if (event.kind === "ready") return;
    if (event.kind === "broken") return this.#lose(event.error.message);
    this.#unanswered.delete(event.id);
    const listener = this.#listenerById.get(event.id);
    if (event.kind === "columns") return listener?.columns(event.columns);
    if (event.kind === "failed" || event.isLast) this.#listenerById.delete(event.id);
    if (event.kind === "failed") listener?.failed(recordToError(event.error));
    else listener?.page(event);
  }

  #lose(reason: string): void {
    if (this.#isOver) return;
    this.#isOver = true;
    const listeners = [...this.#listenerById.values()];
    this.#listenerById.clear();
    for (const listener of listeners) listener.failed(queryError("QUERY_LOST", reason));
  }
}
