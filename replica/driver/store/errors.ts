/**
 * The store's error codes, and the translation of what SQLite throws into them.
 *
 * Every code is declared here once: what it means, what it did to the state, whether trying again
 * can help, and the HTTP status when it reaches a client.
 */
import { type ErrorKind, errorText, PatinaError } from "#base/errors.ts";

/** What is true of every error of one code that can reach an HTTP client. */
export interface StoreErrorKind extends ErrorKind {
  readonly httpStatus: number;
}

/** Codes of the store. */
export type StoreErrorCode = keyof typeof STORE_ERRORS;

/** Every code that the store throws or rejects with. */
export const STORE_ERRORS = {
  STORE_LOCKED: {
    meaning: "another process, or another store of this process, owns the database",
    effect: "nothing was opened",
    retryable: true,
    httpStatus: 503,
  },
  STORE_SQL: {
    meaning: "a statement is wrong, not allowed, or violates a constraint",
    effect: "the whole transaction was undone",
    retryable: false,
    httpStatus: 400,
  },
  STORE_BUSY: {
    meaning: "too much is queued, or a foreign process holds SQLite's write lock",
    effect: "nothing changed",
    retryable: true,
    httpStatus: 503,
  },
  STORE_OWNER: {
    meaning: "the row belongs to another node",
    effect: "nothing changed",
    retryable: false,
    httpStatus: 409,
  },
  STORE_OBJECT: {
    meaning: "a document does not fit its kind",
    effect: "nothing changed",
    retryable: false,
    httpStatus: 422,
  },
  STORE_CORRUPT: {
    meaning: "the file is not a database, or a damaged one",
    effect: "the transaction was undone; the file needs a restore",
    retryable: false,
    httpStatus: 500,
  },
  STORE_FULL: {
    meaning: "the disk is full, or the file cannot be written",
    effect: "the transaction was undone; everything acknowledged is kept",
    retryable: true,
    httpStatus: 507,
  },
  STORE_EXTENSION: {
    meaning: "the cr-sqlite extension is missing or cannot be loaded",
    effect: "nothing was opened",
    retryable: false,
    httpStatus: 500,
  },
  STORE_SCHEMA: {
    meaning: "a schema file breaks the rules, or contradicts the database",
    effect: "the schema is as it was",
    retryable: false,
    httpStatus: 400,
  },
  STORE_IDENTITY: {
    meaning: "the configured actor id is not the one this database was created with",
    effect: "nothing was opened",
    retryable: false,
    httpStatus: 500,
  },
  STORE_RENEWED: {
    meaning: "versions of our own may be lost, and no replica is there to be asked",
    effect: "the next start takes a new actor id and publishes our rows again",
    retryable: true,
    httpStatus: 503,
  },
  STORE_TIMEOUT: {
    meaning: "a query or a transaction took longer than its time",
    effect: "none; the query was given up, or the whole transaction was undone",
    retryable: true,
    // Corrosion's.
    httpStatus: 500,
  },
  STORE_CLOSED: {
    meaning: "the store was closed, or its thread ended",
    effect: "whether the last unanswered call was carried out is not known",
    retryable: false,
    httpStatus: 503,
  },
} as const satisfies Record<string, StoreErrorKind>;

/** An error of the store with one of its codes. */
export function storeError(
  code: StoreErrorCode,
  message: string,
  options: { cause?: unknown; details?: Readonly<Record<string, unknown>> } = {},
): PatinaError {
  return new PatinaError(code, message, options);
}

/**
 * What SQLite threw, as an error of the store. `fallback` is the code for whatever is neither a
 * full disk, nor damage, nor a lock: those mean the same wherever they come up.
 */
export function toStoreError(thrown: unknown, fallback: StoreErrorCode): PatinaError {
  if (thrown instanceof PatinaError) return thrown;
  const text = errorText(thrown);
  const code = sqliteCode(thrown);
  const details = code === "" ? {} : { sqliteCode: code };
  return storeError(codeOf(code, fallback), text, { cause: thrown, details });
}

/** The same for what was thrown while a file was opened: the message names it. */
export function toFileError(thrown: unknown, path: string, fallback: StoreErrorCode): PatinaError {
  if (thrown instanceof PatinaError) return thrown;
  const { code, message, details } = toStoreError(thrown, fallback);
  return storeError(code as StoreErrorCode, `${path} cannot be opened: ${message}`, {
    cause: thrown,
    details,
  });
}

/** SQLite's own code (`SQLITE_FULL`) of anything thrown; empty when it is not SQLite's. */
export function sqliteCode(thrown: unknown): string {
  if (typeof thrown !== "object" || thrown === null || !("code" in thrown)) return "";
  return typeof thrown.code === "string" && thrown.code.startsWith("SQLITE_") ? thrown.code : "";
}

/** Whether an error says something about the disk or the file rather than about the data. */
export function isStorageFailure(error: PatinaError): boolean {
  return (
    error.code === "STORE_FULL" || error.code === "STORE_CORRUPT" || error.code === "STORE_BUSY"
  );
}

/** An error in the form that crosses threads. */
export interface ErrorRecord {
  readonly code: string;
  readonly message: string;
  readonly details: Readonly<Record<string, unknown>>;
}

/** For a message to another thread: a cause is not carried along, its text is. */
export function errorToRecord(thrown: unknown): ErrorRecord {
  const error = toStoreError(thrown, "STORE_SQL");
  return { code: error.code, message: error.message, details: error.details };
}

/** The error again, on the other thread. */
export function recordToError(record: ErrorRecord): PatinaError {
  return new PatinaError(record.code, record.message, { details: record.details });
}

function codeOf(sqlite: string, fallback: StoreErrorCode): StoreErrorCode {
  if (sqlite.startsWith("SQLITE_FULL") || sqlite.startsWith("SQLITE_READONLY")) return "STORE_FULL";
  if (sqlite.startsWith("SQLITE_IOERR") || sqlite === "SQLITE_CANTOPEN") return "STORE_FULL";
  if (sqlite.startsWith("SQLITE_CORRUPT") || sqlite === "SQLITE_NOTADB") return "STORE_CORRUPT";
  if (sqlite.startsWith("SQLITE_BUSY") || sqlite.startsWith("SQLITE_LOCKED")) return "STORE_BUSY";
  return fallback;
}
