/**
 * Matches the parameters of a request to those of its SQL text, by SQLite's rules of numbering.
 *
 * better-sqlite3 binds `?` by position and everything else by name without sigil, so a list for
 * `?1` or `:id` fails there, and a superfluous name passes unseen. SQLite numbers every parameter
 * instead: `?` takes the next number, `?NNN` the one it says, a name the next at its first place.
 * With these numbers a list fits any form, as it does in Corrosion, and its errors can be told.
 */
import { failure, success, type Result } from "#base/machine.ts";
import type { SqlValue, Statement } from "../../types.ts";

/** Values as better-sqlite3 binds them. */
export interface BoundParameters {
  /** Of `?` and of numbers that no `?NNN` names. */
  readonly positional: readonly SqlValue[];
  /** By name without sigil; null = the statement has none. */
  readonly named: Readonly<Record<string, SqlValue>> | null;
}

/**
 * Binds a statement's parameters. The error is Corrosion's text. Cost: one pass over the SQL, unless
 * its `names` are given.
 */
export function bindParameters(
  statement: Statement,
  names: ParameterNames = parameterNames(statement.sql),
): Result<BoundParameters, string> {
  if (names === null) return failure(`parameter numbers go up to ${PARAMETERS_MAX}`);
  const values = valuesByNumber(names, statement.params ?? []);
  if (!values.ok) return values;
  // The usual text has nothing but `?`.
  if (names.every((name) => name === null))
    return success({ positional: values.value, named: null });
  const positional: SqlValue[] = [];
  const named = new Map<string, SqlValue>();
  for (const [index, name] of names.entries()) {
    const value = values.value[index] ?? null;
    if (name === null) {
      positional.push(value);
      continue;
    }
    const bare = name.slice(1);
    if (named.has(bare)) return failure(`two parameters are named ${bare}: rename one`);
    named.set(bare, value);
  }
  return success({ positional, named: named.size === 0 ? null : Object.fromEntries(named) });
}

/** The same as arguments of better-sqlite3's `run`, `all` or `iterate`. */
export function bindArguments({ positional, named }: BoundParameters): unknown[] {
  return named === null ? [...positional] : [...positional, named];
}

/**
 * The SQL text with each parameter replaced by its value as a literal, as `sqlite3_expanded_sql`
 * writes it. The error is Corrosion's text. Reals that 15 digits do not hold get 17.
 */
export function expandParameters(statement: Statement): Result<string, string> {
  const names = parameterNames(statement.sql);
  if (names === null) return failure(`parameter numbers go up to ${PARAMETERS_MAX}`);
  const values = valuesByNumber(names, statement.params ?? []);
  if (!values.ok) return values;
  const numberByName = new Map<string, number>();
  let last = 0;
  const expanded = statement.sql.replaceAll(TOKEN, (token, parameter: string | undefined) => {
    if (parameter === undefined) return token;
    let number = last + 1;
    if (/^\?\d/.test(parameter)) number = Number(parameter.slice(1));
    else if (parameter !== "?") number = numberByName.get(parameter) ?? number;
    if (parameter !== "?") numberByName.set(parameter, number);
    last = Math.max(last, number);
    return printLiteral(values.value[number - 1] ?? null);
  });
  return success(expanded);
}

function printLiteral(value: SqlValue): string {
  if (value === null) return "NULL";
  if (typeof value === "bigint") return value.toString();
  if (typeof value === "number") return printRealLiteral(value);
  if (value instanceof Uint8Array) return `x'${Buffer.from(value).toString("hex")}'`;
  // SQLite ends a statement's text at a NUL.
  if (value.includes("\0")) return `CAST(x'${Buffer.from(value).toString("hex")}' AS TEXT)`;
  return `'${value.replaceAll("'", "''")}'`;
}

function printRealLiteral(value: number): string {
  if (!Number.isFinite(value)) return value > 0 ? "9e999" : value < 0 ? "-9e999" : "NULL";
  const short = value.toPrecision(15);
  const [mantissa = "", exponent] = (Number(short) === value ? short : value.toPrecision(17)).split(
    "e",
  );
  const digits = mantissa.includes(".") ? mantissa.replace(/0+$/, "") : `${mantissa}.`;
  const whole = digits.endsWith(".") ? `${digits}0` : digits;
  return exponent === undefined ? whole : `${whole}e${exponent}`;
}

function valuesByNumber(
  names: readonly (string | null)[],
  params: NonNullable<Statement["params"]>,
): Result<readonly SqlValue[], string> {
  if (isList(params)) {
    if (params.length === names.length) return success(params);
    const counts = `Got ${params.length}, needed ${names.length}`;
    return failure(`Wrong number of parameters passed to query. ${counts}`);
  }
  const values: SqlValue[] = names.map(() => null);
  const indexByName = new Map(names.map((name, index) => [name, index]));
  for (const [name, value] of Object.entries(params)) {
    const index = indexByName.get(name);
    if (index === undefined) return failure(`Invalid parameter name: ${name}`);
    values[index] = value;
  }
  return success(values);
}

/** A statement's parameters by number from 1, null for `?`; null in all: a number is too large. */
export type ParameterNames = readonly (string | null)[] | null;

/** Reads the parameters of a SQL text. */
export function parameterNames(sql: string): ParameterNames {
  const names: (string | null)[] = [];
  const known = new Set<string>();
  for (const match of sql.matchAll(TOKEN)) {
    const parameter = match.groups?.["parameter"];
    if (parameter === undefined) continue;
    if (parameter === "?") {
      names.push(null);
    } else if (!parameter.startsWith("?")) {
      if (!known.has(parameter)) names.push(parameter);
      known.add(parameter);
    } else {
      const number = Number(parameter.slice(1));
      if (number < 1 || number > PARAMETERS_MAX) return null;
      while (names.length < number) names.push(null);
      // A name that has this number already keeps it.
      names[number - 1] ??= parameter;
    }
    if (names.length > PARAMETERS_MAX) return null;
  }
  return names;
}

function isList(params: NonNullable<Statement["params"]>): params is readonly SqlValue[] {
  return Array.isArray(params);
}

/** SQLite's default limit of parameter numbers. */
const PARAMETERS_MAX = 32_766;
/** What a parameter could hide in (comments, quotes, words), then the parameter. */
const TOKEN = new RegExp(
  [
    String.raw`--[^\n]*|/\*[^]*?(?:\*/|$)`,
    String.raw`'(?:[^']|'')*(?:'|$)|"(?:[^"]|"")*(?:"|$)`,
    String.raw`\x60(?:[^\x60]|\x60\x60)*(?:\x60|$)|\[[^\]]*(?:\]|$)`,
    String.raw`[\p{L}\p{N}_][\p{L}\p{N}_$]*`,
    String.raw`(?<parameter>\?\d*|[:@$#][\p{L}\p{N}_$]+)`,
  ].join("|"),
  "gu",
);
