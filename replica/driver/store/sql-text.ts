/**
 * SQL text cut into tokens: enough to split a file into statements and to see which kind of
 * statement one is and whether it names the store's own tables. Not a parser: SQLite is asked
 * whether a statement is right.
 */

/** A token; `text` of a quoted identifier or string is without its quotes. */
export interface SqlToken {
  readonly kind: "word" | "identifier" | "string" | "other" | "semicolon";
  readonly text: string;
  readonly offset: number;
}

/** One statement of a file. */
export interface SqlStatement {
  /** Without leading comments, trailing semicolon and space. */
  readonly sql: string;
  /** Line of its first token, from 1. */
  readonly line: number;
  readonly tokens: readonly SqlToken[];
}

/** The tokens of `sql`, comments and space left out. A quote never closed runs to the end. */
export function tokenize(sql: string): SqlToken[] {
  const tokens: SqlToken[] = [];
  for (const match of sql.matchAll(TOKEN)) {
    const { space, quoted, word, semicolon } = match.groups ?? {};
    if (space !== undefined) continue;
    const offset = match.index;
    if (word !== undefined) tokens.push({ kind: "word", text: word, offset });
    else if (semicolon !== undefined) tokens.push({ kind: "semicolon", text: ";", offset });
    else if (quoted !== undefined) tokens.push(quotedToken(quoted, offset));
    else tokens.push({ kind: "other", text: match[0], offset });
  }
  return tokens;
}

/** Cuts a file into its statements. Bodies of triggers are not understood (and not allowed). */
export function splitStatements(text: string): SqlStatement[] {
  const statements: SqlStatement[] = [];
  let pending: SqlToken[] = [];
  const close = (end: number): void => {
    const first = pending[0];
    if (first === undefined) return;
    const line = lineAt(text, first.offset);
    statements.push({ sql: text.slice(first.offset, end).trim(), line, tokens: pending });
    pending = [];
  };
  for (const token of tokenize(text)) {
    if (token.kind === "semicolon") close(token.offset);
    else pending.push(token);
  }
  close(text.length);
  return statements;
}

/** The line of an offset, from 1. */
export function lineAt(text: string, offset: number): number {
  return text.slice(0, offset).split("\n").length;
}

/** A column of a CREATE TABLE as it is written. */
export interface ColumnText {
  readonly name: string;
  readonly tokens: readonly SqlToken[];
}

/** The columns in the tokens of a CREATE TABLE, in order; constraints of the table left out. */
export function columnTexts(tokens: readonly SqlToken[]): ColumnText[] {
  const columns: ColumnText[] = [];
  let depth = 0;
  let pending: SqlToken[] = [];
  const close = (): void => {
    const [first] = pending;
    const isConstraint = first?.kind === "word" && CONSTRAINTS.has(first.text.toUpperCase());
    if (first !== undefined && !isConstraint) columns.push({ name: first.text, tokens: pending });
    pending = [];
  };
  for (const token of tokens) {
    const isPlain = token.kind === "other";
    if (isPlain && token.text === ")" && --depth === 0) break;
    if (isPlain && token.text === "," && depth === 1) close();
    else if (depth > 0) pending.push(token);
    if (isPlain && token.text === "(") depth += 1;
  }
  close();
  return columns;
}

/** The CHECK constraints in the tokens of a CREATE TABLE, each as its condition; sorted. */
export function checkTexts(tokens: readonly SqlToken[]): string[] {
  const found: string[] = [];
  for (const [at, { kind, text }] of tokens.entries()) {
    if (kind !== "word" || text.toUpperCase() !== "CHECK") continue;
    let depth = 0;
    const parts: string[] = [];
    for (const token of tokens.slice(at + 1)) {
      if (token.kind === "other" && token.text === "(") depth += 1;
      if (token.kind === "other" && token.text === ")") depth -= 1;
      parts.push(token.text);
      if (depth === 0) break;
    }
    found.push(parts.join(" "));
  }
  return found.toSorted();
}

/** The first word in upper case (`SELECT`), or the empty string. */
export function firstKeyword(tokens: readonly SqlToken[]): string {
  const first = tokens[0];
  return first?.kind === "word" ? first.text.toUpperCase() : "";
}

/**
 * The first name of a table or function that belongs to the store or to cr-sqlite, or null. A
 * string counts when the whole of it is such a name, because SQLite takes it for a table's name
 * in places: such a text can be written through a parameter.
 */
export function internalName(tokens: readonly SqlToken[]): string | null {
  for (const token of tokens) {
    if (token.kind !== "other" && isInternalName(token.text)) return token.text;
  }
  return null;
}

/** Whether a table or function belongs to the store, to cr-sqlite or to SQLite. */
export function isInternalName(name: string): boolean {
  return INTERNAL_NAME.test(name);
}

/** A name as a quoted identifier. */
export function quoteName(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/**
 * A parameter whose value SQLite does not look at when it plans. With STAT4 compiled in, as it is
 * here, it looks at a bare one that stands in a join, in LIMIT or beside ORDER BY, and then prepares
 * the whole statement anew each time that one is bound: 10 us for a join of two tables, 300 us for a
 * union over ten. The value itself goes through unchanged.
 */
export function unseen(parameter: string): string {
  return `+${parameter}`;
}

function quotedToken(quoted: string, offset: number): SqlToken {
  const quote = quoted.charAt(0);
  const closing = quote === "[" ? "]" : quote;
  const end = quoted.length > 1 && quoted.endsWith(closing) ? -1 : undefined;
  const inner = quoted.slice(1, end);
  const text = quote === "[" ? inner : inner.replaceAll(quote + quote, quote);
  return { kind: quote === "'" ? "string" : "identifier", text, offset };
}

const CONSTRAINTS: ReadonlySet<string> = new Set([
  "CONSTRAINT",
  "PRIMARY",
  "UNIQUE",
  "CHECK",
  "FOREIGN",
]);
const INTERNAL_NAME =
  /^(crsql_|__corro_|__patina_|sqlite_)\w*$|^patina_deadline$|__crsql_(clock|pks)/i;
const TOKEN = new RegExp(
  [
    String.raw`(?<space>\s+|--[^\n]*|/\*[^]*?(?:\*/|$))`,
    String.raw`(?<quoted>'(?:[^']|'')*(?:'|$)|"(?:[^"]|"")*(?:"|$)|` +
      String.raw`\x60(?:[^\x60]|\x60\x60)*(?:\x60|$)|\[[^\]]*(?:\]|$))`,
    String.raw`(?<word>[\p{L}_][\p{L}\p{N}_$]*)`,
    String.raw`(?<semicolon>;)`,
    String.raw`[^]`,
  ].join("|"),
  "gu",
);
