/** What a client makes of a real Corrosion's transcripts, and of servers that answer as it may. */
import { readFileSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { afterEach, expect, test } from "vitest";
import { createLogger } from "#base/logger.ts";
import { replicaSection } from "../../config.ts";
import type { Statement } from "../../types.ts";
import { parseJson } from "../api/json.ts";
import { readSchema, readSchemaFolder } from "../store/schema-files.ts";
import { CorrosionMirror } from "./corrosion-mirror.ts";
import { FollowedQuery, type QueryLine } from "./followed-query.ts";
import { MIRRORED, MirroredTable } from "./mirrored-table.ts";

interface Transcript {
  readonly title: string;
  readonly response: { readonly lines?: readonly string[] };
}
const VECTORS = new URL("../../../tests/vectors/http-api.json", import.meta.url);
const transcripts = JSON.parse(readFileSync(VECTORS, "utf8")) as readonly Transcript[];
const SQL = "SELECT id, state FROM fleet";
const closing: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0)) await close();
});

test("a subscription of a real node leads to the rows that the node has then", () => {
  const followed = new FollowedQuery();
  const kinds = linesOf("subscribe, then insert, update, delete").map(
    (line) => followed.take(line).kind,
  );
  expect(kinds).toEqual([
    ...Array.from({ length: 4 }, () => "nothing"),
    "whole",
    ...Array.from({ length: 3 }, () => "changed"),
  ]);
  const again = new FollowedQuery();
  for (const line of linesOf("the same SQL again: attached to the running one")) again.take(line);
  expect(new Set([...followed.rows].map(String))).toEqual(new Set([...again.rows].map(String)));
  expect(followed.changeId).toBe(again.changeId);
});

test("a real node's answer to a resumption goes on, and one with a hole does not", () => {
  const resumed = (from: bigint): FollowedQuery => {
    const followed = new FollowedQuery();
    followed.take({ columns: ["id", "v"] });
    followed.take({ eoq: { change_id: from } });
    return followed;
  };
  const lines = linesOf("by id, from=1");
  expect(lines.map((line) => resumed(1n).take(line).kind)).toEqual(["changed", "broken", "broken"]);
  const followed = resumed(1n);
  expect(lines.map((line) => followed.take(line).kind)).toEqual(["changed", "changed", "changed"]);
  expect(followed.changeId).toBe(4n);
});

test("tables that a query can be given for are those of the schema, with its columns", () => {
  const folder = new URL("../../schema/", import.meta.url).pathname;
  const { tables } = readSchema(readSchemaFolder(folder));
  for (const { name, key, columns } of MIRRORED) {
    const spec = tables.find((table) => table.name === name);
    const all = spec?.columns.map((column) => column.name).filter((one) => one !== "updated_at");
    expect([...key, ...Object.keys(columns)].toSorted(), name).toEqual(all?.toSorted());
    for (const column of spec?.columns ?? []) {
      if (column.name in columns) expect(columns[column.name] === null).toBe(!column.isNotNull);
    }
  }
});

test("only rows that differ are written, and a failed write is tried again", () => {
  const [spec] = MIRRORED.filter(({ name }) => name === "machines");
  const table = new MirroredTable(spec!, [
    { id: "a", state: "started", region: "ams" },
    { id: "b", state: "started", region: "ams" },
  ]);
  expect(table.whole(["id", "status"], [])).toMatch(/gives status; machines has id, app_id/);
  expect(table.whole(["state"], [])).toMatch(/gives no column id/);
  expect(
    table.whole(
      ["id", "state"],
      [
        ["a", "started"],
        ["c", null],
      ],
    ),
  ).toBeNull();
  const { statements } = table.take(10);
  expect(statements.map(({ sql, params }) => [sql.split(" ")[0], params])).toEqual([
    ["INSERT", ["c", ""]],
    ["DELETE", ["b"]],
  ]);
  const again = table.take(10);
  expect(again.statements).toEqual(statements);
  again.done();
  expect(table.isBehind).toBe(false);
});

test("a stream with a hole is asked for whole again; one that ends is resumed", async () => {
  const answers = [
    [HEAD, ROW, EOQ, '{"change":["insert",2,["b","started"],2]}'],
    [HEAD, ROW, '{"row":[2,["b","started"]]}', '{"eoq":{"time":0,"change_id":2}}'],
    ['{"change":["update",2,["b","stopped"],3]}'],
  ];
  const world = await open((request, response) => {
    const lines = answers.shift();
    if (lines === undefined) return; // The last one goes on for ever.
    response.setHeader("corro-query-id", ID);
    response.end(lines.map((line) => `${line}\n`).join(""));
    asked.push(`${request.method} ${request.url}`);
  });
  const asked: string[] = [];
  await world.until(() => world.rows.get("b") === "stopped");
  expect(asked).toEqual([
    "POST /v1/subscriptions",
    "POST /v1/subscriptions",
    `GET /v1/subscriptions/${ID}?from=2`,
  ]);
  expect(Object.fromEntries(world.rows)).toEqual({ a: "started", b: "stopped" });
});

test("a query that is not subscribed to is asked, and a node that is away changes nothing", async () => {
  let state = "started";
  let isAway = false;
  let questions = 0;
  const world = await open((request, response) => {
    questions += 1;
    if (isAway) return void response.socket?.destroy();
    if (request.url === "/v1/subscriptions") return void response.writeHead(400).end("{}");
    response.end(`${HEAD}\n{"row":[1,["a","${state}"]]}\n{"eoq":{"time":0}}\n`);
  });
  await world.until(() => world.rows.get("a") === "started");
  isAway = true;
  const before = questions;
  await world.until(() => questions > before + 2);
  expect(Object.fromEntries(world.rows)).toEqual({ a: "started" });
  state = "stopped";
  isAway = false;
  await world.until(() => world.rows.get("a") === "stopped");
});

const ID = "bd920dc1-d897-4ed5-b7c7-b8cf52b1d176";
const HEAD = '{"columns":["id","state"]}';
const ROW = '{"row":[1,["a","started"]]}';
const EOQ = '{"eoq":{"time":0,"change_id":0}}';

function linesOf(title: string): QueryLine[] {
  const found = transcripts.find((one) => one.title === title);
  return (found?.response.lines ?? []).map((line) => {
    const parsed = parseJson(line);
    if (!parsed.ok) throw new Error(parsed.error);
    return parsed.value as QueryLine;
  });
}

interface World {
  /** State by id, as it was written. */
  readonly rows: ReadonlyMap<string, string>;
  /** Asked after each write and question. */
  until(condition: () => boolean): Promise<void>;
}

/** A server, and a mirror of one query of it. */
async function open(
  answer: (request: IncomingMessage, response: ServerResponse) => void,
): Promise<World> {
  const rows = new Map<string, string>();
  const watchers: (() => void)[] = [];
  const changed = (): void => watchers.splice(0).forEach((look) => look());
  const server: Server = createServer((request, response) => {
    request.resume();
    answer(request, response);
    changed();
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const none = "SELECT id FROM none";
  const { corrosion } = replicaSection.parse({
    corrosion: {
      api: `http://127.0.0.1:${port}`,
      poll_secs: 0.1,
      sql: { machines: SQL, services: none, hostnames: none },
    },
  });
  const count = { add: () => undefined, set: () => undefined };
  const mirror = await CorrosionMirror.start({
    corrosion: { ...corrosion!, sql: { machines: SQL } as never },
    rowsOf: async () => [],
    write: async (statements: readonly Statement[]) => {
      for (const { sql, params } of statements) {
        const [id, state] = params as readonly string[];
        if (sql.startsWith("DELETE")) rows.delete(id!);
        else rows.set(id!, state!);
      }
      changed();
      return true;
    },
    onCurrent: () => undefined,
    log: createLogger({ level: "error", nowMs: () => 0, write: () => undefined }),
    metrics: { followed: count, changes: count, failures: count } as never,
    random: () => 0,
  });
  closing.push(async () => {
    mirror.stop();
    const closed = once(server, "close");
    server.close();
    server.closeAllConnections();
    await closed;
  });
  return {
    rows,
    until: async (condition) => {
      while (!condition()) await new Promise<void>((resolve) => watchers.push(resolve));
    },
  };
}
