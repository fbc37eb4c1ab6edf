import fc from "fast-check";
import { describe, expect, test } from "vitest";

import { bytesOf } from "./bytes.ts";
import { ChunkScanner } from "./chunked.ts";

describe("refusals", () => {
  test.each([
    ["no size", "\r\n", "BODY_CHUNK_SIZE"],
    ["a signed size", "-1\r\n", "BODY_CHUNK_SIZE"],
    ["a prefixed size", "0x1\r\n", "BODY_CHUNK_SIZE"],
    ["a blank before the size", " 1\r\n", "BODY_CHUNK_SIZE"],
    ["a blank after the size", "1 \r\n", "BODY_CHUNK_SIZE"],
    ["a size above 2^52", "10000000000000000\r\n", "BODY_CHUNK_SIZE"],
    ["a bare LF after the size", "1\nx", "BODY_CHUNK_SIZE"],
    ["a bare CR after the size", "1\rx", "BODY_CHUNK_SIZE"],
    ["a bare LF in an extension", "1;a\nx", "BODY_CHUNK_EXTENSION"],
    ["data longer than its size", "1\r\nxy\r\n", "BODY_CHUNK_END"],
    ["data without its CRLF", "1\r\nx0\r\n\r\n", "BODY_CHUNK_END"],
    ["a bare LF after data", "1\r\nx\n0\r\n\r\n", "BODY_CHUNK_END"],
    ["a bare LF at the end", "0\r\n\n", "BODY_TRAILER"],
    ["a folded trailer", "0\r\nA: b\r\n c\r\n\r\n", "BODY_TRAILER"],
    ["a space before a trailer's colon", "0\r\nA : b\r\n\r\n", "BODY_TRAILER"],
    ["a framing name in a trailer", "0\r\nContent-Length: 1\r\n\r\n", "BODY_TRAILER"],
    ["a Host in a trailer", "0\r\nhOST: a\r\n\r\n", "BODY_TRAILER"],
    ["long extensions", `1;${"a".repeat(200)}\r\n`, "BODY_OVERHEAD"],
    ["many short extensions", "1;aaaaaaaaaaaaaaa\r\nx\r\n".repeat(10), "BODY_OVERHEAD"],
    ["long trailers", `0\r\n${"A: aaaaaaaa\r\n".repeat(30)}`, "BODY_OVERHEAD"],
  ])("%s: refused", (_name, text, code) => {
    const scanner = new ChunkScanner(100);
    expect(scanner.scan(bytesOf(text), 0, text.length)).toBe(-1);
    expect(scanner.refusal).toBe(code);
  });
});

test("the scanner stops where the body ends and finds its data", () => {
  const text = "4;a=b\r\nWiki\r\n005\r\npedia\r\n0\r\nX-A: 1\r\n\r\nGET /";
  const scanner = new ChunkScanner(100);
  let data = "";
  scanner.onData = (start, end) => (data += text.slice(start, end));
  expect(scanner.scan(bytesOf(text), 0, text.length)).toBe(text.length - 5);
  expect(scanner.isComplete).toBe(true);
  expect(data).toBe("Wikipedia");
});

test("any bytes in any pieces: never a throw, and the same verdict", () => {
  const pieces = fc.array(
    fc.constantFrom(
      "0\r\n",
      "3\r\nabc\r\n",
      "\r\n",
      "A: b\r\n",
      "a",
      ";x=y",
      "1",
      "\r",
      "\n",
      "\0",
    ),
    { maxLength: 20 },
  );
  fc.assert(
    fc.property(pieces, fc.array(fc.nat(9)), (parts, cuts) => {
      const text = parts.join("");
      const bytes = bytesOf(text);
      const whole = new ChunkScanner(50);
      const stop = whole.scan(bytes, 0, bytes.length);
      const cut = new ChunkScanner(50);
      let at = 0;
      for (const length of [...cuts, bytes.length]) {
        const end = Math.min(bytes.length, at + length);
        const next = cut.scan(bytes, at, end);
        at = next;
        if (next < end) break;
      }
      expect(at).toBe(stop);
      expect(cut.isComplete).toBe(whole.isComplete);
      if (stop < 0) expect(cut.refusal).toBe(whole.refusal);
    }),
    { numRuns: 3000 },
  );
});
