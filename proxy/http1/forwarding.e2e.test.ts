/**
 * What upstreams are told of a request's way, and what the log is told of a failure, on real
 * sockets.
 */
import { afterEach, expect, test } from "vitest";

import { addressTest } from "../listeners/address-list.ts";
import { TestStack } from "../testing/test-stack.ts";

const stack = new TestStack();

afterEach(() => stack.close());

test.each([
  ["127.0.0.0/8", "9.9.9.9, 127.0.0.1", "https", "abc"],
  ["192.0.2.0/24", "127.0.0.1", "http", undefined],
])("forwarding headers of a peer are judged by the list %s", async (network, chain, proto, id) => {
  const port = await stack.http((request, response) => {
    response.end(JSON.stringify(request.headers));
  });
  const proxy = await stack.proxy({
    ports: [port],
    forwarding: {
      viaName: "me",
      isTrusted: addressTest([network]) ?? (() => false),
      keepRequestId: false,
    },
  });
  const client = await stack.client(proxy);
  client.write(
    "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 9.9.9.9\r\nX-Forwarded-Proto: https\r\n" +
      "X-Request-Id: abc\r\n\r\n",
  );
  const seen = JSON.parse((await client.response()).body);
  expect(seen["x-forwarded-for"]).toBe(chain);
  expect(seen["x-forwarded-proto"]).toBe(proto);
  if (id === undefined) expect(seen["x-request-id"]).toMatch(/^[0-9a-f]{24}$/);
  else expect(seen["x-request-id"]).toBe(id);
});

test("a trace starts with ids of its own for each request, and one that is there goes on", async () => {
  const port = await stack.http((request, response) => {
    response.end(String(request.headers["traceparent"]));
  });
  const proxy = await stack.proxy({
    ports: [port],
    forwarding: { viaName: "me", startsTraces: true },
  });
  const client = await stack.client(proxy);
  const seen = new Set<string>();
  for (let index = 0; index < 300; index += 1) {
    client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    const { body } = await client.response();
    expect(body).toMatch(/^00-[0-9a-f]{32}-[0-9a-f]{16}-01$/);
    seen.add(body);
  }
  expect(seen.size).toBe(300);
  const theirs = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
  client.write(`GET / HTTP/1.1\r\nHost: a\r\ntraceparent: ${theirs}\r\n\r\n`);
  expect((await client.response()).body).toBe(theirs);
});

test.each([
  ["HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx", "FRAMING_LENGTH"],
  ["HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nx", "FRAMING_BOTH"],
  ["HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nx", "FRAMING_CODING"],
  ["HTTP/1.1 200 OK\r\nA : 1\r\n\r\n", "HEAD_SPACE_BEFORE_COLON"],
  ["HTTP/1.1 200 OK\r\nA: 1\r\n b\r\n\r\n", "HEAD_FOLDED"],
  ["HTTP/1.1 200 OK\nA: 1\n\n", "HEAD_BARE_LF"],
  ["HTTP/1.1 200 OK\r\nA: \0\r\n\r\n", "HEAD_VALUE"],
  ["HTTP/2.0 200 OK\r\n\r\n", "STATUS_LINE"],
  ["HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", "STATUS_SWITCH"],
  ["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", "BODY_CHUNK_SIZE"],
])("a client is told of a bad response, the log of its cause: %j", async (bytes, cause) => {
  const port = await stack.raw((socket) => socket.once("data", () => socket.write(bytes)));
  const proxy = await stack.proxy({ ports: [port] });
  const client = await stack.client(proxy);
  client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  const response = await client.response();
  expect(response.status).toBe(502);
  expect(response.headers.get("patina-error")).toBe("UPSTREAM_RESPONSE");
  await proxy.idle();
  expect(proxy.finished[0]).toMatchObject({ errorCode: "UPSTREAM_RESPONSE", cause });
  expect(proxy.inFlight()).toBe(0);
});

test("a refused connect is named as the cause, and forgotten when the next machine answers", async () => {
  const alive = await stack.http((_request, response) => response.end("x"));
  const dead = await stack.deadPort();
  const proxy = await stack.proxy({ ports: [dead] });
  const client = await stack.client(proxy);
  client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  expect((await client.response()).status).toBe(502);
  proxy.setPorts([dead, alive]);
  client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  expect((await client.response()).status).toBe(200);
  expect(proxy.finished.map(({ cause }) => cause)).toEqual(["ECONNREFUSED", ""]);
});
