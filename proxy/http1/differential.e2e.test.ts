/**
 * What the engine forwards means the same to Node's parser.
 *
 * Goal: no bytes that we pass on as one request may be two, or another, to the server behind us.
 * Method: generate requests that are good, odd and hostile; take those that our parser accepts,
 * compose them as for an upstream, put a body of the length we found and a sentinel request behind
 * it, and let Node's HTTP server read the whole. It has to see our request and the sentinel, or to
 * refuse; never anything else.
 */
import { createServer, type Server } from "node:http";
import { Duplex } from "node:stream";

import fc from "fast-check";
import { expect, test } from "vitest";

import { bytesOf } from "./core/bytes.ts";
import { createPeerBlock, HeadWriter, writeRequestHead } from "./core/head-writer.ts";
import { DONE } from "./core/header-lines.ts";
import { RequestHead } from "./core/request-head.ts";

const LIMITS = { headBytesMax: 8000, targetBytesMax: 2000, headerLinesMax: 50 };
const SENTINEL = "GET /sentinel HTTP/1.1\r\nHost: sentinel\r\n\r\n";

test("Node reads each accepted request as the same single message", async () => {
  let accepted = 0;
  let agreed = 0;
  await fc.assert(
    fc.asyncProperty(requestText(), async (text) => {
      const composed = compose(text);
      if (composed === null) return;
      accepted += 1;
      const seen = await readByNode(composed.bytes + SENTINEL);
      // Node may be stricter than we are; then it sees nothing at all.
      if (seen.length === 0) return;
      agreed += 1;
      expect(seen).toEqual([composed.summary, "GET /sentinel 0"]);
    }),
    { numRuns: 4000 },
  );
  // The comparison must have happened, and mostly in agreement.
  expect(accepted).toBeGreaterThan(300);
  expect(agreed / accepted).toBeGreaterThan(0.8);
});

interface Composed {
  readonly bytes: string;
  readonly summary: string;
}

/** The request as it would go upstream, or null when it is refused. */
function compose(text: string): Composed | null {
  const head = new RequestHead(LIMITS);
  const out = new HeadWriter("patina-test");
  out.source = bytesOf(text);
  out.target = new Uint8Array(20_000);
  if (head.parse(out.source, 0, out.source.length) !== DONE) return null;
  const peer = createPeerBlock({
    isTrusted: false,
    keepsRequestId: true,
    address: "192.0.2.1",
    proto: "http",
    port: 80,
  });
  writeRequestHead(out, head, { peer, freshId: bytesOf("id"), defaultHost: bytesOf("x") });
  const { isChunked, contentLength } = head.framing;
  if (contentLength > 100) return null;
  const bodyLength = isChunked ? 3 : Math.max(0, contentLength);
  const body = isChunked ? "3\r\nabc\r\n0\r\n\r\n" : "b".repeat(bodyLength);
  const bytes = String.fromCharCode(...out.target.subarray(0, out.at));
  const method = text.slice(head.lineStart, head.methodEnd);
  const target = text.slice(head.target.pathStart, head.target.pathEnd) || "/";
  return { bytes: bytes + body, summary: `${method} ${target} ${bodyLength}` };
}

/** What Node's server makes of the bytes: one line per request; stops where it refuses. */
async function readByNode(text: string): Promise<string[]> {
  const seen: string[] = [];
  const { promise, resolve } = Promise.withResolvers<void>();
  const server: Server = createServer((request, response) => {
    let length = 0;
    request.on("data", (bytes: Buffer) => (length += bytes.length));
    request.on("end", () => {
      seen.push(`${request.method} ${request.url} ${length}`);
      response.end();
      if (request.url === "/sentinel") resolve();
    });
  });
  server.on("clientError", () => resolve());
  server.on("upgrade", (request) => {
    seen.push(`${request.method} ${request.url} 0`, "GET /sentinel 0");
    resolve();
  });
  server.on("checkContinue", (request, response) => server.emit("request", request, response));
  const stream = new Duplex({
    read: () => undefined,
    write: (_bytes, _encoding, done) => done(),
  });
  stream.on("error", () => resolve());
  stream.on("close", () => resolve());
  server.emit("connection", stream);
  stream.push(Buffer.from(text, "latin1"));
  await promise;
  stream.destroy();
  server.close();
  return seen;
}

/** A request line and header lines, often right, often a little wrong. */
function requestText(): fc.Arbitrary<string> {
  const line = fc.tuple(
    fc.constantFrom("GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH"),
    fc.constantFrom(
      "/",
      "/a?b=c",
      "/%00",
      "/a|b",
      "http://h/x",
      "http://h",
      "*",
      "//x",
      '/a{b}"<>',
    ),
    fc.constantFrom("HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/1.2"),
  );
  const name = fc.constantFrom(
    "Content-Length",
    "Transfer-Encoding",
    "Connection",
    "Upgrade",
    "Expect",
    "TE",
    "Via",
    "X-Forwarded-For",
    "X-Request-Id",
    "A",
    "Trailer",
    "Keep-Alive",
    "content-length ",
    "H ost",
    "Content_Length",
    "Proxy-Connection",
    "HTTP2-Settings",
    "Host",
    "Cookie",
    "a!#$%&'*+-.^_`|~",
  );
  const value = fc.constantFrom(
    "5",
    "0",
    "05",
    "5 ",
    "\t5",
    "+5",
    "5,5",
    "chunked",
    "Chunked",
    "chunked ",
    "x, chunked",
    "close",
    "keep-alive",
    "upgrade",
    "content-length",
    "host",
    "transfer-encoding",
    "a",
    "h2c",
    "websocket",
    "100-continue",
    "trailers",
    "\xe9",
    "",
    "a\rb",
    "a\nb",
    "\0",
    "1.1 x",
  );
  const end = fc.constantFrom(
    "\r\n",
    "\r\n",
    "\r\n",
    "\r\n",
    "\r\n",
    "\r\n",
    "\r\n",
    "\r\n",
    "\r\n",
    "\r\n",
    "\r\n",
    "\n",
    "\r\n ",
    "\r",
  );
  const field = fc.tuple(name, value, end).map(([left, right, eol]) => `${left}: ${right}${eol}`);
  const head = fc.tuple(
    line,
    fc.constantFrom(true, true, true, false),
    fc.array(field, { maxLength: 4 }),
  );
  return head.map(([[method, target, version], hasHost, fields]) => {
    const host = hasHost ? "Host: example.com\r\n" : "";
    return `${method} ${target} ${version}\r\n${host}${fields.join("")}\r\n`;
  });
}
