/**
 * Tunnels on real sockets: WebSockets of `ws` on both ends through a proxy, and what a drain does to
 * them. Nothing waits for time; the engine's clock is moved on by the test.
 */
import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { afterEach, expect, test } from "vitest";
import { WebSocket, WebSocketServer } from "ws";

import type { TestProxy } from "../testing/test-proxy.ts";
import { TestStack } from "../testing/test-stack.ts";

const stack = new TestStack();

afterEach(() => stack.close());

test("messages of all sizes and kinds are echoed, fragmented and compressed ones too", async () => {
  for (const perMessageDeflate of [false, true]) {
    const { client } = await connected({ perMessageDeflate });
    const sizes = [0, 1, 125, 126, 127, 65_535, 65_536, 1_000_000];
    for (const size of sizes) {
      for (const isBinary of [true, false]) {
        const echoed = once(client, "message");
        client.send(isBinary ? Buffer.alloc(size, 7) : "é".repeat(size), { binary: isBinary });
        const [bytes, isEchoBinary] = (await echoed) as [Buffer, boolean];
        expect(isEchoBinary).toBe(isBinary);
        expect(bytes.equals(isBinary ? Buffer.alloc(size, 7) : Buffer.from("é".repeat(size)))).toBe(
          true,
        );
      }
    }
    const echoed = once(client, "message");
    for (let part = 0; part < 10; part += 1) client.send("part", { fin: part === 9 });
    expect(String(((await echoed) as [Buffer])[0])).toBe("part".repeat(10));
  }
});

test("a ping is answered, and a close passes with its code from either side", async () => {
  const one = await connected({});
  const pong = once(one.client, "pong");
  one.client.ping("still there?");
  expect(String(((await pong) as [Buffer])[0])).toBe("still there?");
  const heard = once(one.served, "close");
  one.client.close(4_001, "bye");
  expect(await heard).toEqual([4_001, Buffer.from("bye")]);
  await one.proxy.idle();
  expect(one.proxy.finished[0]).toMatchObject({ status: 101, errorCode: "" });
  const two = await connected({});
  const told = once(two.client, "close");
  two.served.close(4_002);
  expect(((await told) as [number])[0]).toBe(4_002);
});

test("a drain tells a WebSocket to go away, and its machine hears that it went", async () => {
  const { proxy, client, served } = await connected({});
  const echoed = once(client, "message");
  client.send("before");
  await echoed;
  const told = once(client, "close");
  const heard = once(served, "close");
  const drained = proxy.listener.drain(30_000);
  expect(((await told) as [number])[0]).toBe(1_001);
  expect(((await heard) as [number])[0]).toBe(1_001);
  expect(await drained).toBe(0);
});

test("a drain in the middle of a frame waits for its end", async () => {
  const upgraded = Promise.withResolvers<Socket>();
  const port = await stack.raw((socket) => {
    socket.once("data", () => {
      socket.write(
        "HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n\x82\x05he",
      );
      upgraded.resolve(socket);
    });
  });
  const proxy = await stack.proxy({ ports: [port] });
  const client = await stack.client(proxy);
  client.write("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
  await client.until("he");
  const drained = proxy.listener.drain(30_000);
  const machine = await upgraded.promise;
  machine.write("llo\x81\x03and");
  // The rest of the frame, then ours (status 1001 = 0x03e9), and nothing of the next one.
  expect(await client.until("\x02\x03")).toBe("llo\x88\x02\x03");
  // A client that does not answer the close frame is not waited for for ever.
  proxy.engine.tick(performance.now() + 5_200);
  await client.broken();
  expect(await drained).toBe(0);
});

test("a tunnel without a byte is closed when its time is over; each byte starts it anew", async () => {
  const { proxy, client } = await connected({});
  const closed = once(client, "close");
  const startedMs = performance.now();
  proxy.engine.tick(startedMs + 599_000);
  const echoed = once(client, "message");
  client.send("still there");
  await echoed;
  proxy.engine.tick(startedMs + 601_000);
  expect(client.readyState).toBe(WebSocket.OPEN);
  proxy.engine.tick(startedMs + 1_300_000);
  expect(((await closed) as [number])[0]).toBe(1_006);
});

test("a machine that switches before the request's body is there is refused", async () => {
  const port = await stack.raw((socket) => {
    socket.once("data", () => {
      socket.write("HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    });
  });
  const proxy = await stack.proxy({ ports: [port] });
  const client = await stack.client(proxy);
  client.write(
    "POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
      "Content-Length: 30\r\n\r\nGET /smuggled",
  );
  const response = await client.response();
  expect(response.status).toBe(502);
  await proxy.idle();
  expect(proxy.finished[0]).toMatchObject({ cause: "STATUS_SWITCH" });
});

test("while a drain waits, new requests are served and told to go elsewhere", async () => {
  const port = await stack.http((_request, response) => response.end("x"));
  const proxy = await stack.proxy({ ports: [port] });
  const idle = await stack.client(proxy);
  idle.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  expect((await idle.response()).headers.has("connection")).toBe(false);
  proxy.engine.startDraining();
  for (const client of [idle, await stack.client(proxy)]) {
    client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    expect((await client.response()).headers.get("connection")).toBe("close");
    client.socket.end();
  }
  expect(await proxy.listener.drain(30_000)).toBe(0);
});

interface Parties {
  readonly proxy: TestProxy;
  readonly client: WebSocket;
  /** The machine's end. */
  readonly served: WebSocket;
}

/** A client and an echoing machine with a proxy between them. */
async function connected(options: { perMessageDeflate?: boolean }): Promise<Parties> {
  const server: Server = createServer();
  const sockets = new WebSocketServer({ server, ...options });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  stack.defer(async () => {
    for (const socket of sockets.clients) socket.terminate();
    server.closeAllConnections();
    server.close();
    await once(server, "close");
  });
  sockets.on("connection", (socket) => {
    socket.on("message", (bytes, isBinary) => socket.send(bytes as Buffer, { binary: isBinary }));
  });
  const accepted = once(sockets, "connection");
  const proxy = await stack.proxy({ ports: [(server.address() as AddressInfo).port] });
  const client = new WebSocket(`ws://127.0.0.1:${proxy.port}/chat`, options);
  stack.defer(() => client.terminate());
  const [[served]] = (await Promise.all([accepted, once(client, "open")])) as [
    [WebSocket],
    unknown,
  ];
  return { proxy, client, served };
}
