/**
 * Schema files checked against the rules that replicated tables must keep (protocol reference,
 * section 7), before the database is touched.
 *
 * The statements are carried out in a scratch database in memory and its catalogue is looked at, so
 * SQLite's own parser decides what a statement means. Nothing here knows of the real database.
 */
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import Database from "better-sqlite3";
import type { PatinaError } from "#base/errors.ts";
import { errorText } from "#base/errors.ts";
import { storeError } from "./errors.ts";
import type { SqlStatement, SqlToken } from "./sql-text.ts";
import {
  columnTexts,
  firstKeyword,
  isInternalName,
  lineAt,
  quoteName,
  splitStatements,
} from "./sql-text.ts";

/** One schema file. `name` is for messages. */
export interface SchemaFile {
  readonly name: string;
  readonly text: string;
}

/** A column as the catalogue has it. */
export interface ColumnSpec {
  readonly name: string;
  /** Declared type as written, in upper case. */
  readonly type: string;
  readonly isNotNull: boolean;
  /** Default as an SQL expression; null = none. */
  readonly defaultSql: string | null;
  /** Position in the primary key from 1; 0 = not a part of it. */
  readonly keyPosition: number;
  readonly isGenerated: boolean;
  /** Generated when the row is written; false = when it is read. */
  readonly isStored: boolean;
}

/** A replicated table. */
export interface TableSpec {
  readonly name: string;
  readonly sql: string;
  readonly isStrict: boolean;
  readonly columns: readonly ColumnSpec[];
  /** Where it was declared, for messages: `machines.sql:3`. */
  readonly source: string;
  /** The same of each column, by name. */
  readonly sourceByColumn: ReadonlyMap<string, string>;
}

/** A (non-unique) index. */
export interface IndexSpec {
  readonly name: string;
  readonly table: string;
  readonly sql: string;
}

/** What all schema files say together. */
export interface Schema {
  readonly tables: readonly TableSpec[];
  readonly indexes: readonly IndexSpec[];
}

/** The `*.sql` files of a folder in name order. Throws `STORE_SCHEMA` when it cannot be read. */
export function readSchemaFolder(folder: string): SchemaFile[] {
  try {
    const names = readdirSync(folder).filter((name) => name.endsWith(".sql"));
    names.sort();
    return names.map((name) => ({ name, text: readFileSync(join(folder, name), "utf8") }));
  } catch (thrown) {
    throw storeError("STORE_SCHEMA", errorText(thrown), { cause: thrown, details: { folder } });
  }
}

/**
 * Reads files in the order given. Throws `STORE_SCHEMA` with every violation found, each naming
 * file, line and rule; the details carry them as a list.
 */
export function readSchema(files: readonly SchemaFile[]): Schema {
  const scratch = new Database(":memory:");
  const violations: string[] = [];
  const declared = new Map<string, Declaration>();
  try {
    for (const file of files) {
      for (const statement of splitStatements(file.text)) {
        const violation = runStatement({ scratch, file, statement, declared });
        if (violation === null) continue;
        const { rule, at = statement.tokens[0] } = violation;
        violations.push(`${file.name}:${lineAt(file.text, at?.offset ?? 0)}: ${rule}`);
      }
    }
    const tables = readTables(scratch, declared);
    for (const table of tables) violations.push(...tableViolations(scratch, table));
    if (violations.length > 0) throw schemaError(violations);
    return { tables, indexes: readIndexes(scratch) };
  } finally {
    scratch.close();
  }
}

/** Columns of a table as the catalogue has them; generated ones included. */
export function readColumns(database: Database.Database, table: string): ColumnSpec[] {
  const rows = database
    .prepare<[string], ColumnRow>(
      'SELECT name, type, "notnull", dflt_value, pk, hidden FROM pragma_table_xinfo(?)',
    )
    .safeIntegers(false)
    .all(table);
  return rows.map((row) => ({
    name: row.name,
    type: row.type.toUpperCase(),
    isNotNull: row.notnull === 1,
    defaultSql: row.dflt_value,
    keyPosition: row.pk,
    isGenerated: row.hidden > 1,
    isStored: row.hidden === STORED,
  }));
}

/** The error for a list of violations. */
export function schemaError(violations: readonly string[]): PatinaError {
  return storeError("STORE_SCHEMA", violations.join("\n"), { details: { violations } });
}

/** A table's place in the files. */
interface Declaration {
  readonly file: SchemaFile;
  readonly statement: SqlStatement;
}

/** What is wrong with a statement, and where if not at its start. */
interface Violation {
  readonly rule: string;
  readonly at?: SqlToken;
}

/** Carries out one statement if it is of an allowed kind; says what is wrong otherwise. */
function runStatement(context: {
  readonly scratch: Database.Database;
  readonly file: SchemaFile;
  readonly statement: SqlStatement;
  readonly declared: Map<string, Declaration>;
}): Violation | null {
  const { scratch, file, statement, declared } = context;
  const refusal = kindRefusal(statement);
  if (refusal !== null) return refusal;
  const before = new Set(tableNames(scratch));
  const indexCount = readIndexes(scratch).length;
  try {
    scratch.exec(statement.sql);
  } catch (thrown) {
    return { rule: errorText(thrown) };
  }
  if (readIndexes(scratch).length < indexCount) {
    return { rule: "an index cannot be dropped by the files that create it" };
  }
  for (const name of tableNames(scratch)) {
    if (before.has(name)) continue;
    if (isInternalName(name)) return { rule: `the name ${quoteName(name)} is reserved` };
    declared.set(name, { file, statement });
  }
  return null;
}

function kindRefusal(statement: SqlStatement): Violation | null {
  const words = statement.tokens
    .filter((token) => token.kind === "word")
    .map((token) => token.text.toUpperCase());
  const [first, second, third] = words;
  if (first === "DROP" && second === "INDEX") {
    const isConditional = third === "IF" && words[3] === "EXISTS";
    return isConditional ? null : { rule: "DROP INDEX is allowed with IF EXISTS only" };
  }
  if (first !== "CREATE") {
    const found = firstKeyword(statement.tokens) || "this";
    const rule = `${found} is not allowed: only CREATE TABLE, CREATE INDEX, DROP INDEX IF EXISTS`;
    return { rule };
  }
  if (second === "TEMP" || second === "TEMPORARY") return TEMPORARY;
  if (second === "UNIQUE") {
    return { rule: "unique indexes are not allowed: two replicas could both succeed" };
  }
  if (second === "INDEX") return null;
  if (second === "TABLE") return tableRefusal(statement.tokens);
  return { rule: `CREATE ${second ?? ""} is not allowed: only CREATE TABLE and CREATE INDEX` };
}

function tableRefusal(tokens: readonly SqlToken[]): Violation | null {
  const open = tokens.findIndex((token) => token.text === "(");
  const as = tokens.findIndex((token) => isWord(token, "AS"));
  if (as >= 0 && (open < 0 || as < open)) {
    return { rule: "CREATE TABLE ... AS SELECT is not allowed" };
  }
  const head = tokens.slice(0, Math.max(0, open));
  const dot = head.findIndex((token) => token.text === ".");
  if (/^temp$/i.test(head[dot - 1]?.text ?? "")) return TEMPORARY;
  for (const [word, rule] of FORBIDDEN_WORDS) {
    const at = tokens.find((token) => isWord(token, word));
    if (at !== undefined) return { rule, at };
  }
  return null;
}

function isWord(token: { kind: string; text: string }, word: string): boolean {
  return token.kind === "word" && token.text.toUpperCase() === word;
}

function tableViolations(scratch: Database.Database, table: TableSpec): string[] {
  const found: string[] = [];
  const say = (text: string, source = table.source): number =>
    found.push(`${source}: table ${quoteName(table.name)}: ${text}`);
  const keys = table.columns.filter((column) => column.keyPosition > 0);
  if (keys.length === 0) say("a primary key is needed");
  for (const column of table.columns) {
    const label = `column ${quoteName(column.name)}`;
    const source = table.sourceByColumn.get(column.name);
    if (column.name === "-1") say(`${label}: the name is reserved`, source);
    if (column.keyPosition > 0 && !column.isNotNull) {
      say(`${label} of the key must be NOT NULL`, source);
    }
    if (column.keyPosition > 0 || !column.isNotNull || column.isGenerated) continue;
    if (column.defaultSql === null || column.defaultSql.toUpperCase() === "NULL") {
      say(`${label}: NOT NULL needs a DEFAULT, because a row may arrive column by column`, source);
    }
  }
  const uniques = scratch
    .prepare<[string], string>(
      "SELECT (SELECT name FROM pragma_index_info(l.name) LIMIT 1)" +
        " FROM pragma_index_list(?) l WHERE \"unique\" = 1 AND origin <> 'pk'",
    )
    .pluck()
    .all(table.name);
  for (const column of uniques) {
    const text = `UNIQUE is not allowed (${quoteName(column)}): two replicas could both succeed`;
    say(text, table.sourceByColumn.get(column));
  }
  return found;
}

function readTables(
  scratch: Database.Database,
  declared: ReadonlyMap<string, Declaration>,
): TableSpec[] {
  const statement = scratch.prepare<[string], { sql: string; strict: number }>(
    "SELECT m.sql, l.strict FROM sqlite_master m JOIN pragma_table_list(m.name) l" +
      " WHERE m.name = ? AND l.schema = 'main'",
  );
  return tableNames(scratch).map((name) => {
    const row = statement.get(name);
    const place = declared.get(name);
    return {
      name,
      sql: row?.sql ?? "",
      isStrict: row?.strict === 1,
      columns: readColumns(scratch, name),
      source: place === undefined ? "" : `${place.file.name}:${place.statement.line}`,
      sourceByColumn: place === undefined ? new Map() : sourcesOf(place),
    };
  });
}

function sourcesOf({ file, statement }: Declaration): Map<string, string> {
  return new Map(
    columnTexts(statement.tokens).map(({ name, tokens }) => [
      name,
      `${file.name}:${lineAt(file.text, tokens[0]?.offset ?? 0)}`,
    ]),
  );
}

/** Explicit indexes of a database, those of cr-sqlite and the store left out. */
export function readIndexes(database: Database.Database): IndexSpec[] {
  return database
    .prepare<[], IndexSpec>(
      'SELECT name, tbl_name AS "table", sql FROM sqlite_master' +
        " WHERE type = 'index' AND sql IS NOT NULL ORDER BY name",
    )
    .all()
    .filter((index) => !isInternalName(index.table) && !isInternalName(index.name));
}

function tableNames(database: Database.Database): string[] {
  return database
    .prepare<[], { name: string }>(
      "SELECT name FROM sqlite_master WHERE type = 'table'" +
        " AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name",
    )
    .all()
    .map((row) => row.name);
}

interface ColumnRow {
  readonly name: string;
  readonly type: string;
  readonly notnull: number;
  readonly dflt_value: string | null;
  readonly pk: number;
  readonly hidden: number;
}

const TEMPORARY: Violation = { rule: "temporary tables are not allowed" };
const FOREIGN_KEYS = "foreign keys are not allowed: rows arrive in any order";
/** Words that no table may have, and why. */
const FORBIDDEN_WORDS: readonly (readonly [string, string])[] = [
  ["AUTOINCREMENT", "AUTOINCREMENT is not allowed: replicas would hand out the same numbers"],
  ["REFERENCES", FOREIGN_KEYS],
  ["FOREIGN", FOREIGN_KEYS],
];
/** `hidden` of a generated column that is stored; 2 = computed when read. */
const STORED = 3;
