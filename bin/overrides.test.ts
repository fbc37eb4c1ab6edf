import fc from "fast-check";
import { expect, test } from "vitest";
import { PatinaError } from "#base/errors.ts";
import { jsonOrText, overridesFromFlags } from "./overrides.ts";

test.each<[string, unknown]>([
  ["true", true],
  ["false", false],
  ["8080", 8080],
  ["-1.5", -1.5],
  ['["a","b"]', ["a", "b"]],
  ['{"a":1}', { a: 1 }],
  ['"8080"', "8080"],
  ["info", "info"],
  ["", ""],
  ["null", "null"],
  ["127.0.0.1:8787", "127.0.0.1:8787"],
  ["[::]:8787", "[::]:8787"],
  ["[::1]", "[::1]"],
  ["{broken}", "{broken}"],
  ["01", "01"],
])("%s is taken as %j", (text, value) => {
  expect(jsonOrText(text)).toEqual(value);
});

test("any text is a value, never an error", () => {
  fc.assert(fc.property(fc.string(), (text) => void jsonOrText(text)));
});

test("a flag is cut at its first equals sign", () => {
  expect(overridesFromFlags(["alerts.webhook=http://a/?b=c", "log.level="])).toEqual([
    { key: "alerts.webhook", value: "http://a/?b=c", source: "--set alerts.webhook" },
    { key: "log.level", value: "", source: "--set log.level" },
  ]);
});

test.each(["log.level", "=x", ""])("the flag %j is refused with an example", (flag) => {
  expect(() => overridesFromFlags([flag])).toThrow(PatinaError);
  expect(() => overridesFromFlags([flag])).toThrow(/expected key=value, as in log\.level=debug/);
});
