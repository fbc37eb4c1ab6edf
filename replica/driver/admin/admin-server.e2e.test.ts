/** The admin socket with a handler of the test's, and clients that behave and that do not. */
import {
  existsSync,
  mkdtempSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { once } from "node:events";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { createLogger } from "#base/logger.ts";
import { askAdmin, type AdminReply } from "./admin-client.ts";
import { encodeMessage } from "./admin-messages.ts";
import { AdminServer, type AdminHandler, type AdminNote } from "./admin-server.ts";
import { adminError } from "./errors.ts";

let folder: string;
let path: string;
const servers: AdminServer[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "patina-admin-"));
  path = join(folder, "inner", "admin.sock");
});

afterEach(async () => {
  for (const server of servers.splice(0)) await server.close();
  rmSync(folder, { recursive: true, force: true });
});

test("an answer is streamed until its success, several on one connection", async () => {
  await serve(async function* () {
    yield { kind: "log", msg: "working" };
    yield { kind: "json", value: { version: 2n } };
    yield { kind: "json", value: null };
  });
  expect(await ask("Ping")).toEqual([
    { kind: "log", level: "info", msg: "working" },
    { kind: "json", value: { version: "2" } },
    { kind: "json", value: null },
  ]);
  const socket = connect(path);
  socket.write(Buffer.concat([encodeMessage("Ping"), encodeMessage({ Cluster: "Members" })]));
  const text = await readUntil(socket, /Success[^]*Success/);
  expect(text.match(/working/g)).toHaveLength(2);
  socket.destroy();
});

test("what a handler throws is the answer's error", async () => {
  await serve(async function* () {
    yield { kind: "log", msg: "begun" };
    throw adminError("ADMIN_REFUSED", "not this way");
  });
  await expect(ask("Ping")).rejects.toMatchObject({
    code: "ADMIN_REFUSED",
    message: "not this way",
  });
});

test("the socket is for its owner only, and is gone after the close", async () => {
  const server = await serve();
  expect(statSync(path).mode & 0o777).toBe(0o600);
  await server.close();
  await server.close();
  expect(existsSync(path)).toBe(false);
  await expect(ask("Ping")).rejects.toMatchObject({ code: "ADMIN_UNREACHABLE" });
});

test("a socket that a killed process left is replaced, one that is served is not", async () => {
  await serve();
  await expect(serve()).rejects.toMatchObject({ code: "ADMIN_BIND" });
  expect(await ask("Ping")).toEqual([]);
  // What a kill leaves: the file of a socket that nobody listens on.
  const left = join(folder, "left.sock");
  const dead = createServer().listen(join(folder, "dead.sock"));
  await once(dead, "listening");
  renameSync(join(folder, "dead.sock"), left);
  dead.close();
  await once(dead, "close");
  expect(existsSync(left)).toBe(true);
  path = left;
  await serve();
  expect(await ask("Ping")).toEqual([]);
});

test("what is no socket is left alone", async () => {
  path = join(folder, "notes.txt");
  writeFileSync(path, "precious");
  await expect(serve()).rejects.toMatchObject({ code: "ADMIN_BIND" });
  const link = join(folder, "link.sock");
  symlinkSync(path, link);
  path = link;
  await expect(serve()).rejects.toMatchObject({ code: "ADMIN_BIND" });
  expect(statSync(join(folder, "notes.txt")).size).toBe(8);
});

test("a path too long for a socket says so", async () => {
  path = join(folder, "x".repeat(120));
  await expect(serve()).rejects.toMatchObject({
    code: "ADMIN_BIND",
    message: expect.stringContaining("admin.path"),
  });
});

test.each([
  ["a length beyond belief", Uint8Array.of(0x7f, 0xff, 0xff, 0xff)],
  ["something else than JSON", Uint8Array.of(0, 0, 0, 2, 0x7b, 0xff)],
  ["an unknown request", encodeMessage({ Reboot: "Now" })],
])("%s is answered with an error and the connection closed", async (_name, bytes) => {
  const server = await serve();
  const socket = connect(path);
  socket.write(bytes);
  expect(await readUntil(socket, /Error/)).toMatch(/"Error":\{"msg":"/);
  if (!socket.closed) await once(socket, "close");
  expect(server.stats.bad).toBe(1);
  expect(await ask("Ping")).toEqual([]);
});

test("more connections than people make are closed, and room is made by those that end", async () => {
  const server = await serve();
  const sockets = Array.from({ length: 33 }, () => connect(path));
  await Promise.race(sockets.map((socket) => once(socket, "close")));
  expect(server.stats.refused).toBe(1);
  const ended = sockets.filter((socket) => !socket.closed).map((socket) => once(socket, "close"));
  for (const socket of sockets) socket.destroy();
  await Promise.all(ended);
  // The server hears of the ends in its own time.
  for (;;) {
    try {
      expect(await ask("Ping")).toEqual([]);
      return;
    } catch (error) {
      expect(error).toMatchObject({ code: "ADMIN_UNREACHABLE" });
    }
  }
});

async function serve(handler: AdminHandler = nothing): Promise<AdminServer> {
  const log = createLogger({ level: "error", write: () => undefined, nowMs: () => 0 });
  const server = new AdminServer({ path, handler, log });
  await server.listen();
  servers.push(server);
  return server;
}

async function* nothing(): AsyncGenerator<AdminNote> {}

async function ask(request: unknown): Promise<AdminReply[]> {
  return Array.fromAsync(askAdmin({ path }, request));
}

async function readUntil(socket: Socket, pattern: RegExp): Promise<string> {
  let text = "";
  for await (const chunk of socket.iterator({ destroyOnReturn: false })) {
    text += (chunk as Buffer).toString("latin1");
    if (pattern.test(text)) return text;
  }
  return text;
}
