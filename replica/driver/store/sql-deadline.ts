/**
 * Ends SQL of one connection when its time is up.
 *
 * better-sqlite3 does not return while SQLite works, so only another thread can interrupt it: the
 * one of the extension that the set-up builds (`bin/setup/sql-deadline.c`). An interrupt meets
 * whatever statement runs next, therefore a deadline is lifted before anything that has to succeed,
 * like a commit or a rollback.
 */
import { existsSync } from "node:fs";
import type Database from "better-sqlite3";
import { errorText, type PatinaError } from "#base/errors.ts";
import { sqliteCode, storeError } from "./errors.ts";

/** The deadline of a connection: one at a time. */
export class SqlDeadline {
  readonly #set: Database.Statement<[bigint]>;

  /** Loads the extension at `path` into the connection. Throws `STORE_EXTENSION`. */
  constructor(database: Database.Database, path: string) {
    // SQLite would try other names and tell of those.
    if (!existsSync(path)) throw extensionError(path, "it does not exist");
    try {
      database.loadExtension(path);
      this.#set = database.prepare<[bigint]>("SELECT patina_deadline(?)").pluck();
    } catch (thrown) {
      throw extensionError(path, errorText(thrown), thrown);
    }
  }

  /** Interrupts from `ms` (above 0) on, again and again until it is lifted. */
  start(ms: number): void {
    this.#set.get(BigInt(Math.max(1, Math.ceil(ms))));
  }

  /**
   * Takes the deadline back; says whether it was passed. No other statement of the connection may be
   * open: until the last one ends SQLite interrupts all.
   */
  lift(): boolean {
    for (let tries = 1; ; tries += 1) {
      try {
        // An integer, as a number or as a bigint.
        return Number(this.#set.get(0n)) === 1;
      } catch (thrown) {
        // The interrupt of a deadline that passes now; the next one is a tick away.
        if (!isInterrupt(thrown) || tries === LIFT_TRIES) throw thrown;
      }
    }
  }

  /**
   * Does work that ends by `ms`; 0 = without limit. Throws `STORE_TIMEOUT` when the deadline passed
   * before `work` was over, whatever came of it: SQLite has then undone the transaction, or it is
   * the caller's to undo.
   */
  limit<Value>(what: string, ms: number, work: () => Value): Value {
    if (ms === 0) return work();
    this.start(ms);
    let value: Value;
    try {
      value = work();
    } catch (thrown) {
      if (this.lift()) throw timeoutError(what, ms, thrown);
      throw thrown;
    }
    if (this.lift()) throw timeoutError(what, ms);
    return value;
  }
}

/** Whether SQLite was interrupted. */
export function isInterrupt(thrown: unknown): boolean {
  return sqliteCode(thrown) === "SQLITE_INTERRUPT";
}

/** `STORE_TIMEOUT`, with SQLite's word for it in front, as Corrosion's clients know it. */
export function timeoutError(what: string, ms: number, cause?: unknown): PatinaError {
  return storeError("STORE_TIMEOUT", `interrupted: ${what} took longer than ${ms} ms`, { cause });
}

function extensionError(path: string, why: string, cause?: unknown): PatinaError {
  const message = `the extension for SQL deadlines ${path} cannot be loaded: ${why}`;
  return storeError("STORE_EXTENSION", message, { cause });
}

/** Each further one needs a tick of 10 ms to end between the call and its first step. */
const LIFT_TRIES = 10;
