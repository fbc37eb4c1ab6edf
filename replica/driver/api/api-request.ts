/** One request of the API in progress, its body, and the shapes of its refusals. */
import type { IncomingMessage, OutgoingHttpHeaders, ServerResponse } from "node:http";
import type { ApiBackend } from "./api-types.ts";
import { parseJson } from "./json.ts";

/** A request with what its handler needs. */
export interface ApiRequest {
  readonly message: IncomingMessage;
  readonly response: ServerResponse;
  readonly url: URL;
  readonly backend: ApiBackend;
  readonly limits: ApiLimits;
  readonly stats: ApiStats;
  /** A query has its columns, or was refused, so long after it came. */
  readonly onQuery: (result: QueryResult, seconds: number) => void;
}

/** What became of a query's start. */
export type QueryResult = "success" | "error";

/** Requests since the start. */
export interface ApiStats {
  requests: number;
  /** Transactions and queries whose form was right. */
  transactions: number;
  queries: number;
  /** Bad, unauthorised or in conflict. */
  refused: number;
  /** Turned away because too many were served. */
  shed: number;
  /** Left by their client. */
  gone: number;
  /** Failed for no fault of the client. */
  failed: number;
}

/** Limits of one request. */
export interface ApiLimits {
  /** Bytes of a body. */
  readonly bodyBytesMax: number;
  /** Milliseconds that an answer may wait for its client to take bytes before it is cut. */
  readonly drainMsMax: number;
}

/** A refusal of the request itself: status, and a text for the body (empty = no body). */
export class HttpProblem extends Error {
  override readonly name = "HttpProblem";
  readonly status: number;
  readonly headers: OutgoingHttpHeaders;

  constructor(status: number, message: string, headers: OutgoingHttpHeaders = {}) {
    super(message);
    this.status = status;
    this.headers = headers;
  }
}

/** Refuses any other method with 405 and `allow`. */
export function requireMethod(request: ApiRequest, ...allowed: string[]): string {
  const method = request.message.method ?? "";
  if (!allowed.includes(method)) throw new HttpProblem(405, "", { allow: allowed.join(",") });
  return method;
}

/**
 * Reads the body as JSON, integers as `bigint`. Refuses a wrong content type with 415, a body over
 * the limit with 413 and a syntax error with 400, which says where.
 */
export async function readJsonBody(request: ApiRequest): Promise<unknown> {
  const type = request.message.headers["content-type"] ?? "";
  if (!/^application\/(?:json|[^;]+\+json)\s*(?:;|$)/i.test(type)) {
    throw new HttpProblem(415, "Expected request with `Content-Type: application/json`");
  }
  const { bodyBytesMax } = request.limits;
  if (Number(request.message.headers["content-length"] ?? 0) > bodyBytesMax) {
    throw bodyTooLong(bodyBytesMax);
  }
  const parts: Buffer[] = [];
  let length = 0;
  for await (const part of request.message as AsyncIterable<Buffer>) {
    length += part.length;
    if (length > bodyBytesMax) throw bodyTooLong(bodyBytesMax);
    parts.push(part);
  }
  const parsed = parseJson(Buffer.concat(parts).toString("utf8"));
  if (!parsed.ok) {
    throw new HttpProblem(400, `Failed to parse the request body as JSON: ${parsed.error}`);
  }
  return parsed.value;
}

/** A query parameter in whole seconds as milliseconds; 400 for anything else. */
export function secondsParameter(url: URL, name: string): number | undefined {
  const text = url.searchParams.get(name);
  if (text === null) return undefined;
  if (!/^\d{1,9}$/.test(text)) {
    throw new HttpProblem(
      400,
      `Failed to deserialize query string: ${name}: invalid digit found in string`,
    );
  }
  return Number(text) * 1000;
}

/** Answers with JSON; `bigint` and raw numbers print as digits. */
export function sendJson(response: ServerResponse, status: number, value: unknown): void {
  const body = JSON.stringify(value);
  response.writeHead(status, {
    "content-type": "application/json",
    "content-length": Buffer.byteLength(body),
  });
  response.end(body);
}

/** Writes, and waits while the client is slower than the query; cuts one that takes nothing. */
export async function writeText({ response, limits }: ApiRequest, text: string): Promise<void> {
  if (response.destroyed || response.write(text)) return;
  await new Promise<void>((resolve) => {
    const cut = setTimeout(() => response.destroy(), limits.drainMsMax);
    const go = (): void => {
      clearTimeout(cut);
      response.off("drain", go);
      response.off("close", go);
      resolve();
    };
    response.on("drain", go);
    response.on("close", go);
  });
}

/** Answers a refusal with its text. */
export function sendText(response: ServerResponse, problem: HttpProblem): void {
  response.writeHead(problem.status, {
    "content-type": "text/plain; charset=utf-8",
    "content-length": Buffer.byteLength(problem.message),
    ...problem.headers,
  });
  response.end(problem.message);
}

/** The connection ends with it: what the client still sends would have to be read to its end. */
function bodyTooLong(bytesMax: number): HttpProblem {
  return new HttpProblem(413, `the body is over ${bytesMax} bytes`, { connection: "close" });
}
