import fc from "fast-check";
import { expect, test } from "vitest";

import { bytesOf } from "./bytes.ts";
import { DONE, MORE, REFUSED } from "./header-lines.ts";
import { ResponseHead } from "./response-head.ts";

const LIMITS = { headBytesMax: 300, targetBytesMax: 64, headerLinesMax: 8 };

test.each([
  ["another protocol", "ICY 200 OK\r\n\r\n", "STATUS_LINE"],
  ["HTTP/2", "HTTP/2.0 200 OK\r\n\r\n", "STATUS_LINE"],
  ["a short status", "HTTP/1.1 20 OK\r\n\r\n", "STATUS_LINE"],
  ["a long status", "HTTP/1.1 2000 OK\r\n\r\n", "STATUS_LINE"],
  ["status 099", "HTTP/1.1 099 OK\r\n\r\n", "STATUS_LINE"],
  ["status 600", "HTTP/1.1 600 OK\r\n\r\n", "STATUS_LINE"],
  ["NUL in the reason", "HTTP/1.1 200 O\0K\r\n\r\n", "STATUS_LINE"],
  ["a bare LF after the reason", "HTTP/1.1 200 OK\n\r\n", "HEAD_BARE_LF"],
  ["a bare CR after the reason", "HTTP/1.1 200 OK\rA: b\r\n\r\n", "HEAD_BARE_CR"],
  [
    "both framing headers",
    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    "FRAMING_BOTH",
  ],
  [
    "two lengths",
    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "FRAMING_LENGTH",
  ],
  [
    "another coding",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    "FRAMING_CODING_UNKNOWN",
  ],
  ["TE in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "FRAMING_CODING"],
  ["a large head", `HTTP/1.1 200 OK\r\nA: ${"b".repeat(300)}\r\n\r\n`, "HEAD_TOO_LARGE"],
])("%s: refused", (_name, text, code) => {
  const head = new ResponseHead(LIMITS);
  expect(head.parse(bytesOf(text), 0, text.length)).toBe(REFUSED);
  expect(head.refusal).toBe(code);
});

test.each([
  ["an empty reason", "HTTP/1.1 200 \r\n\r\n"],
  ["no reason and no space", "HTTP/1.1 200\r\n\r\n"],
  ["HTTP/1.0", "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n"],
])("%s: accepted", (_name, text) => {
  const head = new ResponseHead(LIMITS);
  expect(head.parse(bytesOf(text), 0, text.length)).toBe(DONE);
  expect(head.status).toBe(200);
});

test("any bytes in any pieces: never a throw, and the same verdict", () => {
  const piece = fc.constantFrom(
    "HTTP/1.1 200 OK",
    "HTTP/1.0 404",
    "\r\n",
    "\r",
    "\n",
    "A: b",
    "Content-Length: 1",
    ":",
    "Transfer-Encoding: chunked",
    "\0",
    " ",
    "Connection: close",
    "x",
    "\r\n\r\n",
  );
  const texts = fc.oneof(
    fc.array(piece, { maxLength: 14 }).map((pieces) => pieces.join("")),
    fc.array(piece, { maxLength: 14 }).map((pieces) => `HTTP/1.1 200 OK\r\n${pieces.join("\r\n")}`),
  );
  fc.assert(
    fc.property(texts, fc.array(fc.nat(40)), (text, cuts) => {
      const bytes = bytesOf(text);
      const whole = new ResponseHead(LIMITS);
      const verdict = whole.parse(bytes, 0, bytes.length);
      const pieces = new ResponseHead(LIMITS);
      let at = 0;
      let last: number = MORE;
      for (const cut of [...cuts, bytes.length]) {
        at = Math.min(bytes.length, at + cut);
        last = pieces.parse(bytes, 0, at);
        if (last !== MORE) break;
      }
      expect(last).toBe(verdict);
      if (verdict === REFUSED) expect(pieces.refusal).toBe(whole.refusal);
    }),
    { numRuns: 2000 },
  );
});
