/**
 * Runs read-only queries for the API in the query thread, and replaces that thread when a query
 * does not come back: SQLite cannot be interrupted between two rows.
 */
import { MessageChannel, Worker } from "node:worker_threads";
import type { Statement } from "../../types.ts";
import { recordToError, storeError } from "./errors.ts";
import type { QueryCall, QueryEvent } from "./query-worker.ts";

/** What a query yields: columns first, then chunks of rows. */
export type QueryPart = Exclude<QueryEvent, { kind: "end" } | { kind: "failed" }>;

/** A query thread for one database file. */
export class QueryReader {
  readonly #path: string;
  #worker: Worker | null = null;
  /** Threads given up whose query has not come back. */
  #stuck = 0;

  /** `path`: the database file; opened with the first query. */
  constructor(path: string) {
    this.#path = path;
  }

  /**
   * Streams a query's answer with back-pressure: the next chunks are read when the last ones were
   * taken. Throws `STORE_SQL` (wrong or not read-only), `STORE_TIMEOUT` after `timeoutMs`
   * (0 = no deadline), `STORE_BUSY` when too many threads are stuck.
   */
  async *query(statement: Statement, timeoutMs: number): AsyncGenerator<QueryPart> {
    const limitMs = timeoutMs === 0 ? NO_TIMEOUT_MS : timeoutMs;
    const worker = this.#ensureWorker();
    const { port1, port2 } = new MessageChannel();
    const arrived: QueryEvent[] = [];
    let wake: () => void = () => undefined;
    let isLost = false;
    const onEnd = (): void => {
      isLost = true;
      wake();
    };
    port2.on("message", (event: QueryEvent) => {
      arrived.push(event);
      wake();
    });
    port2.on("close", onEnd);
    worker.once("exit", onEnd);
    const timer = setTimeout(() => {
      this.#giveUp(worker);
      onEnd();
    }, limitMs + GRACE_MS);
    const call: QueryCall = { port: port1, statement, timeoutMs: limitMs, credit: CREDIT };
    worker.postMessage(call, [port1]);
    try {
      for (;;) {
        const event = arrived.shift();
        if (event === undefined) {
          if (isLost) throw storeError("STORE_TIMEOUT", "the query did not come back");
          await new Promise<void>((resolve) => (wake = resolve));
          continue;
        }
        if (event.kind === "end") return;
        if (event.kind === "failed") throw recordToError(event.error);
        yield event;
        if (event.kind === "rows") port2.postMessage(1);
      }
    } finally {
      clearTimeout(timer);
      worker.off("exit", onEnd);
      port2.close();
    }
  }

  /** Ends the thread; queries under way fail. */
  async close(): Promise<void> {
    const worker = this.#worker;
    this.#worker = null;
    await worker?.terminate();
  }

  #ensureWorker(): Worker {
    if (this.#worker !== null) return this.#worker;
    if (this.#stuck >= STUCK_MAX) {
      throw storeError("STORE_BUSY", `${STUCK_MAX} queries do not come back`);
    }
    const url = new URL("./query-worker.ts", import.meta.url);
    const worker = new Worker(url, { name: "query", workerData: this.#path, execArgv: [] });
    worker.setMaxListeners(0);
    worker.unref();
    worker.on("error", () => this.#forget(worker));
    worker.on("exit", () => this.#forget(worker));
    this.#worker = worker;
    return worker;
  }

  #giveUp(worker: Worker): void {
    if (this.#worker !== worker) return;
    this.#worker = null;
    this.#stuck += 1;
    // Takes effect when SQLite returns.
    void worker.terminate().then(() => (this.#stuck -= 1));
  }

  #forget(worker: Worker): void {
    if (this.#worker === worker) this.#worker = null;
  }
}

/** Chunks on their way: enough to keep the reader busy. */
const CREDIT = 4;
/** The thread itself gives a query up at its deadline; later it is stuck inside SQLite. */
const GRACE_MS = 1000;
const STUCK_MAX = 4;
/** Greatest delay of a timer: 24 days. */
const NO_TIMEOUT_MS = 2_147_480_000;
