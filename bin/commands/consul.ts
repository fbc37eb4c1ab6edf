/** `patina consul sync`: a process beside the replica that follows the local Consul agent. */
import { readFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { once } from "node:events";
import { setTimeout as wait } from "node:timers/promises";
import { Counter, Histogram, Registry } from "prom-client";
import { Agent, request } from "undici";
import { errorText, PatinaError } from "#base/errors.ts";
import { splitHostPort } from "#base/host-port.ts";
import { createLogger, type LogLevel } from "#base/logger.ts";
import type { ConsulConfig } from "../../replica/config.ts";
import { callApi, requireSuccess, type ApiOptions } from "../api-client.ts";
import type { ConsulRow, ConsulTable, SeenRow } from "../consul/consul-rows.ts";
import { ConsulSync, type ConsulSyncOptions } from "../consul/consul-sync.ts";
import { apiTarget, consulTarget, type GlobalOptions } from "../targets.ts";

/** Runs until SIGTERM or SIGINT. */
export async function sync(options: GlobalOptions & { readonly token?: string }): Promise<void> {
  const { consul, node, level } = consulTarget(options);
  const ended = new AbortController();
  for (const signal of ["SIGTERM", "SIGINT"] as const) process.once(signal, () => ended.abort());
  const metrics = createMetrics();
  const server = await serveMetrics(consul.metrics_addr, metrics.registry);
  const log = createLogger({
    level: level as LogLevel,
    nowMs: () => Date.now(),
    write: (line) => process.stderr.write(line),
  });
  const sync = new ConsulSync({
    node,
    ask: agentOf(consul, metrics),
    replica: replicaOf(node, apiTarget(options)),
    log,
    pullMs: consul.pull_secs * 1_000,
    nowMs: () => Date.now(),
    random: Math.random,
  });
  log.info?.("consul-sync-started", `${consul.client.address} as ${node}`);
  try {
    while (!ended.signal.aborted) {
      const waitMs = await sync.round();
      await wait(waitMs, undefined, { signal: ended.signal }).catch(ignoreAbort);
    }
  } finally {
    server?.close();
    server?.closeAllConnections();
  }
}

interface Metrics {
  readonly registry: Registry;
  readonly seconds: Histogram;
  readonly errors: Counter<"type" | "error">;
}

/** Under Corrosion's names. */
function createMetrics(): Metrics {
  const registry = new Registry();
  const seconds = new Histogram({
    name: "corro_consul_consul_response_time_seconds",
    help: "Time that the Consul agent took to answer.",
    registers: [registry],
  });
  const errors = new Counter({
    name: "corro_consul_consul_response_errors",
    help: "Questions to the Consul agent that got no whole answer, by what was asked and why.",
    labelNames: ["type", "error"],
    registers: [registry],
  });
  return { registry, seconds, errors };
}

async function serveMetrics(addr: string | undefined, registry: Registry): Promise<Server | null> {
  if (addr === undefined) return null;
  const server = createServer((_message, response) => {
    registry.metrics().then(
      (text) => response.setHeader("content-type", registry.contentType).end(text),
      (error: unknown) => response.writeHead(500).end(errorText(error)),
    );
  });
  const { host, port } = splitHostPort(addr);
  server.listen(port, host);
  try {
    await once(server, "listening");
  } catch (error) {
    throw new PatinaError(
      "USAGE",
      `consul.metrics_addr: ${addr} cannot be bound: ${errorText(error)}`,
    );
  }
  return server;
}

function agentOf(
  { client, token }: ConsulConfig,
  { seconds, errors }: Metrics,
): ConsulSyncOptions["ask"] {
  const { address, tls } = client;
  const dispatcher = tls && new Agent({ connect: readTls(tls) });
  const headers = token === undefined ? {} : { "x-consul-token": token };
  return async (table) => {
    const startedMs = performance.now();
    try {
      const answer = await request(`${tls ? "https" : "http"}://${address}${table.path}`, {
        headers,
        signal: AbortSignal.timeout(ANSWER_LIMIT_MS),
        ...(dispatcher === undefined ? {} : { dispatcher }),
      });
      const text = await answer.body.text();
      if (answer.statusCode !== 200) throw new ConsulAnswer(`status ${answer.statusCode}`);
      const rows = readAnswer(table, text);
      seconds.observe((performance.now() - startedMs) / 1_000);
      return rows;
    } catch (error) {
      errors.inc({ type: table.kind, error: labelOf(error) });
      throw new ConsulAnswer(`Consul at ${address}, ${table.path}: ${errorText(error)}`, {
        cause: error,
      });
    }
  };
}

/** An answer of the agent that nothing can be made of, or none. */
class ConsulAnswer extends Error {}

function readAnswer(table: ConsulTable, text: string): readonly SeenRow[] {
  try {
    return table.read(JSON.parse(text));
  } catch (error) {
    const reason = errorText(error).replaceAll(/\s+/g, " ").slice(0, REASON_CHARACTERS_MAX);
    throw new ConsulAnswer(`no answer that Consul gives: ${reason}`, { cause: error });
  }
}

/** Few values: a status, a system's code, or what is wrong in two words. */
function labelOf(error: unknown): string {
  if (error instanceof ConsulAnswer) {
    return error.message.startsWith("status") ? error.message : "bad answer";
  }
  if (error instanceof Error && error.name === "TimeoutError") return "timed out";
  const { code } = error as { code?: unknown };
  return typeof code === "string" ? code : "no answer";
}

function readTls(files: NonNullable<ConsulConfig["client"]["tls"]>): {
  ca: Buffer;
  cert: Buffer;
  key: Buffer;
} {
  const read = (key: "ca_file" | "cert_file" | "key_file"): Buffer => {
    try {
      return readFileSync(files[key]);
    } catch (error) {
      throw new PatinaError(
        "CERTIFICATE_UNREADABLE",
        `consul.client.tls.${key}: ${errorText(error)}`,
      );
    }
  };
  return { ca: read("ca_file"), cert: read("cert_file"), key: read("key_file") };
}

function replicaOf(node: string, api: ApiOptions): ConsulSyncOptions["replica"] {
  return {
    rows: async (table) => {
      const columns = await query(api, `SELECT name FROM pragma_table_info('${table.name}')`, []);
      const present = new Set(columns.map(([name]) => name));
      const missing = ["node", ...table.columns, "updated_at"].filter((name) => !present.has(name));
      if (missing.length > 0) {
        const what = present.size === 0 ? "is not there" : `has no column ${missing.join(", ")}`;
        throw new Error(
          `table ${table.name} ${what}: docs/consul.md has the tables for db.schema_paths`,
        );
      }
      const hasSource = present.has("source");
      const sql =
        `SELECT ${table.columns.join(", ")} FROM ${table.name} WHERE node = ?` +
        (hasSource ? " AND source IS NULL" : "");
      const rows = await query(api, sql, [node]);
      const read = (cells: readonly unknown[]): ConsulRow =>
        Object.fromEntries(table.columns.map((name, at) => [name, cells[at]])) as ConsulRow;
      return { rows: rows.map(read), hasSource };
    },
    write: async (statements) => {
      const answer = await callApi(api, {
        method: "POST",
        path: "/v1/transactions",
        body: statements,
      });
      await requireSuccess(answer);
    },
  };
}

async function query(
  api: ApiOptions,
  sql: string,
  params: readonly string[],
): Promise<(readonly unknown[])[]> {
  const body = params.length === 0 ? sql : [sql, params];
  const answer = await callApi(api, { method: "POST", path: "/v1/queries", body });
  const lines = (await requireSuccess(answer)).trimEnd().split("\n");
  const events = lines.map((line) => JSON.parse(line) as QueryEvent);
  const last = events.at(-1) ?? {};
  if (!("eoq" in last)) throw new Error(last.error ?? "the replica's answer broke off");
  return events.flatMap(({ row }) => (row === undefined ? [] : [row[1]]));
}

interface QueryEvent {
  readonly row?: readonly [number, readonly unknown[]];
  readonly error?: string;
  readonly eoq?: unknown;
}

function ignoreAbort(error: unknown): void {
  if (!(error instanceof Error && error.name === "AbortError")) throw error;
}

/** Corrosion's. */
const ANSWER_LIMIT_MS = 5_000;
const REASON_CHARACTERS_MAX = 300;
