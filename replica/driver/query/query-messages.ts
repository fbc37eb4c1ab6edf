/**
 * What the query thread and its owner say to each other. A query is opened, answers its columns,
 * and yields one page for each time it is asked; nothing is sent unasked but a failure.
 */
import type { SqlValue, Statement } from "../../types.ts";
import type { ErrorRecord } from "../store/errors.ts";

/** What a query thread is made with. */
export interface QueryWorkerOptions {
  readonly databasePath: string;
  readonly extensionPath: string;
  readonly deadlinePath: string;
  /** A query whose next page is not asked for in this time is given up. */
  readonly idleMs: number;
  /** Holds the id of the query that is being stepped, 0 = none: tells whose fault a silence is. */
  readonly stepping: Int32Array<SharedArrayBuffer>;
}

/** To the thread. */
export type QueryRequest =
  /** Answered by `columns` or `failed`. `timeoutMs` counts from here. */
  | {
      readonly kind: "open";
      readonly id: number;
      readonly statement: Statement;
      readonly timeoutMs: number;
    }
  /** Answered by `page` or `failed`; only after the answer before. */
  | { readonly kind: "page"; readonly id: number }
  /** Ends the query and its hold on the database; not answered. */
  | { readonly kind: "close"; readonly id: number };

/** From the thread. */
export type QueryEvent =
  /** Once: the database could be opened. */
  | { readonly kind: "ready" }
  /** Once instead: it could not. */
  | { readonly kind: "broken"; readonly error: ErrorRecord }
  | { readonly kind: "columns"; readonly id: number; readonly columns: readonly string[] }
  | {
      readonly kind: "page";
      readonly id: number;
      readonly rows: readonly (readonly SqlValue[])[];
      /** No page follows; the query is closed. */
      readonly isLast: boolean;
    }
  /** The query is closed. */
  | { readonly kind: "failed"; readonly id: number; readonly error: ErrorRecord };
