import { describe, expect, test } from "vitest";

import { bytesOf, textOf } from "./bytes.ts";
import { DONE } from "./header-lines.ts";
import {
  createListenerBlock,
  hasVia,
  HeadWriter,
  writeRequestHead,
  type PeerBlock,
  type TraceSource,
} from "./head-writer.ts";
import { RequestHead } from "./request-head.ts";
import { CONNECTION_CLOSE, CONNECTION_NONE, writeResponseHead } from "./response-head-writer.ts";
import { ResponseHead } from "./response-head.ts";

const LIMITS = { headBytesMax: 2000, targetBytesMax: 64, headerLinesMax: 20 };
const OURS =
  "x-forwarded-for: 1.2.3.4\r\nx-forwarded-proto: http\r\nx-forwarded-port: 8080\r\n" +
  "x-forwarded-host: a\r\n";
const TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const END = "via: 1.1 me\r\nx-request-id: ID\r\n\r\n";

describe("requests", () => {
  test.each([
    [
      "a plain head keeps its bytes",
      "GET / HTTP/1.1\r\nhoST:  a\r\nX: \r\n\r\n",
      "GET / HTTP/1.1\r\nhoST:  a\r\nX: \r\n",
    ],
    [
      "an empty first line goes",
      "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
      "GET / HTTP/1.1\r\nHost: a\r\n",
    ],
    [
      "hop-by-hop lines go wherever they are",
      "GET / HTTP/1.1\r\nConnection: B, close\r\nA: 1\r\nB: 2\r\nHost: a\r\nKeep-Alive: 1\r\nC: 3\r\nTE: x\r\n\r\n",
      "GET / HTTP/1.1\r\nA: 1\r\nHost: a\r\nC: 3\r\n",
    ],
    [
      "framing cannot be named away",
      "PUT / HTTP/1.1\r\nHost: a\r\nConnection: Content-Length, Host\r\nContent-Length: 3\r\n\r\n",
      "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n",
    ],
    [
      "an untrusted peer's forwarding headers are replaced",
      "GET / HTTP/1.1\r\nX-Forwarded-For: 9\r\nHost: a\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: b\r\n\r\n",
      "GET / HTTP/1.1\r\nHost: a\r\n",
    ],
  ])("%s", (_name, text, expected) => {
    expect(request(text)).toBe(`${expected}${OURS}${END}`);
  });

  test("a trusted peer's values are kept and appended to", () => {
    const text =
      "GET / HTTP/1.1\r\nX-Forwarded-For: 9.9.9.9\r\nHost: a\r\nX-Forwarded-For: 8.8.8.8\r\n" +
      "X-Forwarded-Proto: https\r\nX-Request-Id: theirs\r\n\r\n";
    expect(request(text, { isTrusted: true })).toBe(
      "GET / HTTP/1.1\r\nHost: a\r\nx-forwarded-for: 9.9.9.9, 8.8.8.8, 1.2.3.4\r\n" +
        "x-forwarded-proto: https\r\nx-forwarded-port: 8080\r\nx-forwarded-host: a\r\n" +
        "via: 1.1 me\r\nx-request-id: theirs\r\n\r\n",
    );
  });

  test.each([
    ["an untrusted peer's Forwarded goes", {}, "for=9", ""],
    ["a trusted peer's Forwarded stays", { isTrusted: true }, "for=9", "Forwarded: for=9\r\n"],
    [
      "an untrusted peer's Forwarded is replaced by ours",
      { writesForwarded: true },
      "for=9",
      'forwarded: for=1.2.3.4;proto=http;host="a"\r\n',
    ],
    [
      "a trusted peer's Forwarded is appended to",
      { isTrusted: true, writesForwarded: true },
      "for=9, for=8",
      'forwarded: for=9, for=8, for=1.2.3.4;proto=http;host="a"\r\n',
    ],
    [
      "an IPv6 address is quoted and bracketed",
      { writesForwarded: true, address: "2001:db8::1" },
      "for=9",
      'forwarded: for="[2001:db8::1]";proto=http;host="a"\r\n',
    ],
  ])("%s", (_name, peer, value, expected) => {
    const text = `GET / HTTP/1.1\r\nHost: a\r\nForwarded: ${value}\r\n\r\n`;
    const lines = request(text, peer).match(/^forwarded: .*\r\n/gim) ?? [];
    expect(lines.join("")).toBe(expected);
  });

  test.each([
    ["a valid trace goes on", [`traceparent: ${TRACE}`, "tracestate: a=1"], 0],
    ["without a trace one starts", [], 1],
    ["an invalid trace is replaced, its state goes", ["traceparent: 00-x", "tracestate: a=1"], 2],
    ["two traces are none", [`traceparent: ${TRACE}`, `traceparent: ${TRACE}`], 2],
  ])("%s", (_name, lines, dropped) => {
    const text = ["GET / HTTP/1.1", "Host: a", ...lines, "", ""].join("\r\n");
    const kept = lines.slice(dropped);
    const expected = dropped === 0 ? kept : ["traceparent: FRESH"];
    const written = request(text, {}, { next: () => bytesOf("FRESH") });
    expect(written.match(/^trace.*$/gm)?.map((line) => line.trim())).toEqual(expected);
    expect(request(text).match(/^trace.*$/gm) ?? []).toHaveLength(lines.length);
  });

  test("HTTP/1.0 becomes 1.1 and gets a Host", () => {
    expect(request("GET /x HTTP/1.0\r\n\r\n")).toBe(
      "GET /x HTTP/1.1\r\nx-forwarded-for: 1.2.3.4\r\nx-forwarded-proto: http\r\n" +
        "x-forwarded-port: 8080\r\nhost: DEFAULT\r\nvia: 1.0 me\r\nx-request-id: ID\r\n\r\n",
    );
  });

  test("TE: trailers is renewed for the next hop", () => {
    const text = "GET / HTTP/1.1\r\nHost: a\r\nConnection: TE\r\nTE: gzip;q=0.5, trailers\r\n\r\n";
    expect(request(text)).toBe(
      `GET / HTTP/1.1\r\nHost: a\r\n${OURS}te: trailers\r\nconnection: te\r\n${END}`,
    );
  });

  test.each([
    ["1.1 me", true],
    ["HTTP/1.1 ME (comment)", true],
    ["1.0 a, 1.1 me", true],
    ["1.1 me2", false],
    ["1.1 other (me)", false],
    ["me", false],
  ])("Via %s names us: %s", (value, expected) => {
    const { out, head } = parsed(`GET / HTTP/1.1\r\nHost: a\r\nVia: ${value}\r\n\r\n`);
    expect(hasVia(out, head.lines, "me")).toBe(expected);
  });
});

describe("responses", () => {
  test.each([
    [
      "hop-by-hop lines and the upstream's request id go",
      "HTTP/1.1 200 OK\r\nConnection: keep-alive, x-a\r\nX-A: 1\r\nX-Request-Id: z\r\nB: 2\r\n\r\n",
      "HTTP/1.1 200 OK\r\nB: 2\r\nvia: 1.1 me\r\nx-request-id: ID\r\n\r\n",
    ],
    [
      "HTTP/1.0 becomes 1.1",
      "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
      "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nvia: 1.0 me\r\nx-request-id: ID\r\n\r\n",
    ],
    [
      "204 carries no framing",
      "HTTP/1.1 204 No\r\nContent-Length: 0\r\n\r\n",
      "HTTP/1.1 204 No\r\nvia: 1.1 me\r\nx-request-id: ID\r\n\r\n",
    ],
  ])("%s", (_name, text, expected) => {
    expect(response(text, CONNECTION_NONE)).toBe(expected);
  });

  test("what we say of the connection comes last", () => {
    expect(response("HTTP/1.1 200 OK\r\n\r\n", CONNECTION_CLOSE, "a: 1\r\n")).toBe(
      "HTTP/1.1 200 OK\r\nvia: 1.1 me\r\nx-request-id: ID\r\na: 1\r\nconnection: close\r\n\r\n",
    );
  });
});

function parsed(text: string): { out: HeadWriter; head: RequestHead } {
  const head = new RequestHead(LIMITS);
  const out = new HeadWriter("me");
  out.source = bytesOf(`__${text}`);
  out.base = 2;
  out.target = new Uint8Array(4000);
  expect(head.parse(out.source, 2, out.source.length)).toBe(DONE);
  return { out, head };
}

function request(
  text: string,
  options: Partial<PeerBlock> = {},
  traces: TraceSource | null = null,
): string {
  const { out, head } = parsed(text);
  const peer: PeerBlock = {
    isTrusted: false,
    keepsRequestId: options.isTrusted ?? false,
    address: "1.2.3.4",
    listener: createListenerBlock("http", 8080),
    writesForwarded: false,
    ...options,
  };
  const freshId = bytesOf("ID");
  writeRequestHead(out, head, { peer, freshId, defaultHost: bytesOf("DEFAULT"), traces });
  return textOf(out.target, 0, out.at);
}

function response(text: string, connection: Uint8Array, addedLines = ""): string {
  const head = new ResponseHead(LIMITS);
  const out = new HeadWriter("me");
  out.source = bytesOf(text);
  out.target = new Uint8Array(4000);
  expect(head.parse(out.source, 0, out.source.length)).toBe(DONE);
  const id = { bytes: bytesOf("ID"), start: 0, end: 2 };
  writeResponseHead(out, head, {
    id,
    connection,
    addedLines: bytesOf(addedLines),
    dropsChunked: false,
  });
  return textOf(out.target, 0, out.at);
}
