/**
 * `POST /v1/table_stats` and `GET /v1/health`, as Corrosion has them (protocol reference, section
 * 6.2).
 */
import { PatinaError } from "#base/errors.ts";
import { quoteName } from "../store/sql-text.ts";
import type { ApiBackend } from "./api-types.ts";
import {
  HttpProblem,
  readJsonBody,
  requireMethod,
  sendJson,
  type ApiRequest,
} from "./api-request.ts";
import { httpStatusOf } from "./errors.ts";
import { printSqlValue } from "./json.ts";

/** Counts the rows of replicated tables. Cost: SQLite walks each table. */
export async function handleTableStats(request: ApiRequest): Promise<void> {
  requireMethod(request, "POST");
  const names = readTables(await readJsonBody(request));
  const { backend, response } = request;
  try {
    const known = new Set(await readColumn(backend, REPLICATED_TABLES));
    const tables = names.filter((name) => known.has(name));
    let total = 0n;
    for (const name of tables) {
      const [count] = await readColumn(backend, `SELECT count(*) FROM ${quoteName(name)}`);
      total += count as bigint;
    }
    sendJson(response, 200, {
      total_row_count: printSqlValue(total),
      invalid_tables: names.filter((name) => !known.has(name)),
    });
  } catch (error) {
    if (!(error instanceof PatinaError)) throw error;
    sendJson(response, httpStatusOf(error), { error: error.message });
  }
}

/** Says how the replica does, with a status by the thresholds that were given. */
export async function handleHealth(request: ApiRequest): Promise<void> {
  requireMethod(request, "GET");
  const { url, backend, response } = request;
  const limits = {
    gaps: numberParameter(url, "gaps", INTEGER),
    p99LagSeconds: numberParameter(url, "p99_lag", REAL),
    maxQueue: numberParameter(url, "max_queue", NATURAL),
    queueSize: numberParameter(url, "queue_size", NATURAL),
  };
  const failureStatus = numberParameter(url, "failure_status", NATURAL) ?? 503;
  if (failureStatus < 200 || failureStatus > 599) {
    throw new HttpProblem(400, "failure_status: allowed: 200 to 599");
  }
  const { gaps, members, p99LagSeconds, queueSize } = backend.health();
  if (p99LagSeconds === null) {
    return sendJson(response, failureStatus, { error: "no p99 lag information available" });
  }
  const isLate =
    exceeds(p99LagSeconds, limits.p99LagSeconds) &&
    (limits.queueSize === null || queueSize > limits.queueSize);
  const isFailing = exceeds(gaps, limits.gaps) || exceeds(queueSize, limits.maxQueue) || isLate;
  const p99_lag = printSqlValue(p99LagSeconds);
  sendJson(response, isFailing ? failureStatus : 200, {
    response: { gaps, members, p99_lag, queue_size: queueSize },
  });
}

function exceeds(value: number, limit: number | null): boolean {
  return limit !== null && value > limit;
}

function readTables(body: unknown): readonly string[] {
  const tables = typeof body === "object" && body !== null && "tables" in body ? body.tables : null;
  if (Array.isArray(tables) && tables.every((name) => typeof name === "string")) return tables;
  const reason = "expected a map with `tables`, a sequence of strings";
  throw new HttpProblem(422, `Failed to deserialize the JSON body into the target type: ${reason}`);
}

async function readColumn(backend: ApiBackend, sql: string): Promise<unknown[]> {
  const { pages } = await backend.query({ sql }, COUNT_TIMEOUT_MS);
  const values: unknown[] = [];
  for await (const page of pages) for (const [value] of page) values.push(value);
  return values;
}

function numberParameter(url: URL, name: string, form: RegExp): number | null {
  const text = url.searchParams.get(name);
  if (text === null) return null;
  if (form.test(text)) return Number(text);
  throw new HttpProblem(
    400,
    `Failed to deserialize query string: ${name}: invalid digit found in string`,
  );
}

const INTEGER = /^-?\d{1,15}$/;
const NATURAL = /^\d{1,15}$/;
const REAL = /^-?\d{1,15}(?:\.\d{1,15})?$/;
const COUNT_TIMEOUT_MS = 60_000;
const REPLICATED_TABLES =
  "SELECT t.name FROM sqlite_master t JOIN sqlite_master c ON c.name = t.name || '__crsql_clock'" +
  " WHERE t.type = 'table'";
