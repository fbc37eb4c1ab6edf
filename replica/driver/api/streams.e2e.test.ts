/** Streams over HTTP: who is served, who is dropped, what is refused; and the replica's own state. */
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { ApiFixture, type ApiFixtureOptions, type LineReader } from "./api-fixture.ts";

const HEALTH = { gaps: 2, members: 4, p99LagSeconds: 1.5, queueSize: 10 };
const fixtures: ApiFixture[] = [];
/** For tests that only ask. */
let shared: ApiFixture;

beforeAll(async () => {
  shared = await ApiFixture.start({ health: HEALTH });
});
afterAll(() => shared.stop());

afterEach(async () => {
  for (const fixture of fixtures.splice(0)) await fixture.stop();
});

test("a commit is told to every reader: by row, by key, and by those of other tables not", async () => {
  const api = await start();
  const rows = await subscribe(api, "SELECT id, name FROM apps");
  const same = await subscribe(api, "SELECT id, name FROM apps");
  const keys = await api.lines({ path: "/v1/updates/apps" });
  const other = await api.lines({ path: "/v1/updates/machines" });
  await putApp(api, "a", "first");
  const line = '{"change":["insert",1,["a","first"],1]}';
  expect(await rows.take(1)).toEqual([line]);
  expect(await same.take(1)).toEqual([line]);
  expect(await keys.take(1)).toEqual(['{"notify":["update",["a"]]}']);
  expect(api.streams.streamCount).toBe(4);
  await api.streams.close();
  for (const stream of [rows, same, keys, other]) expect(await stream.take(1)).toEqual([]);
});

test("streams do not use up the places of requests", async () => {
  const api = await start();
  const streams: LineReader[] = [];
  for (let count = 0; count < 140; count += 1) {
    streams.push(await api.lines({ path: "/v1/updates/apps" }));
  }
  await putApp(api, "a", "first");
  for (const stream of streams) {
    expect(await stream.take(1)).toEqual(['{"notify":["update",["a"]]}']);
    stream.close();
  }
  await until(() => api.streams.streamCount === 0);
  expect(api.server.stats).toMatchObject({ shed: 0, failed: 0 });
});

test("a folder that cannot be written costs subscriptions, and nothing else", async () => {
  const notices: string[] = [];
  const onNotice = (text: string): void => void notices.push(text);
  const api = await start({ subscriptions: { folder: "/dev/null/subscriptions", onNotice } });
  expect(notices).toMatchObject([expect.stringMatching(/^subscriptions are not restored: /)]);
  expect((await api.call({ method: "POST", path: "/v1/updates/apps" })).status).toBe(500);
  await putApp(api, "a", "first");
});

test("a reader that takes nothing is dropped, and is told so by its last line", async () => {
  const api = await start({ subscriptions: { limits: { waitingMax: 500_000 } } });
  const quick = await subscribe(api, "SELECT name FROM apps");
  const slow = await subscribe(api, "SELECT name FROM apps");
  const name = "x".repeat(400_000);
  for (let count = 0; count < 100 && api.streams.streamCount === 2; count += 1) {
    await putApp(api, "a", `${name} ${count}`);
    await quick.take(1);
  }
  expect(api.streams.streamCount).toBe(1);
  let last = "";
  for (let lines = await slow.take(1); lines.length > 0; lines = await slow.take(1)) {
    last = lines[0] ?? "";
  }
  expect(last).toMatch(/^{"error":"the reader is too slow: /);
  // The other goes on.
  await putApp(api, "b", "still here");
  expect(await quick.take(1)).toMatchObject([expect.stringContaining("still here")]);
});

test("readers of a large result get all of it, however they pause", async () => {
  const api = await start({ subscriptions: { limits: { creditMax: 10_000 } } });
  const numbers = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 5000)";
  const insert = `INSERT INTO apps (id, name) ${numbers} SELECT 'app ' || x, 'some name' FROM c`;
  expect((await api.json("POST", "/v1/transactions", [insert])).status).toBe(200);
  const stream = await api.lines({
    path: "/v1/subscriptions",
    body: JSON.stringify("SELECT id, name FROM apps"),
  });
  await stream.take(1);
  const paused = await stream.take(1_000);
  await putApp(api, "app 1", "another");
  const rest = await stream.take(4_000 + 1 + 1);
  expect(new Set([...paused, ...rest]).size).toBe(5_002);
  expect(rest.slice(-2)).toEqual([
    '{"eoq":{"time":0.0,"change_id":0}}',
    '{"change":["update",1,["app 1","another"],1]}',
  ]);
});

test.each([
  ["from=x", "Failed to deserialize query string: from: invalid digit found in string"],
  ["from=-1", "Failed to deserialize query string: from: invalid digit found in string"],
  [
    "skip_rows=1",
    "Failed to deserialize query string: skip_rows: provided string was not `true` or `false`",
  ],
])("the parameter %s is refused", async (query, text) => {
  const headers = { "content-type": "application/json" };
  const body = JSON.stringify("SELECT id FROM apps");
  const path = `/v1/subscriptions?${query}`;
  const answer = await shared.call({ method: "POST", path, headers, body });
  expect([answer.status, answer.text]).toEqual([400, text]);
});

test.each([
  ["POST", "/v1/subscriptions/00000000-0000-4000-8000-000000000000", 405],
  ["GET", "/v1/subscriptions", 405],
  ["GET", "/v1/subscriptions/00000000-0000-4000-8000-00000000000g", 400],
  ["GET", "/v1/subscriptions/000000000000400080000000000000ab", 404],
  ["GET", "/v1/updates/apps", 405],
  ["POST", "/v1/updates/%ff", 400],
  ["POST", "/v1/updates/apps__crsql_clock", 400],
  ["POST", "/v1/updates", 404],
  ["POST", "/v1/health", 405],
  ["GET", "/v1/health?gaps=many", 400],
  ["GET", "/v1/health?failure_status=99", 400],
])("%s %s is answered with %i", async (method, path, status) => {
  expect((await shared.call({ method, path })).status).toBe(status);
});

test("an endpoint that has no name is not the one that is asked for; no text is 400", async () => {
  const header = "x-corrosion-requested-endpoint-name";
  const asked = (name: string) =>
    shared.call({
      path: "/v1/status",
      headers: { [header]: Buffer.from(name).toString("latin1") },
    });
  expect((await asked("db-one")).status).toBe(421);
  expect((await asked("é")).status).toBe(400);
});

test.each([
  ["", 200],
  ["?gaps=2&p99_lag=1.5&max_queue=10", 200],
  ["?gaps=1", 503],
  ["?max_queue=9&failure_status=500", 500],
  ["?p99_lag=1", 503],
  ["?p99_lag=1&queue_size=10", 200],
  ["?p99_lag=1&queue_size=9", 503],
])("health with %s has status %i", async (query, status) => {
  const answer = await shared.json("GET", `/v1/health${query}`);
  expect(answer).toEqual({
    status,
    body: { response: { gaps: 2, members: 4, p99_lag: 1.5, queue_size: 10 } },
  });
});

test("tables are counted, those that are not replicated are named", async () => {
  const api = await start();
  await putApp(api, "a", "first");
  const tables = ["apps", "apps", "sqlite_master", "__patina_state"];
  const answer = await api.json("POST", "/v1/table_stats", { tables });
  expect(answer.body).toEqual({
    total_row_count: 2,
    invalid_tables: ["sqlite_master", "__patina_state"],
  });
  const headers = { "content-type": "application/json" };
  for (const body of ["[]", '{"tables":"apps"}', '{"tables":[1]}', "null"]) {
    const wrong = await api.call({ method: "POST", path: "/v1/table_stats", headers, body });
    expect(wrong.status).toBe(422);
  }
});

async function start(options: ApiFixtureOptions = {}): Promise<ApiFixture> {
  const fixture = await ApiFixture.start(options);
  fixtures.push(fixture);
  return fixture;
}

/** A stream that has told that there is nothing yet. */
async function subscribe(api: ApiFixture, sql: string): Promise<LineReader> {
  const stream = await api.lines({ path: "/v1/subscriptions", body: JSON.stringify(sql) });
  const [, eoq] = await stream.take(2);
  expect(eoq).toBe('{"eoq":{"time":0.0,"change_id":0}}');
  return stream;
}

async function putApp(api: ApiFixture, id: string, name: string): Promise<void> {
  const statement = ["INSERT OR REPLACE INTO apps (id, name) VALUES (?, ?)", [id, name]];
  expect((await api.json("POST", "/v1/transactions", [statement])).status).toBe(200);
}

async function until(isTrue: () => boolean): Promise<void> {
  while (!isTrue()) await new Promise(setImmediate);
}
