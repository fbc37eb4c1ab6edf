/**
 * The query thread: reads the store's file on connections of its own, so that no query delays a
 * write or the replica.
 *
 * One page is read each time one is asked for, so queries take turns page by page and a client that
 * takes nothing costs nothing but its snapshot, which ends with its time. SQLite is interrupted at
 * the deadline; where it does not look for interrupts (one function call that takes long), the owner
 * sees in `stepping` whose fault the silence is, and replaces the thread.
 */
import { parentPort, workerData } from "node:worker_threads";
import { assert } from "#base/errors.ts";
import { failure, success, type Result } from "#base/machine.ts";
import type { SqlValue, Statement } from "../../types.ts";
import { errorToRecord, toStoreError } from "../store/errors.ts";
import { isInterrupt } from "../store/sql-deadline.ts";
import { tokenize } from "../store/sql-text.ts";
import { queryError, queryTimeout } from "./errors.ts";
import { bindArguments, bindParameters } from "./parameters.ts";
import type { QueryEvent, QueryRequest, QueryWorkerOptions } from "./query-messages.ts";
import { needsExtension, prepareRead, ReadConnections } from "./read-connections.ts";
import type { ReadConnection } from "./read-connections.ts";

/** A query that is open. */
interface OpenQuery {
  readonly connection: ReadConnection;
  rows: Iterator<SqlValue[]>;
  readonly timeoutMs: number;
  /** On this thread's monotonic clock. */
  readonly deadlineMs: number;
  /** Ends the query when no page is asked for. */
  timer: NodeJS.Timeout;
}

/** The queries of this thread. */
class QueryDesk {
  readonly #options: QueryWorkerOptions;
  readonly #connections: ReadConnections;
  readonly #queryById = new Map<number, OpenQuery>();
  readonly #send: (event: QueryEvent) => void;

  constructor(options: QueryWorkerOptions, send: (event: QueryEvent) => void) {
    this.#options = options;
    this.#send = send;
    this.#connections = new ReadConnections(options.databasePath, options);
    this.#connections.release(this.#connections.take(false));
  }

  handle(request: QueryRequest): void {
    switch (request.kind) {
      case "open":
        return this.#open(request.id, request.statement, request.timeoutMs);
      case "page":
        return this.#sendPage(request.id);
      case "close":
        return this.#close(request.id);
    }
  }

  #open(id: number, statement: Statement, timeoutMs: number): void {
    const bound = bindParameters(statement);
    const tokens = tokenize(statement.sql);
    let connection: ReadConnection | null = null;
    try {
      if (tokens.every((token) => token.kind === "semicolon")) {
        throw queryError("QUERY_EMPTY", "the text holds no statement");
      }
      connection = this.#connections.take(needsExtension(tokens));
      const prepared = prepareRead(connection, statement.sql, tokens);
      if (!bound.ok) throw queryError("QUERY_PARAMETERS", bound.error);
      const columns = prepared.columns().map((column) => column.name);
      const rows = prepared.raw().iterate(...bindArguments(bound.value)) as Iterator<SqlValue[]>;
      connection.deadline.start(timeoutMs);
      const deadlineMs = performance.now() + timeoutMs;
      const timer = this.#startTimer(id, { timeoutMs, deadlineMs });
      this.#queryById.set(id, { connection, rows, timeoutMs, deadlineMs, timer });
      this.#send({ kind: "columns", id, columns });
    } catch (thrown) {
      if (connection !== null) this.#connections.release(connection);
      this.#send({ kind: "failed", id, error: errorToRecord(bindingError(thrown)) });
    }
  }

  #sendPage(id: number): void {
    const query = this.#queryById.get(id);
    // It was given up while the request was on its way; the failure is on its own way.
    if (query === undefined) return;
    clearTimeout(query.timer);
    const page = this.#read(id, query);
    if (!page.ok) return this.#fail(id, page.error);
    const { rows, isLast } = page.value;
    if (isLast) {
      this.#close(id);
    } else {
      query.timer = this.#startTimer(id, query);
    }
    this.#send({ kind: "page", id, rows, isLast });
  }

  #read(id: number, query: OpenQuery): Result<{ rows: SqlValue[][]; isLast: boolean }, unknown> {
    const rows: SqlValue[][] = [];
    const untilMs = performance.now() + PAGE_MS;
    Atomics.store(this.#options.stepping, 0, id);
    try {
      for (let bytes = 0; bytes < PAGE_BYTES && rows.length < PAGE_ROWS;) {
        const next = query.rows.next();
        if (next.done === true) return success({ rows, isLast: true });
        bytes += sizeOf(next.value);
        rows.push(next.value);
        const nowMs = performance.now();
        if (nowMs >= query.deadlineMs) return failure(queryTimeout(query.timeoutMs));
        if (nowMs >= untilMs) break;
      }
      return success({ rows, isLast: false });
    } catch (thrown) {
      // cr-sqlite's table tells of an interrupt in words of its own.
      const isLate = isInterrupt(thrown) || performance.now() >= query.deadlineMs;
      const reason = isLate ? queryTimeout(query.timeoutMs) : thrown;
      // Rows before the bad one are the client's: the failure comes back with the next page.
      if (rows.length === 0) return failure(reason);
      query.rows = failing(reason);
      return success({ rows, isLast: false });
    } finally {
      Atomics.store(this.#options.stepping, 0, 0);
    }
  }

  /** Ends the query when its time, or that of a client that takes nothing, is up first. */
  #startTimer(id: number, query: Pick<OpenQuery, "timeoutMs" | "deadlineMs">): NodeJS.Timeout {
    const { idleMs } = this.#options;
    const leftMs = Math.max(1, query.deadlineMs - performance.now());
    const reason =
      leftMs <= idleMs
        ? queryTimeout(query.timeoutMs)
        : queryError("QUERY_SLOW_CLIENT", `no rows were taken for ${idleMs} ms`);
    return setTimeout(() => this.#fail(id, reason), Math.min(idleMs, leftMs));
  }

  #fail(id: number, thrown: unknown): void {
    this.#close(id);
    this.#send({ kind: "failed", id, error: errorToRecord(toStoreError(thrown, "STORE_SQL")) });
  }

  #close(id: number): void {
    const query = this.#queryById.get(id);
    if (query === undefined) return;
    this.#queryById.delete(id);
    clearTimeout(query.timer);
    // Ends the statement, without which the log of the database cannot be cut.
    query.rows.return?.();
    query.connection.deadline.lift();
    this.#connections.release(query.connection);
  }
}

/** The driver's own complaints about parameters; ours come first, so these are rare. */
function bindingError(thrown: unknown): unknown {
  return thrown instanceof RangeError || thrown instanceof TypeError
    ? queryError("QUERY_PARAMETERS", thrown.message)
    : thrown;
}

function failing(thrown: unknown): Iterator<SqlValue[]> {
  return {
    next: () => {
      throw thrown;
    },
  };
}

/** Bytes of a row's texts and blobs, roughly, and something for each cell. */
function sizeOf(row: readonly SqlValue[]): number {
  let bytes = 0;
  for (const value of row) {
    const isLong = typeof value === "string" || value instanceof Uint8Array;
    bytes += isLong ? value.length + CELL_BYTES : CELL_BYTES;
  }
  return bytes;
}

function start(): void {
  assert(parentPort !== null, "the query worker runs in a thread of its own");
  const port = parentPort;
  const send = (event: QueryEvent): void => port.postMessage(event);
  try {
    const desk = new QueryDesk(workerData as QueryWorkerOptions, send);
    port.on("message", (request: QueryRequest) => desk.handle(request));
    send({ kind: "ready" });
  } catch (thrown) {
    send({ kind: "broken", error: errorToRecord(toStoreError(thrown, "STORE_CORRUPT")) });
  }
}

/** A page: enough rows to be worth a message, little enough that others have their turn. */
const PAGE_ROWS = 512;
const PAGE_BYTES = 256 * 1024;
const PAGE_MS = 5;
const CELL_BYTES = 16;

start();
