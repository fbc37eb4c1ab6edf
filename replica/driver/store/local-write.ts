/**
 * Writes of this replica: one transaction becomes one version of our own, or none at all when
 * nothing changed.
 *
 * cr-sqlite's triggers leave out columns whose value stays the same, and `unchanged-rows.ts` takes out
 * what they take for a change although the row is as it was. What is left when the statements are done
 * is looked for under the transaction's local number; when there is nothing, the transaction is undone
 * and no version is used.
 */
import type Database from "better-sqlite3";
import { chunkVersion } from "../../core/wire/chunker.ts";
import type { LocalCommit, SqlValue, Statement, TransactionAnswer } from "../../types.ts";
import type { CrrTables } from "./crr-tables.ts";
import { isStorageFailure, storeError, toStoreError } from "./errors.ts";
import type { Ledger } from "./ledger.ts";
import type { SqlDeadline } from "./sql-deadline.ts";
import { firstKeyword, internalName, quoteName, tokenize } from "./sql-text.ts";
import { mayBeUnchanged, UnchangedRows } from "./unchanged-rows.ts";
import type { VersionRowReader, VersionRows } from "./version-rows.ts";

/** What a writer works on. */
export interface WriterContext {
  readonly database: Database.Database;
  readonly tables: CrrTables;
  readonly ledger: Ledger;
  readonly rows: VersionRowReader;
  readonly deadline: SqlDeadline;
  /** Monotonic milliseconds. */
  readonly nowMs: () => number;
}

/** Performs local transactions; made anew after a change of the schema. */
export class LocalWriter {
  readonly #context: WriterContext;
  readonly #statements: Statements;
  readonly #unchanged: UnchangedRows;
  /** Prepared statements of callers by SQL text; bounded, oldest out first. */
  readonly #prepared = new Map<string, Database.Statement>();

  constructor(context: WriterContext) {
    this.#context = context;
    this.#statements = prepareStatements(context.database);
    this.#unchanged = new UnchangedRows(context.database, context.tables);
    forbidKeyUpdates(context.database, context.tables);
  }

  /**
   * Carries out SQL statements, all or nothing, within `timeoutMs` (0 = without limit). Throws
   * `STORE_SQL` with the number of the bad statement, `STORE_TIMEOUT`, or a storage error; nothing
   * has changed then.
   */
  transact(statements: readonly Statement[], ts: bigint, timeoutMs = 0): TransactionAnswer {
    const { nowMs, deadline } = this.#context;
    const startedMs = nowMs();
    const results: { rowsAffected: number; timeMs: number }[] = [];
    const runAll = (): void => {
      for (const [index, statement] of statements.entries()) {
        const statementMs = nowMs();
        const rowsAffected = this.#run(statement, index);
        results.push({ rowsAffected, timeMs: nowMs() - statementMs });
      }
    };
    const commit = this.write(ts, () => deadline.limit("the transaction", timeoutMs, runAll));
    return { results, timeMs: nowMs() - startedMs, commit };
  }

  /**
   * Runs `work` in one transaction and records what it changed as our next version; null when
   * nothing changed. What `work` throws undoes everything and is passed on.
   */
  write(ts: bigint, work: () => void): LocalCommit | null {
    const { ledger } = this.#context;
    if (ledger.isInDoubt) throw inDoubtError();
    const statements = this.#statements;
    try {
      statements.begin.run();
    } catch (thrown) {
      throw toStoreError(thrown, "STORE_BUSY");
    }
    ledger.begin();
    try {
      const local = Number(statements.raiseNumber.get(BigInt(ledger.lastLocal + 1)));
      work();
      const commit = this.#record(local, ts, this.#changesOf(local));
      if (commit === null) {
        this.#undo();
        return null;
      }
      ledger.save();
      statements.commit.run();
      return commit;
    } catch (thrown) {
      this.#undo();
      throw toStoreError(thrown, "STORE_SQL");
    }
  }

  /** Records own rows under `local`, if there are any, as our next version. */
  record(local: number, ts: bigint): LocalCommit | null {
    return this.#record(local, ts, this.#context.rows.read(local, OWN_ORDINAL));
  }

  #record(local: number, ts: bigint, { changes, lastSeq }: VersionRows): LocalCommit | null {
    const { ledger } = this.#context;
    if (changes.length === 0) return null;
    if (ledger.isInDoubt) throw inDoubtError();
    const { actorId } = ledger;
    const version = ledger.books.head(actorId) + 1;
    ledger.recordVersion({ local, actorId, version, lastSeq, ts });
    ledger.books.recordComplete(actorId, { start: version, end: version });
    return {
      version,
      lastSeq,
      ts,
      changesets: chunkVersion({ actorId, version, changes, lastSeq, ts }),
    };
  }

  /** Before the database is closed, or another writer takes over. */
  close(): void {
    this.#unchanged.close();
  }

  /** What the transaction changed, once what it left as it was is put back. */
  #changesOf(local: number): VersionRows {
    const { rows } = this.#context;
    const found = rows.read(local, OWN_ORDINAL);
    if (!mayBeUnchanged(found)) return found;
    this.#unchanged.putBack(found.changes);
    return rows.read(local, OWN_ORDINAL);
  }

  #undo(): void {
    if (this.#context.database.inTransaction) this.#statements.rollback.run();
    this.#context.ledger.undo();
  }

  #run(statement: Statement, index: number): number {
    const prefix = `statement ${index + 1}`;
    try {
      const prepared = this.#prepare(statement.sql);
      const params = bindable(statement.params);
      if (!prepared.reader) return prepared.run(...params).changes;
      // A SELECT, or a write with RETURNING: its rows have no reader here.
      for (const _row of prepared.iterate(...params)) continue;
      return prepared.readonly ? 0 : Number(this.#statements.changes.get());
    } catch (thrown) {
      const error = toStoreError(thrown, "STORE_SQL");
      if (isStorageFailure(error)) throw error;
      throw storeError("STORE_SQL", `${prefix}: ${error.message}`, {
        cause: error,
        details: { index },
      });
    }
  }

  #prepare(sql: string): Database.Statement {
    const known = this.#prepared.get(sql);
    if (known !== undefined && !known.busy) return known;
    checkStatement(sql);
    const prepared = this.#context.database.prepare(sql);
    if (this.#prepared.size >= PREPARED_MAX) {
      const oldest = this.#prepared.keys().next();
      if (oldest.done !== true) this.#prepared.delete(oldest.value);
    }
    this.#prepared.set(sql, prepared);
    return prepared;
  }
}

function inDoubtError(): Error {
  return storeError(
    "STORE_BUSY",
    "versions of our own may have been lost (power loss, restored file): other replicas are asked" +
      " for them before anything is written; try again",
  );
}

/**
 * Refuses statements that are not reads or writes of rows, and those that name the store's own
 * tables or cr-sqlite's functions. Throws `STORE_SQL`.
 */
export function checkStatement(sql: string): void {
  const tokens = tokenize(sql);
  const keyword = firstKeyword(tokens);
  if (!ALLOWED.has(keyword)) {
    const found = keyword === "" ? "an empty statement" : keyword;
    throw storeError(
      "STORE_SQL",
      `${found} is not allowed: only INSERT, REPLACE, UPDATE, DELETE, SELECT, WITH, VALUES`,
    );
  }
  const internal = internalName(tokens);
  if (internal !== null)
    throw storeError("STORE_SQL", `${internal} is internal and cannot be named here`);
}

/** Parameters in the form that the driver binds; names lose their sigil. */
export function bindable(params: Statement["params"]): unknown[] {
  if (params === undefined) return [];
  if (isList(params)) return [...params];
  const named: Record<string, SqlValue> = {};
  for (const [name, value] of Object.entries(params)) named[name.replace(/^[:@$]/, "")] = value;
  return [named];
}

function isList(params: NonNullable<Statement["params"]>): params is readonly SqlValue[] {
  return Array.isArray(params);
}

/**
 * Peers would get a new key with NULLs, because cr-sqlite moves the old row's clocks without a new
 * version. The triggers are temporary: they belong to this connection and leave the file as it is.
 */
function forbidKeyUpdates(database: Database.Database, tables: CrrTables): void {
  for (const table of tables.values()) {
    const keys = table.keys.map((key) => quoteName(key.name));
    const differs = keys.map((key) => `NEW.${key} IS NOT OLD.${key}`).join(" OR ");
    const trigger = quoteName(`${table.name}__patina_key`);
    database.exec(
      `DROP TRIGGER IF EXISTS temp.${trigger};` +
        `CREATE TEMP TRIGGER ${trigger} BEFORE UPDATE OF ${keys.join(", ")}` +
        ` ON main.${quoteName(table.name)} WHEN ${differs} BEGIN SELECT RAISE(ABORT,` +
        " 'a primary key cannot be updated: delete the row and insert it anew'); END",
    );
  }
}

/** The ordinal of this replica in crsql_site_id. */
const OWN_ORDINAL = 0n;
const ALLOWED: ReadonlySet<string> = new Set([
  "INSERT",
  "REPLACE",
  "UPDATE",
  "DELETE",
  "SELECT",
  "WITH",
  "VALUES",
]);
/** Enough for every statement that a program sends again and again. */
const PREPARED_MAX = 256;

type Statements = ReturnType<typeof prepareStatements>;

function prepareStatements(database: Database.Database) {
  return {
    begin: database.prepare("BEGIN IMMEDIATE"),
    commit: database.prepare("COMMIT"),
    rollback: database.prepare("ROLLBACK"),
    changes: database.prepare("SELECT changes()").pluck(),
    raiseNumber: database.prepare("SELECT crsql_next_db_version(?)").pluck(),
  };
}
