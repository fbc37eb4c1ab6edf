/**
 * The table of repeats, on real sockets: method x what was sent x how it failed x pooled or fresh.
 *
 * Machine `a` is preferred; it fails once, as the row says, and answers everything else. Machine `b`
 * is well. A cell says who answered the client in the end, or why nobody was asked again.
 */
import { createHash } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, expect, test } from "vitest";

import type { TestProxy, TestProxyOptions } from "../testing/test-proxy.ts";
import { TestStack } from "../testing/test-stack.ts";

const stack = new TestStack();

afterEach(() => stack.close());

const IDEMPOTENT = ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"];
const NO_HEAD = IDEMPOTENT.filter((method) => method !== "HEAD");
const OTHERS = ["POST", "PATCH", "PROPFIND"];

/** What of the request had left before the failure; a long body is too long to be kept. */
type Sent = "no body" | "body unsent" | "short body" | "half a body" | "long body";
type Failure = "refused" | "reset" | "ended" | "broken head" | "broken body";
type Connection = "fresh" | "pooled";
type Cell = "a" | "b" | "not-idempotent" | "body-gone" | "response-started";

test.each<[Failure, Connection, Sent, Cell, Cell]>([
  // How it failed, on which connection, what was sent: idempotent methods, others.
  ["refused", "fresh", "no body", "b", "b"],
  ["refused", "fresh", "body unsent", "b", "b"],
  ["refused", "fresh", "short body", "b", "b"],
  ["refused", "fresh", "long body", "b", "b"],
  ["reset", "fresh", "no body", "b", "not-idempotent"],
  ["reset", "fresh", "body unsent", "b", "not-idempotent"],
  ["reset", "fresh", "short body", "b", "not-idempotent"],
  ["reset", "fresh", "half a body", "b", "not-idempotent"],
  ["reset", "fresh", "long body", "body-gone", "not-idempotent"],
  ["reset", "pooled", "no body", "a", "not-idempotent"],
  ["reset", "pooled", "body unsent", "a", "a"],
  ["reset", "pooled", "short body", "a", "not-idempotent"],
  ["reset", "pooled", "half a body", "a", "not-idempotent"],
  ["reset", "pooled", "long body", "body-gone", "not-idempotent"],
  ["ended", "fresh", "no body", "b", "not-idempotent"],
  ["ended", "fresh", "body unsent", "b", "not-idempotent"],
  ["ended", "fresh", "short body", "b", "not-idempotent"],
  ["ended", "fresh", "half a body", "b", "not-idempotent"],
  ["ended", "fresh", "long body", "body-gone", "not-idempotent"],
  ["ended", "pooled", "no body", "a", "not-idempotent"],
  ["ended", "pooled", "body unsent", "a", "a"],
  ["ended", "pooled", "short body", "a", "not-idempotent"],
  ["ended", "pooled", "half a body", "a", "not-idempotent"],
  ["ended", "pooled", "long body", "body-gone", "not-idempotent"],
  ["broken head", "fresh", "no body", "response-started", "response-started"],
  ["broken head", "fresh", "body unsent", "response-started", "response-started"],
  ["broken head", "fresh", "short body", "response-started", "response-started"],
  ["broken head", "fresh", "long body", "response-started", "response-started"],
  ["broken head", "pooled", "no body", "response-started", "response-started"],
  ["broken head", "pooled", "body unsent", "response-started", "response-started"],
  ["broken head", "pooled", "short body", "response-started", "response-started"],
  ["broken head", "pooled", "long body", "response-started", "response-started"],
  ["broken body", "fresh", "no body", "response-started", "response-started"],
  ["broken body", "fresh", "body unsent", "response-started", "response-started"],
  ["broken body", "fresh", "short body", "response-started", "response-started"],
  ["broken body", "fresh", "long body", "response-started", "response-started"],
  ["broken body", "pooled", "no body", "response-started", "response-started"],
  ["broken body", "pooled", "body unsent", "response-started", "response-started"],
  ["broken body", "pooled", "short body", "response-started", "response-started"],
  ["broken body", "pooled", "long body", "response-started", "response-started"],
])(
  "%s on a %s connection with %s: %s, others %s",
  async (failure, connection, sent, one, other) => {
    const machines = await startMachines(failure, sent);
    for (const [methods, expected] of [
      // A response to HEAD has no body to break off in.
      [failure === "broken body" ? NO_HEAD : IDEMPOTENT, one],
      [OTHERS, other],
    ] as const) {
      for (const method of methods) {
        const got = await outcomeOf(machines, { method, connection, sent });
        expect(got, method).toBe(expected);
      }
    }
  },
);

test("bodies are kept as long as there is room for them in all", async () => {
  const machines = await startMachines("reset", "short body", { keptBodiesMax: 1 });
  const { proxy } = machines;
  const row = { method: "PUT", connection: "fresh", sent: "short body" } as const;
  const other = await stack.client(proxy);
  const arrived = machines.holdNext();
  other.write("PUT /hold HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nxyz");
  const answerOther = await arrived;
  expect(await outcomeOf(machines, row)).toBe("body-gone");
  answerOther();
  expect((await other.response()).status).toBe(200);
  expect(await outcomeOf(machines, row)).toBe("b");
});

interface Machines {
  readonly proxy: TestProxy;
  /** Resolves with how to answer the next request for `/hold`, once all of it is there. */
  holdNext(): Promise<() => void>;
  /** Makes the next request fail; resolves when it has. */
  failNext(): Promise<void>;
}

async function startMachines(
  failure: Failure,
  sent: Sent,
  more: TestProxyOptions["sizes"] = {},
): Promise<Machines> {
  let failed: (() => void) | null = null;
  let held: (answerIt: () => void) => void = () => undefined;
  const takeFailure = (): (() => void) | null => {
    const tell = failed;
    failed = null;
    return tell;
  };
  const a = createServer((request, response) => {
    if (request.url === "/hold") {
      request.resume().on("end", () => held(() => response.end()));
      return;
    }
    const tell = request.url === "/x" ? takeFailure() : null;
    if (tell === null) return answer("a", request, response);
    const fail = () => breakOff(request, failure, tell);
    // When it has got what the row says was sent.
    if (sent === "short body") request.on("end", fail).resume();
    else if (sent === "half a body" || sent === "long body") request.once("data", fail);
    else fail();
  });
  a.keepAliveTimeout = 0;
  a.listen(0, "127.0.0.1");
  await once(a, "listening");
  stack.defer(async () => {
    a.closeAllConnections();
    a.close();
    await once(a, "close");
  });
  const b = await stack.http((request, response) => answer("b", request, response));
  const isRefused = failure === "refused";
  const port = isRefused ? await stack.deadPort() : (a.address() as AddressInfo).port;
  const sizes = { retriesPerSecond: 1_000, ...more };
  const proxy = await stack.proxy({ ports: [port, b], sizes });
  return {
    proxy,
    holdNext: () => new Promise((resolve) => (held = resolve)),
    failNext: () => {
      if (isRefused) return Promise.resolve();
      return new Promise((resolve) => (failed = resolve));
    },
  };
}

function answer(name: string, request: IncomingMessage, response: ServerResponse): void {
  request.on("error", () => undefined);
  const hash = createHash("sha1");
  request.on("data", (bytes: Buffer) => hash.update(bytes));
  request.on("end", () => {
    response.setHeader("x-from", name).setHeader("x-body", hash.digest("hex")).end();
  });
}

function breakOff({ socket }: IncomingMessage, failure: Failure, tell: () => void): void {
  if (failure === "reset") socket.resetAndDestroy();
  else if (failure === "broken head") socket.end("HTTP/1.1 20");
  else if (failure === "broken body") {
    socket.end("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n");
  } else socket.end();
  tell();
}

/** Sends one request whose first machine fails, and says how it ended. */
async function outcomeOf(
  { proxy, failNext }: Machines,
  row: { readonly method: string; readonly connection: Connection; readonly sent: Sent },
): Promise<string> {
  const { method, connection, sent } = row;
  const { pool } = proxy.engine;
  pool.dropMachine("m0");
  pool.dropMachine("m1");
  const client = await stack.client(proxy);
  if (connection === "pooled") {
    client.write("GET /warm HTTP/1.1\r\nHost: a\r\n\r\n");
    expect((await client.response()).headers.get("x-from")).toBe("a");
    expect(pool.idleCount).toBe(1);
  }
  const failed = failNext();
  const finished = proxy.finished.length;
  const attempts = proxy.attempts.length;
  const [now, later] = bodyOf(sent);
  const length = sent === "no body" ? "" : `Content-Length: ${now.length + later.length}\r\n`;
  client.write(`${method} /x HTTP/1.1\r\nHost: a\r\n${length}\r\n${now}`);
  await failed;
  // The rest comes when the proxy knows of the failure, not on its heels.
  while (proxy.attempts.length === attempts) await proxy.turn();
  if (later !== "") client.write(later);
  while (proxy.finished.length === finished) await proxy.turn();
  const { status, errorCode, retrySkipped, wasReused } = proxy.finished.at(-1)!;
  const isAnswered = status === 200 && errorCode === "";
  if (status === 200 && !isAnswered) await client.broken();
  else {
    const response = await client.response({ isHead: method === "HEAD" });
    expect(response.status).toBe(isAnswered ? 200 : 502);
    if (isAnswered) {
      const whole = createHash("sha1").update(now).update(later).digest("hex");
      expect(response.headers.get("x-body")).toBe(whole);
      return response.headers.get("x-from") ?? "";
    }
  }
  expect(errorCode).toBe("UPSTREAM_RESET");
  // The failed attempt was made on the connection that the row is about.
  expect(wasReused).toBe(connection === "pooled");
  return retrySkipped;
}

/** What goes with the head, and what goes after the failure. */
function bodyOf(sent: Sent): [now: string, later: string] {
  if (sent === "no body") return ["", ""];
  if (sent === "body unsent") return ["", "abc"];
  if (sent === "half a body") return ["abc", "def"];
  return sent === "short body" ? ["abc", ""] : ["x".repeat(20_000), "x".repeat(20_000)];
}
