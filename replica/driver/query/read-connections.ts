/**
 * Read-only connections to the store's database, and the rules of what may be read.
 *
 * Each query has a connection of its own while it runs: SQLite gives all statements of a connection
 * one snapshot, so a slow query would keep later ones from seeing what was written since.
 *
 * Connections are plain SQLite. Only a statement that names cr-sqlite's readable parts gets one
 * with the extension, and no other part of it can be named: it ends the process on bad keys.
 */
import Database from "better-sqlite3";
import { errorText } from "#base/errors.ts";
import { storeError } from "../store/errors.ts";
import { SqlDeadline } from "../store/sql-deadline.ts";
import { firstKeyword, type SqlToken } from "../store/sql-text.ts";

/** A connection and which kind it is. */
export interface ReadConnection {
  readonly database: Database.Database;
  readonly hasExtension: boolean;
  readonly deadline: SqlDeadline;
}

/** Paths of the extensions. */
export interface Extensions {
  /** cr-sqlite. */
  readonly extensionPath: string;
  readonly deadlinePath: string;
}

/** Opens connections and keeps a few. */
export class ReadConnections {
  readonly #path: string;
  readonly #extensions: Extensions;
  readonly #kept: ReadConnection[] = [];

  constructor(path: string, extensions: Extensions) {
    this.#path = path;
    this.#extensions = extensions;
  }

  /** A connection that nobody else uses. Throws what SQLite throws. */
  take(hasExtension: boolean): ReadConnection {
    const index = this.#kept.findIndex((one) => one.hasExtension === hasExtension);
    const [kept] = index < 0 ? [] : this.#kept.splice(index, 1);
    return kept ?? this.#open(hasExtension);
  }

  /** Gives a connection back; its statements have ended. */
  release(connection: ReadConnection): void {
    if (this.#kept.length < KEPT_MAX) this.#kept.push(connection);
    else close(connection);
  }

  #open(hasExtension: boolean): ReadConnection {
    const options = { readonly: true, fileMustExist: true, timeout: BUSY_TIMEOUT_MS };
    const database = new Database(this.#path, options);
    try {
      database.defaultSafeIntegers(true);
      database.pragma("query_only = ON");
      const deadline = new SqlDeadline(database, this.#extensions.deadlinePath);
      if (hasExtension) database.loadExtension(this.#extensions.extensionPath);
      return { database, hasExtension, deadline };
    } catch (thrown) {
      database.close();
      throw thrown;
    }
  }
}

/**
 * Whether a statement reads cr-sqlite's parts. Throws `STORE_SQL` when it names others beside them
 * (without the extension they do not exist, and SQLite says so), or the function that would put off
 * its own deadline.
 */
export function needsExtension(tokens: readonly SqlToken[]): boolean {
  const own = tokens.find(({ kind, text }) => kind !== "string" && /^patina_deadline$/i.test(text));
  if (own !== undefined) throw internalError(own);
  const names = tokens.filter(({ kind, text }) => kind !== "other" && /^crsql_/i.test(text));
  if (!names.some(({ text }) => READABLE.has(text.toLowerCase()))) return false;
  const other = names.find(({ text }) => !READABLE.has(text.toLowerCase()));
  if (other === undefined) return true;
  throw internalError(other);
}

function internalError({ text }: SqlToken): Error {
  return storeError("STORE_SQL", `${text} is internal and cannot be named here`);
}

/**
 * Prepares a statement that reads. Throws `STORE_SQL` with Corrosion's text: `statement is not
 * readonly` for whatever writes, attaches, or changes the connection.
 */
export function prepareRead(
  { database }: Pick<ReadConnection, "database">,
  sql: string,
  tokens: readonly SqlToken[],
): Database.Statement {
  // Some PRAGMAs act when they are prepared, even behind EXPLAIN.
  if (isUnsafePragma(tokens)) throw notReadonly();
  let prepared: Database.Statement;
  try {
    prepared = database.prepare(sql);
  } catch (thrown) {
    if (thrown instanceof RangeError && thrown.message.includes("more than one statement")) {
      throw storeError("STORE_SQL", "Multiple statements provided", { cause: thrown });
    }
    // A write to one of cr-sqlite's tables: its triggers call what only the extension has.
    if (/^no such function: crsql_(internal_sync_bit|after_)/.test(errorText(thrown))) {
      throw notReadonly();
    }
    throw thrown;
  }
  if (!prepared.readonly || !prepared.reader || !READING.has(firstKeyword(tokens))) {
    throw notReadonly();
  }
  return prepared;
}

function isUnsafePragma(tokens: readonly SqlToken[]): boolean {
  const words = tokens.map(({ kind, text }) => (kind === "word" ? text.toUpperCase() : text));
  const start = words.findIndex((word) => !EXPLAINING.has(word));
  if (words[start] !== "PRAGMA") return false;
  // An optional schema: `PRAGMA main.table_info(t)`.
  const at = words[start + 2] === "." ? start + 3 : start + 1;
  return !READING_PRAGMAS.has(words[at] ?? "") || words.includes("=");
}

function notReadonly(): Error {
  return storeError("STORE_SQL", "statement is not readonly");
}

function close({ database, hasExtension }: ReadConnection): void {
  // Lets the extension free its statements, without which the connection stays half open.
  if (hasExtension) database.prepare("SELECT crsql_finalize()").get();
  database.close();
}

const READING: ReadonlySet<string> = new Set(["SELECT", "WITH", "VALUES", "EXPLAIN", "PRAGMA"]);
const EXPLAINING: ReadonlySet<string> = new Set(["EXPLAIN", "QUERY", "PLAN", ";"]);
/** Those that tell of the schema; others change the connection or the whole process. */
const READING_PRAGMAS: ReadonlySet<string> = new Set(
  [
    ["table_info", "table_xinfo", "table_list", "index_list", "index_info", "index_xinfo"],
    ["foreign_key_list", "user_version", "schema_version", "page_count", "freelist_count"],
    ["compile_options", "collation_list", "function_list"],
  ].flatMap((names) => names.map((name) => name.toUpperCase())),
);
/** Of cr-sqlite, what reads and takes no arguments. */
const READABLE: ReadonlySet<string> = new Set([
  "crsql_changes",
  "crsql_db_version",
  "crsql_site_id",
]);
/** For a checkpoint that holds the lock; readers of a WAL hardly ever wait. */
const BUSY_TIMEOUT_MS = 1_000;
/** Opening one takes 0.7 ms, 1.9 with the extension. */
const KEPT_MAX = 8;
