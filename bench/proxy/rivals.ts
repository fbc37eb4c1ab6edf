/**
 * Who is measured, and how each is brought up: on the proxies' core, in front of the same two
 * machines, set up alike by what stands in bench/rivals/. One that is not installed is left out,
 * and it says so.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { request } from "undici";
import { freePorts } from "../../bin/demo/ports.ts";
import { LocalCluster, sleep } from "../local-cluster.ts";
import type { BenchContext } from "../measure.ts";
import { BODY_BYTES_BY_PATH, GET_HOST, POST_HOST, type Case } from "./cases.ts";
import { versionOf } from "./installed.ts";
import { startCaddy, startHaproxy, startNginx } from "./native-rivals.ts";
import { PROXY_CORE, pinnedTo } from "./pinning.ts";
import { startUntilLine } from "./programs.ts";
import { pauseTree, resumeTree } from "./process-tree.ts";

/** Where everything is: files of this run, the two machines, the certificate for all. */
export interface Stage {
  readonly context: BenchContext;
  readonly folder: string;
  /** Ports. */
  readonly getUpstream: number;
  readonly postUpstream: number;
  readonly certFile: string;
  readonly keyFile: string;
}

/** A proxy that runs. */
export interface Rival {
  readonly name: string;
  readonly port: number;
  readonly tlsPort: number;
  /** The root of its process tree. */
  readonly pid: number;
  /** Null = all of them. */
  readonly cases: readonly string[] | null;
}

/** Names and versions; null = not installed. In the order in which they are told. */
export function rivalVersions(): ReadonlyMap<string, string | null> {
  return new Map([
    ["patina", packageVersion("../../package.json")],
    ["nginx", versionOf("nginx", "-v")],
    ["haproxy", versionOf("haproxy", "-v")],
    ["caddy", versionOf("caddy", "version")],
    ...NODE_RIVALS.map(({ name, package: id }): [string, string | null] => [
      name,
      id === null ? process.versions.node : packageVersion(`../../node_modules/${id}/package.json`),
    ]),
  ]);
}

/** Starts one by its name; returns when it answers. */
export async function startRival(name: string, stage: Stage): Promise<Rival> {
  const node = NODE_RIVALS.find((one) => one.name === name);
  const rival =
    name === "patina"
      ? await startPatina(stage)
      : name === "nginx"
        ? await startNginx(stage)
        : name === "haproxy"
          ? await startHaproxy(stage)
          : name === "caddy"
            ? await startCaddy(stage)
            : node
              ? await startNode(node, stage)
              : null;
  if (rival === null) throw new Error(`there is no rival ${name}`);
  if (name !== "patina") endRunning(rival, stage);
  await answers(rival);
  return rival;
}

/** Whether a case is measured of it. */
export function takesPart(rival: Rival, one: Pick<Case, "name">): boolean {
  return rival.cases === null || rival.cases.includes(one.name);
}

/** Lets one run and stops all others; the figures of one are then its own. */
export function onlyRuns(chosen: Rival, all: readonly Rival[]): void {
  for (const rival of all) if (rival !== chosen) pauseTree(rival.pid);
  resumeTree(chosen.pid);
}

/** An edge as `patina run` starts it, with a machine for each host. */
export async function startPatina(
  stage: Stage,
  options: { readonly threads: number; readonly cores: string } = { threads: 1, cores: PROXY_CORE },
): Promise<Rival> {
  const { context, certFile, keyFile, folder } = stage;
  const cluster = await LocalCluster.create(context);
  const [tlsPort = 0] = await freePorts(1);
  const edge = await cluster.start({
    name: `edge-${options.threads}`,
    kind: "edge",
    bootstrap: [],
    launcher: pinnedTo(options.cores),
    config: {
      proxy: {
        threads: options.threads,
        access_log: join(folder, `patina-${options.threads}-access.log`),
        tls: {
          addr: `127.0.0.1:${tlsPort}`,
          certificates: [{ cert_file: certFile, key_file: keyFile }],
        },
        // No connection ends by its age while figures are taken, as with the others.
        requests_per_connection_max: 100_000_000,
        idle_timeout_ms: 3_600_000,
        upstream_idle_timeout_ms: 3_600_000,
        // One client is all the load there is.
        connections_per_client_max: 0,
      },
      // On a core under full load, or stopped, it may be starved for longer than a loop may be silent.
      watchdog: { steady_ms: 60_000, apply_ms: 60_000, silence_ms: 120_000 },
    },
  });
  await edge.ready();
  for (const [app, host, port] of [
    ["get", GET_HOST, stage.getUpstream],
    ["post", POST_HOST, stage.postUpstream],
  ] as const) {
    await edge.put(`hostnames/${host}`, { app });
    await edge.put(`machines/machine-${app}`, {
      app,
      region: "lo",
      state: "started",
      services: [{ name: "web", address: `127.0.0.1:${port}`, protocol: "http" }],
      checks: [],
    });
  }
  const name = options.threads === 1 ? "patina" : `patina-${options.threads}`;
  const rival = { name, port: edge.httpPort, tlsPort, pid: edge.pid, cases: null };
  endRunning(rival, stage);
  return rival;
}

/** What is stopped does not hear that it is to end. */
function endRunning(rival: Rival, stage: Stage): void {
  stage.context.stack.defer(() => resumeTree(rival.pid));
}

async function startNode(node: NodeRival, stage: Stage): Promise<Rival> {
  const { context, folder, certFile, keyFile, getUpstream, postUpstream } = stage;
  const logFile = join(folder, `${node.name}-access.log`);
  const spec = { getUpstream, postUpstream, logFile, certFile, keyFile };
  const script = fileURLToPath(new URL(`../rivals/${node.script}`, import.meta.url));
  // http-proxy calls what Node has deprecated, and a warning is no figure.
  const command = [process.execPath, "--no-deprecation", script, JSON.stringify(spec)];
  const { stack } = context;
  const { child, line } = await startUntilLine(command, { stack, cores: PROXY_CORE });
  const ports = JSON.parse(line) as { readonly port: number; readonly tlsPort: number };
  return { name: node.name, ...ports, pid: child.pid ?? 0, cases: node.cases };
}

/** Waits until a GET with a body comes through whole. */
async function answers(rival: Rival): Promise<void> {
  const deadlineMs = performance.now() + START_LIMIT_MS;
  const wanted = rival.cases === null ? BODY_BYTES_BY_PATH["/1k"] : 0;
  let seen = "nothing";
  while (performance.now() < deadlineMs) {
    try {
      const url = `http://127.0.0.1:${rival.port}/1k`;
      const response = await request(url, { headers: { host: GET_HOST } });
      const body = await response.body.arrayBuffer();
      if (response.statusCode === 200 && body.byteLength === wanted) return;
      seen = `${response.statusCode} and ${body.byteLength} bytes`;
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      seen = error.message;
    }
    await sleep(50);
  }
  throw new Error(`${rival.name} did not answer as it should but with ${seen}`);
}

function packageVersion(path: string): string {
  const text = readFileSync(fileURLToPath(new URL(path, import.meta.url)), "utf8");
  return (JSON.parse(text) as { readonly version: string }).version;
}

/** A rival that runs in Node. */
interface NodeRival {
  readonly name: string;
  readonly script: string;
  /** Whose version is told; null = Node's. */
  readonly package: string | null;
  readonly cases: readonly string[] | null;
}

const NODE_RIVALS: readonly NodeRival[] = [
  { name: "undici", script: "undici.ts", package: "undici", cases: null },
  { name: "fastify", script: "fastify-http-proxy.ts", package: "@fastify/http-proxy", cases: null },
  { name: "httpxy", script: "httpxy.ts", package: "httpxy", cases: null },
  { name: "http-proxy", script: "http-proxy.ts", package: "http-proxy", cases: null },
  { name: "node-net", script: "node-net.ts", package: null, cases: ["get-0", "fresh", "idle"] },
];
const START_LIMIT_MS = 30_000;
