import type { IncomingMessage } from "node:http";
import { connect } from "node:net";
import { afterEach, expect, onTestFinished, test } from "vitest";
import { joinHostPort } from "#base/host-port.ts";
import { createLogger } from "#base/logger.ts";
import { freePorts } from "../../../bin/demo/ports.ts";
import { storeError } from "../store/errors.ts";
import { ApiFixture, type ApiFixtureOptions } from "./api-fixture.ts";
import type { ApiBackend } from "./api-types.ts";
import { ApiServer } from "./api-server.ts";

// The server's own duties: who may come in, how much, and what becomes of clients that misbehave.

const fixtures: ApiFixture[] = [];

afterEach(async () => {
  for (const fixture of fixtures.splice(0)) await fixture.stop();
});

test("a token is asked for before anything else is told", async () => {
  const api = await start({ server: { bearerToken: "secret" } });
  for (const authorization of ["", "Bearer", "Bearer secre", "Bearer secrets", "Basic secret"]) {
    const answer = await api.call({ path: "/v1/nope", headers: { authorization } });
    expect([answer.status, answer.text]).toEqual([401, ""]);
  }
  const headers = { authorization: "Bearer secret" };
  expect((await api.call({ path: "/v1/nope", headers })).status).toBe(404);
  expect((await api.call({ path: "/v1/status", headers })).text).toBe('{"members":[]}');
});

test("the API listens on IPv6, and a taken port is told", async () => {
  const api = await start({ server: { addresses: [{ host: "::1", port: 0 }] } });
  expect((await api.query("SELECT 1")).lines).toContainEqual({ row: [1, [1]] });
  const taken = new ApiServer({
    addresses: [{ host: "::1", port: api.port }],
    bearerToken: null,
    backend: {} as ApiBackend,
    log: silentLog(),
  });
  await expect(taken.listen()).rejects.toMatchObject({ code: "API_BIND" });
});

test("every address is served, with one count of requests; all or none are bound", async () => {
  const hosts = ["127.0.0.1", "::1"];
  const addresses = hosts.map((host) => ({ host, port: 0 }));
  const options = { addresses, bearerToken: null, log: silentLog() };
  const server = new ApiServer({ ...options, backend: { status: () => ({}) } as ApiBackend });
  const bound = await server.listen();
  onTestFinished(() => server.close());
  expect(bound.map(({ address }) => address)).toEqual(hosts);
  for (const { address, port } of bound) {
    const answer = await fetch(`http://${joinHostPort(address, port)}/v1/status`);
    expect([answer.status, await answer.text()]).toEqual([200, "{}"]);
  }
  expect(server.stats.requests).toBe(2);

  const [port = 0] = await freePorts(1);
  const taken = { host: "::1", port: bound[1]?.port ?? 0 };
  const other = new ApiServer({
    ...options,
    addresses: [{ host: "127.0.0.1", port }, taken],
    backend: {} as ApiBackend,
  });
  await expect(other.listen()).rejects.toMatchObject({ code: "API_BIND" });
  await expect(fetch(`http://127.0.0.1:${port}/`)).rejects.toThrow("fetch failed");
});

test("the 129th request at once is shed with 503, and its place is free afterwards", async () => {
  let release: () => void = () => undefined;
  const gate = new Promise<void>((resolve) => (release = resolve));
  const backend: Partial<ApiBackend> = {
    list: async () => {
      await gate;
      return [];
    },
    status: () => ({}),
  };
  const api = await start({ server: { backend: backend as ApiBackend } });
  const calls = Array.from({ length: 130 }, () => api.call({ path: "/v1/apps" }));
  const shed = await Promise.any(
    calls.map(async (call) => {
      const answer = await call;
      if (answer.status !== 503) throw new Error("not shed");
      return answer;
    }),
  );
  expect(shed.text).toBe("max concurrency limit reached");
  // Another route has places of its own.
  expect((await api.call({ path: "/v1/status" })).status).toBe(200);
  release();
  const statuses = (await Promise.all(calls)).map((answer) => answer.status);
  expect(statuses.filter((status) => status === 200)).toHaveLength(128);
  expect(statuses.filter((status) => status === 503)).toHaveLength(2);
  expect((await api.call({ path: "/v1/apps" })).status).toBe(200);
  expect(api.server.stats.shed).toBe(2);
});

test("a body over the limit answers 413, whether it tells its length or not", async () => {
  const api = await start({ server: { limits: { bodyBytesMax: 1000 } } });
  const headers = { "content-type": "application/json" };
  const path = "/v1/transactions";
  const fits = await api.call({ method: "POST", path, headers, body: `[${" ".repeat(998)}]` });
  expect(fits.status).toBe(400);
  const body = `[${" ".repeat(999)}]`;
  for (const more of [{}, { "transfer-encoding": "chunked" }]) {
    const answer = await api.call({ method: "POST", path, headers: { ...headers, ...more }, body });
    expect([answer.status, answer.headers.connection]).toEqual([413, "close"]);
  }
});

test.each([
  ["STORE_OWNER", 409],
  ["STORE_OBJECT", 422],
  ["STORE_BUSY", 503],
  ["STORE_LOCKED", 503],
  ["STORE_CLOSED", 503],
  ["STORE_FULL", 507],
  ["STORE_TIMEOUT", 500],
  ["STORE_CORRUPT", 500],
] as const)("%s reaches the client as %i, in objects and transactions", async (code, status) => {
  const fail = (): Promise<never> => Promise.reject(storeError(code, "as told"));
  const backend: Partial<ApiBackend> = { actorId: "a-b", get: fail, transact: fail };
  const api = await start({ server: { backend: backend as ApiBackend } });
  const object = await api.json("GET", "/v1/apps/a");
  expect(object).toEqual({ status, body: { error: "as told", code } });
  const transaction = await api.json("POST", "/v1/transactions", ["DELETE FROM t"]);
  expect(transaction.status).toBe(status);
  expect(transaction.body).toMatchObject({ results: [{ error: "as told" }], version: null });
});

test("a bug behind the API answers 500 and is an error line, and the server goes on", async () => {
  const broken = (): never => {
    throw new TypeError("a bug");
  };
  const api = await start({ server: { backend: { status: broken } as unknown as ApiBackend } });
  expect((await api.call({ path: "/v1/status" })).status).toBe(500);
  expect((await api.call({ path: "/v1/nope" })).status).toBe(404);
  expect(api.server.stats).toMatchObject({ requests: 2, failed: 1 });
  expect(api.logLines.some((line) => line.includes("api-request-failed"))).toBe(true);
});

test.each(["//", "http://[", "/v1/../v1/status", "*", "/v1", "/v2/apps", "/v1/transactions/x"])(
  "the target %s is answered",
  async (target) => {
    const api = await start();
    const answer = await rawRequest(
      api.port,
      `GET ${target} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n`,
    );
    expect(answer).toMatch(/^HTTP\/1\.1 (200|400|404) /);
  },
);

test("named, numbered and listed parameters are bound alike in a transaction", async () => {
  const api = await start();
  const insert = "INSERT INTO apps (id, name) VALUES";
  const answer = await api.json("POST", "/v1/transactions", [
    [`${insert} (?2, ?1)`, ["numbered", "n1"]],
    [`${insert} (:id, $name)`, ["n2", "listed"]],
    [`${insert} (@id, @name)`, { "@id": "n3", "@name": "named" }],
  ]);
  expect(answer.status).toBe(200);
  const { lines } = await api.query("SELECT id, name FROM apps ORDER BY id");
  expect(lines.slice(1, 4)).toEqual([
    { row: [1, ["n1", "numbered"]] },
    { row: [2, ["n2", "listed"]] },
    { row: [3, ["n3", "named"]] },
  ]);
});

test("a transaction is told to the replica once, and not when nothing changed", async () => {
  const api = await start();
  const upsert = "INSERT OR REPLACE INTO apps (id, name) VALUES ('a', 'x')";
  const first = await api.json("POST", "/v1/transactions", [upsert]);
  expect(api.commits.map((one) => one.version)).toEqual([first.body?.["version"]]);
  const update = await api.json("POST", "/v1/transactions", ["UPDATE apps SET name = 'x'"]);
  expect(update.body?.["version"]).toBeNull();
  expect(api.commits).toHaveLength(1);
});

test("a client that reads slowly gets every row, and the query waits for it", async () => {
  const api = await start();
  const answer = await openQuery(api, longRows(200_000));
  const first = await nextBytes(answer);
  expect(first.length).toBeGreaterThan(0);
  // Turns of the loop in which the client takes nothing: the query is not read to its end.
  for (let turn = 0; turn < 200; turn += 1) await new Promise(setImmediate);
  expect(api.queries.stats.open).toBe(1);
  let text = first;
  answer.setEncoding("utf8");
  for await (const part of answer) text += String(part);
  expect(text.match(/"row":/g)).toHaveLength(200_000);
  expect(text.trim().split("\n").at(-1)).toMatch(/^{"eoq":{"time":[0-9.e-]+}}$/);
  expect(api.queries.stats.open).toBe(0);
});

test("a client that takes no rows for too long is told so at the end of what it got", async () => {
  const api = await start({ queries: { idleMs: 20 } });
  const answer = await openQuery(api, longRows(1_000_000));
  await nextBytes(answer);
  await until(() => api.queries.stats.open === 0);
  let text = "";
  answer.setEncoding("utf8");
  for await (const part of answer) text += String(part);
  expect(text.trim().split("\n").at(-1)).toBe('{"error":"no rows were taken for 20 ms"}');
});

test("a client that takes nothing at all is cut", async () => {
  const api = await start({ server: { limits: { drainMsMax: 20 } } });
  const answer = await openQuery(api, longRows(1_000_000));
  await until(() => api.queries.stats.open === 0);
  const read = (async () => {
    for await (const part of answer) expect(part).toBeDefined();
  })();
  await expect(read).rejects.toMatchObject({ code: "ECONNRESET" });
});

test("a client that goes away in the middle of its query frees it", async () => {
  const api = await start();
  const answer = await openQuery(api, longRows(1_000_000));
  await nextBytes(answer);
  expect(api.queries.stats.open).toBe(1);
  answer.destroy();
  await until(() => api.queries.stats.open === 0);
  expect((await api.query("SELECT 1")).status).toBe(200);
  expect(api.server.stats.failed).toBe(0);
});

test("a client that goes away in the middle of its body leaves no trace", async () => {
  const api = await start();
  const head = "POST /v1/transactions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n";
  const socket = connect(api.port, "127.0.0.1");
  socket.write(`${head}content-length: 100\r\n\r\n[`);
  await until(() => api.server.stats.requests === 1);
  socket.destroy();
  await until(() => api.server.stats.refused + api.server.stats.gone === 1);
  expect(api.server.stats.failed).toBe(0);
  expect(api.logLines).toEqual([]);
});

test("a query over its time answers 200 with an error line", async () => {
  const api = await start();
  const answer = await api.call({
    method: "POST",
    path: "/v1/queries?timeout=1",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(longRows(100_000_000)),
  });
  expect(answer.status).toBe(200);
  expect(answer.text.trim().split("\n").at(-1)).toBe(
    '{"error":"interrupted: the query took longer than 1000 ms"}',
  );
  expect(api.queries.stats).toMatchObject({ open: 0, timeouts: 1, abandoned: 0 });
});

test("a transaction over its time is undone whole and told to nobody", async () => {
  const api = await start();
  const endless =
    "INSERT INTO apps (id) WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)" +
    " SELECT 'a' || x FROM c";
  const insert = "INSERT INTO apps (id) VALUES ('first')";
  const late = await api.json("POST", "/v1/transactions?timeout=1", [insert, endless]);
  const error = "interrupted: the transaction took longer than 1000 ms";
  // Corrosion's status and shape.
  expect(late).toEqual({
    status: 500,
    body: {
      results: [{ error }],
      time: 0,
      version: null,
      actor_id: api.store.actorId.replaceAll("-", ""),
    },
  });
  expect(api.commits).toEqual([]);
  expect((await api.query("SELECT id FROM apps")).lines.slice(1, -1)).toEqual([]);
  const next = await api.json("POST", "/v1/transactions?timeout=60", [insert]);
  expect([next.status, next.body?.["version"]]).toEqual([200, 1]);
  expect(api.commits).toMatchObject([{ version: 1 }]);
  expect((await api.store.stats()).timeouts).toBe(1);
});

async function start(options: ApiFixtureOptions = {}): Promise<ApiFixture> {
  const fixture = await ApiFixture.start(options);
  fixtures.push(fixture);
  return fixture;
}

function openQuery(api: ApiFixture, sql: string): Promise<IncomingMessage> {
  const headers = { "content-type": "application/json" };
  return api.open({ method: "POST", path: "/v1/queries", headers, body: JSON.stringify(sql) });
}

/** The first bytes of a body; the rest stays in the socket. */
async function nextBytes(answer: IncomingMessage): Promise<string> {
  for (;;) {
    const bytes = answer.read() as Buffer | null;
    if (bytes !== null) return bytes.toString("utf8");
    await new Promise((resolve) => answer.once("readable", resolve));
  }
}

function rawRequest(port: number, text: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let answer = "";
    const socket = connect(port, "127.0.0.1", () => socket.write(text));
    socket.setEncoding("utf8");
    socket.on("data", (part: string) => (answer += part));
    socket.on("end", () => resolve(answer));
    socket.on("error", reject);
  });
}

async function until(isTrue: () => boolean): Promise<void> {
  while (!isTrue()) await new Promise(setImmediate);
}

function silentLog() {
  return createLogger({ level: "error", write: () => undefined, nowMs: () => 0 });
}

function longRows(count: number): string {
  const rows = `SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT ${count}`;
  return `WITH RECURSIVE c(x) AS (${rows}) SELECT x, 'a text of some length' AS s FROM c`;
}
