/** Calls of a replica's HTTP API from the command line. */
import { Agent, request } from "undici";
import { PatinaError } from "#base/errors.ts";
import { parseJson } from "../replica/driver/api/json.ts";

/** Where the API is. */
export interface ApiOptions {
  readonly apiAddr: string;
  readonly token?: string;
  /** HTTPS, with this authority (PEM) or, null, those of the system. Absent = plain HTTP. */
  readonly authorityPem?: string | null;
}

/** One request; throws `API_UNREACHABLE` when nobody answers. */
export async function callApi(
  options: ApiOptions,
  call: { method: "GET" | "PUT" | "POST" | "DELETE"; path: string; body?: unknown },
): Promise<{ status: number; body: AsyncIterable<Buffer>; text: () => Promise<string> }> {
  const { authorityPem } = options;
  const url = `${authorityPem === undefined ? "http" : "https"}://${options.apiAddr}${call.path}`;
  const dispatcher =
    typeof authorityPem === "string" ? new Agent({ connect: { ca: authorityPem } }) : undefined;
  try {
    const response = await request(url, {
      method: call.method,
      headers: {
        ...(call.body === undefined ? {} : { "content-type": "application/json" }),
        ...(options.token === undefined ? {} : { authorization: `Bearer ${options.token}` }),
      },
      ...(call.body === undefined ? {} : { body: JSON.stringify(call.body) }),
      ...(dispatcher === undefined ? {} : { dispatcher }),
    });
    return {
      status: response.statusCode,
      body: response.body,
      text: () => response.body.text(),
    };
  } catch (error) {
    const code = (error as { code?: string }).code ?? "no answer";
    throw new PatinaError(
      "API_UNREACHABLE",
      `${options.apiAddr}: ${code}; is a replica running there? --api-addr names another`,
      { cause: error },
    );
  }
}

/** Throws `API_REFUSED` with what the answer says is wrong unless the status is a success. */
export async function requireSuccess(answer: {
  status: number;
  text: () => Promise<string>;
}): Promise<string> {
  const text = await answer.text();
  if (answer.status < 300) return text;
  const hint = answer.status === 401 ? " (the API wants --token)" : "";
  const reason = reasonIn(text);
  throw new PatinaError("API_REFUSED", `the API answered ${answer.status}: ${reason}${hint}`);
}

/** The error of a failed statement, or of an answer that says nothing else; otherwise the whole text. */
function reasonIn(text: string): string {
  const parsed = parseJson(text);
  if (!parsed.ok || typeof parsed.value !== "object" || parsed.value === null) return text.trim();
  const answer = parsed.value as { error?: unknown; results?: readonly { error?: unknown }[] };
  const failed = Array.isArray(answer.results)
    ? answer.results.find(({ error }) => error !== undefined)
    : answer;
  const isAll = failed !== answer || Object.keys(answer).length === 1;
  return isAll && typeof failed?.error === "string" ? failed.error : text.trim();
}
