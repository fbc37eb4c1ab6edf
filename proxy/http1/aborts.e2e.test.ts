/**
 * Either side breaking off at any point, on real sockets: a machine that dies, stalls or sends
 * garbage at every byte of its response, and thousands of clients that give up. A client never takes
 * a part for the whole, and nothing is left behind.
 */
import { connect, type Socket } from "node:net";
import { queryObjects } from "node:v8";
import { afterEach, expect, test } from "vitest";

import type { TestProxy } from "../testing/test-proxy.ts";
import { TestStack } from "../testing/test-stack.ts";
import type { RequestSummary } from "../types.ts";
import { UpstreamConnection } from "../upstream/upstream-connection.ts";
import { ClientConnection } from "./client-connection.ts";
import { Exchange } from "./exchange.ts";

const stack = new TestStack();

afterEach(() => stack.close());

const RESPONSES = {
  length: "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nA: 1\r\n\r\nsecret",
  chunked: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nsecret\r\n0\r\nT: 1\r\n\r\n",
  untilClose: "HTTP/1.1 200 OK\r\nA: 1\r\n\r\nsecret",
} as const;

test.each(["length", "chunked", "untilClose"] as const)(
  "a machine that dies at any byte of a response (%s) does not make it look whole",
  async (framing) => {
    const text = RESPONSES[framing];
    const bodyAt = text.indexOf("\r\n\r\n") + 4;
    for (const isReset of [true, false]) {
      const { proxy, ask } = await withMachine((socket, offset) => {
        socket.write(text.slice(0, offset), () => {
          if (isReset) socket.resetAndDestroy();
          else socket.end();
        });
      });
      for (let offset = 0; offset < text.length; offset += 1) {
        const got = await ask(offset);
        // A body that ends with its connection ends wherever that is: no proxy can know better.
        const mayEnd = framing === "untilClose" && offset >= bodyAt;
        if (offset < bodyAt) expect(got, `${offset}`).toMatchObject({ status: 502, isCut: false });
        else if (isReset || !mayEnd) expect(got.isCut, `${offset}`).toBe(true);
        else expect(got).toMatchObject({ status: 200, isCut: false });
      }
      expect(proxy.finished).toHaveLength(text.length);
      expect(proxy.inFlight()).toBe(0);
    }
  },
);

test("a machine that sends garbage at any byte of head or framing is refused", async () => {
  for (const text of [RESPONSES.length, RESPONSES.chunked]) {
    const bodyAt = text.indexOf("\r\n\r\n") + 4;
    const { proxy, ask } = await withMachine((socket, offset) => {
      socket.write(`${text.slice(0, offset)}\0${text.slice(offset + 1)}`);
    });
    const dataAt = text.indexOf("secret");
    for (let offset = 0; offset < text.length; offset += 1) {
      if (offset >= dataAt && offset < dataAt + 6) continue;
      const got = await ask(offset);
      const isRefused = got.status === 502 || got.isCut;
      expect(isRefused, `${offset}: ${got.status}`).toBe(true);
      if (offset < bodyAt) expect(got).toMatchObject({ status: 502, isCut: false });
    }
    expect(proxy.inFlight()).toBe(0);
    expect(proxy.engine.pool.idleCount).toBe(0);
  }
});

test("a machine that stalls at any byte is given up when its time is over", async () => {
  const text = RESPONSES.chunked;
  const bodyAt = text.indexOf("\r\n\r\n") + 4;
  let clockMs = performance.now();
  const { proxy, ask } = await withMachine((socket, offset) => {
    const moved = offset > 0 ? proxy.nextProgress() : proxy.turn();
    socket.write(text.slice(0, offset));
    // Deadlines count from the tick before, so the clock may only go forwards.
    clockMs += 130_000;
    const dueMs = clockMs;
    void moved.then(() => proxy.engine.tick(dueMs));
  });
  for (let offset = 0; offset < text.length; offset += 1) {
    const got = await ask(offset);
    if (offset < bodyAt) expect(got, `${offset}`).toMatchObject({ status: 504, isCut: false });
    else expect(got.isCut, `${offset}`).toBe(true);
  }
  expect(proxy.inFlight()).toBe(0);
});

test.each(["length", "chunked", "untilClose"] as const)(
  "a client that vanishes at any byte of a response (%s) leaves nothing behind",
  async (framing) => {
    const text = RESPONSES[framing];
    const bodyAt = text.indexOf("\r\n\r\n") + 4;
    for (const isReset of [true, false]) {
      const machine = new Set<Socket>();
      let asked: (socket: Socket) => void = () => undefined;
      const port = await stack.raw((socket) => {
        machine.add(socket);
        socket.on("close", () => machine.delete(socket));
        socket.on("data", () => asked(socket));
      });
      const proxy = await stack.proxy({ ports: [port] });
      for (let offset = 0; offset < text.length; offset += 1) {
        const taken = new Promise<Socket>((resolve) => (asked = resolve));
        const client = connect({ port: proxy.port, host: "127.0.0.1", noDelay: true });
        client.on("error", () => undefined);
        client.write("PATCH / HTTP/1.1\r\nHost: a\r\n\r\n");
        const socket = await taken;
        const moved = offset > 0 ? proxy.nextProgress() : proxy.turn();
        socket.write(text.slice(0, offset));
        await moved;
        // A reset says at once that it is gone; an end might be that of a client that still reads.
        if (isReset) client.resetAndDestroy();
        else {
          client.destroy();
          socket.end(text.slice(offset));
        }
        const { engine, finished } = proxy;
        while (finished.length <= offset || engine.connectionCount > 0 || machine.size > 0) {
          await proxy.turn();
        }
        const { status, errorCode } = finished[offset] as RequestSummary;
        if (isReset) {
          expect([status, errorCode], `${offset}`).toEqual([
            offset < bodyAt ? 0 : 200,
            "CLIENT_GONE",
          ]);
        }
      }
      expect(proxy.finished).toHaveLength(text.length);
      expect([proxy.inFlight(), proxy.engine.pool.idleCount]).toEqual([0, 0]);
      expect(proxy.engine.pool.openCount(`m0/web/127.0.0.1:${port}`)).toBe(0);
    }
  },
);

test("10,000 aborted requests and 1,000 aborted uploads leave nothing", async () => {
  const machine = new Set<Socket>();
  let arrived = 0;
  let held = 0;
  let wake = (): void => undefined;
  const port = await stack.raw((socket) => {
    machine.add(socket);
    socket.on("close", () => machine.delete(socket));
    socket.once("data", () => {
      arrived += 1;
      wake();
    });
  });
  const proxy = await stack.proxy({ ports: [port] });
  const round = async (bytes: string, count: number): Promise<void> => {
    const from = arrived;
    const clients = Array.from({ length: count }, () => {
      const client = connect({ port: proxy.port, host: "127.0.0.1", noDelay: true });
      client.on("error", () => undefined);
      client.write(bytes);
      return client;
    });
    while (arrived < from + count) await new Promise<void>((resolve) => (wake = resolve));
    held = Math.max(held, held === 0 ? queryObjects(ClientConnection, { format: "count" }) : 0);
    for (const client of clients) client.resetAndDestroy();
    await proxy.idle();
    while (proxy.engine.connectionCount > 0 || machine.size > 0) await proxy.turn();
    proxy.finished.length = proxy.attempts.length = proxy.picks.length = 0;
    proxy.connectRtts.length = 0;
  };
  const get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
  const put = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\npart";
  await round(get, 100);
  await round(put, 100);
  const before = resources();
  for (let index = 0; index < 50; index += 1) await round(get, 200);
  for (let index = 0; index < 5; index += 1) await round(put, 200);
  expect(resources()).toEqual(before);
  expect(held).toBe(100);
  // Counts live objects after a collection: nothing of the engine holds one, and exchanges were
  // used again for request after request.
  expect(queryObjects(ClientConnection, { format: "count" })).toBe(0);
  expect(queryObjects(Exchange, { format: "count" })).toBe(200);
  expect(queryObjects(UpstreamConnection, { format: "count" })).toBe(0);
  expect(proxy.inFlight()).toBe(0);
  expect(proxy.engine.pool.idleCount).toBe(0);
  expect(proxy.engine.pool.openCount(`m0/web/127.0.0.1:${port}`)).toBe(0);
}, 240_000);

interface Got {
  /** 0: no response head came. */
  readonly status: number;
  /** The connection was reset: whatever came is no whole response. */
  readonly isCut: boolean;
}

/** A machine that answers `GET /<offset>` in its own way, and how a client sees that. */
async function withMachine(
  answer: (socket: Socket, offset: number) => void,
): Promise<{ proxy: TestProxy; ask: (offset: number) => Promise<Got> }> {
  const port = await stack.raw((socket) => {
    socket.once("data", (head) => answer(socket, Number(/^PATCH \/(\d+)/.exec(String(head))?.[1])));
  });
  const proxy = await stack.proxy({ ports: [port] });
  const ask = async (offset: number): Promise<Got> => {
    const client = connect({ port: proxy.port, host: "127.0.0.1", noDelay: true });
    // A method that is not repeated, on a connection that ends after it.
    client.write(`PATCH /${offset} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`);
    let text = "";
    let isCut = false;
    client.on("data", (bytes) => (text += String(bytes)));
    client.on("error", () => (isCut = true));
    await new Promise<void>((resolve) => client.once("close", () => resolve()));
    return { status: Number(/^HTTP\/1\.1 (\d+)/.exec(text)?.[1] ?? 0), isCut };
  };
  return { proxy, ask };
}

/** Open sockets of this process by kind. */
function resources(): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const kind of process.getActiveResourcesInfo()) {
    if (kind.startsWith("TCP")) counts[kind] = (counts[kind] ?? 0) + 1;
  }
  return counts;
}
