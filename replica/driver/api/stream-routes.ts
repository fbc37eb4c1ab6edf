/**
 * `POST /v1/subscriptions`, `GET /v1/subscriptions/{id}` and `POST /v1/updates/{table}`: streams of
 * lines that end only when the client or the replica goes (protocol reference, section 6.3 and 6.4).
 *
 * The head of an answer goes out at once, and with it the request is over as far as limits on
 * requests are concerned; the lines follow at the pace of the client.
 */
import { errorText, PatinaError } from "#base/errors.ts";
import { queryError } from "../query/errors.ts";
import { expandParameters } from "../query/parameters.ts";
import type { ResumePoint, StreamTarget } from "../subscriptions/subscription-messages.ts";
import type { LineStream } from "../subscriptions/subscription-lane.ts";
import {
  HttpProblem,
  readJsonBody,
  requireMethod,
  sendJson,
  writeText,
  type ApiRequest,
} from "./api-request.ts";
import { httpStatusOf } from "./errors.ts";
import { readStatement } from "./statements.ts";

/** Subscribes to a query by its text. */
export async function handleSubscribe(request: ApiRequest): Promise<void> {
  requireMethod(request, "POST");
  const point = resumePoint(request.url);
  const statement = readStatement(await readJsonBody(request));
  if (!statement.ok) {
    const text = `Failed to deserialize the JSON body into the target type: ${statement.error}`;
    throw new HttpProblem(422, text);
  }
  const sql = expandParameters(statement.value);
  if (!sql.ok) return refuse(request, queryError("QUERY_PARAMETERS", sql.error));
  return stream(request, { kind: "query", sql: sql.value, ...point });
}

/** Attaches to a subscription by its id. */
export async function handleSubscription(request: ApiRequest): Promise<void> {
  requireMethod(request, "GET");
  const queryId = uuidOf(request.url.pathname.split("/")[3] ?? "");
  return stream(request, { kind: "id", queryId, ...resumePoint(request.url) });
}

/** Tells which rows of a table change. */
export async function handleUpdates(request: ApiRequest): Promise<void> {
  requireMethod(request, "POST");
  const part = request.url.pathname.split("/")[3] ?? "";
  return stream(request, { kind: "updates", table: decoded(part) });
}

async function stream(request: ApiRequest, target: StreamTarget): Promise<void> {
  const { response } = request;
  let lines: LineStream;
  try {
    lines = await request.backend.stream(target);
  } catch (error) {
    if (!(error instanceof PatinaError)) throw error;
    return refuse(request, error);
  }
  response.once("close", () => void lines.texts.return?.());
  if (response.destroyed) return void (await lines.texts.return?.());
  const { queryId, queryHash } = lines;
  response.writeHead(200, {
    "corro-query-id": queryId,
    ...(queryHash === null ? {} : { "corro-query-hash": queryHash }),
  });
  response.flushHeaders();
  // Ends with the response, whose end the client or the thread of subscriptions brings about.
  void send(request, lines);
}

async function send(request: ApiRequest, lines: LineStream): Promise<void> {
  const { response } = request;
  try {
    for await (const text of lines.texts) await writeText(request, text);
    response.end();
  } catch (error) {
    response.end(`${JSON.stringify({ error: errorText(error) })}\n`);
  }
}

function refuse(request: ApiRequest, error: PatinaError): void {
  sendJson(request.response, httpStatusOf(error), { error: error.message });
}

function resumePoint(url: URL): ResumePoint {
  const from = url.searchParams.get("from");
  const skipRows = url.searchParams.get("skip_rows");
  if (from !== null && !/^\d{1,15}$/.test(from)) {
    throw badQuery("from", "invalid digit found in string");
  }
  if (skipRows !== null && skipRows !== "true" && skipRows !== "false") {
    throw badQuery("skip_rows", "provided string was not `true` or `false`");
  }
  return { from: from === null ? null : Number(from), skipRows: skipRows === "true" };
}

function badQuery(name: string, reason: string): HttpProblem {
  return new HttpProblem(400, `Failed to deserialize query string: ${name}: ${reason}`);
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch (error) {
    if (error instanceof URIError) {
      throw new HttpProblem(400, "the table's name is not valid percent-encoding");
    }
    throw error;
  }
}

/** A UUID with or without hyphens, in its canonical form. */
function uuidOf(text: string): string {
  const digits = text.replaceAll("-", "").toLowerCase();
  if (/^[0-9a-f]{32}$/.test(digits) && (text.length === 32 || HYPHENATED.test(text))) {
    return digits.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
  }
  const reason = text.includes("-")
    ? "invalid group or character"
    : `invalid length: expected length 32 for simple format, found ${text.length}`;
  throw new HttpProblem(
    400,
    `Invalid URL: Cannot parse \`id\` with value \`${text}\`: UUID parsing failed: ${reason}`,
  );
}

const HYPHENATED = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
