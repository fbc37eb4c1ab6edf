/**
 * Clients that close their sending side behind their last request, as `nc` and many scripts do: all
 * that they have sent is served, and what they have not sent is not waited for.
 */
import { once } from "node:events";
import { afterEach, expect, test } from "vitest";

import { TestStack } from "../testing/test-stack.ts";

const stack = new TestStack();

afterEach(() => stack.close());

const CHUNKED =
  "PUT /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
const LENGTH = "PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";

test.each([
  ["chunks", CHUNKED],
  ["a length", LENGTH],
])(
  "a body with %s that waits for an upstream is whole, though the client has ended",
  async (_name, text) => {
    const proxy = await stack.proxy({ ports: [await echo()] });
    const client = await stack.client(proxy);
    client.socket.end(text);
    expect(await client.response()).toMatchObject({ status: 200, body: "abc" });
    await client.ended();
    expect(proxy.engine.pool.stats.dialled).toBe(1);
  },
);

test("a body that is not whole ends with its client, once what came of it was sent on", async () => {
  const proxy = await stack.proxy({ ports: [await echo()] });
  const client = await stack.client(proxy);
  client.socket.end(CHUNKED.slice(0, -2));
  await client.broken();
  await proxy.idle();
  expect(proxy.finished).toMatchObject([{ errorCode: "CLIENT_GONE", status: 0 }]);
});

test("the same behind an earlier request on the connection", async () => {
  const proxy = await stack.proxy({ ports: [await echo()] });
  const client = await stack.client(proxy);
  client.socket.end(LENGTH + CHUNKED.slice(0, -2));
  expect(await client.response()).toMatchObject({ status: 200, body: "abc" });
  await client.broken();
  while (proxy.finished.length < 2) await proxy.turn();
  expect(proxy.finished[1]).toMatchObject({ errorCode: "CLIENT_GONE", status: 0 });
});

test("the start of a head behind the last request is not waited for", async () => {
  const proxy = await stack.proxy({ ports: [await echo()] });
  const client = await stack.client(proxy);
  client.socket.end(`${LENGTH}GET / HTT`);
  expect(await client.response()).toMatchObject({ status: 200, body: "abc" });
  expect((await client.ended()).length).toBe(0);
  if (proxy.engine.connectionCount > 0) await once(client.socket, "close");
  expect(proxy.finished).toHaveLength(1);
});

test("pipelined requests are served although their client ended before it read", async () => {
  const port = await stack.http((request, response) => {
    request.resume().on("end", () => response.end(Buffer.alloc(1_000_000, request.url)));
  });
  const proxy = await stack.proxy({ ports: [port] });
  const client = await stack.client(proxy);
  client.socket.pause();
  client.socket.end("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n".repeat(12));
  // Until nothing moves for the one that does not read.
  for (let before = -1; before !== proxy.finished.length || before === 0; await proxy.turn()) {
    before = proxy.finished.length;
    for (let round = 0; round < 50; round += 1) await proxy.turn();
  }
  expect(proxy.finished.length).toBeLessThan(12);
  client.socket.resume();
  for (let index = 0; index < 12; index += 1) {
    expect((await client.response()).bytes).toHaveLength(1_000_000);
  }
  await client.ended();
});

test.each(["HTTP/1.1\r\nHost: a\r\nConnection: close", "HTTP/1.0\r\nHost: a"])(
  "a client that said it will not ask again (%j) is let go with the last byte of its response",
  async (rest) => {
    const proxy = await stack.proxy({ ports: [await echo()], times: { lingerMs: NEVER_MS } });
    const client = await stack.client(proxy);
    client.write(`PUT /x ${rest}\r\nContent-Length: 3\r\n\r\nabc`);
    expect(await client.response()).toMatchObject({ status: 200, body: "abc" });
    await client.ended();
    // The client's own side is still open.
    while (proxy.engine.connectionCount > 0) await proxy.turn();
  },
);

test.each([
  ["that did not say so", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 200],
  [
    "that still sends a body",
    "PUT / HTTP/1.1\r\nHost: unknown\r\nConnection: close\r\nContent-Length: 9\r\n\r\nab",
    404,
  ],
])(
  "a client %s is waited for, or what it sends would cost it the response",
  async (_name, text, status) => {
    const proxy = await stack.proxy({
      ports: [await echo()],
      sizes: { requestsPerConnectionMax: 1 },
      times: { lingerMs: NEVER_MS },
    });
    const client = await stack.client(proxy);
    client.write(text);
    expect(await client.response()).toMatchObject({ status });
    await client.ended();
    for (let round = 0; round < 50; round += 1) await proxy.turn();
    expect(proxy.engine.connectionCount).toBe(1);
    client.socket.end("what nobody reads");
    while (proxy.engine.connectionCount > 0) await proxy.turn();
  },
);

async function echo(): Promise<number> {
  return stack.http((request, response) => void request.pipe(response));
}

const NEVER_MS = 1e9;
