/**
 * What one client can hold, on real sockets: each way of being slow, endless or too large ends with
 * its own answer, and leaves nothing behind. Time is the engine's clock, moved on by the test.
 */
import { afterEach, expect, test } from "vitest";

import { createHttpListener } from "../listeners/http-listener.ts";
import { ProcessLimits } from "../listeners/core/process-limits.ts";
import type { TestClient } from "../testing/test-client.ts";
import type { TestProxy, TestProxyOptions } from "../testing/test-proxy.ts";
import { TestStack } from "../testing/test-stack.ts";

const stack = new TestStack();

afterEach(() => stack.close());

test("a head that drips byte by byte is given up when its time is over", async () => {
  const { proxy, client } = await proxyAndClient();
  const progressed = proxy.nextProgress();
  client.write("GET / HT");
  await progressed;
  const startedMs = performance.now();
  for (const [piece, atMs] of [
    ["TP/1.1\r\n", 4_000],
    ["Host: a\r\n", 9_000],
  ] as const) {
    proxy.engine.tick(startedMs + atMs);
    const more = proxy.nextProgress();
    client.write(piece);
    await more;
  }
  expect(proxy.finished).toEqual([]);
  proxy.engine.tick(startedMs + 10_500);
  await refusedWith(client, 408, "CLIENT_HEAD_TIMEOUT");
  await everythingEnded(proxy);
});

test.each([
  [
    "endless headers",
    (at: number) => `x-${at}: ${"v".repeat(50)}\r\n`,
    431,
    ["HEAD_TOO_MANY_LINES", "HEAD_TOO_LARGE"],
  ],
  ["one endless header", () => "v".repeat(500), 431, ["HEAD_TOO_LARGE"]],
])("%s are cut off at the limit", async (_name, piece, status, codes) => {
  const { proxy, client } = await proxyAndClient();
  client.write("GET / HTTP/1.1\r\nHost: a\r\nx: ");
  let at = 0;
  const flood = (): void => {
    while (client.socket.writable && client.socket.write(piece((at += 1)))) if (at > 5_000) return;
    client.socket.once("drain", flood);
  };
  flood();
  const response = await client.response();
  expect(response.status).toBe(status);
  expect(codes).toContain(response.headers.get("patina-error"));
  await everythingEnded(proxy);
});

test.each([
  [
    "a target that is too long",
    `GET /${"x".repeat(9_000)} HTTP/1.1\r\n`,
    414,
    "REQUEST_TARGET_TOO_LONG",
  ],
  [
    "a bomb of tiny header lines",
    `GET / HTTP/1.1\r\nHost: a\r\n${"a:\r\n".repeat(5_000)}\r\n`,
    431,
    "HEAD_TOO_MANY_LINES",
  ],
  [
    "a Connection header with thousands of names",
    `GET / HTTP/1.1\r\nHost: a\r\nConnection: ${"a,".repeat(2_000)}\r\n\r\n`,
    400,
    "HEAD_CONNECTION",
  ],
  [
    "a length above the limit",
    "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n",
    413,
    "REQUEST_BODY_TOO_LARGE",
  ],
  [
    "a length above the limit, before it may send",
    "PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1001\r\n\r\n",
    413,
    "REQUEST_BODY_TOO_LARGE",
  ],
])("%s is refused before a machine is asked", async (_name, bytes, status, code) => {
  const { proxy, client } = await proxyAndClient({ bodyBytesMax: 1_000 });
  client.write(bytes);
  await refusedWith(client, status, code);
  expect(proxy.picks).toEqual([]);
  await everythingEnded(proxy);
});

test("a body of exactly the limit passes", async () => {
  const { client } = await proxyAndClient({ bodyBytesMax: 1_000 });
  client.write(`PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n${"x".repeat(1_000)}`);
  expect((await client.response()).status).toBe(200);
});

test.each([
  ["chunks above the limit", "1f4\r\n" + "x".repeat(500) + "\r\n", 413, "REQUEST_BODY_TOO_LARGE"],
  ["a flood of one-byte chunks", "1\r\nx\r\n".repeat(100), 413, "REQUEST_BODY_TOO_LARGE"],
  ["many small extensions of a chunk", `1${";a=b".repeat(20)}\r\nx\r\n`, 400, "BODY_OVERHEAD"],
  ["chunk extensions without end", `1;${"e".repeat(500)}\r\nx\r\n`, 400, "BODY_OVERHEAD"],
  ["one endless chunk extension", `1;${"e".repeat(5_000)}`, 400, "BODY_OVERHEAD"],
  ["a chunk size of endless zeros", "0".repeat(20), 400, "BODY_CHUNK_SIZE"],
  ["a trailer section without end", `0\r\n${"t: v\r\n".repeat(2_000)}`, 400, "BODY_OVERHEAD"],
])("%s are cut off, pooled connection or fresh", async (_name, piece, status, code) => {
  for (const isPooled of [false, true]) {
    const { proxy, client } = await proxyAndClient({
      bodyBytesMax: 100_000,
      chunkOverheadBytesMax: 4_000,
    });
    if (isPooled) {
      client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
      expect((await client.response()).status).toBe(200);
    }
    client.write("PUT /hold HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (let index = 0; index < 300 && client.socket.writable; index += 1) client.write(piece);
    await refusedWith(client, status, code);
    await everythingEnded(proxy);
  }
});

test.each(["0\r\n\r\n", "0000000000000;x\r\n\r\n"])(
  "of many zero-length chunks (%j) the first ends the body, and the rest is no request",
  async (chunk) => {
    const { proxy, client } = await proxyAndClient();
    client.write("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
    client.write(chunk.repeat(10_000));
    expect((await client.response()).status).toBe(200);
    await refusedWith(client, 400, "REQUEST_LINE");
    expect(proxy.finished.map(({ status }) => status)).toEqual([200, 400]);
    proxy.engine.pool.close();
    await everythingEnded(proxy);
  },
);

test("a body that drips is given up, although something always comes in time", async () => {
  const { proxy, client, arrived } = await proxyAndClient();
  client.write("PUT /hold HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nx");
  await arrived;
  // Short of the 60 s in which nothing may come at all.
  proxy.engine.tick(performance.now() + 31_000);
  await refusedWith(client, 408, "CLIENT_BODY_TIMEOUT");
  await everythingEnded(proxy);
});

test("a client that does not read its response is given up", async () => {
  const { proxy, client, other, standstill, errorOfLong } = await longResponse(1e9);
  client.socket.pause();
  await standstill();
  proxy.engine.tick(performance.now() + 61_000);
  expect(await errorOfLong()).toBe("CLIENT_BODY_STALLED");
  other.socket.destroy();
  proxy.engine.pool.close();
  await everythingEnded(proxy);
});

test.each([
  ["given up where that is too slow", 100_000_000, "CLIENT_BODY_STALLED"],
  ["waited for where it is not", 240, null],
])(
  "a client that reads a piece of its response now and then is %s",
  async (_name, responseBytesPerSecondMin, expected) => {
    const sizes = { responseBytesPerSecondMin };
    const { proxy, client, standstill, errorOfLong } = await longResponse(1e9, { sizes });
    client.socket.pause();
    await standstill();
    let clockMs = performance.now();
    // Something moves every 12 s: long before the 60 s in which nothing may move at all.
    for (let round = 0; round < 4; round += 1) {
      proxy.engine.tick((clockMs += 12_000));
      if (proxy.inFlight() === 0) break;
      const moved = proxy.nextProgress();
      client.socket.resume();
      await moved;
      client.socket.pause();
      await standstill();
    }
    if (expected === null) expect(proxy.inFlight()).toBe(1);
    else expect(await errorOfLong()).toBe(expected);
  },
);

/**
 * Goal: the end of a response is in the proxy's memory when the machine is done, because the network
 * takes no more; it must not go the way of what a client leaves unread. How much the network takes
 * shows in a long response that nobody reads.
 */
test("what is left of a response when the machine is done reaches a client that reads late", async () => {
  const { proxy, client, standstill, errorOfLong } = await longResponse(1e8);
  client.socket.pause();
  await standstill();
  proxy.engine.tick(performance.now() + 61_000);
  expect(await errorOfLong()).toBe("CLIENT_BODY_STALLED");
  const passedBytes = proxy.finished.find(({ target }) => target === "/long")?.bytesOut ?? 0;
  for (const freeBytes of [10_000, 30_000, 50_000, 70_000, 90_000]) {
    const length = passedBytes - freeBytes;
    const late = await longResponse(length, { isLast: true });
    late.client.socket.pause();
    await late.standstill();
    // Longer than a client may take to close its side once it has everything.
    late.proxy.engine.tick(performance.now() + 10_000);
    await late.proxy.turn();
    late.client.socket.resume();
    expect((await late.client.response()).bytes.length).toBe(length);
  }
});

test("the last request that a connection may carry is answered with close", async () => {
  const { client } = await proxyAndClient({ requestsPerConnectionMax: 3 });
  client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(4));
  const kept: boolean[] = [];
  for (let index = 0; index < 3; index += 1) {
    kept.push((await client.response()).headers.get("connection") !== "close");
  }
  expect(kept).toEqual([true, true, false]);
  expect((await client.ended()).length).toBe(0);
});

test("a client gets its share of connections; proxies in front have no limit", async () => {
  const { proxy } = await proxyAndClient();
  const refused: string[] = [];
  let isExempt = false;
  const listener = await createHttpListener({
    engine: proxy.engine,
    source: { host: "127.0.0.1", port: 0 },
    admission: {
      limits: limitsOf(100, 2),
      isExempt: () => isExempt,
      onRefused: (limit) => refused.push(limit),
      viaName: "me",
    },
  });
  stack.defer(() => listener.close());
  const at = { port: listener.address.port };
  const ask = async (client: TestClient): Promise<number> => {
    client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    return (await client.response()).status;
  };
  const first = await stack.client(at);
  expect([await ask(first), await ask(await stack.client(at))]).toEqual([200, 200]);
  const third = await stack.client(at);
  expect((await third.response()).headers.get("patina-error")).toBe("CLIENT_CONNECTIONS");
  expect(refused).toEqual(["client"]);
  isExempt = true;
  expect(await ask(await stack.client(at))).toBe(200);
});

test("all connections count, whoever opens them on whichever listener", async () => {
  const { proxy } = await proxyAndClient();
  const plan = ProcessLimits.allocate([1, 2]);
  const refused: string[] = [];
  const ports: number[] = [];
  for (let index = 0; index < 2; index += 1) {
    const max = { connections: 3, connectionsPerClient: 0, waiting: 0, keptBodies: 0 };
    const listener = await createHttpListener({
      engine: proxy.engine,
      source: { host: "127.0.0.1", port: 0 },
      admission: {
        limits: new ProcessLimits(plan, max),
        isExempt: () => true,
        onRefused: (limit) => refused.push(limit),
        viaName: "me",
      },
    });
    stack.defer(() => listener.close());
    ports.push(listener.address.port);
  }
  const ask = async (index: number): Promise<TestClient> => {
    const client = await stack.client({ port: ports[index] as number });
    client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    return client;
  };
  const open = await Promise.all([ask(0), ask(1), ask(1)]);
  for (const client of open) expect((await client.response()).status).toBe(200);
  for (const index of [0, 1]) expect(await (await ask(index)).closed()).toBe("");
  expect(refused).toEqual(["all", "all"]);
  open[2]?.socket.destroy();
  while (proxy.engine.connectionCount > 3) await proxy.turn();
  expect((await (await ask(0)).response()).status).toBe(200);
});

/** A machine whose answer to `/long` is of this length, and a client that has asked for it. */
async function longResponse(
  length: number,
  options: { isLast?: boolean; sizes?: NonNullable<TestProxyOptions["sizes"]> } = {},
) {
  let sent = 0;
  const port = await stack.raw((socket) => {
    const send = (): void => {
      const bytes = Math.min(20_000, length - sent);
      sent += bytes;
      if (bytes === 0) return;
      if (socket.write(Buffer.alloc(bytes))) setImmediate(send);
      else socket.once("drain", send);
    };
    socket.on("data", (head) => {
      const isLong = head.toString().startsWith("GET /long");
      socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${isLong ? length : 2}\r\n\r\n`);
      if (isLong) send();
      else socket.write("ok");
    });
  });
  const proxy = await stack.proxy({ ports: [port], sizes: options.sizes ?? {} });
  const client = await stack.client(proxy);
  const other = await stack.client(proxy);
  const last = options.isLast ? "Connection: close\r\n" : "";
  client.write(`GET /long HTTP/1.1\r\nHost: a\r\n${last}\r\n`);
  return {
    proxy,
    client,
    other,
    /** Resolves when others have been served, and nothing moved for the long response meanwhile. */
    standstill: async () => {
      for (let before = -1; sent === 0 || sent !== before;) {
        before = sent;
        for (let round = 0; round < 30; round += 1) {
          other.write("GET /short HTTP/1.1\r\nHost: a\r\n\r\n");
          expect((await other.response()).status).toBe(200);
        }
      }
    },
    errorOfLong: async () => {
      for (;;) {
        const long = proxy.finished.find(({ target }) => target === "/long");
        if (long) return long.errorCode;
        await proxy.turn();
      }
    },
  };
}

interface Parties {
  readonly proxy: TestProxy;
  readonly client: TestClient;
  /** The upstream has something of a request for `/hold`. */
  readonly arrived: Promise<void>;
}

/** An upstream that answers at once, except for `/hold`. */
async function proxyAndClient(sizes: Parameters<typeof startWith>[0] = {}): Promise<Parties> {
  const arrived = Promise.withResolvers<void>();
  const port = await stack.http((request, response) => {
    if (request.url === "/hold") request.once("data", () => arrived.resolve());
    else request.resume().on("end", () => response.end("x"));
    request.on("error", () => undefined);
  });
  const proxy = await startWith(sizes, port);
  return { proxy, client: await stack.client(proxy), arrived: arrived.promise };
}

async function startWith(
  sizes: NonNullable<Parameters<TestStack["proxy"]>[0]["sizes"]>,
  port = 0,
): Promise<TestProxy> {
  return stack.proxy({ ports: [port], sizes });
}

function limitsOf(connections: number, connectionsPerClient: number): ProcessLimits {
  const max = { connections, connectionsPerClient, waiting: 0, keptBodies: 0 };
  return new ProcessLimits(ProcessLimits.allocate([1, 2]), max);
}

async function refusedWith(client: TestClient, status: number, code: string): Promise<void> {
  const response = await client.response();
  expect(response.headers.get("patina-error")).toBe(code);
  expect(response.status).toBe(status);
  expect(response.headers.get("connection")).toBe("close");
}

/** No connection, no attempt and no deadline is left. */
async function everythingEnded(proxy: TestProxy): Promise<void> {
  // What still lingers for its client's last bytes ends with its deadline.
  proxy.engine.tick(performance.now() + 200_000);
  await proxy.idle();
  while (proxy.engine.connectionCount > 0) await proxy.turn();
  expect(proxy.inFlight()).toBe(0);
  expect(proxy.engine.pool.idleCount).toBe(0);
}
