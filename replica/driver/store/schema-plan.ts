/**
 * What bringing a database to schema files would cost, without touching it: `patina schema plan`.
 *
 * What grows with a table is rehearsed: up to `SAMPLE_ROWS` of its rows go into a database in memory,
 * the change is carried out there, and what it took and emitted is scaled to all rows. A file on a
 * disk takes longer than memory, so times are multiplied by `DISK_FACTOR`.
 */
import Database from "better-sqlite3";
import { estimateChangeBytes } from "../../core/wire/chunker.ts";
import type { ColumnChange, SqlValue } from "../../types.ts";
import { renewTriggers } from "./crr-triggers.ts";
import { addColumnStatements, isCrr, missingColumns, schemaViolations } from "./schema-apply.ts";
import type { IndexSpec, Schema, TableSpec } from "./schema-files.ts";
import { readColumns, readIndexes, schemaError } from "./schema-files.ts";
import { checkTexts, quoteName, tokenize } from "./sql-text.ts";

/** What would happen to one table. */
export interface TablePlan {
  readonly table: string;
  /** Where it is declared: `machines.sql:3`. */
  readonly source: string;
  /** Rows it has. */
  readonly rows: number;
  readonly statements: readonly string[];
  /** Rows written. */
  readonly rowsTouched: number;
  /** Column changes that every other replica is sent. */
  readonly changesEmitted: number;
  /** What they take on the wire, for each replica that receives them. */
  readonly bytesPerReplica: number;
  /** How long writes wait, estimated. */
  readonly lockSeconds: number;
  /** Columns that the files do not have: they stay. */
  readonly columnsKept: readonly string[];
  /** Changes kept aside that would be merged. */
  readonly keptChanges: number;
}

/** What would happen to all tables, and what is above a budget. */
export interface SchemaPlan {
  readonly tables: readonly TablePlan[];
  /** Sentences on what exceeds the budget. */
  readonly exceeded: readonly string[];
}

/** What a change of the schema may cost without anybody's leave. */
export interface SchemaBudget {
  readonly changesMax: number;
  readonly bytesMax: number;
  readonly lockSecondsMax: number;
}

/** What a rehearsal needs. */
export interface PlanContext {
  readonly extensionPath: string;
  /** Monotonic milliseconds. */
  readonly nowMs: () => number;
  readonly budget?: SchemaBudget;
}

/**
 * Plans for a database that may be open for reading only, and in use. Throws `STORE_SCHEMA` with
 * everything that would be refused. O(rows of the tables concerned), to count them.
 */
export function planSchema(
  database: Database.Database,
  schema: Schema,
  context: PlanContext,
): SchemaPlan {
  const violations = schemaViolations(database, schema);
  if (violations.length > 0) throw schemaError(violations);
  const tables = schema.tables.map((table) => planTable(database, { schema, table }, context));
  return { tables, exceeded: exceeded(tables, context.budget ?? SCHEMA_BUDGET) };
}

function planTable(
  database: Database.Database,
  target: { readonly schema: Schema; readonly table: TableSpec },
  context: PlanContext,
): TablePlan {
  const { schema, table } = target;
  const present = readColumns(database, table.name);
  const isNew = present.length === 0;
  const isAdopted = !isNew && !isCrr(database, table.name);
  const added = isNew ? [] : missingColumns(table, present);
  const indexes = indexSteps(database, schema, table.name);
  const create = [table.sql, `SELECT crsql_as_crr('main', '${table.name}')`];
  const columns = addColumnStatements(table, added);
  const statements = [
    ...(isNew ? create : isAdopted ? create.slice(1) : []),
    ...columns,
    ...indexes.dropped.map(({ name }) => `DROP INDEX ${quoteName(name)}`),
    ...indexes.created.map(({ sql }) => sql),
  ];
  const rows = isNew || statements.length === 0 ? 0 : countRows(database, table.name);
  const rehearsal =
    rows === 0
      ? NO_COST
      : rehearse(
          { database, table: table.name, rows },
          { isAdopted, columns, indexes: indexes.created },
          context,
        );
  const names = new Set(table.columns.map(({ name }) => name));
  return {
    table: table.name,
    source: table.source,
    rows,
    statements,
    rowsTouched: isAdopted ? rows : 0,
    ...rehearsal,
    columnsKept: present.map(({ name }) => name).filter((name) => !names.has(name)),
    keptChanges: keptChanges(database, table, isNew ? null : added.map(({ name }) => name)),
  };
}

interface Cost {
  readonly changesEmitted: number;
  readonly bytesPerReplica: number;
  readonly lockSeconds: number;
}

/** Carries the change out on a sample of the rows, in memory, and scales what it took. */
function rehearse(
  source: { readonly database: Database.Database; readonly table: string; readonly rows: number },
  change: {
    readonly isAdopted: boolean;
    readonly columns: readonly string[];
    readonly indexes: readonly IndexSpec[];
  },
  context: PlanContext,
): Cost {
  const { database, table, rows } = source;
  const { nowMs, extensionPath } = context;
  const sql = definitionOf(database, table);
  const twin = new Database(":memory:");
  try {
    twin.defaultSafeIntegers(true);
    twin.loadExtension(extensionPath);
    twin.exec(sql);
    // Rows of others may break a CHECK.
    twin.pragma("ignore_check_constraints = ON");
    const sampled = copySample(database, twin, table);
    const scale = rows / Math.max(1, sampled);
    const timed = (work: () => void): number => {
      const startedMs = nowMs();
      work();
      return nowMs() - startedMs;
    };
    const adopt = (): unknown => twin.prepare("SELECT crsql_as_crr('main', ?)").get(table);
    const adoptMs = timed(adopt);
    const emitted = change.isAdopted ? emittedBy(twin) : { changes: 0, bytes: 0 };
    // Needs no more time for more rows, but where SQLite checks each.
    const triggersMs = timed(() => {
      for (const statement of change.columns) twin.exec(statement);
      if (change.columns.length > 0) renewTriggers(twin, table, extensionPath);
    });
    const readsAll = change.columns.length > 0 && checksRows(database, table, sql);
    const checkMs = readsAll ? timed(() => twin.pragma(`quick_check(${quoteName(table)})`)) : 0;
    const indexMs = timed(() => {
      for (const index of change.indexes) twin.exec(index.sql);
    });
    const scaledMs = (change.isAdopted ? adoptMs : 0) + checkMs + indexMs;
    return {
      changesEmitted: Math.round(emitted.changes * scale),
      bytesPerReplica: Math.round(emitted.bytes * scale),
      lockSeconds: (triggersMs + scaledMs * scale * DISK_FACTOR) / 1000,
    };
  } finally {
    // Lets the extension free its statements.
    twin.prepare("SELECT crsql_finalize()").get();
    twin.close();
  }
}

function copySample(source: Database.Database, twin: Database.Database, table: string): number {
  const names = readColumns(source, table)
    .filter(({ isGenerated }) => !isGenerated)
    .map(({ name }) => quoteName(name));
  const insert = twin.prepare(
    `INSERT INTO ${quoteName(table)} (${names.join(", ")})` +
      ` VALUES (${names.map(() => "?").join(", ")})`,
  );
  const select = source
    .prepare<[number], SqlValue[]>(
      `SELECT ${names.join(", ")} FROM ${quoteName(table)} ORDER BY random() LIMIT ?`,
    )
    .safeIntegers(true)
    .raw();
  let sampled = 0;
  twin.transaction(() => {
    for (const row of select.iterate(SAMPLE_ROWS)) {
      insert.run(...row);
      sampled += 1;
    }
  })();
  return sampled;
}

/** What a twin would send to others. */
function emittedBy(twin: Database.Database): { changes: number; bytes: number } {
  let changes = 0;
  let bytes = 0;
  let previous: ColumnChange | null = null;
  const rows = twin.prepare<[], { table: string; pk: Uint8Array; cid: string; val: SqlValue }>(
    'SELECT "table", pk, cid, val FROM crsql_changes',
  );
  for (const { table, pk, cid, val } of rows.iterate()) {
    const change = { table, pk, cid, val, colVersion: 1, seq: changes, cl: 1 };
    bytes += estimateChangeBytes(change, previous);
    previous = change;
    changes += 1;
  }
  return { changes, bytes };
}

/** Whether SQLite reads every row when a column is added: it checks STRICT types and CHECKs. */
function checksRows(database: Database.Database, table: string, sql: string): boolean {
  const strict = database
    .prepare<[string], bigint | number>("SELECT strict FROM pragma_table_list WHERE name = ?")
    .pluck()
    .get(table);
  return Number(strict) === 1 || checkTexts(tokenize(sql)).length > 0;
}

function indexSteps(
  database: Database.Database,
  schema: Schema,
  table: string,
): { created: IndexSpec[]; dropped: IndexSpec[] } {
  const present = readIndexes(database).filter((index) => index.table === table);
  const declared = schema.indexes.filter((index) => index.table === table);
  const isIn = (list: readonly IndexSpec[], { name, sql }: IndexSpec): boolean =>
    list.some((other) => other.name === name && other.sql === sql);
  return {
    created: declared.filter((index) => !isIn(present, index)),
    dropped: present.filter((index) => !isIn(declared, index)),
  };
}

/** Changes kept aside for a new table (`columns` null), or for columns that are added. */
function keptChanges(
  database: Database.Database,
  { name }: TableSpec,
  columns: readonly string[] | null,
): number {
  const kept = database
    .prepare("SELECT 1 FROM sqlite_master WHERE name = '__patina_kept_changes'")
    .get();
  if (kept === undefined) return 0;
  const counts = database
    .prepare<[string], { cid: string; changes: bigint | number }>(
      'SELECT cid, count(*) AS changes FROM __patina_kept_changes WHERE "table" = ? GROUP BY cid',
    )
    .all(name);
  return counts
    .filter(({ cid }) => columns === null || columns.includes(cid))
    .reduce((sum, { changes }) => sum + Number(changes), 0);
}

function countRows(database: Database.Database, table: string): number {
  return Number(
    database
      .prepare(`SELECT count(*) FROM ${quoteName(table)}`)
      .pluck()
      .get(),
  );
}

function definitionOf(database: Database.Database, table: string): string {
  const statement = database.prepare<[string], string>(
    "SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ?",
  );
  return statement.pluck().get(table) ?? "";
}

function exceeded(tables: readonly TablePlan[], budget: SchemaBudget): string[] {
  const sum = (of: (plan: TablePlan) => number): number =>
    tables.reduce((total, plan) => total + of(plan), 0);
  const found: string[] = [];
  const judge = (what: string, value: number, max: number): void => {
    if (value > max) found.push(`${what}: ${amount(value)}, more than ${amount(max)}`);
  };
  judge(
    "changes emitted",
    sum((plan) => plan.changesEmitted),
    budget.changesMax,
  );
  judge(
    "bytes per replica",
    sum((plan) => plan.bytesPerReplica),
    budget.bytesMax,
  );
  judge(
    "seconds of lock",
    sum((plan) => plan.lockSeconds),
    budget.lockSecondsMax,
  );
  return found;
}

function amount(value: number): string {
  return value.toLocaleString("en", { maximumFractionDigits: 1 });
}

/**
 * What a cluster takes without being noticed: as many changes as some seconds of ordinary writes, and
 * a pause of writes that nobody waits through.
 */
export const SCHEMA_BUDGET: SchemaBudget = {
  changesMax: 10_000,
  bytesMax: 8 * 1024 * 1024,
  lockSecondsMax: 2,
};
/** Rows of a rehearsal: some 50 ms of work. */
export const SAMPLE_ROWS = 5_000;
/** Measured with 100,000 rows in a file: adopted in 0.8 to 1.1 times what this says, indexed in half. */
export const DISK_FACTOR = 2;
const NO_COST: Cost = { changesEmitted: 0, bytesPerReplica: 0, lockSeconds: 0 };
