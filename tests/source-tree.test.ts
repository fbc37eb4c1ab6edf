/** The reader of our own code must itself see what is there, or the rules above it hold nothing. */
import { expect, test } from "vitest";
import {
  commentsOf,
  hasHeader,
  importsOf,
  undocumentedExports,
  withoutComments,
  type SourceFile,
} from "./source-tree.ts";

test("imports are found in every form, with their target", () => {
  const found = importsOf(
    file("proxy/http1/engine.ts", [
      'import { readFileSync } from "node:fs";',
      "import type {",
      "  One,",
      '} from "../types.ts";',
      'import "./side-effect.ts";',
      'export { two } from "#base/errors.ts";',
      'const late = await import("./late.ts");',
      'const url = new URL("./worker.ts", import.meta.url);',
      '// import { not } from "./comment.ts";',
    ]),
  );
  expect(found.map(({ target, isTypeOnly }) => [target, isTypeOnly])).toEqual([
    [null, false],
    ["proxy/types.ts", true],
    ["replica/base/errors.ts", false],
    ["proxy/http1/side-effect.ts", false],
    ["proxy/http1/late.ts", false],
    ["proxy/http1/worker.ts", false],
  ]);
});

test("comments, strings, templates and regular expressions are told apart", () => {
  const text = 'a("// no"); /* Date */ const r = /[/"]/g; // Date\nb = `${c("`")} Date` / 2; Date';
  expect(withoutComments(text, { strings: "keep" }).match(/Date/g)).toHaveLength(2);
  expect(withoutComments(text, { strings: "blank" }).match(/Date/g)).toHaveLength(1);
  expect(withoutComments(text, { strings: "blank" })).toHaveLength(text.length);
  expect(commentsOf(text).replaceAll(/\s+/g, " ").trim()).toBe("/* Date */ // Date");
});

test("an export needs a comment of its own, but for a group or overloads under one", () => {
  const found = undocumentedExports(
    file("routing/core/pick.ts", [
      "/** Two of a kind. */",
      "export const ONE = 1;",
      "export const TWO = 2;",
      "",
      "export function bare(): void {}",
      "const inner = 3;",
      "export interface Bare {}",
    ]),
  );
  expect(found).toEqual(["routing/core/pick.ts:5 bare", "routing/core/pick.ts:7 Bare"]);
});

test("a header comes before the first line of code", () => {
  expect(hasHeader(file("a.ts", ["#!/usr/bin/env node", "// @ts-check", "/** What. */"]))).toBe(
    true,
  );
  expect(hasHeader(file("a.ts", ['import "./b.ts";', "/** What. */"]))).toBe(false);
  expect(hasHeader(file("a.sql", ["CREATE TABLE t (id TEXT);"]))).toBe(false);
});

function file(path: string, lines: string[]): SourceFile {
  return { path, text: lines.join("\n"), lines };
}
