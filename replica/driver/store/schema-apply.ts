/**
 * Brings a database to the schema of the files, by difference (protocol reference, section 7).
 *
 * Tables are created and made CRRs, columns are added, indexes come and go. Whatever would lose or
 * re-interpret data is refused: a table or a column that is absent from the files stays, a column that
 * is different is an error. A column added later emits no changes: old rows show its
 * default on every replica by themselves.
 */
import type Database from "better-sqlite3";
import type { ColumnSpec, Schema, TableSpec } from "./schema-files.ts";
import { readColumns, readIndexes, schemaError } from "./schema-files.ts";
import { checkTexts, columnTexts, quoteName, tokenize } from "./sql-text.ts";

/** What was changed; all zero when the database was up to date. */
export interface SchemaChange {
  readonly tablesCreated: number;
  /** Tables that existed and are replicated now; their rows are a version of ours. */
  readonly tablesAdopted: number;
  readonly columnsAdded: number;
  readonly indexesChanged: number;
}

/** Up to date already. */
export const NO_CHANGE: SchemaChange = {
  tablesCreated: 0,
  tablesAdopted: 0,
  columnsAdded: 0,
  indexesChanged: 0,
};

/** What came of a change of the schema, for people. */
export function schemaChangeText(files: number, change: SchemaChange): string {
  const { tablesCreated, tablesAdopted, columnsAdded, indexesChanged } = change;
  const adopted = tablesAdopted === 0 ? "" : ` ${tablesAdopted} adopted,`;
  return (
    `schema of ${files} files: ${tablesCreated} tables created,${adopted}` +
    ` ${columnsAdded} columns added, ${indexesChanged} indexes changed`
  );
}

/** Makes a table's triggers anew after columns were added: `renewTriggers` of `crr-triggers.ts`. */
export type RenewTriggers = (database: Database.Database, table: string) => void;

/**
 * Carries the difference out. The caller has opened a transaction and undoes it when this throws
 * `STORE_SCHEMA`. Rows that exist in a table adopted as a CRR get clock rows of this replica.
 */
export function applySchema(
  database: Database.Database,
  schema: Schema,
  renew: RenewTriggers,
): SchemaChange {
  const violations = schemaViolations(database, schema);
  if (violations.length > 0) throw schemaError(violations);
  let tablesCreated = 0;
  let tablesAdopted = 0;
  let columnsAdded = 0;
  const indexesBefore = readIndexes(database);
  for (const table of schema.tables) {
    const present = readColumns(database, table.name);
    if (present.length === 0) {
      database.exec(table.sql);
      makeCrr(database, table.name);
      tablesCreated += 1;
      continue;
    }
    if (!isCrr(database, table.name)) {
      makeCrr(database, table.name);
      tablesAdopted += 1;
    }
    const missing = missingColumns(table, present);
    if (missing.length > 0) addColumns({ database, table, renew }, missing);
    columnsAdded += missing.length;
  }
  return {
    tablesCreated,
    tablesAdopted,
    columnsAdded,
    indexesChanged: applyIndexes(database, schema, indexesBefore),
  };
}

/** Why the difference cannot be carried out, each with file and line. Reads only. */
export function schemaViolations(database: Database.Database, schema: Schema): string[] {
  return schema.tables.flatMap((table) => {
    const present = readColumns(database, table.name);
    if (present.length === 0) return [];
    return differences(table, present, sqlOf(database, table.name));
  });
}

/** The columns that a table lacks, in the order of its declaration. */
export function missingColumns(table: TableSpec, present: readonly ColumnSpec[]): ColumnSpec[] {
  return table.columns.filter((column) => !present.some((other) => other.name === column.name));
}

/**
 * The statements that add columns. Generated ones follow those that they may be made of; alone they
 * concern no trigger.
 */
export function addColumnStatements(table: TableSpec, columns: readonly ColumnSpec[]): string[] {
  const texts = textByColumn(table.sql);
  const definitions = [
    ...columns.filter((column) => !column.isGenerated).map(columnSql),
    ...columns.filter((column) => column.isGenerated).map(({ name }) => texts.get(name) ?? ""),
  ];
  return definitions.map(
    (definition) => `ALTER TABLE ${quoteName(table.name)} ADD COLUMN ${definition}`,
  );
}

/** Whether a table is replicated. */
export function isCrr(database: Database.Database, table: string): boolean {
  const statement = database.prepare(
    "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?",
  );
  return statement.get(`${table}__crsql_clock`) !== undefined;
}

function makeCrr(database: Database.Database, table: string): void {
  // Two arguments: the form with one reads past a string without terminator.
  database.prepare("SELECT crsql_as_crr('main', ?)").get(table);
}

function addColumns(
  target: {
    readonly database: Database.Database;
    readonly table: TableSpec;
    readonly renew: RenewTriggers;
  },
  columns: readonly ColumnSpec[],
): void {
  const { database, table, renew } = target;
  // A merged row may break a CHECK, for which SQLite would refuse the column.
  database.pragma("ignore_check_constraints = ON");
  try {
    for (const statement of addColumnStatements(table, columns)) database.exec(statement);
  } finally {
    database.pragma("ignore_check_constraints = OFF");
  }
  if (columns.some((column) => !column.isGenerated)) renew(database, table.name);
}

/** Definitions of a table's columns as they are written. */
function textByColumn(sql: string): Map<string, string> {
  const whole = tokenize(sql);
  return new Map(
    columnTexts(whole).map(({ name, tokens }) => {
      const last = tokens.at(-1);
      // Up to the token that follows: a quoted one is longer than its text.
      const end = whole.find(({ offset }) => offset > (last?.offset ?? 0))?.offset;
      return [name, sql.slice(tokens[0]?.offset ?? 0, end).trimEnd()];
    }),
  );
}

function columnSql(column: ColumnSpec): string {
  const notNull = column.isNotNull ? " NOT NULL" : "";
  const byDefault = column.defaultSql === null ? "" : ` DEFAULT (${column.defaultSql})`;
  return `${quoteName(column.name)} ${column.type}${notNull}${byDefault}`;
}

/** Why a table that exists, made by `sql`, cannot be brought to its declaration. */
function differences(table: TableSpec, present: readonly ColumnSpec[], sql: string): string[] {
  const found: string[] = [];
  const say = (column: string, text: string): void => {
    const source = table.sourceByColumn.get(column) ?? table.source;
    found.push(`${source}: table ${quoteName(table.name)}: ${text}`);
  };
  const texts = { old: formByColumn(sql), declared: formByColumn(table.sql) };
  for (const old of present) {
    const { name } = old;
    const column = table.columns.find((candidate) => candidate.name === name);
    const isSameText = !old.isGenerated || texts.old.get(name) === texts.declared.get(name);
    if (column === undefined) {
      // It stays, for the replicas whose files have it.
      if (old.keyPosition > 0) say(name, `column ${quoteName(name)} of the key is missing`);
    } else if (!isSameColumn(column, old) || !isSameText) {
      say(name, `the definition of column ${quoteName(name)} cannot be changed`);
    }
  }
  if (checkTexts(tokenize(sql)).join() !== checkTexts(tokenize(table.sql)).join()) {
    say("", "CHECK constraints of a table that exists cannot be added, changed or removed");
  }
  for (const { name, keyPosition, isStored } of table.columns) {
    if (present.some((old) => old.name === name)) continue;
    if (keyPosition > 0) say(name, "the primary key cannot be changed");
    if (isStored) say(name, `column ${quoteName(name)} is STORED: it can be added VIRTUAL only`);
  }
  return found;
}

/** What tells definitions of a column apart, whatever their space and comments. */
function formByColumn(sql: string): Map<string, string> {
  const columns = columnTexts(tokenize(sql));
  return new Map(
    columns.map(({ name, tokens }) => [name, tokens.map(({ text }) => text).join(" ")]),
  );
}

function sqlOf(database: Database.Database, table: string): string {
  const statement = database.prepare<[string], string>(
    "SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ?",
  );
  return statement.pluck().get(table) ?? "";
}

function isSameColumn(left: ColumnSpec, right: ColumnSpec): boolean {
  return (
    left.type === right.type &&
    left.isNotNull === right.isNotNull &&
    plainDefault(left) === plainDefault(right) &&
    left.keyPosition === right.keyPosition &&
    left.isGenerated === right.isGenerated
  );
}

/** A default without the parentheses that adding a column puts around it. */
function plainDefault(column: ColumnSpec): string | null {
  return column.defaultSql?.replace(/^\((.*)\)$/s, "$1") ?? null;
}

function applyIndexes(
  database: Database.Database,
  schema: Schema,
  before: ReturnType<typeof readIndexes>,
): number {
  const declared = new Map(schema.indexes.map((index) => [index.name, index]));
  const managed = new Set(schema.tables.map((table) => table.name));
  let changed = 0;
  for (const old of before) {
    if (!managed.has(old.table) || declared.get(old.name)?.sql === old.sql) continue;
    database.exec(`DROP INDEX ${quoteName(old.name)}`);
    changed += 1;
  }
  const kept = new Set(readIndexes(database).map((index) => index.name));
  for (const index of schema.indexes) {
    if (kept.has(index.name)) continue;
    database.exec(index.sql);
    changed += 1;
  }
  return changed;
}
