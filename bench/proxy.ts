/**
 * CPU per keep-alive GET of Patina beside nginx and http-proxy, in the same run: 32 connections,
 * 49-byte bodies, the proxy pinned to one core, load and upstream on the other.
 *
 * Patina is a whole edge as `patina run` starts it: routing, request ids, forwarding headers and
 * metrics on, its other threads idle. Counted is user and system time of the process with all its
 * threads, from /proc, divided by the requests answered. nginx has one worker and forwards to a pool
 * of keep-alive connections. On a machine with one core the pinning is left out; without nginx or
 * wrk their places are taken by our own upstream and load generator, and it says so.
 */
import { execFileSync, spawn, spawnSync, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { request } from "undici";
import { freePorts } from "../bin/demo/ports.ts";
import { endProcess, LocalCluster, sleep } from "./local-cluster.ts";
import type { Bench, BenchContext, Sample } from "./measure.ts";

/** User and system time per request, in microseconds; whole requests per second beside it. */
export const bench: Bench = {
  about: "CPU per keep-alive GET: Patina, nginx, http-proxy",
  figures: [
    { name: "patina / nginx", unit: "x", target: { atMost: 1.6 } },
    { name: "http-proxy / nginx", unit: "x" },
    { name: "patina", unit: "us" },
    { name: "nginx", unit: "us" },
    { name: "http-proxy", unit: "us" },
    { name: "patina rate", unit: "/s" },
    { name: "nginx rate", unit: "/s" },
    { name: "http-proxy rate", unit: "/s" },
  ],
  run,
};

/** A proxy under measurement. */
interface Rival {
  readonly name: string;
  readonly port: number;
  /** The process whose CPU time counts. */
  readonly pid: number;
}

async function* run(context: BenchContext): AsyncIterable<Sample> {
  const { stack, note } = context;
  const folder = mkdtempSync(join(tmpdir(), "patina-bench-"));
  stack.defer(() => rmSync(folder, { recursive: true, force: true }));
  const hasNginx = has("nginx", "-v");
  const hasWrk = has("wrk", "-v");
  if (!hasNginx) note("nginx is not installed: no ratio to it, and our own upstream in its place");
  if (!hasWrk) note("wrk is not installed: our own load generator in its place");
  if (LOAD_CORE === PROXY_CORE) note("one core, or no taskset: nothing is pinned");
  const upstream = await startUpstream(stack, hasNginx ? folder : null);
  const rivals = [await startPatina(context, upstream)];
  if (hasNginx) rivals.push(await startNginx(stack, { folder, upstream }));
  rivals.push(await startHttpProxy(stack, upstream));
  const seconds = Number(context.flags.get("seconds") ?? SECONDS);
  const load = hasWrk ? loadByWrk : loadByOwn;
  for (const rival of rivals) await measure(rival, load, 1);
  for (;;) {
    const sample: Record<string, number> = {};
    for (const rival of rivals) {
      const { cpuUs, perSecond } = await measure(rival, load, seconds);
      sample[rival.name] = cpuUs;
      sample[`${rival.name} rate`] = perSecond;
    }
    const nginxUs = sample["nginx"];
    if (nginxUs !== undefined) {
      sample["patina / nginx"] = (sample["patina"] ?? Number.NaN) / nginxUs;
      sample["http-proxy / nginx"] = (sample["http-proxy"] ?? Number.NaN) / nginxUs;
    }
    yield sample;
  }
}

/** Requests of one load, and those that were not answered with 200. */
interface LoadResult {
  readonly requests: number;
  readonly failures: number;
  readonly seconds: number;
}

type Load = (port: number, seconds: number) => Promise<LoadResult>;

async function measure(
  rival: Rival,
  load: Load,
  seconds: number,
): Promise<{ cpuUs: number; perSecond: number }> {
  const beforeUs = cpuTimeUs(rival.pid);
  const result = await load(rival.port, seconds);
  const usedUs = cpuTimeUs(rival.pid) - beforeUs;
  if (result.failures > 0 || result.requests === 0) {
    throw new Error(`${rival.name} failed ${result.failures} of ${result.requests} requests`);
  }
  return { cpuUs: usedUs / result.requests, perSecond: result.requests / result.seconds };
}

/** Edge, machine and app; returns when a request through it is answered. */
async function startPatina(context: BenchContext, upstream: number): Promise<Rival> {
  const cluster = await LocalCluster.create(context);
  const edge = await cluster.start({
    name: "edge",
    kind: "edge",
    bootstrap: [],
    launcher: pinned(PROXY_CORE),
    // Alone on its core under full load, it may be starved longer than a loop may be silent.
    config: { watchdog: { steady_ms: 10_000, apply_ms: 10_000 } },
  });
  await edge.ready();
  await edge.put(`hostnames/${HOSTNAME}`, { app: "hello" });
  await edge.put("machines/machine-1", {
    app: "hello",
    region: "lo",
    state: "started",
    services: [{ name: "web", address: `127.0.0.1:${upstream}`, protocol: "http" }],
    checks: [],
  });
  await answers(edge.httpPort);
  return { name: "patina", port: edge.httpPort, pid: childOf(edge.pid) };
}

async function startNginx(
  stack: AsyncDisposableStack,
  options: { readonly folder: string; readonly upstream: number },
): Promise<Rival> {
  const { folder, upstream } = options;
  const [port = 0] = await freePorts(1);
  const child = runNginx(stack, {
    folder,
    name: "proxy",
    core: PROXY_CORE,
    http: `
      upstream machines { server 127.0.0.1:${upstream}; keepalive 64; keepalive_requests 1000000; }
      server {
        listen 127.0.0.1:${port} backlog=1024;
        location / {
          proxy_pass http://machines;
          proxy_http_version 1.1;
          proxy_set_header Connection "";
          proxy_set_header Host $host;
          proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
          proxy_set_header X-Forwarded-Proto $scheme;
          proxy_set_header X-Request-Id $request_id;
        }
      }`,
  });
  await answers(port);
  return { name: "nginx", port, pid: childOf(child.pid ?? 0) };
}

async function startHttpProxy(stack: AsyncDisposableStack, upstream: number): Promise<Rival> {
  // It calls what Node has deprecated, and a warning is no figure.
  const command = [process.execPath, "--no-deprecation", HTTP_PROXY, String(upstream)];
  const { pid, port } = await startScript(stack, command, PROXY_CORE);
  await answers(port);
  return { name: "http-proxy", port, pid };
}

/** nginx with a fixed answer where there is nginx (`folder`), else our own; returns its port. */
async function startUpstream(stack: AsyncDisposableStack, folder: string | null): Promise<number> {
  if (folder === null) {
    const { port } = await startScript(stack, [process.execPath, UPSTREAM], LOAD_CORE);
    return port;
  }
  const [port = 0] = await freePorts(1);
  const body = "x".repeat(BODY_BYTES);
  runNginx(stack, {
    folder,
    name: "upstream",
    core: LOAD_CORE,
    http: `server {
        listen 127.0.0.1:${port} backlog=1024;
        location / { default_type text/plain; return 200 "${body}"; }
      }`,
  });
  await answers(port);
  return port;
}

/** Starts nginx in the foreground with one worker. */
function runNginx(
  stack: AsyncDisposableStack,
  options: {
    readonly folder: string;
    readonly name: string;
    readonly core: number;
    readonly http: string;
  },
): ChildProcess {
  const { folder, name, core, http } = options;
  const file = join(folder, `${name}.conf`);
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
    .map((kind) => `${kind}_temp_path ${folder}/${name}-${kind};`)
    .join(" ");
  const text = `daemon off; worker_processes 1; pid ${folder}/${name}.pid;
    error_log ${folder}/${name}.log error;
    events { worker_connections 1024; }
    http { access_log off; keepalive_requests 1000000; ${temporary} ${http} }
    `;
  writeFileSync(file, text);
  if (stack.disposed) throw new Error("the benchmark has been ended");
  const child = start(["nginx", "-c", file, "-p", folder, "-e", join(folder, "start.log")], core);
  stack.defer(() => endProcess(child));
  return child;
}

/** Starts a script of ours that prints its port. */
async function startScript(
  stack: AsyncDisposableStack,
  command: readonly string[],
  core: number,
): Promise<{ pid: number; port: number }> {
  if (stack.disposed) throw new Error("the benchmark has been ended");
  const child = start(command, core);
  stack.defer(() => endProcess(child));
  if (child.stdout === null) throw new Error("a script's output is piped");
  const [line] = (await once(createInterface({ input: child.stdout }), "line")) as [string];
  return { pid: child.pid ?? 0, port: Number(line) };
}

function start(command: readonly string[], core: number): ChildProcess {
  const [program = "", ...args] = [...pinned(core), ...command];
  return spawn(program, args, { stdio: ["ignore", "pipe", "inherit"] });
}

async function loadByWrk(port: number, seconds: number): Promise<LoadResult> {
  const text = await output([
    "wrk",
    "-t1",
    `-c${CONNECTIONS}`,
    `-d${seconds}s`,
    "-H",
    `Host: ${HOSTNAME}`,
    `http://127.0.0.1:${port}/`,
  ]);
  const [, requests = "0", took = "", unit = ""] =
    /(\d+) requests in ([\d.]+)(m?s)/.exec(text) ?? [];
  const bad = /Non-2xx or 3xx responses: (\d+)/.exec(text)?.[1];
  const errors = /Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)/.exec(text);
  const failures = [bad, ...(errors ?? []).slice(1)].map((one) => Number(one ?? 0));
  return {
    requests: Number(requests),
    failures: failures.reduce((total, one) => total + one, 0),
    seconds: Number(took) / (unit === "ms" ? 1_000 : 1),
  };
}

async function loadByOwn(port: number, seconds: number): Promise<LoadResult> {
  const args = [port, CONNECTIONS, seconds, HOSTNAME].map(String);
  return JSON.parse(await output([process.execPath, LOAD, ...args])) as LoadResult;
}

/** Runs a load generator on the load's core; its standard output. */
async function output(command: readonly string[]): Promise<string> {
  const child = start(command, LOAD_CORE);
  let text = "";
  child.stdout?.on("data", (bytes: Buffer) => (text += bytes.toString()));
  const [code] = (await once(child, "close")) as [number | null];
  if (code !== 0) throw new Error(`${command[0]} ended with ${code}: ${text}`);
  return text;
}

/** Waits until a GET is answered with 200. */
async function answers(port: number): Promise<void> {
  const deadlineMs = performance.now() + START_LIMIT_MS;
  let seen = "nothing";
  while (performance.now() < deadlineMs) {
    try {
      const url = `http://127.0.0.1:${port}/`;
      const response = await request(url, { headers: { host: HOSTNAME } });
      await response.body.dump();
      if (response.statusCode === 200) return;
      seen = String(response.statusCode);
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      seen = error.message;
    }
    await sleep(50);
  }
  throw new Error(`port ${port} did not answer with 200 but with ${seen}`);
}

/** User and system time of a process with all its threads, in microseconds; steps of 10 ms. */
function cpuTimeUs(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  // The name may hold spaces: fields are counted from behind it.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return ((Number(fields[11]) + Number(fields[12])) * 1e6) / TICKS_PER_SECOND;
}

/** The only child of a process: nginx's worker, the supervisor's edge. */
function childOf(pid: number): number {
  const children = readdirSync(`/proc/${pid}/task`).flatMap((thread) =>
    readFileSync(`/proc/${pid}/task/${thread}/children`, "utf8").trim().split(" ").filter(Boolean),
  );
  const [child] = children;
  if (child === undefined) throw new Error(`process ${pid} has no child`);
  return Number(child);
}

function pinned(core: number): string[] {
  return LOAD_CORE === PROXY_CORE ? [] : ["taskset", "-c", String(core)];
}

function has(program: string, flag: string): boolean {
  return spawnSync(program, [flag], { stdio: "ignore" }).error === undefined;
}

const PROXY_CORE = 0;
const LOAD_CORE = availableParallelism() > 1 && has("taskset", "-V") ? 1 : PROXY_CORE;
const TICKS_PER_SECOND = Number(execFileSync("getconf", ["CLK_TCK"], { encoding: "utf8" }));
const CONNECTIONS = 32;
const BODY_BYTES = 49;
const SECONDS = 4;
const HOSTNAME = "hello.bench";
const START_LIMIT_MS = 20_000;
const UPSTREAM = fileURLToPath(new URL("./fixed-upstream.ts", import.meta.url));
const HTTP_PROXY = fileURLToPath(new URL("./http-proxy-rival.ts", import.meta.url));
const LOAD = fileURLToPath(new URL("./keep-alive-load.ts", import.meta.url));
