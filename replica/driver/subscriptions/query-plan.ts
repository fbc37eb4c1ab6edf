/**
 * A subscribed query, prepared: which tables it reads, how its rows are told apart, and how to read
 * only the rows that some changed rows of a table take part in.
 *
 * Where the outermost FROM holds plain tables, their keys are added to the columns, and a result row
 * is known by them. Any other row is known by its cells, and by how many equal ones came before it.
 * Which tables are read SQLite says itself: the pages that its program opens (EXPLAIN), so tables
 * inside EXISTS, IN and subqueries are seen however they are written.
 */
import type Database from "better-sqlite3";
import type { SqlValue } from "../../types.ts";
import { parseJson, printSqlValue, readSqlValue } from "../api/json.ts";
import { prepareRead } from "../query/read-connections.ts";
import type { CrrTables } from "../store/crr-tables.ts";
import { storeError } from "../store/errors.ts";
import { readColumns } from "../store/schema-files.ts";
import { firstKeyword, isInternalName, quoteName, tokenize } from "../store/sql-text.ts";
import { subscriptionError } from "./errors.ts";
import { readShape, type QueryShape } from "./query-shape.ts";

/** A table of the outermost FROM whose key is part of each row's identity. */
export interface PlanItem {
  readonly table: string;
  readonly alias: string;
  readonly keyNames: readonly string[];
  readonly isNullable: boolean;
}

/** A row of the result. */
export interface PlanRow {
  /** Key of each item as text; empty where rows are known by their cells. */
  readonly keys: readonly string[];
  /** The cells as they are sent: a JSON array. */
  readonly cells: string;
}

/** One query on one connection; made anew after a change of the schema. */
export class QueryPlan {
  readonly columns: readonly string[];
  /** Replicated tables that the query reads. */
  readonly tables: ReadonlySet<string>;
  readonly items: readonly PlanItem[];
  readonly #database: Database.Database;
  readonly #sql: string;
  readonly #shape: QueryShape;
  /** Whether rows of the first item, read again, tell all that changes on the null side. */
  readonly #hasPlainOuterJoins: boolean;
  readonly #whole: Database.Statement<unknown[], SqlValue[]>;
  readonly #partial = new Map<string, Database.Statement<unknown[], SqlValue[]>>();

  /**
   * Prepares. `sql` has no parameters. Throws `SUBSCRIPTION_QUERY` for what cannot be subscribed
   * to, and what SQLite throws for what it does not understand.
   */
  constructor(database: Database.Database, tables: CrrTables, sql: string) {
    this.#database = database;
    this.#sql = sql;
    this.#shape = shapeOf(database, sql);
    const plain = prepareRead({ database }, sql, tokenize(sql));
    this.columns = plain.columns().map((column) => column.name);
    this.tables = tablesOf(database, sql, tables);
    if (this.tables.size === 0) throw unsupported("the query reads no replicated table");
    this.items = this.#readItems(tables);
    this.#hasPlainOuterJoins = hasPlainOuterJoins(database, this.#shape, this.items);
    const keyed = this.items.length > 0 ? this.#prepareKeyed("") : null;
    if (keyed === null) this.items = [];
    this.#whole = keyed ?? database.prepare<unknown[], SqlValue[]>(sql).raw();
  }

  /**
   * How to find the result's rows that changed rows of a table make a difference to: those that they
   * take part in (`own`); those of the first item's rows that they take part in, because a row may
   * come or go with its last match (`first`); or all.
   */
  scopeOf(table: string): "own" | "first" | "all" {
    if (this.#shape.isWhole || this.#shape.otherNames.has(table.toLowerCase())) return "all";
    const items = this.items.filter((item) => item.table === table);
    if (items.length === 0) return "all";
    if (items.every((item) => !item.isNullable)) return "own";
    const isOuter = items.every((item) => item.isNullable);
    return isOuter && this.#hasPlainOuterJoins ? "first" : "all";
  }

  /** SQL that `refresh` reads with when one row of a table changes; the whole query where it must. */
  refreshSql(table: string): string {
    if (this.scopeOf(table) === "all") return this.#sql;
    return this.#keyedSql(this.#keyCondition(this.itemsOf(table), 1));
  }

  /** Indexes of the items that are rows of a table. */
  itemsOf(table: string): number[] {
    return [...this.items.keys()].filter((index) => this.items[index]?.table === table);
  }

  /** All rows. Consume it to its end, or end it: until then the connection does nothing else. */
  *rows(): Generator<PlanRow> {
    for (const row of this.#whole.iterate()) yield this.#toRow(row);
  }

  /**
   * The rows in which one of the given items, all of one table, has one of the given keys. Cost:
   * that of looking up so many keys.
   */
  *rowsOf(items: readonly number[], keys: readonly (readonly SqlValue[])[]): Generator<PlanRow> {
    for (let at = 0; at < keys.length;) {
      const left = keys.length - at;
      const size = CHUNK_SIZES.find((one) => one <= left) ?? 1;
      const chunk = keys.slice(at, at + size).flat();
      const statement = this.#partialStatement(items, size);
      for (const row of statement.iterate(...items.flatMap(() => chunk))) yield this.#toRow(row);
      at += size;
    }
  }

  #toRow(row: readonly SqlValue[]): PlanRow {
    const count = this.columns.length;
    const cells = JSON.stringify(row.slice(0, count).map(printSqlValue));
    const keys: string[] = [];
    let at = count;
    for (const { keyNames } of this.items) {
      keys.push(printKey(row.slice(at, at + keyNames.length)));
      at += keyNames.length;
    }
    return { keys, cells };
  }

  #readItems(tables: CrrTables): PlanItem[] {
    const nameByLower = new Map([...tables.keys()].map((name) => [name.toLowerCase(), name]));
    const items: PlanItem[] = [];
    for (const { name, alias, isNullable } of this.#shape.tables ?? []) {
      const table = tables.get(nameByLower.get(name.toLowerCase()) ?? "");
      if (table === undefined) return [];
      const keyNames = table.keys.map((key) => key.name);
      items.push({ table: table.name, alias, keyNames, isNullable });
    }
    return items;
  }

  /** The query with key columns and a further condition; null when it comes out otherwise. */
  #prepareKeyed(condition: string): Database.Statement<unknown[], SqlValue[]> | null {
    const statement = prepareOrNull(this.#database, this.#keyedSql(condition));
    if (statement === null) return null;
    const added = statement.columns().slice(this.columns.length);
    const wanted = this.items.flatMap(({ table, keyNames }) =>
      keyNames.map((column) => ({ table, column })),
    );
    const isAsWanted =
      added.length === wanted.length &&
      added.every(({ table, column }, index) => {
        return table === wanted[index]?.table && column === wanted[index]?.column;
      });
    return isAsWanted ? statement.raw() : null;
  }

  #keyedSql(extra: string): string {
    const sql = this.#sql;
    const { listEnd, condition, fromEnd } = this.#shape;
    const keys = this.items.flatMap(({ alias, keyNames }) =>
      keyNames.map((name) => `${quoteName(alias)}.${quoteName(name)}`),
    );
    const start = `${sql.slice(0, listEnd ?? 0)}\n, ${keys.join(", ")} `;
    if (extra === "") return start + sql.slice(listEnd ?? 0);
    const from = sql.slice(listEnd ?? 0, condition?.start ?? fromEnd);
    if (condition === null) return `${start}${from}\nWHERE ${extra} ${sql.slice(fromEnd)}`;
    const given = sql.slice(condition.start, condition.end);
    return `${start}${from} (${given}\n) AND (${extra}) ${sql.slice(condition.end)}`;
  }

  #partialStatement(
    indexes: readonly number[],
    size: number,
  ): Database.Statement<unknown[], SqlValue[]> {
    const name = `${size} ${indexes.join(" ")}`;
    const known = this.#partial.get(name);
    if (known !== undefined) return known;
    const statement = this.#prepareKeyed(this.#keyCondition(indexes, size));
    if (statement === null) throw storeError("STORE_SQL", "the rows cannot be read by key");
    this.#partial.set(name, statement);
    return statement;
  }

  #keyCondition(indexes: readonly number[], size: number): string {
    const items = this.items.filter((_, index) => indexes.includes(index));
    const conditions = items.map(({ alias, keyNames }) => {
      const columns = keyNames.map((key) => `${quoteName(alias)}.${quoteName(key)}`);
      const marks = columns.map(() => "?").join(", ");
      const list = Array.from({ length: size }, () => (columns.length === 1 ? "?" : `(${marks})`));
      return columns.length === 1
        ? `${columns.join("")} IN (${list.join(", ")})`
        : `(${columns.join(", ")}) IN (VALUES ${list.join(", ")})`;
    });
    return `(${conditions.join(" OR ")})`;
  }
}

/** The key again; only for what `printKey` made of a key. */
export function parseKey(text: string): SqlValue[] {
  const parsed = parseJson(text);
  const values = parsed.ok && Array.isArray(parsed.value) ? (parsed.value as unknown[]) : [];
  return values.map((value) => {
    const isObject = typeof value === "object" && value !== null && "real" in value;
    return isObject ? Number(value.real) : (readSqlValue(value) ?? null);
  });
}

/** A key as text: equal texts are equal keys. Empty for the missing row of an outer join. */
export function printKey(key: readonly SqlValue[]): string {
  if (key.every((value) => value === null)) return "";
  return JSON.stringify(
    key.map((value) =>
      typeof value === "number" && !Number.isFinite(value)
        ? { real: `${value}` }
        : printSqlValue(value),
    ),
  );
}

function shapeOf(database: Database.Database, sql: string): QueryShape {
  const shape = readShape(sql);
  if (shape === null) {
    const first = firstKeyword(tokenize(sql));
    // Whatever is no statement at all SQLite names best; nothing else is even prepared.
    if (first !== "" && !STATEMENTS.has(first)) database.prepare(sql);
    throw unsupported("unsupported statement");
  }
  if (shape.isAggregate) {
    throw unsupported("aggregates are not supported: subscribe to the rows and fold them");
  }
  return shape;
}

/**
 * Whether all outer joins are LEFT JOINs at the end of FROM, and WHERE speaks of other tables only.
 * Then every match of a row that WHERE lets through is in the result, and the result shows which
 * rows had a match that is gone.
 */
function hasPlainOuterJoins(
  database: Database.Database,
  { conditionNames }: QueryShape,
  items: readonly PlanItem[],
): boolean {
  const firstOuter = items.findIndex((item) => item.isNullable);
  if (firstOuter < 1 || items.some((item, at) => at > firstOuter && !item.isNullable)) return false;
  const inner = new Set(items.slice(0, firstOuter).map(({ alias }) => alias.toLowerCase()));
  const outerColumns = new Set(
    items
      .slice(firstOuter)
      .flatMap((item) => readColumns(database, item.table).map(({ name }) => name.toLowerCase())),
  );
  return conditionNames.every(({ qualifier, name }) =>
    qualifier === null ? !outerColumns.has(name) && !ROW_ID.has(name) : inner.has(qualifier),
  );
}

/** The replicated tables whose pages the query's program opens. */
function tablesOf(database: Database.Database, sql: string, tables: CrrTables): Set<string> {
  const program = database.prepare<[], ProgramStep>(`EXPLAIN ${sql}`).all();
  const ownerOf = database
    .prepare<[bigint], string>("SELECT tbl_name FROM main.sqlite_master WHERE rootpage = ?")
    .pluck();
  const found = new Set<string>();
  for (const { opcode, p2, p3 } of program) {
    if (opcode === "VOpen" && !isPureFunction(sql)) {
      throw unsupported("virtual tables are not supported, but for json_each and json_tree");
    }
    if (opcode !== "OpenRead" || p3 !== 0n) continue;
    const name = p2 === 1n ? "sqlite_master" : (ownerOf.get(p2) ?? "");
    if (!tables.has(name)) throw unsupported(`no such table: ${name}`);
    found.add(name);
  }
  return found;
}

/** Whether the table-valued functions named are those whose rows depend on arguments alone. */
function isPureFunction(sql: string): boolean {
  const names = tokenize(sql).filter(({ kind }) => kind === "word" || kind === "identifier");
  const isPure = names.some(({ text }) => /^jsonb?_(?:each|tree)$/i.test(text));
  return (
    isPure && !names.some(({ text }) => /^pragma_|^dbstat$/i.test(text) || isInternalName(text))
  );
}

function prepareOrNull(
  database: Database.Database,
  sql: string,
): Database.Statement<unknown[], SqlValue[]> | null {
  try {
    return database.prepare<unknown[], SqlValue[]>(sql);
  } catch (thrown) {
    // The text made of the query is not one: its rows are known by their cells then.
    if (thrown instanceof Error) return null;
    throw thrown;
  }
}

function unsupported(message: string): Error {
  return subscriptionError("SUBSCRIPTION_QUERY", message);
}

interface ProgramStep {
  readonly opcode: string;
  readonly p2: bigint;
  readonly p3: bigint;
}

const ROW_ID: ReadonlySet<string> = new Set(["rowid", "oid", "_rowid_"]);
/** Keys looked up by one statement, greatest first. */
const CHUNK_SIZES = [256, 16, 1];
const STATEMENTS: ReadonlySet<string> = new Set(
  (
    "ALTER ANALYZE ATTACH BEGIN COMMIT CREATE DELETE DETACH DROP END EXPLAIN INSERT PRAGMA " +
    "REINDEX RELEASE REPLACE ROLLBACK SAVEPOINT UPDATE VACUUM VALUES"
  ).split(" "),
);
