/**
 * Documents and declarations say the same: what is generated is up to date (`UPDATE=1` rewrites it),
 * what is written by hand names every key, and links lead somewhere. What is declared is also well
 * formed, declared once, and used.
 */
import { writeFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { expect, test } from "vitest";
import { loadConfig } from "../bin/config-file.ts";
import { COMMAND_ERRORS } from "../bin/errors.ts";
import { exitCodeOf } from "../proxy/exit-code-of.ts";
import { PROXY_ERRORS } from "../proxy/errors.ts";
import { ADMIN_ERRORS } from "../replica/driver/admin/errors.ts";
import { CHECKPOINT_ERRORS } from "../replica/driver/checkpoints/errors.ts";
import { API_ERRORS } from "../replica/driver/api/errors.ts";
import { readDocument } from "../replica/driver/api/documents.ts";
import { QUERY_ERRORS } from "../replica/driver/query/errors.ts";
import { STORE_ERRORS } from "../replica/driver/store/errors.ts";
import { SUBSCRIPTION_ERRORS } from "../replica/driver/subscriptions/errors.ts";
import { EXIT } from "../watchdog/supervisor/exit-codes.ts";
import { ALL_METRICS, configKeys, tablesIn, TABLES, withTable } from "./document-tables.ts";
import {
  isCode,
  isInTree,
  isTestCode,
  readTree,
  ROOT,
  withoutComments,
  type SourceFile,
} from "./source-tree.ts";

const tree = readTree();
const documents = tree.filter(({ path }) => path.endsWith(".md"));
const product = tree.filter(({ path }) => isCode(path) && !isTestCode(path));

// ------------------------------------------------------------------ documents

test("every relative link leads to something that exists", () => {
  const found = documents.flatMap(({ path, text }) =>
    [...text.matchAll(/\]\(([^)\s]+)\)/g)]
      .map((match) => (match[1] ?? "").split("#")[0] ?? "")
      .filter((target) => target !== "" && !/^[a-z]+:/.test(target))
      .filter((target) => !isInTree(normalize(join(dirname(path), target))))
      .map((target) => `${path}: ${target}`),
  );
  expect(found).toEqual([]);
});

test("every file that a document names exists", () => {
  const found = documents
    .filter(({ path }) => path.startsWith("docs/") || path === "README.md")
    .flatMap(({ path, text }) =>
      [...text.matchAll(/`((?:bin|proxy|replica|routing|watchdog|docs|tests)\/[\w./-]+)`/g)]
        .map((match) => (match[1] ?? "").replace(/\/$/, ""))
        .filter((named) => !isInTree(named))
        .map((named) => `${path}: ${named}`),
    );
  expect(found).toEqual([]);
});

test("every test that a document names is in the file that it names", () => {
  const textOf = new Map(tree.map(({ path, text }) => [path, text]));
  const named = documents.flatMap(({ text }) => [...text.matchAll(/`([\w./-]+\.ts)`: "([^"]+)"/g)]);
  const missing = named.filter(
    ([, path = "", title = ""]) => !textOf.get(path)?.includes(`test("${title}"`),
  );
  expect(missing.map(([whole]) => whole)).toEqual([]);
  expect(named.length).toBeGreaterThan(18);
});

test("generated tables stand in a document and are up to date", () => {
  const held = documents.flatMap(({ path, text }) => {
    const names = tablesIn(text);
    const made = names.reduce(withTable, text);
    if (process.env["UPDATE"] === "1" && made !== text) writeFileSync(join(ROOT, path), made);
    else expect(text, path).toBe(made);
    return names;
  });
  expect(held.toSorted()).toEqual(Object.keys(TABLES).toSorted());
});

test("the config reference has every key with its default and a meaning", () => {
  const rows = rowsOf(document("docs/operations.md"), "Config reference");
  const written = new Map(rows.map(([key = "", preset = ""]) => [bare(key), bare(preset)]));
  expect(Object.fromEntries(written)).toEqual(Object.fromEntries(configKeys()));
  expect(rows.filter((row) => (row[2] ?? "").length < 5)).toEqual([]);
});

test("the example files fit: configs are valid, the machine document too", () => {
  for (const name of ["edge", "worker"]) {
    expect(
      () => loadConfig({ file: join(ROOT, `docs/examples/${name}.toml`) }),
      name,
    ).not.toThrow();
  }
  const { id, ...body } = JSON.parse(document("docs/examples/machine.json").text) as { id: string };
  expect(readDocument("machines", id, body)).toMatchObject({ ok: true, value: { warnings: [] } });
});

test("only a bug ends a command with the exit code of a bug", () => {
  const codes = Object.keys({ ...COMMAND_ERRORS, ...ADMIN_ERRORS, ...CHECKPOINT_ERRORS });
  const found = codes.filter((code) => exitCodeOf(code) === EXIT.internal);
  expect(found).toEqual(["INTERNAL"]);
});

test("the table of exit codes has every code", () => {
  const rows = rowsOf(document("docs/operations.md"), "Exit codes");
  const written = rows.map(([code = "", name = ""]) => [bare(name), Number(bare(code))]);
  expect(Object.fromEntries(written)).toEqual({ ...EXIT });
});

test("decisions are numbered without holes and listed in their index", () => {
  const index = document("docs/decisions/README.md").text;
  const names = tree
    .map(({ path }) => /^docs\/decisions\/(\d{4}-[a-z0-9-]+\.md)$/.exec(path)?.[1] ?? "")
    .filter((name) => name !== "");
  expect(names.map((name) => Number(name.slice(0, 4)))).toEqual(names.map((_, at) => at + 1));
  expect(names.filter((name) => !index.includes(`(${name})`))).toEqual([]);
  for (const name of names) {
    const { text } = document(`docs/decisions/${name}`);
    expect(text, name).toMatch(new RegExp(`^# ${Number(name.slice(0, 4))}\\. `));
    for (const part of ["Status: ", "## Context", "## Decision", "## Consequences"]) {
      expect(text, name).toContain(part);
    }
    expect(text, name).toContain("## Alternatives");
  }
});

// ------------------------------------------------------------------ declarations

test("metrics are named by area, thing and base unit, and say what they mean", () => {
  for (const { name, help, type } of ALL_METRICS) {
    expect(name).toMatch(/^patina_[a-z]+(?:_[a-z]+)*$/);
    expect(name).not.toMatch(/_(?:ms|millis\w*|us|kb|mb|percent)(?:_|$)/);
    expect(help, name).toMatch(/^(?:[A-Z0-9/]|cr-sqlite).*\.$/);
    expect(name.endsWith("_total"), name).toBe(type === "counter");
    if (type === "histogram") expect(name).toMatch(/_(?:seconds|bytes)$/);
    if (type === "gauge") expect(GAUGE_UNITS, name).toContain(name.split("_").at(-1));
  }
});

test("each metric is declared once, and something writes it", () => {
  const names = ALL_METRICS.map(({ name }) => name);
  expect(names.filter((name, at) => names.indexOf(name) !== at)).toEqual([]);
  const writers = product
    .filter(({ path }) => !DECLARING.has(path))
    .map(({ text }) => text)
    .join("\n");
  const unwritten = names.filter((name) => !writers.includes(name.replace(/^patina_/, "")));
  expect(unwritten).toEqual([]);
});

test("no metric is written that is not declared", () => {
  const names = new Set(ALL_METRICS.map(({ name }) => name));
  const found = product.flatMap(({ path, text }) =>
    [...text.matchAll(/"(patina_[a-z_]+)"/g)]
      .filter((match) => !names.has(match[1] ?? ""))
      .map((match) => `${path}: ${match[1]}`),
  );
  expect(found).toEqual([]);
});

test("every error code that is thrown is declared in some errors.ts", () => {
  const declared = new Set([
    ...Object.keys({ ...STORE_ERRORS, ...QUERY_ERRORS, ...SUBSCRIPTION_ERRORS, ...API_ERRORS }),
    ...Object.keys({ ...PROXY_ERRORS, ...COMMAND_ERRORS, ...ADMIN_ERRORS, ...CHECKPOINT_ERRORS }),
    ...tree.filter(({ path }) => path.endsWith("errors.ts")).flatMap(codesDeclared),
  ]);
  const found = product.flatMap(({ path, text }) =>
    [...withoutComments(text, { strings: "keep" }).matchAll(THROWN)]
      .map((match) => match[1] ?? "")
      .filter((code) => !declared.has(code))
      .map((code) => `${path}: ${code}`),
  );
  expect(found).toEqual([]);
});

// ------------------------------------------------------------------ reading

function document(path: string): SourceFile {
  const found = tree.find((file) => file.path === path);
  if (found === undefined) throw new Error(`${path} is missing`);
  return found;
}

/** Cells of the tables under a heading, heads and rules left out. */
function rowsOf({ text }: SourceFile, heading: string): string[][] {
  const start = text.indexOf(`## ${heading}\n`);
  if (start === -1) throw new Error(`no heading ${heading}`);
  const end = text.indexOf("\n## ", start + 1);
  const lines = text.slice(start, end === -1 ? undefined : end).split("\n");
  return lines
    .filter((line, at) => line.startsWith("| ") && !(lines[at + 1] ?? "").startsWith("|--"))
    .map((line) => line.slice(2, -2).split(" | "));
}

function bare(cell: string): string {
  return cell.trim().replaceAll("`", "");
}

/** Codes that a folder declares as constants; tables of codes are imported instead. */
function codesDeclared({ text }: SourceFile): string[] {
  return [...text.matchAll(/^export const ([A-Z_]+) = "\1";/gm)].map((match) => match[1] ?? "");
}

/** What a gauge may count or measure: base units, and the things of the vocabulary. */
const GAUGE_UNITS: readonly string[] = [
  "services",
  "seconds",
  "bytes",
  "ratio",
  "members",
  "streams",
  "versions",
  "rows",
  "origins",
  "changesets",
  "changes",
  "requests",
  "alerts",
  "connections",
  "machines",
  "files",
  "threads",
  "tables",
  // A score, from 0.
  "awareness",
  // Positions in the change stream, and yes or no; rows and origins held back.
  "watermark",
  "version",
  "ready",
  "writable",
  "stale",
  "frozen",
  "peers",
  "holds",
];
const DECLARING: ReadonlySet<string> = new Set([
  "proxy/metrics.ts",
  "replica/metrics.ts",
  "watchdog/metric-declarations.ts",
]);
const THROWN = /(?:new PatinaError|\b[a-z]+Error)\(\s*"([A-Z][A-Z_]+)"/g;
