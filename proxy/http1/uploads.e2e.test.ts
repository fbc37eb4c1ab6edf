/**
 * What clients send while machines are slow to take it: client sockets read into buffers that are
 * used again, so each test keeps bytes waiting while others read.
 */
import { createHash } from "node:crypto";
import { once } from "node:events";
import type { Socket } from "node:net";
import { afterEach, expect, test } from "vitest";

import { TestStack } from "../testing/test-stack.ts";
import type { TestProxy } from "../testing/test-proxy.ts";

const stack = new TestStack();
afterEach(() => stack.close());

const BODY = Buffer.from(new Uint8Array(24 << 20).map((_, at) => (at * 31 + (at >> 16)) % 253));

test.each([
  ["an upload", `POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: ${BODY.length}\r\n\r\n`],
  ["a tunnel", "GET /slow HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: test\r\n\r\n"],
])(
  "a machine that does not read %s stops the client, and gets all when it reads",
  async (...[, head]) => {
    const slow = Promise.withResolvers<Socket>();
    const port = await stack.raw((socket) => {
      socket.once("data", (bytes: Buffer) => {
        const isSlow = bytes.includes("/slow ");
        if (isSlow && bytes.includes("pgrade: test")) {
          socket.write(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: test\r\n\r\n",
          );
        }
        if (isSlow) {
          socket.pause();
          socket.unshift(bytes.subarray(bytes.indexOf("\r\n\r\n") + 4));
          slow.resolve(socket);
        } else answerWithHashes(socket, bytes);
      });
    });
    const proxy = await stack.proxy({ ports: [port] });
    const client = await stack.client(proxy);
    client.write(head);
    const machine = await slow.promise;
    if (head.startsWith("GET")) expect((await client.response()).status).toBe(101);
    let sent = 0;
    const more = (): void => {
      const piece = BODY.subarray(sent, sent + 20_000);
      sent += piece.length;
      if (piece.length === 0) return;
      if (client.socket.write(piece)) setImmediate(more);
      else client.socket.once("drain", more);
    };
    more();
    // Others use the shared buffers in the meantime, until nothing moves on the slow way.
    for (;;) {
      const before = sent;
      await uploadMany(proxy, 10);
      if (sent > 0 && sent === before) break;
    }
    expect(sent).toBeLessThan(BODY.length);
    expect((await bytesOf(machine, BODY.length)).equals(BODY)).toBe(true);
  },
);

test("a request that came with the end of an upload is not lost to other uploads", async () => {
  const uploaded = Promise.withResolvers<Socket>();
  const port = await stack.raw((socket) => {
    socket.once("data", (bytes: Buffer) => {
      if (!bytes.includes("/first ")) return answerWithHashes(socket, bytes);
      let left = 200_000 - (bytes.length - bytes.indexOf("\r\n\r\n") - 4);
      socket.on("data", (more: Buffer) => {
        left -= more.length;
        if (left === 0) uploaded.resolve(socket);
      });
    });
  });
  const proxy = await stack.proxy({ ports: [port] });
  const client = await stack.client(proxy);
  client.write("POST /first HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n");
  client.write(BODY.subarray(0, 180_000));
  const next = `GET /next HTTP/1.1\r\nHost: a\r\nX-Long: ${"n".repeat(9_000)}\r\n\r\n`;
  client.write(Buffer.concat([BODY.subarray(180_000, 200_000), Buffer.from(next)]));
  const machine = await uploaded.promise;
  await uploadMany(proxy, 20);
  machine.removeAllListeners("data");
  machine.on("data", (bytes: Buffer) => machine.write(answerOf(bytes)));
  machine.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
  expect((await client.response()).status).toBe(200);
  expect((await client.response()).body).toContain("n".repeat(9_000));
});

/** Bodies of all sizes, one after the other on connections of their own, each hashed by its machine. */
async function uploadMany(proxy: TestProxy, count: number): Promise<void> {
  const uploads = Array.from({ length: count }, async (_, index) => {
    const client = await stack.client(proxy);
    const body = BODY.subarray(index * 1_000, index * 21_000 + 2_000);
    client.write(`POST / HTTP/1.1\r\nHost: a\r\nContent-Length: ${body.length}\r\n\r\n`);
    client.write(body);
    expect((await client.response()).body).toBe(hashOf(body));
    client.socket.destroy();
  });
  await Promise.all(uploads);
}

/** Answers each request with the hash of its body. */
function answerWithHashes(socket: Socket, first: Buffer): void {
  let held = first;
  const judge = (): void => {
    const headEnd = held.indexOf("\r\n\r\n") + 4;
    const length = Number(/content-length: (\d+)/i.exec(held.toString("latin1", 0, headEnd))?.[1]);
    if (headEnd < 4 || held.length < headEnd + length) return;
    socket.write(answerOf(hashOf(held.subarray(headEnd, headEnd + length))));
    held = held.subarray(headEnd + length);
  };
  socket.on("data", (bytes: Buffer) => {
    held = Buffer.concat([held, bytes]);
    judge();
  });
  judge();
}

function answerOf(body: Buffer | string): Buffer {
  const head = `HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n\r\n`;
  return Buffer.concat([Buffer.from(head), Buffer.from(body)]);
}

async function bytesOf(socket: Socket, length: number): Promise<Buffer> {
  const pieces: Buffer[] = [];
  let total = 0;
  while (total < length) {
    const piece = socket.read() as Buffer | null;
    if (piece === null) await once(socket, "readable");
    else {
      pieces.push(piece);
      total += piece.length;
    }
  }
  return Buffer.concat(pieces);
}

function hashOf(bytes: Buffer): string {
  return createHash("sha256").update(bytes).digest("hex");
}
