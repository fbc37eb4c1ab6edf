import fc from "fast-check";
import { describe, expect, test } from "vitest";

import { bytesOf, textOf } from "./bytes.ts";
import { DONE, MORE, REFUSED } from "./header-lines.ts";
import { METHOD } from "./methods.ts";
import { RequestHead } from "./request-head.ts";

const LIMITS = { headBytesMax: 400, targetBytesMax: 64, headerLinesMax: 8 };
const H = "Host: a\r\n";

describe("refusals", () => {
  test.each([
    [
      "CL and TE",
      `POST / HTTP/1.1\r\n${H}Content-Length: 1\r\nTransfer-Encoding: chunked`,
      "FRAMING_BOTH",
    ],
    [
      "TE and CL",
      `POST / HTTP/1.1\r\n${H}Transfer-Encoding: chunked\r\nContent-Length: 1`,
      "FRAMING_BOTH",
    ],
    [
      "two lengths",
      `POST / HTTP/1.1\r\n${H}Content-Length: 1\r\nContent-Length: 1`,
      "FRAMING_LENGTH",
    ],
    ["a listed length", `POST / HTTP/1.1\r\n${H}Content-Length: 1, 1`, "FRAMING_LENGTH"],
    ["a signed length", `POST / HTTP/1.1\r\n${H}Content-Length: +1`, "FRAMING_LENGTH"],
    ["a negative length", `POST / HTTP/1.1\r\n${H}Content-Length: -1`, "FRAMING_LENGTH"],
    ["a hex length", `POST / HTTP/1.1\r\n${H}Content-Length: 0x1`, "FRAMING_LENGTH"],
    ["an empty length", `POST / HTTP/1.1\r\n${H}Content-Length:`, "FRAMING_LENGTH"],
    [
      "a length beyond 2^53",
      `POST / HTTP/1.1\r\n${H}Content-Length: 9007199254740993`,
      "FRAMING_LENGTH",
    ],
    [
      "chunked twice",
      `POST / HTTP/1.1\r\n${H}Transfer-Encoding: chunked, chunked`,
      "FRAMING_CODING",
    ],
    [
      "chunked in two lines",
      `POST / HTTP/1.1\r\n${H}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked`,
      "FRAMING_CODING",
    ],
    [
      "chunked not last",
      `POST / HTTP/1.1\r\n${H}Transfer-Encoding: chunked, gzip`,
      "FRAMING_CODING",
    ],
    ["identity", `POST / HTTP/1.1\r\n${H}Transfer-Encoding: identity`, "FRAMING_CODING"],
    [
      "a tab behind chunked",
      `POST / HTTP/1.1\r\n${H}Transfer-Encoding: chunked \t`,
      "FRAMING_CODING",
    ],
    ["a mangled chunked", `POST / HTTP/1.1\r\n${H}Transfer-Encoding: "chunked"`, "FRAMING_CODING"],
    [
      "another coding",
      `POST / HTTP/1.1\r\n${H}Transfer-Encoding: gzip, chunked`,
      "FRAMING_CODING_UNKNOWN",
    ],
    ["TE in HTTP/1.0", `POST / HTTP/1.0\r\n${H}Transfer-Encoding: chunked`, "FRAMING_CODING"],
    ["obs-fold", `GET / HTTP/1.1\r\n${H}A: b\r\n c`, "HEAD_FOLDED"],
    ["a blank before the first header", `GET / HTTP/1.1\r\n ${H}`, "HEAD_FOLDED"],
    ["a bare LF in a value", `GET / HTTP/1.1\r\n${H}A: b\nC: d`, "HEAD_BARE_LF"],
    ["a bare LF after the request line", `GET / HTTP/1.1\n${H}`, "HEAD_BARE_LF"],
    ["a bare LF as a line", `GET / HTTP/1.1\r\n${H}\nA: b`, "HEAD_BARE_LF"],
    ["a bare CR in a value", `GET / HTTP/1.1\r\n${H}A: b\rC: d`, "HEAD_BARE_CR"],
    ["a bare CR after the request line", `GET / HTTP/1.1\r${H}`, "HEAD_BARE_CR"],
    ["a bare CR before the request", `\rGET / HTTP/1.1\r\n${H}`, "HEAD_BARE_CR"],
    ["NUL in a value", `GET / HTTP/1.1\r\n${H}A: b\0c`, "HEAD_VALUE"],
    ["DEL in a value", `GET / HTTP/1.1\r\n${H}A: b\x7fc`, "HEAD_VALUE"],
    ["a space before the colon", `GET / HTTP/1.1\r\n${H}A : b`, "HEAD_SPACE_BEFORE_COLON"],
    ["a tab before the colon", `GET / HTTP/1.1\r\n${H}A\t: b`, "HEAD_SPACE_BEFORE_COLON"],
    ["no name", `GET / HTTP/1.1\r\n${H}: b`, "HEAD_NAME"],
    ["a name outside tchar", `GET / HTTP/1.1\r\n${H}A(: b`, "HEAD_NAME"],
    ["an 8-bit name", `GET / HTTP/1.1\r\n${H}\xe9: b`, "HEAD_NAME"],
    ["a line without a colon", `GET / HTTP/1.1\r\n${H}abc`, "HEAD_NAME"],
    ["two Hosts", `GET / HTTP/1.1\r\n${H}${H}`, "REQUEST_HOST_DUPLICATE"],
    ["no Host", "GET / HTTP/1.1\r\nA: b", "REQUEST_HOST_MISSING"],
    ["an empty Host", "GET / HTTP/1.1\r\nHost:", "REQUEST_HOST_MISSING"],
    ["a Host with a path", "GET / HTTP/1.1\r\nHost: a/b", "REQUEST_HOST"],
    ["a Host with user information", "GET / HTTP/1.1\r\nHost: u@a", "REQUEST_HOST"],
    ["a Host with a list", "GET / HTTP/1.1\r\nHost: a b", "REQUEST_HOST"],
    ["a Host with a bad port", "GET / HTTP/1.1\r\nHost: a:8x", "REQUEST_HOST"],
    ["a Host with an open bracket", "GET / HTTP/1.1\r\nHost: [::1", "REQUEST_HOST"],
    ["a relative target", `GET a HTTP/1.1\r\n${H}`, "REQUEST_TARGET"],
    ["an authority as target", `GET a:80 HTTP/1.1\r\n${H}`, "REQUEST_TARGET"],
    ["an asterisk for GET", `GET * HTTP/1.1\r\n${H}`, "REQUEST_TARGET"],
    ["another scheme", `GET ftp://a/ HTTP/1.1\r\n${H}`, "REQUEST_TARGET"],
    [
      "an absolute target with user information",
      `GET http://u@a/ HTTP/1.1\r\n${H}`,
      "REQUEST_TARGET",
    ],
    ["an absolute target without a host", `GET http:///x HTTP/1.1\r\n${H}`, "REQUEST_TARGET"],
    ["a fragment", `GET /#x HTTP/1.1\r\n${H}`, "REQUEST_LINE"],
    ["an 8-bit target", `GET /\xe9 HTTP/1.1\r\n${H}`, "REQUEST_LINE"],
    ["a long target", `GET /${"a".repeat(64)} HTTP/1.1\r\n${H}`, "REQUEST_TARGET_TOO_LONG"],
    ["CONNECT", `CONNECT /x HTTP/1.1\r\n${H}`, "REQUEST_METHOD_REFUSED"],
    ["TRACE", `TRACE / HTTP/1.1\r\n${H}`, "REQUEST_METHOD_REFUSED"],
    ["no method", ` / HTTP/1.1\r\n${H}`, "REQUEST_LINE"],
    ["a long method", `${"A".repeat(33)} / HTTP/1.1\r\n${H}`, "REQUEST_LINE"],
    ["two spaces", `GET  / HTTP/1.1\r\n${H}`, "REQUEST_LINE"],
    ["a tab in the request line", `GET\t/ HTTP/1.1\r\n${H}`, "REQUEST_LINE"],
    ["a blank after the version", `GET / HTTP/1.1 \r\n${H}`, "REQUEST_LINE"],
    ["HTTP/0.9", "GET /\r\n\r\n\r\n\r\n\r\n", "REQUEST_LINE"],
    ["HTTP/2.0", `GET / HTTP/2.0\r\n${H}`, "REQUEST_VERSION"],
    ["HTTP/1.2", `GET / HTTP/1.2\r\n${H}`, "REQUEST_VERSION"],
    ["a lower-case version", `GET / http/1.1\r\n${H}`, "REQUEST_LINE"],
    ["another expectation", `PUT / HTTP/1.1\r\n${H}Expect: magic`, "REQUEST_EXPECT"],
    ["an empty expectation", `PUT / HTTP/1.1\r\n${H}Expect:`, "REQUEST_EXPECT"],
    [
      "two expectations",
      `PUT / HTTP/1.1\r\n${H}Expect: 100-continue\r\nExpect: 100-continue`,
      "REQUEST_EXPECT",
    ],
    ["too many lines", `GET / HTTP/1.1\r\n${H}${"A: b\r\n".repeat(8)}`, "HEAD_TOO_MANY_LINES"],
    ["a large head", `GET / HTTP/1.1\r\n${H}A: ${"b".repeat(400)}`, "HEAD_TOO_LARGE"],
    ["two empty lines first", `\r\n\r\nGET / HTTP/1.1\r\n${H}`, "REQUEST_LINE"],
  ])("%s: refused", (_name, text, code) => {
    const head = new RequestHead(LIMITS);
    const bytes = bytesOf(`${text}\r\n\r\n`);
    expect(head.parse(bytes, 0, bytes.length)).toBe(REFUSED);
    expect(head.refusal).toBe(code);
  });
});

describe("accepted heads", () => {
  test("the parts are found, wherever the head starts", () => {
    const text = "POST /a?b HTTP/1.1\r\nHost:  Example.com:80 \r\nContent-Length: 12\r\n\r\nrest";
    const head = new RequestHead(LIMITS);
    const bytes = bytesOf(`xyz${text}`);
    expect(head.parse(bytes, 3, bytes.length)).toBe(DONE);
    const { target } = head;
    expect(head.method).toBe(METHOD.post);
    expect(textOf(bytes, 3 + target.pathStart, 3 + target.pathEnd)).toBe("/a?b");
    expect(textOf(bytes, 3 + target.hostStart, 3 + target.hostEnd)).toBe("Example.com:80");
    expect(textOf(bytes, 3 + target.hostStart, 3 + target.nameEnd)).toBe("Example.com");
    expect(head.framing.contentLength).toBe(12);
    expect(head.length).toBe(text.length - 4);
  });

  test.each([
    ["one empty line first", `\r\nGET / HTTP/1.1\r\n${H}`],
    ["an asterisk for OPTIONS", `OPTIONS * HTTP/1.1\r\n${H}`],
    ["an absolute target without a path", `GET http://b HTTP/1.1\r\n${H}`],
    ["an IPv6 host", "GET / HTTP/1.1\r\nHost: [::1]:80"],
    ["an unknown method", `PURGE / HTTP/1.1\r\n${H}`],
    ["an empty value", `GET / HTTP/1.1\r\n${H}A:`],
    ["an 8-bit value", `GET / HTTP/1.1\r\n${H}A: \xe9`],
    ["HTTP/1.0 without a Host", "GET / HTTP/1.0\r\nA: b"],
    ["chunked in capitals", `PUT / HTTP/1.1\r\n${H}Transfer-Encoding: Chunked`],
  ])("%s: accepted", (_name, text) => {
    const head = new RequestHead(LIMITS);
    const bytes = bytesOf(`${text}\r\n\r\n`.replace("\r\n\r\n\r\n", "\r\n\r\n"));
    expect(head.parse(bytes, 0, bytes.length)).toBe(DONE);
  });
});

describe("any bytes", () => {
  test("never throw, and the verdict does not depend on how they are cut", () => {
    fc.assert(
      fc.property(headLike(), fc.array(fc.nat(80), { maxLength: 12 }), (text, cuts) => {
        const bytes = bytesOf(text);
        const whole = new RequestHead(LIMITS);
        const verdict = whole.parse(bytes, 0, bytes.length);
        const pieces = new RequestHead(LIMITS);
        let at = 0;
        let last: number = MORE;
        for (const cut of [...cuts, bytes.length]) {
          at = Math.min(bytes.length, at + cut);
          last = pieces.parse(bytes, 0, at);
          if (last !== MORE) break;
        }
        expect(last).toBe(verdict);
        if (verdict === REFUSED) expect(pieces.refusal).toBe(whole.refusal);
        if (verdict === DONE) {
          expect(pieces.length).toBe(whole.length);
          expect(pieces.lines.entries).toEqual(whole.lines.entries);
        }
      }),
      { numRuns: 3000 },
    );
  });
});

/** Text that is often nearly a request head, else noise. */
function headLike(): fc.Arbitrary<string> {
  const piece = fc.constantFrom(
    "GET",
    " ",
    "/",
    "http://a",
    " HTTP/1.1",
    "\r\n",
    "\r\n\r\n",
    "\r",
    "\n",
    "Host: a",
    ":",
    "Content-Length: 5",
    "Transfer-Encoding: chunked",
    "\0",
    "\t",
    "A: b",
    "Connection: x",
    "Expect: 100-continue",
    "Via: 1.1 x",
    " HTTP/1.0",
    "OPTIONS",
    "*",
    "\x80",
    "Host: [::1]:8",
  );
  const noise = fc.string({ unit: "binary-ascii", maxLength: 12 });
  const body = fc.array(fc.oneof({ weight: 9, arbitrary: piece }, noise), { maxLength: 30 });
  return fc.oneof(
    body.map((pieces) => pieces.join("")),
    body.map((pieces) => `GET / HTTP/1.1\r\nHost: a\r\n${pieces.join("")}`),
    body.map((pieces) => `GET / HTTP/1.1\r\nHost: a\r\n${pieces.join("\r\n")}\r\n\r\n`),
  );
}
