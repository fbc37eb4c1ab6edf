/**
 * Replicas and edges as real processes on loopback, each with its own database and ports, under a
 * temporary folder: mTLS, the preset for one machine, no emulated distance.
 */
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { stringify } from "smol-toml";
import { Pool, request } from "undici";
import { loadConfig, stateFolderOf } from "../bin/config-file.ts";
import { freePorts } from "../bin/demo/ports.ts";
import { compileCacheFolder, crsqlitePath, sqlDeadlinePath } from "../bin/setup/paths.js";
import { readEffectiveConfig, writeEffectiveConfig } from "../proxy/effective-config.ts";
import {
  createCertificateAuthority,
  issueClientCertificate,
  issueServerCertificate,
} from "../replica/driver/certificates/certificates.ts";
import type { BenchContext } from "./measure.ts";

/** What to start. */
export interface HostSpec {
  readonly name: string;
  readonly kind: "edge" | "agent";
  /** Without launcher and supervisor: one process per host, for clusters of many. */
  readonly isBare?: boolean;
  readonly bootstrap: readonly Host[];
  /** Further config sections, and keys laid over the ones of this cluster. */
  readonly config?: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
  /** Added to the environment of all its processes. */
  readonly env?: Readonly<Record<string, string>>;
  /** A command that starts the given one in its own way: `["taskset", "-c", "0"]`. */
  readonly launcher?: readonly string[];
  /** Lines of its standard output. */
  readonly onOutput?: (line: string) => void;
  /** Lines of its log: one JSON object each. Whoever takes them looks for bounces too. */
  readonly onLog?: (line: string) => void;
}

/** A running host. */
export interface Host {
  readonly name: string;
  readonly folder: string;
  readonly databasePath: string;
  readonly gossip: string;
  readonly metricsPort: number;
  readonly httpPort: number;
  readonly apiPort: number;
  /** Pid of the supervisor, the edge process being a child of it; of a bare host the latter's. */
  readonly pid: number;
  /** One keep-alive connection to its API. */
  readonly api: Pool;
  /** Waits until it says that it is ready. */
  ready(): Promise<void>;
  /** A whole object: `put("machines/m-1", {...})`. Throws unless the answer is a success. */
  put(path: string, document: unknown): Promise<void>;
  post(path: string, body: unknown): Promise<string>;
  stop(): Promise<void>;
}

/** Starts hosts; disposing of it ends them and removes the folder. */
export class LocalCluster implements AsyncDisposable {
  readonly folder = mkdtempSync(join(tmpdir(), "patina-bench-"));
  readonly #hosts = new Set<Host>();
  #started = 0;
  #isDisposed = false;

  readonly #note: (line: string) => void;

  private constructor(note: (line: string) => void) {
    this.#note = note;
  }

  /**
   * Makes the folder and the certificates that all hosts share. A host that is bounced is remarked
   * upon, because its figures are none then.
   */
  static async create(context: Pick<BenchContext, "stack" | "note">): Promise<LocalCluster> {
    const cluster = context.stack.use(new LocalCluster(context.note));
    const nowMs = Date.now();
    const authority = await createCertificateAuthority({ nowMs });
    const server = await issueServerCertificate(authority, { nowMs, addresses: ["127.0.0.1"] });
    const client = await issueClientCertificate(authority, { nowMs });
    cluster.#write("ca.pem", authority.certificatePem);
    cluster.#write("server.pem", server.certificatePem);
    cluster.#write("server.key", server.keyPem);
    cluster.#write("client.pem", client.certificatePem);
    cluster.#write("client.key", client.keyPem);
    return cluster;
  }

  /** Writes further schema, for `db.schema_paths`; returns its path. */
  writeSchema(sql: string): string {
    return this.#write("bench.sql", sql);
  }

  /** Starts a host's processes; it may not answer yet. */
  async start(spec: HostSpec): Promise<Host> {
    const [gossip = 0, api = 0, metrics = 0, http = 0] = await freePorts(4);
    if (this.#isDisposed) throw new Error("the cluster has been ended");
    const folder = join(this.folder, `${++this.#started}-${spec.name}`);
    mkdirSync(folder);
    const ports = { gossip, api, metrics, http };
    const file = join(folder, "patina.toml");
    writeFileSync(file, stringify(this.#configOf(spec, ports)), { mode: 0o600 });
    const child = spawnHost({ ...spec, onLog: (line) => this.#onLog(spec, line) }, file);
    const host = hostOf(child, { spec, folder, ports });
    this.#hosts.add(host);
    return host;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isDisposed = true;
    await Promise.all([...this.#hosts].map((host) => host.stop()));
    rmSync(this.folder, { recursive: true, force: true });
  }

  #onLog(spec: HostSpec, line: string): void {
    if (spec.onLog) spec.onLog(line);
    else if (line.includes('"event":"edge-bounced"'))
      this.#note(`${spec.name} was bounced: ${line}`);
  }

  #configOf(spec: HostSpec, ports: Ports): Record<string, unknown> {
    const tls = (name: string): string => join(this.folder, name);
    const base: Record<string, Record<string, unknown>> = {
      db: { path: "./patina.db" },
      gossip: {
        addr: `127.0.0.1:${ports.gossip}`,
        bootstrap: spec.bootstrap.map((host) => host.gossip),
        preset: "lan",
        tls: {
          cert_file: tls("server.pem"),
          key_file: tls("server.key"),
          ca_file: tls("ca.pem"),
          client: { cert_file: tls("client.pem"), key_file: tls("client.key") },
        },
      },
      api: { addr: `127.0.0.1:${ports.api}` },
      // What is measured are the paths, at rates at which a host would be braked.
      replica: { node: spec.name, region: "lo", brake: { enabled: false } },
      telemetry: { prometheus: { addr: `127.0.0.1:${ports.metrics}` } },
      ...(spec.kind === "edge" ? { proxy: { http: `127.0.0.1:${ports.http}` } } : {}),
    };
    for (const [section, keys] of Object.entries(spec.config ?? {})) {
      base[section] = { ...base[section], ...keys };
    }
    return base;
  }

  #write(name: string, text: string): string {
    const path = join(this.folder, name);
    writeFileSync(path, text, { mode: 0o600 });
    return path;
  }
}

interface Ports {
  readonly gossip: number;
  readonly api: number;
  readonly metrics: number;
  readonly http: number;
}

function spawnHost(spec: HostSpec, file: string): ChildProcess {
  const mode = spec.kind === "edge" ? "run" : "agent";
  const frozen = spec.isBare ? freezeConfig(spec.kind, file) : null;
  // As the supervisor would start it.
  const { nodeFlags = [], env = {} } =
    frozen === null ? {} : readEffectiveConfig(frozen).supervisor;
  const command = [
    ...(spec.launcher ?? []),
    process.execPath,
    ...nodeFlags,
    ...(frozen === null ? [CLI, mode, "--config", file] : [EDGE_MAIN, frozen]),
  ];
  const child = spawn(command[0] ?? process.execPath, command.slice(1), {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, NODE_COMPILE_CACHE: compileCacheFolder(), ...env, ...spec.env },
  });
  const logFile = join(file, "..", "log.jsonl");
  createInterface({ input: child.stdout }).on("line", (line) => spec.onOutput?.(line));
  createInterface({ input: child.stderr }).on("line", (line) => {
    // Nobody reads on once the folder is gone.
    if (!child.killed) appendFileSync(logFile, `${line}\n`);
    spec.onLog?.(line);
  });
  return child;
}

/** What the command line does before it becomes the supervisor; returns the frozen file's path. */
function freezeConfig(mode: HostSpec["kind"], path: string): string {
  const { config, file, hash } = loadConfig({ file: path, environment: process.env });
  const stateFolder = stateFolderOf(config);
  const paths = { extensionPath: crsqlitePath(), deadlinePath: sqlDeadlinePath() };
  return writeEffectiveConfig({ mode, config, file, hash, stateFolder, ...paths });
}

function hostOf(
  child: ChildProcess,
  parts: { readonly spec: HostSpec; readonly folder: string; readonly ports: Ports },
): Host {
  const { spec, folder, ports } = parts;
  const api = new Pool(`http://127.0.0.1:${ports.api}`, { connections: 1 });
  const call = async (method: "PUT" | "POST", path: string, body: unknown): Promise<string> => {
    const response = await api.request({
      method,
      path: `/v1/${path}`,
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
    const text = await response.body.text();
    if (response.statusCode < 300) return text;
    throw new Error(`${spec.name} answered ${response.statusCode} to ${method} ${path}: ${text}`);
  };
  return {
    name: spec.name,
    folder,
    databasePath: join(folder, "patina.db"),
    gossip: `127.0.0.1:${ports.gossip}`,
    metricsPort: ports.metrics,
    httpPort: ports.http,
    apiPort: ports.api,
    pid: child.pid ?? 0,
    api,
    ready: () => waitReady(child, { name: spec.name, metricsPort: ports.metrics, folder }),
    put: async (path, document) => void (await call("PUT", path, document)),
    post: (path, body) => call("POST", path, body),
    stop: async () => {
      await api.destroy();
      await endProcess(child);
    },
  };
}

async function waitReady(
  child: ChildProcess,
  host: { readonly name: string; readonly metricsPort: number; readonly folder: string },
): Promise<void> {
  const url = `http://127.0.0.1:${host.metricsPort}/readyz`;
  const deadlineMs = performance.now() + READY_LIMIT_MS;
  while (performance.now() < deadlineMs && child.exitCode === null && child.signalCode === null) {
    if (await answersOk(url)) return;
    await sleep(READY_POLL_MS);
  }
  const file = join(host.folder, "log.jsonl");
  const log = existsSync(file) ? readFileSync(file, "utf8").trimEnd().split("\n") : [];
  const tail = log.slice(-LOG_LINES_TOLD).join("\n");
  throw new Error(`${host.name} did not become ready; its log ends with\n${tail}`);
}

async function answersOk(url: string): Promise<boolean> {
  try {
    const response = await request(url, { headersTimeout: 1_000 });
    await response.body.dump();
    return response.statusCode === 200;
  } catch (error) {
    if (error instanceof Error) return false;
    throw error;
  }
}

/** SIGTERM, and SIGKILL when that is not enough; resolves when the process has ended. */
export async function endProcess(child: ChildProcess): Promise<void> {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, "exit");
  child.kill("SIGTERM");
  const timer = setTimeout(() => child.kill("SIGKILL"), END_LIMIT_MS);
  await ended;
  clearTimeout(timer);
}

/**
 * Starts one server that stands for all machines, for how it answers is not what is measured; its
 * port. Ended with the stack.
 */
export async function startMachine(stack: AsyncDisposableStack): Promise<number> {
  const child = spawn(process.execPath, [UPSTREAM], { stdio: ["ignore", "pipe", "inherit"] });
  stack.defer(() => endProcess(child));
  const [line] = (await once(createInterface({ input: child.stdout }), "line")) as [string];
  return Number(line);
}

/** A healthy machine of an app, on a port of this host, as `Host.put` takes it. */
export function machineOn(port: number, app: string): unknown {
  return {
    app,
    region: "lo",
    state: "started",
    services: [{ name: "web", address: `127.0.0.1:${port}`, protocol: "http" }],
    checks: [{ service: "web", name: "up", status: "passing" }],
  };
}

/** Waits; only for polls of other processes. */
export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, Math.max(0, ms)));
}

const UPSTREAM = fileURLToPath(new URL("./fixed-upstream.ts", import.meta.url));
const CLI = fileURLToPath(new URL("../bin/cli.ts", import.meta.url));
const EDGE_MAIN = fileURLToPath(new URL("../proxy/edge-main.ts", import.meta.url));
const READY_LIMIT_MS = 60_000;
const READY_POLL_MS = 20;
/** Enough to see why, the folder being gone by then. */
const LOG_LINES_TOLD = 10;
const END_LIMIT_MS = 10_000;
