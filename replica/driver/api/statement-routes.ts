/**
 * `POST /v1/transactions` and `POST /v1/queries`, answered byte for byte as Corrosion answers
 * (protocol reference, section 6.2), but for its quirks that hide mistakes: DDL and PRAGMA are
 * refused instead of being carried out without a version.
 */
import { PatinaError } from "#base/errors.ts";
import type { QueryAnswer } from "./api-types.ts";
import { httpStatusOf } from "./errors.ts";
import { printSqlValue } from "./json.ts";
import {
  HttpProblem,
  readJsonBody,
  requireMethod,
  secondsParameter,
  sendJson,
  writeText,
  type ApiRequest,
  type QueryResult,
} from "./api-request.ts";
import { readStatement, readStatements } from "./statements.ts";

/** Runs a transaction: all or nothing. */
export async function handleTransaction(request: ApiRequest): Promise<void> {
  requireMethod(request, "POST");
  const timeoutMs = secondsParameter(request.url, "timeout") ?? 0;
  const statements = readStatements(await readJsonBody(request));
  if (!statements.ok) throw new HttpProblem(422, `${BAD_SHAPE}${statements.error}`);
  const actor_id = request.backend.actorId.replaceAll("-", "");
  const refuse = (status: number, error: string): void =>
    sendJson(request.response, status, {
      results: [{ error }],
      time: JSON.rawJSON("0.0"),
      version: null,
      actor_id,
    });
  if (statements.value.length === 0) return refuse(400, "at least 1 statement is required");
  request.stats.transactions += 1;
  try {
    const answer = await request.backend.transact(statements.value, timeoutMs);
    sendJson(request.response, 200, {
      results: answer.results.map((result) => ({
        rows_affected: result.rowsAffected,
        time: result.timeMs / 1000,
      })),
      time: answer.timeMs / 1000,
      version: answer.commit?.version ?? null,
      actor_id,
    });
  } catch (error) {
    if (!(error instanceof PatinaError)) throw error;
    // Corrosion answers 500 to a statement that is wrong; nothing else of the API does.
    refuse(error.code === "STORE_SQL" ? 500 : httpStatusOf(error), error.message);
  }
}

/** Runs a read-only query and streams its rows as NDJSON. */
export async function handleQuery(request: ApiRequest): Promise<void> {
  requireMethod(request, "POST");
  const timeoutMs = secondsParameter(request.url, "timeout") ?? QUERY_TIMEOUT_MS;
  const statement = readStatement(await readJsonBody(request));
  if (!statement.ok) throw new HttpProblem(422, `${BAD_SHAPE}${statement.error}`);
  const { response } = request;
  const startedMs = performance.now();
  let answer: QueryAnswer;
  request.stats.queries += 1;
  const started = (result: QueryResult): void =>
    request.onQuery(result, (performance.now() - startedMs) / 1000);
  try {
    answer = await request.backend.query(statement.value, timeoutMs);
    started("success");
  } catch (error) {
    started("error");
    if (!(error instanceof PatinaError)) throw error;
    return sendJson(response, httpStatusOf(error), { error: error.message });
  }
  // A client that goes away frees its query at once, also while SQLite looks for a row.
  response.once("close", () => void answer.pages.return?.());
  if (response.destroyed) return void (await answer.pages.return?.());
  response.writeHead(200, { "content-type": "application/x-ndjson" });
  await writeText(request, `${JSON.stringify({ columns: answer.columns })}\n`);
  try {
    await writeRows(request, answer);
    const time = (performance.now() - startedMs) / 1000;
    response.end(`${JSON.stringify({ eoq: { time } })}\n`);
  } catch (error) {
    if (!(error instanceof PatinaError)) throw error;
    response.end(`${JSON.stringify({ error: error.message })}\n`);
  }
}

async function writeRows(request: ApiRequest, answer: QueryAnswer): Promise<void> {
  let rowId = 0;
  for await (const page of answer.pages) {
    let lines = "";
    for (const row of page) {
      lines += `${JSON.stringify({ row: [++rowId, row.map(printSqlValue)] })}\n`;
    }
    await writeText(request, lines);
  }
}

const BAD_SHAPE = "Failed to deserialize the JSON body into the target type: ";
/** Corrosion's default. */
const QUERY_TIMEOUT_MS = 60_000;
