/**
 * The repository's own files, for tests about them: which there are, their text with comments and
 * strings set apart, what they import and what they export.
 *
 * A small tokenizer rather than a parser: it knows comments, strings, templates and regular
 * expressions, which is enough to read imports and declarations of code that the formatter has laid
 * out.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

/** The repository's folder, absolute. */
export const ROOT = fileURLToPath(new URL("..", import.meta.url));

/** One text file. Paths are relative to the root, with `/`. */
export interface SourceFile {
  readonly path: string;
  readonly text: string;
  readonly lines: readonly string[];
}

/** One module that a file names. */
export interface Import {
  readonly from: string;
  /** As written: `../types.ts`, `#base/errors.ts`, `node:fs`, `zod`. */
  readonly specifier: string;
  /** Path of the module where it is one of ours, else null. */
  readonly target: string | null;
  readonly isTypeOnly: boolean;
}

/** Every text file of the project; installed packages, captures and results of runs left out. */
export function readTree(): readonly SourceFile[] {
  const paths: string[] = [];
  collect("", paths);
  return paths.toSorted(byText).map((path) => {
    const text = readFileSync(join(ROOT, path), "utf8");
    return { path, text, lines: text.split("\n") };
  });
}

/** Whether a path exists in the repository. */
export function isInTree(path: string): boolean {
  return existsSync(join(ROOT, path));
}

/** Code rather than data or prose. */
export function isCode(path: string): boolean {
  return /\.(?:ts|js|cjs|mjs)$/.test(path);
}

/** Tests, and what only tests and benchmarks use. */
export function isTestCode(path: string): boolean {
  return (
    /^(?:tests|bench)\//.test(path) ||
    /\.(?:test|bench)\.ts$/.test(path) ||
    /(?:^|\/)(?:testing|fixtures)\//.test(path) ||
    /(?:^|[/-])(?:fixture|conformance)\.ts$/.test(path)
  );
}

/** The code with comments blanked, and with the contents of strings blanked if asked for. */
export function withoutComments(text: string, options: { strings: "keep" | "blank" }): string {
  let result = "";
  for (const { kind, text: part } of tokens(text)) {
    const isBlank = kind === "comment" || (kind === "string" && options.strings === "blank");
    result += isBlank ? part.replaceAll(/[^\n]/g, " ") : part;
  }
  return result;
}

/** The text of comments alone, line breaks kept. */
export function commentsOf(text: string): string {
  return tokens(text)
    .map(({ kind, text: part }) => (kind === "comment" ? part : part.replaceAll(/[^\n]/g, " ")))
    .join("");
}

/** What a file imports, statically, dynamically, or by the URL of a module. */
export function importsOf(file: SourceFile): Import[] {
  const code = withoutComments(file.text, { strings: "keep" });
  const bare = withoutComments(file.text, { strings: "blank" });
  const found: Import[] = [];
  for (const pattern of IMPORT_FORMS) {
    for (const match of code.matchAll(pattern)) {
      const { type, specifier } = match.groups ?? {};
      // Code inside of a string is data.
      const isCodeHere = bare.startsWith(match[0].slice(0, KEYWORD_LENGTH), match.index);
      if (specifier === undefined || !isCodeHere) continue;
      const target = targetOf(file.path, specifier);
      found.push({ from: file.path, specifier, target, isTypeOnly: type !== undefined });
    }
  }
  return found;
}

/** Exported declarations without a doc comment, as `path:line name`. */
export function undocumentedExports(file: SourceFile): string[] {
  return file.lines.flatMap((line, index) => {
    const name = EXPORTED.exec(line)?.[1];
    if (name === undefined || isDocumented(file.lines, index)) return [];
    return [`${file.path}:${index + 1} ${name}`];
  });
}

/** Whether the file's first words are a comment that says what it is. */
export function hasHeader(file: SourceFile): boolean {
  const first = file.lines.find((line) => !/^(?:#!.*|\/\/ @ts-check)?$/.test(line)) ?? "";
  if (file.path.endsWith(".sql")) return first.startsWith("-- ");
  return first.startsWith("/**") || first.startsWith("// ");
}

/** Members of one name before another; for output that does not depend on the locale. */
export function byText(left: string, right: string): number {
  if (left === right) return 0;
  return left < right ? -1 : 1;
}

/** A doc comment may stand over a group of one-line declarations, or over overloads. */
function isDocumented(lines: readonly string[], index: number): boolean {
  for (let at = index - 1; at >= 0; at--) {
    const before = (lines[at] ?? "").trim();
    if (before.endsWith("*/")) return true;
    if (before.startsWith("// ") || /^export .*;$/.test(before)) continue;
    return false;
  }
  return false;
}

function targetOf(from: string, specifier: string): string | null {
  if (specifier.startsWith("#base/")) return `replica/base/${specifier.slice("#base/".length)}`;
  if (!specifier.startsWith(".")) return null;
  return normalize(join(dirname(from), specifier)).replace(/\/$/, "");
}

function collect(folder: string, paths: string[]): void {
  for (const entry of readdirSync(join(ROOT, folder), { withFileTypes: true })) {
    const path = folder === "" ? entry.name : `${folder}/${entry.name}`;
    if (entry.isDirectory()) {
      const isHidden = entry.name.startsWith(".") && entry.name !== ".ci";
      if (!isHidden && !LEFT_OUT.has(path) && entry.name !== "node_modules") collect(path, paths);
    } else if (entry.isFile() && TEXT_FILE.test(entry.name)) {
      paths.push(path);
    }
  }
}

interface Token {
  readonly kind: "code" | "string" | "comment";
  readonly text: string;
}

/** Cuts a text into comments, contents of literals, and the rest. */
function tokens(text: string): Token[] {
  const result: Token[] = [];
  let codeStart = 0;
  let at = 0;
  const take = (kind: "string" | "comment", start: number, end: number): void => {
    if (start > codeStart) result.push({ kind: "code", text: text.slice(codeStart, start) });
    result.push({ kind, text: text.slice(start, end) });
    codeStart = end;
    at = end;
  };
  while (at < text.length) {
    const here = text[at];
    const two = text.slice(at, at + 2);
    if (two === "//" || two === "#!") take("comment", at, endOf(text, "\n", at));
    else if (two === "/*") take("comment", at, endOf(text, "*/", at + 2) + 2);
    else if (here === '"' || here === "'" || here === "`") {
      const end = endOfLiteral(text, at, here);
      take("string", at + 1, end);
      at = end + 1;
    } else if (here === "/" && startsRegExp(text, at)) {
      const end = endOfLiteral(text, at, "/");
      take("string", at + 1, end);
      at = end + 1;
    } else at++;
  }
  if (codeStart < text.length) result.push({ kind: "code", text: text.slice(codeStart) });
  return result;
}

function endOf(text: string, mark: string, from: number): number {
  const found = text.indexOf(mark, from);
  return found === -1 ? text.length : found;
}

/** Position of the closing mark. Code inside a template counts as part of the template. */
function endOfLiteral(text: string, start: number, mark: string): number {
  let isInClass = false;
  for (let at = start + 1; at < text.length; at++) {
    const here = text[at];
    if (here === "\\") at++;
    else if (mark === "`" && text.startsWith("${", at)) at = endOfSubstitution(text, at + 2);
    else if (mark === "/" && here === "[") isInClass = true;
    else if (mark === "/" && here === "]") isInClass = false;
    else if (here === mark && !isInClass) return at;
  }
  return text.length;
}

/** Position of the `}` that closes a `${`. */
function endOfSubstitution(text: string, start: number): number {
  let depth = 1;
  for (let at = start; at < text.length; at++) {
    const here = text[at] ?? "";
    if (here === '"' || here === "'" || here === "`") at = endOfLiteral(text, at, here);
    else if (here === "{") depth++;
    else if (here === "}" && --depth === 0) return at;
  }
  return text.length;
}

/** A slash divides after a value and opens a regular expression anywhere else. */
function startsRegExp(text: string, at: number): boolean {
  const before = text.slice(Math.max(0, at - 20), at).trimEnd();
  return before === "" || /(?:[(,=:[!&|?{};+<>~^%*-]|\b(?:return|case|typeof|in|of))$/.test(before);
}

/** Enough of each form to tell it from blanks: a line break and `import`, or `new URL`. */
const KEYWORD_LENGTH = 7;
const IMPORT_FORMS = [
  /(?:^|\n)(?:import|export)\s+(?<type>type\s)?[^"'`;]*?\bfrom\s+"(?<specifier>[^"]+)"/g,
  /(?:^|\n)import\s+"(?<specifier>[^"]+)"/g,
  /\bimport\(\s*"(?<specifier>[^"]+)"/g,
  /\bnew URL\(\s*"(?<specifier>\.[^"]+)",\s*import\.meta\.url/g,
];
const EXPORTED =
  /^export (?:declare )?(?:abstract )?(?:async )?(?:function\*?|const|let|class|interface|type) (\w+)/;
const TEXT_FILE = /\.(?:ts|js|cjs|mjs|sql|md|json|toml|sh|yml|yaml)$|^(?:run|patina|LICENSE)$/;
const LEFT_OUT: ReadonlySet<string> = new Set(["tests/vectors", "bench/results"]);
