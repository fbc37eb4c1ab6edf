/**
 * The query thread: reads for the API on a connection of its own, read-only and without cr-sqlite,
 * so that a long query never delays a write.
 *
 * Rows go out in chunks against credit; between two chunks other queries have their turn and the
 * deadline is looked at. SQLite cannot be interrupted from here while it looks for the next row:
 * the client gives up on the whole thread then.
 */
import type { MessagePort } from "node:worker_threads";
import { parentPort, workerData } from "node:worker_threads";
import Database from "better-sqlite3";
import { assert } from "#base/errors.ts";
import type { SqlValue, Statement } from "../../types.ts";
import type { ErrorRecord } from "./errors.ts";
import { errorToRecord, storeError } from "./errors.ts";
import { bindable } from "./local-write.ts";
import { firstKeyword, tokenize } from "./sql-text.ts";

/** A query, with a port of its own: events go out, credit (a number of chunks) comes in. */
export interface QueryCall {
  readonly port: MessagePort;
  readonly statement: Statement;
  /** Milliseconds until it is given up. */
  readonly timeoutMs: number;
  /** Chunks that may be sent before more is granted. */
  readonly credit: number;
}

/** What comes back: columns first, then rows, then an end or a failure. */
export type QueryEvent =
  | { readonly kind: "columns"; readonly columns: readonly string[] }
  | { readonly kind: "rows"; readonly rows: readonly (readonly SqlValue[])[] }
  | { readonly kind: "end" }
  | { readonly kind: "failed"; readonly error: ErrorRecord };

class RunningQuery {
  readonly #port: MessagePort;
  readonly #rows: IterableIterator<SqlValue[]>;
  readonly #timer: NodeJS.Timeout;
  #credit: number;
  #isOver = false;
  #isScheduled = false;

  constructor(database: Database.Database, call: QueryCall) {
    this.#port = call.port;
    this.#credit = call.credit;
    const prepared = prepareReadOnly(database, call.statement.sql);
    const columns = prepared.columns().map((column) => column.name);
    this.#rows = prepared.raw().iterate(...bindable(call.statement.params)) as IterableIterator<
      SqlValue[]
    >;
    this.#send({ kind: "columns", columns });
    this.#timer = setTimeout(() => this.#fail(timeoutError(call.timeoutMs)), call.timeoutMs);
    this.#port.on("message", (credit: number) => {
      this.#credit += credit;
      this.#schedule();
    });
    this.#port.on("close", () => this.#finish());
    this.#schedule();
  }

  #schedule(): void {
    if (this.#isScheduled || this.#isOver || this.#credit <= 0) return;
    this.#isScheduled = true;
    setImmediate(() => {
      this.#isScheduled = false;
      this.#sendChunk();
      this.#schedule();
    });
  }

  #sendChunk(): void {
    if (this.#isOver) return;
    const untilMs = performance.now() + CHUNK_MS;
    const rows: SqlValue[][] = [];
    try {
      while (rows.length < CHUNK_ROWS && performance.now() < untilMs) {
        const next = this.#rows.next();
        if (next.done === true) {
          if (rows.length > 0) this.#send({ kind: "rows", rows });
          this.#send({ kind: "end" });
          this.#finish();
          return;
        }
        rows.push(next.value);
      }
    } catch (thrown) {
      this.#fail(thrown);
      return;
    }
    this.#credit -= 1;
    this.#send({ kind: "rows", rows });
  }

  #fail(thrown: unknown): void {
    if (this.#isOver) return;
    this.#send({ kind: "failed", error: errorToRecord(thrown) });
    this.#finish();
  }

  #finish(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    clearTimeout(this.#timer);
    // Ends the statement, without which the log of the database cannot be cut.
    this.#rows.return?.();
    this.#port.close();
  }

  #send(event: QueryEvent): void {
    this.#port.postMessage(event);
  }
}

function prepareReadOnly(database: Database.Database, sql: string): Database.Statement {
  const keyword = firstKeyword(tokenize(sql));
  const prepared = READING.has(keyword) ? database.prepare(sql) : null;
  if (prepared === null || !prepared.readonly || !prepared.reader) {
    throw storeError("STORE_SQL", "statement is not readonly");
  }
  return prepared;
}

function timeoutError(timeoutMs: number): Error {
  return storeError("STORE_TIMEOUT", `the query took longer than ${timeoutMs} ms`);
}

function start(): void {
  assert(parentPort !== null, "the query worker runs in a thread of its own");
  const path = String(workerData);
  let database: Database.Database | null = null;
  parentPort.on("message", (call: QueryCall) => {
    try {
      database ??= new Database(path, { readonly: true }).defaultSafeIntegers(true);
      void new RunningQuery(database, call);
    } catch (thrown) {
      const failed: QueryEvent = { kind: "failed", error: errorToRecord(thrown) };
      call.port.postMessage(failed);
      call.port.close();
    }
  });
}

const READING: ReadonlySet<string> = new Set(["SELECT", "WITH", "VALUES", "EXPLAIN"]);
const CHUNK_ROWS = 256;
/** Of reading, before another query has its turn. */
const CHUNK_MS = 5;

start();
