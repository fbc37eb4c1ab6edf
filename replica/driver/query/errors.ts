/**
 * Codes of read-only queries, beside the store's `STORE_SQL`, `STORE_TIMEOUT` and `STORE_CLOSED`,
 * which mean the same here. No query changes anything, so the effect on state is always none.
 */
import { PatinaError } from "#base/errors.ts";
import type { StoreErrorKind } from "../store/errors.ts";
import { timeoutError } from "../store/sql-deadline.ts";

/** Codes of queries. */
export type QueryErrorCode = keyof typeof QUERY_ERRORS;

/** Every code that a query rejects with, but for the store's. */
export const QUERY_ERRORS = {
  QUERY_PARAMETERS: {
    meaning: "the parameters given are not those that the statement has",
    effect: "none",
    retryable: false,
    // Corrosion's status: it binds when the statement is already found to be right.
    httpStatus: 500,
  },
  QUERY_EMPTY: {
    meaning: "the text holds no statement",
    effect: "none",
    retryable: false,
    httpStatus: 400,
  },
  QUERY_BUSY: {
    meaning: "as many queries as are allowed run, or do not come back",
    effect: "none",
    retryable: true,
    httpStatus: 503,
  },
  QUERY_SLOW_CLIENT: {
    meaning:
      "rows were not taken in time, and an open query keeps the database's log from being cut",
    effect: "none; the query was given up",
    retryable: true,
    httpStatus: 408,
  },
  QUERY_LOST: {
    meaning: "the thread was replaced because of another query, or ended by itself",
    effect: "none; the query was given up",
    retryable: true,
    httpStatus: 503,
  },
} as const satisfies Record<string, StoreErrorKind>;

/** The end of a query whose time is up. */
export function queryTimeout(timeoutMs: number): PatinaError {
  return timeoutError("the query", timeoutMs);
}

/** An error of a query. */
export function queryError(code: QueryErrorCode, message: string): PatinaError {
  return new PatinaError(code, message);
}
