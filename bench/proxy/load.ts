/**
 * Load on one proxy: by wrk where it is installed and can (a closed loop of HTTP requests), which
 * leaves the core to the upstream, else by our own generator.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { headerLinesOf, hostOf, type Case } from "./cases.ts";
import type { GeneratorSpec, LoadResult } from "./generator.ts";
import { has } from "./installed.ts";
import { LOAD_CORE } from "./pinning.ts";
import { outputOf } from "./programs.ts";
import type { Rival } from "./rivals.ts";

/** Whether wrk is there. */
export const hasWrk = has("wrk", "-v");

/** Each connection asks again when it is answered. Throws when a request failed. */
export async function closedLoad(one: Case, rival: Rival, seconds: number): Promise<LoadResult> {
  const result = isForWrk(one)
    ? await byWrk(one, rival, seconds)
    : await byGenerator({ case: one, port: portOf(one, rival), seconds, rate: null });
  if (result.failures > 0 || result.requests === 0) {
    throw new Error(`${result.failures} of ${result.requests} requests failed`);
  }
  return result;
}

/** Requests at a constant rate; those that the proxy did not keep up with count as failures. */
export function openLoad(
  one: Case,
  rival: Rival,
  load: { readonly seconds: number; readonly rate: number },
): Promise<LoadResult> {
  return byGenerator({ case: one, port: portOf(one, rival), ...load });
}

/** Full handshakes are left to our own: it is known to take up no session. */
function isForWrk(one: Case): boolean {
  return hasWrk && one.kind === "http" && !(one.isTls && one.isFresh);
}

async function byWrk(one: Case, rival: Rival, seconds: number): Promise<LoadResult> {
  const folder = mkdtempSync(join(tmpdir(), "patina-bench-"));
  try {
    const script = join(folder, "request.lua");
    const body = `string.rep("x", ${one.bodyBytes})`;
    writeFileSync(script, `wrk.method = "${one.method}"\nwrk.body = ${body}\n`);
    const headers = [`Host: ${hostOf(one)}`, ...headerLinesOf(one)];
    if (one.isFresh) headers.push("Connection: close");
    const command = ["wrk", "-t1", `-c${one.connections}`, `-d${seconds}s`, "--timeout", "10s"];
    if (one.bodyBytes > 0) command.push("-s", script);
    for (const header of headers) command.push("-H", header);
    const scheme = one.isTls ? "https" : "http";
    command.push(`${scheme}://127.0.0.1:${portOf(one, rival)}${one.path}`);
    return readWrk(await outputOf(command, { cores: LOAD_CORE }));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function readWrk(text: string): LoadResult {
  const [, requests = "0", took = "", unit = ""] =
    /(\d+) requests in ([\d.]+)(ms|s|m)/.exec(text) ?? [];
  const bad = /Non-2xx or 3xx responses: (\d+)/.exec(text)?.[1];
  const errors = /Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)/.exec(text);
  const failures = [bad, ...(errors ?? []).slice(1)].map((count) => Number(count ?? 0));
  return {
    requests: Number(requests),
    failures: failures.reduce((total, count) => total + count, 0),
    seconds: Number(took) * (unit === "ms" ? 0.001 : unit === "m" ? 60 : 1),
    ...NO_LATENCIES,
  };
}

async function byGenerator(spec: GeneratorSpec): Promise<LoadResult> {
  // The open loop spins: it may have what the upstream leaves of the core.
  const niceness = spec.rate === null ? [] : ["nice", "-n", "19"];
  const command = [...niceness, process.execPath, GENERATOR, JSON.stringify(spec)];
  const text = await outputOf(command, { cores: LOAD_CORE });
  const result = JSON.parse(text) as Record<keyof LoadResult, number | null>;
  // JSON has no NaN.
  return { ...NO_LATENCIES, ...(withoutNulls(result) as unknown as LoadResult) };
}

function withoutNulls(fields: Readonly<Record<string, number | null>>): Record<string, number> {
  const kept: Record<string, number> = {};
  for (const [name, value] of Object.entries(fields)) if (value !== null) kept[name] = value;
  return kept;
}

function portOf(one: Case, rival: Rival): number {
  return one.isTls ? rival.tlsPort : rival.port;
}

const NO_LATENCIES = {
  p50Ms: Number.NaN,
  p99Ms: Number.NaN,
  p999Ms: Number.NaN,
  sentLateP99Ms: Number.NaN,
};
const GENERATOR = fileURLToPath(new URL("./generator.ts", import.meta.url));
