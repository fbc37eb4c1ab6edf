import fc from "fast-check";
import { expect, test } from "vitest";
import { alertLine, PipeLines, workLine } from "./pipe-lines.ts";

test("each line has its meaning", () => {
  const lines = take("b\nr\nd\ns 20260101T000000000Z-12-main\nf 12\nf 0\nf x\n");
  expect(lines).toEqual([
    { kind: "beat" },
    { kind: "ready" },
    { kind: "notReady" },
    { kind: "stall", id: "20260101T000000000Z-12-main" },
    { kind: "fleet", peers: 12 },
    { kind: "fleet", peers: 0 },
    { kind: "unknown" },
  ]);
});

test("a line may arrive in any pieces", () => {
  const text = "b\ns id-1\nr\n";
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 12 }), (sizes) => {
      const lines = new PipeLines();
      let rest = text;
      const kinds = sizes.flatMap((size) => {
        const piece = rest.slice(0, size);
        rest = rest.slice(size);
        return lines.take(new TextEncoder().encode(piece)).map((line) => line.kind);
      });
      expect(kinds).toEqual(["beat", "stall", "ready"]);
    }),
  );
});

test("an alert comes through whole; one that is too long without its fields", () => {
  const alert = { kind: "edge-frozen", subject: "", msg: "frozen", fields: { peers: 3 } } as const;
  expect(take(`${alertLine(alert)}\n`)).toEqual([{ kind: "alert", alert }]);
  const large = { ...alert, fields: { text: "x".repeat(20_000), version: 7n } };
  const cut = { ...alert, fields: {} };
  expect(take(`${alertLine(large)}\n`)).toEqual([{ kind: "alert", alert: cut }]);
});

test("what a late loop is at comes through whole, and that it beats again", () => {
  const work = { loop: "main", phase: "apply", breadcrumb: { what: "row", key: "m1" } } as const;
  const over = { ...work, breadcrumb: null };
  expect(take(`${workLine(work)}\n${workLine(over)}\n`)).toEqual([
    { kind: "work", work },
    { kind: "work", work: over },
  ]);
  const large = { ...work, breadcrumb: "x".repeat(20_000) };
  const cut = { ...work, breadcrumb: "too long" };
  expect(take(`${workLine(large)}\n`)).toEqual([{ kind: "work", work: cut }]);
});

const NO_LINES = [
  "x",
  "",
  "s ",
  "s ../etc/passwd",
  "s a b",
  "bb",
  `s ${"a".repeat(200)}`,
  "a ",
  "a {",
  "a null",
  "w null",
  'w {"loop":"main","phase":"sleep","breadcrumb":1}',
  'w {"loop":"main","phase":"apply"}',
  'a {"kind":"toString","subject":"","msg":"","fields":{}}',
  'a {"kind":"crash-loop","subject":"","msg":1,"fields":{}}',
];

test.each(NO_LINES)("%j is unknown, and what follows is read", (line) => {
  expect(take(`${line}\nr\n`)).toEqual([{ kind: "unknown" }, { kind: "ready" }]);
});

test("no bytes make it throw", () => {
  const lines = new PipeLines();
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 2000 }), (bytes) => {
      for (const line of lines.take(bytes)) expect(line.kind).toBeTypeOf("string");
    }),
  );
});

function take(text: string) {
  return new PipeLines().take(new TextEncoder().encode(text));
}
