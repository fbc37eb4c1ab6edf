/** `patina query` and `patina exec`: SQL on a replica through its API. */
import { PatinaError } from "#base/errors.ts";
import { parseJson } from "../../replica/driver/api/json.ts";
import { callApi, requireSuccess, type ApiOptions } from "../api-client.ts";

/** Prints rows as they come, cells separated by `|`. */
export async function query(
  sql: string,
  options: ApiOptions & {
    columns?: boolean;
    timer?: boolean;
    timeout?: number;
    param?: string[];
  },
): Promise<void> {
  const body = statement(sql, options.param);
  const path = withTimeout("/v1/queries", options.timeout);
  const answer = await callApi(options, { method: "POST", path, body });
  if (answer.status >= 300) return void (await requireSuccess(answer));
  // A character may be cut by the end of a chunk.
  const decoder = new TextDecoder();
  let rest = "";
  for await (const bytes of answer.body) {
    const lines = (rest + decoder.decode(bytes, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) printLine(line, options);
  }
}

/** Runs one writing statement and prints what it did. */
export async function exec(
  sql: string,
  options: ApiOptions & { timer?: boolean; timeout?: number; param?: string[] },
): Promise<void> {
  const body = [statement(sql, options.param)];
  const path = withTimeout("/v1/transactions", options.timeout);
  const answer = await callApi(options, { method: "POST", path, body });
  const { results, time } = JSON.parse(await requireSuccess(answer)) as {
    results: { rows_affected: number }[];
    time: number;
  };
  const rows = results[0]?.rows_affected ?? 0;
  process.stdout.write(`Rows affected: ${rows}\n`);
  if (options.timer === true) process.stdout.write(`Run Time: real ${time}\n`);
}

function withTimeout(path: string, seconds: number | undefined): string {
  return seconds === undefined ? path : `${path}?timeout=${seconds}`;
}

function statement(sql: string, params: readonly string[] | undefined): unknown {
  return params === undefined ? sql : [sql, params];
}

function printLine(line: string, options: { columns?: boolean; timer?: boolean }): void {
  const parsed = parseJson(line);
  if (!parsed.ok) throw new PatinaError("API_REFUSED", `no line of an answer: ${parsed.error}`);
  const event = parsed.value as {
    columns?: string[];
    row?: [bigint, Cell[]];
    eoq?: { time: number | bigint };
    error?: string;
  };
  if (event.error !== undefined) throw new PatinaError("API_REFUSED", event.error);
  if (event.columns && options.columns === true)
    process.stdout.write(`${event.columns.join("|")}\n`);
  if (event.row) process.stdout.write(`${event.row[1].map(cell).join("|")}\n`);
  if (event.eoq && options.timer === true) process.stdout.write(`time: ${event.eoq.time}s\n`);
}

type Cell = string | number | bigint | null | bigint[];

function cell(value: Cell): string {
  if (value === null) return "";
  if (!Array.isArray(value)) return String(value);
  const bytes = value.map(Number);
  return `x'${Buffer.from(bytes).toString("hex")}'`;
}
