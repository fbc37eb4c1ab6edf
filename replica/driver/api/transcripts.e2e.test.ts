import { readFileSync } from "node:fs";
import { afterAll, beforeAll, expect, test } from "vitest";
import { ApiFixture } from "./api-fixture.ts";

// The requests of a real Corrosion node's transcripts, in order, and its answers: ours must be the
// same in status, in the headers that matter and in the body, but for times, the actor id, and what
// the table at the bottom says.

interface Transcript {
  readonly title: string;
  readonly request: {
    readonly method: string;
    readonly path: string;
    readonly headers: Readonly<Record<string, string>>;
    readonly body: unknown;
  };
  readonly response: {
    readonly status: number;
    readonly headers: Readonly<Record<string, string>>;
    readonly body?: string;
    /** Of a stream. */
    readonly lines?: readonly string[];
  };
}

interface Deviation {
  readonly status?: number;
  readonly body: string;
  /** `body` is a part of the answer. */
  readonly isContained?: boolean;
}

/** Where ours differs on purpose: the statement is named, and the layers below are not. */
const DEVIATIONS: ReadonlyMap<string, Deviation> = new Map<string, Deviation>([
  ["named parameters without the colon", refusal("Invalid parameter name: id")],
  [
    "two statements, second fails: nothing is written",
    refusal("no such table: nope", "statement 2"),
  ],
  ["constraint error", refusal("UNIQUE constraint failed: t.id")],
  ["syntax error", refusal("incomplete input")],
  ["select in a transaction", refusal("Execute returned results - did you mean to call query?")],
  // Carried out by Corrosion without a version, so that peers would never learn of it.
  ["create table over the API", refusal("CREATE is not allowed: only ")],
  ["pragma over the API", refusal("PRAGMA is not allowed: only ")],
  ["begin inside", refusal("BEGIN is not allowed: only ")],
  // Where in the text serde stopped is not told; where in the value is.
  ...[
    "an object as parameter",
    "an array that is no bytes as parameter",
    "an array of numbers over 255",
    "statement of a wrong shape",
    "number as a statement",
  ].map((title): [string, Deviation] => [
    title,
    wrongShape(`[0]: data did not match any variant of untagged enum Statement`),
  ]),
  ["not an array", wrongShape("invalid type: map, expected a sequence")],
  // V8's words instead of serde's.
  ["broken JSON", { body: "Failed to parse the request body as JSON: ", isContained: true }],
  // better-sqlite3 does not tell the offset.
  ["query syntax error", { body: '{"error":"near \\"SELEC\\": syntax error"}' }],
  // Likewise for subscriptions.
  ["subscribe unknown column", { body: '{"error":"no such column: nope"}' }],
  ["subscribe broken SQL", { body: '{"error":"near \\"SELEC\\": syntax error"}' }],
  // Accepted by Corrosion, which then never tells of a change.
  [
    "subscribe aggregate",
    { status: 400, body: '{"error":"aggregates are not supported', isContained: true },
  ],
  // 200 with an error line from Corrosion.
  ["query empty", { status: 400, body: '{"error":"the text holds no statement"}' }],
]);

const TRANSCRIPTS = readTranscripts();
/** What was written while a stream was read, each after the lines before it had arrived. */
const WRITES: ReadonlyMap<string, readonly string[]> = new Map([
  [
    "subscribe, then insert, update, delete",
    [
      "INSERT INTO t VALUES (10, 'live')",
      "UPDATE t SET v = 'live2' WHERE id = 10",
      "DELETE FROM t WHERE id = 10",
    ],
  ],
  ["by id, skip_rows, with a write", ["INSERT INTO t VALUES (11, 'skip')"]],
  ["subscribe aggregate", ["INSERT INTO t VALUES (12, 'agg')"]],
  ["subscribe join", ["INSERT INTO kinds (a, b, s) VALUES ('join', 1, 'joined')"]],
  [
    "updates of a table",
    [
      "INSERT INTO t VALUES (20, 'u')",
      "UPDATE t SET v = 'u2' WHERE id = 20",
      "DELETE FROM t WHERE id = 20",
    ],
  ],
  ["updates, composite key", ["INSERT INTO kinds (a, b) VALUES ('u', 7)"]],
]);

let open: ApiFixture;
let guarded: ApiFixture;

beforeAll(async () => {
  open = await ApiFixture.start({ schemaFiles: [{ name: "transcripts.sql", text: SCHEMA }] });
  guarded = await ApiFixture.start({
    server: { bearerToken: "secret", endpointName: "db-one" },
  });
});

afterAll(async () => {
  await open.stop();
  await guarded.stop();
});

test.each(TRANSCRIPTS)("$title: answered as Corrosion does", async (transcript) => {
  if (isStream(transcript)) return replayStream(transcript);
  const { title, request, response } = transcript;
  const api = /^(?:token|endpoint name):/.test(title) ? guarded : open;
  const { method, path, headers } = request;
  const body = bodyText(title, request.body);
  const answer = await api.call({ method, path, headers, ...body });
  const deviation = DEVIATIONS.get(title);
  const expected = deviation?.body ?? response.body ?? (response.lines ?? []).join("\n");
  const seen = { status: answer.status, text: masked(answer.text) };
  expect(seen).toEqual({
    status: deviation?.status ?? response.status,
    text: deviation?.isContained ? expect.stringContaining(expected) : masked(expected),
  });
  expect(answer.headers["allow"]).toBe(response.headers["allow"]);
  if (response.status !== 200 && response.headers["content-type"] !== undefined) {
    expect(answer.headers["content-type"]).toBe(response.headers["content-type"]);
  }
  for (const sql of WRITES.get(title) ?? []) await open.json("POST", "/v1/transactions", [sql]);
});

test("each deviation and each write is still there to be one", () => {
  const titles = new Set(TRANSCRIPTS.map((one) => one.title));
  const named = [...DEVIATIONS.keys(), ...WRITES.keys()];
  expect(named.filter((title) => !titles.has(title))).toEqual([]);
});

const SCHEMA = `
CREATE TABLE t (id INTEGER NOT NULL PRIMARY KEY, v TEXT);
CREATE TABLE kinds (a TEXT NOT NULL, b INTEGER NOT NULL, i INTEGER, r REAL, s TEXT, x BLOB,
  n TEXT NOT NULL DEFAULT 'none', PRIMARY KEY (a, b));
`;

function refusal(error: string, place = "statement 1"): Deviation {
  return { status: 500, body: `{"results":[{"error":"${place}: ${error}`, isContained: true };
}

function wrongShape(error: string): Deviation {
  return { body: `Failed to deserialize the JSON body into the target type: ${error}` };
}

/** The body as it was sent: some requests were text on purpose. */
function bodyText(title: string, body: unknown): { body?: string } {
  if (body === null) return {};
  const isRaw = ["broken JSON", "no content type", "wrong content type"].includes(title);
  return { body: isRaw && typeof body === "string" ? body : JSON.stringify(body) };
}

function masked(text: string): string {
  return text
    .replaceAll(/"time":[0-9.e-]+/g, '"time":0')
    .replaceAll(/"actor_id":"[0-9a-f]{32}"/g, '"actor_id":"-"');
}

/** Its lines arrive as they come, and it never ends by itself. */
function isStream({ title, response }: Transcript): boolean {
  return response.lines !== undefined && response.status === 200 && !DEVIATIONS.has(title);
}

/** Subscriptions have ids of our own making: ours by the recorded one. */
const idByRecorded = new Map<string, string>();

async function replayStream({ title, request, response }: Transcript): Promise<void> {
  if (title.startsWith("after a restart")) await open.restartStreams();
  let { path } = request;
  for (const [recorded, own] of idByRecorded) path = path.replace(recorded, own);
  const stream = await open.lines({
    method: request.method,
    path,
    ...bodyText(title, request.body),
  });
  const { headers } = stream.answer;
  const recorded = response.headers["corro-query-id"] ?? "";
  const own = String(headers["corro-query-id"]);
  expect(own).toBe(idByRecorded.get(recorded) ?? own);
  idByRecorded.set(recorded, own);
  expect(headers["corro-query-hash"]).toBe(response.headers["corro-query-hash"]);
  expect(headers["content-type"]).toBeUndefined();
  const writes = WRITES.get(title) ?? [];
  const expected = (response.lines ?? []).map(masked);
  const before = await stream.take(expected.length - writes.length);
  expect(before.map(masked)).toEqual(expected.slice(0, before.length));
  for (const [index, sql] of writes.entries()) {
    await open.json("POST", "/v1/transactions", [sql]);
    expect(await stream.take(1)).toEqual([expected[before.length + index]]);
  }
  stream.close();
}

/** Integers beyond what `number` holds are kept as text. */
function readTranscripts(): Transcript[] {
  const path = new URL("../../../tests/vectors/http-api.json", import.meta.url);
  const keepIntegers = (_key: string, value: unknown, context?: { source?: string }): unknown =>
    typeof value === "number" && !Number.isSafeInteger(value) && context?.source !== undefined
      ? JSON.rawJSON(context.source)
      : value;
  return JSON.parse(readFileSync(path, "utf8"), keepIntegers) as Transcript[];
}
