/**
 * SQL statements as the API takes them (protocol reference, section 6.1):
 *
 * `"SQL"` | `["SQL", [p, ...]]` | `["SQL", {name: p}]` | `{query, params}` |
 * `{query, named_params}`
 */
import { failure, success, type Result } from "#base/machine.ts";
import type { SqlValue, Statement } from "../../types.ts";
import { readSqlValue } from "./json.ts";

/** Reads a transaction's body: an array of statements. The error names the statement. */
export function readStatements(body: unknown): Result<readonly Statement[], string> {
  if (!Array.isArray(body)) return failure(`invalid type: ${typeName(body)}, expected a sequence`);
  const statements: Statement[] = [];
  for (const [index, one] of body.entries()) {
    const statement = readStatement(one);
    if (!statement.ok) return failure(`[${index}]: ${statement.error}`);
    statements.push(statement.value);
  }
  return success(statements);
}

/** Reads one statement in any of its forms. */
export function readStatement(value: unknown): Result<Statement, string> {
  if (typeof value === "string") return success({ sql: value });
  const [sql, params] = parts(value);
  if (typeof sql !== "string") return failure(NO_STATEMENT);
  if (params === undefined) return isTable(value) ? success({ sql }) : failure(NO_STATEMENT);
  const read = readParams(params);
  return read === undefined ? failure(NO_STATEMENT) : success({ sql, params: read });
}

function parts(value: unknown): [unknown, unknown] {
  if (Array.isArray(value))
    return value.length === 2 ? [value[0], value[1]] : [undefined, undefined];
  if (isTable(value)) return [value["query"], value["params"] ?? value["named_params"]];
  return [undefined, undefined];
}

function readParams(params: unknown): Statement["params"] | undefined {
  if (Array.isArray(params)) {
    const values = params.map(readSqlValue);
    return values.includes(undefined) ? undefined : (values as SqlValue[]);
  }
  if (!isTable(params)) return undefined;
  const named: [string, SqlValue][] = [];
  for (const [key, value] of Object.entries(params)) {
    const read = readSqlValue(value);
    if (read === undefined) return undefined;
    named.push([key, read]);
  }
  return Object.fromEntries(named);
}

function isTable(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function typeName(value: unknown): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return "sequence";
  return typeof value === "object" ? "map" : typeof value;
}

const NO_STATEMENT = "data did not match any variant of untagged enum Statement";
