import fc from "fast-check";
import { expect, test } from "vitest";
import { readDocument } from "./documents.ts";
import { parseJson, printSqlValue } from "./json.ts";
import { OBJECT_KINDS } from "./object-routes.ts";
import { readStatement, readStatements } from "./statements.ts";

/** Any JSON as the API parses it: integers are bigint. */
const anyJson = fc.json({ maxDepth: 5 }).map((text) => {
  const parsed = parseJson(text);
  return parsed.ok ? parsed.value : null;
});

/** Values where documents and statements expect some, so that reading gets past the first field. */
const nearlyRight = fc.letrec((tie) => ({
  value: fc.oneof(
    { maxDepth: 4 },
    anyJson,
    fc.constantFrom("a", "started", "127.0.0.1:80", "passing", 1n, -1n, 1.5, null, true),
    fc.array(tie("value"), { maxLength: 4 }),
    fc.dictionary(fc.constantFrom(...fieldNames()), tie("value"), { maxKeys: 6 }),
  ),
})).value;

test("no JSON value makes reading a document throw", () => {
  const kinds = fc.constantFrom(...OBJECT_KINDS);
  fc.assert(
    fc.property(kinds, fc.string(), nearlyRight, (kind, id, body) => {
      const read = readDocument(kind, id, body);
      if (!read.ok) expect(read.error.length).toBeGreaterThan(0);
    }),
    { numRuns: 500 },
  );
});

test("no JSON value makes reading statements throw", () => {
  fc.assert(
    fc.property(nearlyRight, (body) => {
      readStatement(body);
      readStatements(body);
      readStatements([["SELECT 1", body]]);
      readStatements([{ query: "SELECT 1", named_params: body }]);
    }),
    { numRuns: 500 },
  );
});

test("no text makes parsing throw", () => {
  fc.assert(fc.property(fc.oneof(fc.string(), fc.json()), (text) => void parseJson(text)));
  expect(parseJson("[".repeat(100_000)).ok).toBe(false);
  expect(parseJson("[".repeat(100_000) + "]".repeat(100_000)).ok).toBe(false);
});

test("a value of SQLite comes back from its JSON with its type", () => {
  const real = fc
    .double({ noNaN: true, noDefaultInfinity: true })
    .filter((one) => !Object.is(one, -0));
  const integer = fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n });
  fc.assert(
    fc.property(fc.oneof(real, integer, fc.string(), fc.constant(null)), (value) => {
      const parsed = parseJson(JSON.stringify([printSqlValue(value)]));
      expect(parsed).toEqual({ ok: true, value: [value] });
    }),
  );
});

test.each([
  [
    { query: "SELECT 1", params: {} },
    { ok: true, value: { sql: "SELECT 1", params: {} } },
  ],
  [["SELECT ?", [true]], { ok: true, value: { sql: "SELECT ?", params: [1n] } }],
  [["SELECT ?", [[]]], { ok: true, value: { sql: "SELECT ?", params: [new Uint8Array()] } }],
  [["SELECT ?", [2n ** 64n]], { ok: true, value: { sql: "SELECT ?", params: [2 ** 64] } }],
])("the statement %o is read", (body, statement) => {
  expect(readStatement(body)).toEqual(statement);
});

test.each([
  ["nodes", "n", { actor: "x", latitude: 91n, longitude: "east", kind: "cloud" }],
  ["machines", "no space", {}],
  ["hostnames", "-", { app: "a" }],
] as const)("a bad %s document is refused", (kind, id, body) => {
  expect(readDocument(kind, id, body).ok).toBe(false);
});

function fieldNames(): string[] {
  const fields =
    "app region state services checks name address protocol status soft_limit hard_limit service " +
    "actor kind latitude longitude query params named_params __proto__ constructor :a";
  return fields.split(" ");
}
