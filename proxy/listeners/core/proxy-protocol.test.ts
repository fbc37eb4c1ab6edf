import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { readProxyHeader, type ProxyHeader } from "./proxy-protocol.ts";

const SIGNATURE = "\r\n\r\n\0\r\nQUIT\n";
const IPV4 = "\xc0\x00\x02\x07\x0a\x00\x00\x01\x30\x39\x00\x50";
const IPV6 = `\x20\x01\x0d\xb8${"\0".repeat(10)}\x00\x05${"\0".repeat(16)}\x30\x39\x00\x50`;

test.each([
  ["PROXY TCP4 192.0.2.7 10.0.0.1 12345 80\r\n", "192.0.2.7"],
  ["PROXY TCP6 2001:DB8::5 ::1 12345 80\r\n", "2001:db8::5"],
  ["PROXY UNKNOWN\r\n", null],
  ["PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", null],
  [`${SIGNATURE}\x21\x11\x00\x0c${IPV4}`, "192.0.2.7"],
  [`${SIGNATURE}\x21\x21\x00\x24${IPV6}`, "2001:db8::5"],
  [`${SIGNATURE}\x21\x11\x00\x10${IPV4}\x04\x00\x01x`, "192.0.2.7"],
  [`${SIGNATURE}\x20\x00\x00\x00`, null],
  [`${SIGNATURE}\x21\x31\x00\x02ab`, null],
])("%j names %s, however it is cut", (text, address) => {
  const whole = bytesOf(`${text}GET /`);
  expect(readProxyHeader(whole)).toEqual({ kind: "done", length: text.length, address });
  for (let end = 0; end < text.length; end += 1) {
    expect(readProxyHeader(whole.subarray(0, end))).toEqual({ kind: "more" });
  }
});

test.each([
  ["GET / HTTP/1.1\r\n"],
  ["PROXY TCP4 192.0.2.7 10.0.0.1 12345 80\n"],
  ["PROXY TCP4 192.0.2.256 10.0.0.1 12345 80\r\n"],
  ["PROXY TCP4 192.0.2.07 10.0.0.1 12345 80\r\n"],
  ["PROXY TCP4 192.0.2.7. 10.0.0.1 12345 80\r\n"],
  ["PROXY TCP4 2001:db8::5 ::1 12345 80\r\n"],
  ["PROXY TCP6 1:2:3:4:5:6:7:8:9 ::1 12345 80\r\n"],
  ["PROXY TCP6 1:2::3:4::5 ::1 12345 80\r\n"],
  ["PROXY TCP4 192.0.2.7 10.0.0.1 12345\r\n"],
  ["PROXY TCP4 192.0.2.7 10.0.0.1 65536 80\r\n"],
  ["PROXY TCP4 192.0.2.7 10.0.0.1 12345 80 9\r\n"],
  ["PROXY TCP5 192.0.2.7 10.0.0.1 12345 80\r\n"],
  [`PROXY UNKNOWN ${"x".repeat(100)}\r\n`],
  [`${SIGNATURE}\x11\x11\x00\x0c${IPV4}`],
  [`${SIGNATURE}\x22\x11\x00\x0c${IPV4}`],
  [`${SIGNATURE}\x21\x11\x00\x0b${IPV4}`],
  [`${SIGNATURE}\x21\x21\x00\x0c${IPV4}`],
  [`${SIGNATURE}\x21\x11\xff\xff`],
  ["\r\n\r\nX"],
])("%j is refused", (text) => {
  expect(readProxyHeader(bytesOf(text))).toEqual({ kind: "refused" });
});

describe("any bytes", () => {
  test("are answered, and more of them never take a verdict back", () => {
    const anything = fc.oneof(
      fc.uint8Array({ maxLength: 200 }),
      fc.uint8Array({ maxLength: 60 }).map((rest) => bytesOf(`PROXY TCP4 ${textOf(rest)}`)),
      fc.uint8Array({ maxLength: 60 }).map((rest) => bytesOf(SIGNATURE + textOf(rest))),
    );
    fc.assert(
      fc.property(anything, (bytes) => {
        let verdict: ProxyHeader = { kind: "more" };
        for (let end = 0; end <= bytes.length; end += 1) {
          const next = readProxyHeader(bytes.subarray(0, end));
          if (verdict.kind !== "more") expect(next).toEqual(verdict);
          verdict = next;
        }
      }),
    );
  });
});

function bytesOf(text: string): Uint8Array {
  return Uint8Array.from(text, (letter) => letter.charCodeAt(0));
}

function textOf(bytes: Uint8Array): string {
  return String.fromCharCode(...bytes);
}
