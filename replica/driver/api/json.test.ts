import fc from "fast-check";
import { expect, test } from "vitest";
import { parseJson } from "./json.ts";

test("integers are read as bigint and other numbers as number", () => {
  const text = '{"a": 5, "b": 5.0, "c": [1e3, -0, 9007199254740993], "__proto__": 7}';
  const expected = { a: 5n, b: 5, c: [1000, 0n, 9007199254740993n] };
  Object.defineProperty(expected, "__proto__", { value: 7n, enumerable: true });
  expect(parsed(text)).toEqual(expected);
  expect(parsed('{"a": [5, -0], "__proto__": 7}')).toEqual(
    Object.defineProperty({ a: [5n, 0n] }, "__proto__", { value: 7n, enumerable: true }),
  );
});

test("a value is read alike whether or not a fraction stands elsewhere in the text", () => {
  fc.assert(
    fc.property(fc.json(), (text) => {
      expect(parsed(`[${text}, "1.5"]`)).toEqual([parsed(text), "1.5"]);
    }),
  );
});

test("a text that is no JSON, or nested without end, is refused", () => {
  expect(parseJson("[1,")).toMatchObject({ ok: false });
  expect(parseJson(`${"[".repeat(200_000)}1${"]".repeat(200_000)}`)).toEqual({
    ok: false,
    error: "nested too deeply",
  });
});

function parsed(text: string): unknown {
  const result = parseJson(text);
  if (!result.ok) throw new Error(result.error);
  return result.value;
}
