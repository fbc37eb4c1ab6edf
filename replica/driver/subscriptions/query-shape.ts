/**
 * What a SELECT's text says of its own form: the tables of its outermost FROM, where conditions and
 * columns can be added, and what speaks against reading only a part of its rows.
 *
 * Not a parser: whatever is not understood makes `tables` null or `isWhole` true, which costs time
 * and never a wrong answer. SQLite is asked whether the query, and each text made from it, is right.
 */
import { firstKeyword, tokenize, type SqlToken } from "../store/sql-text.ts";

/** A table of the outermost FROM. */
export interface FromTable {
  /** As written. */
  readonly name: string;
  /** By which its columns are named. */
  readonly alias: string;
  /** Whether the rows of others stay without it: the null side of an outer join. */
  readonly isNullable: boolean;
}

/** The form of a SELECT. Offsets are into its text. */
export interface QueryShape {
  /**
   * Null when the rows cannot be told apart by the keys of tables: DISTINCT, compounds, WITH, and
   * subqueries and functions in FROM.
   */
  readonly tables: readonly FromTable[] | null;
  /** Where columns can be added; null without FROM. */
  readonly listEnd: number | null;
  /** The condition of the outermost WHERE. */
  readonly condition: { readonly start: number; readonly end: number } | null;
  /** Where a WHERE can be added, if there is none. */
  readonly fromEnd: number;
  /** Whether a row's presence depends on other rows: LIMIT, window functions. */
  readonly isWhole: boolean;
  /** Whether the outermost query folds rows into one. */
  readonly isAggregate: boolean;
  /** In lower case: names in the outermost WHERE, with the qualifier of a column's. */
  readonly conditionNames: readonly ConditionName[];
  /** In lower case: names met elsewhere than in the outermost FROM, columns among them. */
  readonly otherNames: ReadonlySet<string>;
}

/** A name in a condition. */
export interface ConditionName {
  /** Null = none. */
  readonly qualifier: string | null;
  readonly name: string;
}

/** A token with where it stands. */
interface Placed extends SqlToken {
  /** Upper case for words, else empty. */
  readonly keyword: string;
  /** Parentheses around it. */
  readonly depth: number;
  /** Whether one of them holds a query of its own. */
  readonly isNested: boolean;
}

/** Reads the form of a query; null when it is not one SELECT. */
export function readShape(sql: string): QueryShape | null {
  const plain = tokenize(sql);
  while (plain.at(-1)?.kind === "semicolon") plain.pop();
  const first = firstKeyword(plain);
  if (first !== "SELECT" && first !== "WITH") return null;
  const tokens = place(plain);
  const outer = (words: ReadonlySet<string>, from = 0): number =>
    tokens.findIndex((one, at) => at >= from && one.depth === 0 && words.has(one.keyword));
  const offsetOf = (at: number): number => tokens[at]?.offset ?? endOf(sql, plain);
  const fromAt = outer(FROM);
  const endAt = fromAt < 0 ? tokens.length : orLength(outer(CLAUSES, fromAt), tokens);
  const hasWhere = tokens[endAt]?.keyword === "WHERE";
  const whereEnd = hasWhere ? orLength(outer(AFTER_WHERE, endAt), tokens) : endAt;
  const found = fromAt < 0 ? null : readFrom(tokens, fromAt + 1, endAt);
  const isSimple = first === "SELECT" && outer(COMPOUND) < 0 && tokens[1]?.keyword !== "DISTINCT";
  return {
    tables: isSimple && found !== null ? found.tables : null,
    listEnd: fromAt < 0 ? null : offsetOf(fromAt),
    condition: hasWhere ? { start: offsetOf(endAt) + 5, end: offsetOf(whereEnd) } : null,
    fromEnd: offsetOf(endAt),
    isWhole: outer(LIMIT) >= 0 || tokens.some(({ keyword }) => keyword === "OVER"),
    isAggregate: outer(GROUP) >= 0 || tokens.some((_, at) => isAggregateCall(tokens, at)),
    conditionNames: conditionNames(hasWhere ? tokens.slice(endAt + 1, whereEnd) : []),
    otherNames: otherNames(tokens, found?.namesAt ?? new Set()),
  };
}

function place(plain: readonly SqlToken[]): Placed[] {
  const open: boolean[] = [];
  return plain.map((token, at) => {
    if (token.text === ")" && token.kind === "other") open.pop();
    const keyword = token.kind === "word" ? token.text.toUpperCase() : "";
    const placed = { ...token, keyword, depth: open.length, isNested: open.includes(true) };
    if (token.text === "(" && token.kind === "other") {
      const next = plain[at + 1];
      open.push(next?.kind === "word" && QUERIES.has(next.text.toUpperCase()));
    }
    return placed;
  });
}

/** The tables between FROM and the next clause, and the tokens that name them; null = not plain. */
function readFrom(
  tokens: readonly Placed[],
  start: number,
  end: number,
): { tables: FromTable[]; namesAt: Set<number> } | null {
  const tables: FromTable[] = [];
  const namesAt = new Set<number>();
  let at = start;
  let join: string[] = [];
  while (at < end) {
    if (tokens[at + 1]?.text === ".") {
      if (tokens[at]?.text.toLowerCase() !== "main") return null;
      at += 2;
    }
    const name = tokens[at];
    if (!isName(name) || tokens[at + 1]?.text === "(") return null;
    namesAt.add(at++);
    if (tokens[at]?.keyword === "AS") at += 1;
    const alias = tokens[at];
    const hasAlias = at < end && isName(alias) && !AFTER_TABLE.has(alias.keyword);
    if (hasAlias) namesAt.add(at++);
    const isNullable = join.includes("LEFT") || join.includes("FULL");
    if (join.includes("RIGHT") || join.includes("FULL")) {
      for (const [index, table] of tables.entries()) tables[index] = { ...table, isNullable: true };
    }
    tables.push({ name: name.text, alias: hasAlias ? alias.text : name.text, isNullable });
    // What joins it (ON, USING) and how it is read (INDEXED BY) ends at the next table.
    while (at < end && !isNextTable(tokens[at])) at += 1;
    join = [];
    while (at < end && isNextTable(tokens[at])) join.push(tokens[at++]?.keyword ?? "");
  }
  return { tables, namesAt };
}

function isName(token: Placed | undefined): token is Placed {
  return token?.kind === "word" || token?.kind === "identifier";
}

function isNextTable(token: Placed | undefined): boolean {
  if (token?.depth !== 0) return false;
  return JOINING.has(token.keyword) || (token.kind === "other" && token.text === ",");
}

function isAggregateCall(tokens: readonly Placed[], at: number): boolean {
  const token = tokens[at];
  const next = tokens[at + 1];
  if (token === undefined || token.isNested || next?.text !== "(") return false;
  const name = token.text.toLowerCase();
  const isExtreme = name === "min" || name === "max";
  if (!isExtreme && !AGGREGATES.has(name)) return false;
  const close = tokens.findIndex(
    (one, index) => index > at && one.text === ")" && one.depth === next.depth,
  );
  const inside = tokens.slice(at + 2, close);
  // With several arguments they compare values of one row.
  if (isExtreme && inside.some((one) => one.text === "," && one.depth === next.depth + 1)) {
    return false;
  }
  return !tokens.slice(close + 1).some((one) => one.keyword === "OVER" && one.depth === next.depth);
}

function conditionNames(tokens: readonly Placed[]): ConditionName[] {
  const names: ConditionName[] = [];
  for (const [at, token] of tokens.entries()) {
    if (!isName(token) || tokens[at + 1]?.text === ".") continue;
    const qualifier = tokens[at - 1]?.text === "." ? (tokens[at - 2]?.text ?? "") : null;
    names.push({
      qualifier: qualifier === null ? null : qualifier.toLowerCase(),
      name: token.text.toLowerCase(),
    });
  }
  return names;
}

function otherNames(tokens: readonly Placed[], namesAt: ReadonlySet<number>): Set<string> {
  const names = new Set<string>();
  for (const [at, token] of tokens.entries()) {
    const isQualifier = tokens[at + 1]?.text === ".";
    if (token.kind === "other" || namesAt.has(at) || isQualifier) continue;
    names.add(token.text.toLowerCase());
  }
  return names;
}

function orLength(at: number, tokens: readonly Placed[]): number {
  return at < 0 ? tokens.length : at;
}

/** The end of the text without closing semicolons. */
function endOf(sql: string, tokens: readonly SqlToken[]): number {
  const last = tokens.at(-1)?.offset ?? 0;
  const semicolon = tokenize(sql).find(({ kind, offset }) => kind === "semicolon" && offset > last);
  return semicolon?.offset ?? sql.length;
}

const FROM = new Set(["FROM"]);
const LIMIT = new Set(["LIMIT"]);
const GROUP = new Set(["GROUP", "HAVING"]);
const COMPOUND = new Set(["UNION", "INTERSECT", "EXCEPT"]);
const QUERIES = new Set(["SELECT", "WITH", "VALUES"]);
const AFTER_WHERE = new Set(["GROUP", "HAVING", "WINDOW", "ORDER", "LIMIT", ...COMPOUND]);
const CLAUSES = new Set(["WHERE", ...AFTER_WHERE]);
const JOINING = new Set(["NATURAL", "LEFT", "RIGHT", "FULL", "OUTER", "INNER", "CROSS", "JOIN"]);
const AFTER_TABLE = new Set([...JOINING, ...CLAUSES, "ON", "USING", "INDEXED", "NOT"]);
/** Of SQLite, with the functions that it may be built with; `min` and `max` are seen to apart. */
const AGGREGATES: ReadonlySet<string> = new Set(
  (
    "avg count sum total group_concat string_agg median percentile percentile_cont " +
    "percentile_disc json_group_array json_group_object jsonb_group_array jsonb_group_object"
  ).split(" "),
);
