/**
 * For end-to-end tests: a small cluster of real Patina processes on loopback, with certificates of
 * an authority of its own and ports from the system, and machines to route to.
 *
 * Everything is waited for by asking or by reading logs, never by time. `close` ends every process,
 * also after a failure, and removes the folder; what a failed wait saw of the logs is in its error.
 */
import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { Agent, request as httpRequest, type IncomingHttpHeaders } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { stringify } from "smol-toml";
import { errorText } from "#base/errors.ts";
import { joinHostPort } from "#base/host-port.ts";
import { freePorts } from "../bin/demo/ports.ts";
import {
  createCertificateAuthority,
  issueClientCertificate,
  issueServerCertificate,
} from "../replica/driver/certificates/certificates.ts";
import { ROOT } from "./source-tree.ts";

/** A host to start. */
export interface HostOptions {
  readonly name: string;
  readonly kind: "edge" | "worker";
  /** Names of the hosts it joins through. */
  readonly bootstrap?: readonly string[];
  /** Address of every listener. Default `127.0.0.1`. */
  readonly ip?: string;
  /** Laid over the test's own environment. */
  readonly env?: Readonly<Record<string, string>>;
  /** Laid over the sections of its config. */
  readonly config?: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
}

/** An answer with its whole body. */
export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
}

/** How a process ended, and what it said. */
export interface Ending {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** What `GET /v1/status` answers. */
export interface Status {
  readonly actor: string;
  readonly members: readonly { actor: string; address: string; state: string }[];
  readonly heads: Readonly<Record<string, number>>;
  readonly needs: number;
  readonly fault: string | null;
}

/** A line of a log. */
export type LogLine = Readonly<Record<string, unknown>> & { readonly event: string };

/** Hosts of one test file. */
export class Cluster {
  readonly folder = mkdtempSync(join(tmpdir(), "patina-cluster-"));
  readonly #hosts = new Map<string, TestHost>();
  readonly #machines: TestMachine[] = [];

  /** Writes the files of all hosts; starts none. */
  static async create(all: readonly HostOptions[]): Promise<Cluster> {
    const cluster = new Cluster();
    const ports = await freePorts(all.length * 4);
    for (const options of all) {
      const host = new TestHost(options, cluster.folder, ports.splice(0, 4));
      cluster.#hosts.set(options.name, host);
    }
    await cluster.#writeFiles();
    return cluster;
  }

  /** The host of that name. */
  host(name: string): TestHost {
    const host = this.#hosts.get(name);
    if (!host) throw new Error(`no host ${name}`);
    return host;
  }

  /** Starts hosts side by side and waits until all are ready. */
  async start(...names: readonly string[]): Promise<void> {
    for (const name of names) this.host(name).start();
    await Promise.all(names.map((name) => this.host(name).ready()));
  }

  /** Starts a machine: an HTTP server that answers with its id. */
  async startMachine(id: string, ip = "127.0.0.1"): Promise<TestMachine> {
    const machine = await TestMachine.start(id, ip);
    this.#machines.push(machine);
    return machine;
  }

  /** Ends everything and removes the folder. */
  async close(): Promise<void> {
    for (const machine of this.#machines) machine.kill();
    await Promise.all([...this.#hosts.values()].map((host) => host.end()));
    rmSync(this.folder, { recursive: true, force: true });
  }

  async #writeFiles(): Promise<void> {
    const hosts = [...this.#hosts.values()];
    const authority = await createCertificateAuthority({ nowMs: Date.now() });
    const nowMs = Date.now();
    const addresses = [...new Set(hosts.map((host) => host.ip))];
    const server = await issueServerCertificate(authority, { nowMs, addresses });
    const client = await issueClientCertificate(authority, { nowMs });
    for (const host of hosts) {
      mkdirSync(host.folder, { recursive: true });
      const write = (name: string, text: string): void =>
        writeFileSync(join(host.folder, name), text, { mode: 0o600 });
      write("ca.pem", authority.certificatePem);
      write("server.pem", server.certificatePem);
      write("server.key", server.keyPem);
      write("client.pem", client.certificatePem);
      write("client.key", client.keyPem);
      const bootstrap = (host.options.bootstrap ?? []).map((name) => this.host(name).gossip);
      write("patina.toml", stringify(host.config(bootstrap)));
    }
  }
}

/** One host: a supervisor with its edge or agent. */
export class TestHost {
  readonly options: HostOptions;
  readonly folder: string;
  readonly ip: string;
  readonly ports: { readonly gossip: number; readonly api: number };
  readonly metricsPort: number;
  readonly httpPort: number;
  readonly #log: LogLine[] = [];
  readonly #watchers = new Set<() => void>();
  #process: PatinaProcess | null = null;

  constructor(options: HostOptions, folder: string, ports: readonly number[]) {
    const [gossip = 0, api = 0, metrics = 0, http = 0] = ports;
    this.options = options;
    this.folder = join(folder, options.name);
    this.ip = options.ip ?? "127.0.0.1";
    this.ports = { gossip, api };
    this.metricsPort = metrics;
    this.httpPort = http;
  }

  /** Address under which other replicas dial it. */
  get gossip(): string {
    return joinHostPort(this.ip, this.ports.gossip);
  }

  /** `host:port` of its API, as flags take it. */
  get apiAddress(): string {
    return joinHostPort(this.ip, this.ports.api);
  }

  get configFile(): string {
    return join(this.folder, "patina.toml");
  }

  get databaseFile(): string {
    return join(this.folder, "patina.db");
  }

  /** All log lines so far, of every start. */
  get log(): readonly LogLine[] {
    return this.#log;
  }

  /** Its config, joining through `bootstrap`. */
  config(bootstrap: readonly string[]): Record<string, unknown> {
    const at = (port: number): string => joinHostPort(this.ip, port);
    const client = { cert_file: "client.pem", key_file: "client.key" };
    const { name, kind, config = {} } = this.options;
    const sections: Record<string, Record<string, unknown>> = {
      db: { path: "./patina.db" },
      gossip: {
        addr: this.gossip,
        bootstrap: [...bootstrap],
        preset: "lan",
        tls: { cert_file: "server.pem", key_file: "server.key", ca_file: "ca.pem", client },
      },
      api: { addr: this.apiAddress },
      replica: { node: name, region: "test" },
      telemetry: { prometheus: { addr: at(this.metricsPort) } },
      watchdog: WATCHDOG,
      ...(kind === "edge" ? { proxy: { http: at(this.httpPort) } } : {}),
    };
    for (const [section, keys] of Object.entries(config)) {
      sections[section] = { ...sections[section], ...keys };
    }
    return sections;
  }

  /** Starts its process; `ready` waits for it. */
  start(): void {
    const command = this.options.kind === "edge" ? "run" : "agent";
    const child = startPatina([command, "--config", this.configFile], {
      env: this.options.env ?? {},
    });
    this.#process = child;
    createInterface({ input: child.child.stderr! }).on("line", (line) => {
      this.#log.push(readLine(line));
      for (const watcher of this.#watchers) watcher();
    });
  }

  /** Waits until it answers 200 on `/readyz`; fails at once when it ends before. */
  async ready(): Promise<void> {
    await until(`${this.options.name} is ready`, async () => {
      if (this.#process?.hasEnded === true) throw new Error(`ended:\n${this.tail()}`);
      return (await get(this.metricsPort, "/readyz", { ip: this.ip })).status === 200;
    });
  }

  /** Resolves with the first line after the first `from` of its log that fits. */
  async logged(event: string, options: { from?: number } = {}): Promise<LogLine> {
    const find = (): LogLine | undefined =>
      this.#log.slice(options.from ?? 0).find((line) => line.event === event);
    const { promise, resolve, reject } = Promise.withResolvers<LogLine>();
    const look = (): void => {
      const line = find();
      if (line) resolve(line);
    };
    const give = (): void => reject(new Error(`no ${event} in the log:\n${this.tail()}`));
    const deadline = setTimeout(give, LIMIT_MS);
    this.#watchers.add(look);
    look();
    try {
      return await promise;
    } finally {
      clearTimeout(deadline);
      this.#watchers.delete(look);
    }
  }

  /** Sends a signal to the supervisor. */
  signal(signal: NodeJS.Signals): void {
    this.#process?.child.kill(signal);
  }

  /** Pid of the edge or agent under the supervisor. */
  edgePid(): number {
    const edge = this.childPid();
    if (edge === null) throw new Error(`${this.options.name} has no edge`);
    return edge;
  }

  /** The same; null while there is none. */
  childPid(): number | null {
    const { pid } = this.#process!.child;
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ");
    const edge = Number(children[0]);
    return Number.isInteger(edge) && edge > 1 ? edge : null;
  }

  /** How it ended. */
  async ending(): Promise<Ending> {
    return await this.#process!.ending;
  }

  /** A request to its API. */
  async api(method: string, path: string, body?: unknown): Promise<Answer> {
    const json = body === undefined ? {} : { body: JSON.stringify(body) };
    return await send(this.ports.api, path, { ip: this.ip, method, ...json });
  }

  /** What its replica says of itself. */
  async status(): Promise<Status> {
    return JSON.parse((await this.api("GET", "/v1/status")).text) as Status;
  }

  /** Sum of a metric's samples. */
  async metric(name: string): Promise<number> {
    const { text } = await get(this.metricsPort, "/metrics", { ip: this.ip });
    const samples = text.split("\n").filter((line) => line.startsWith(name));
    return samples.reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0);
  }

  /** A request for an app through the edge, on a connection of its own. */
  async request(host: string, path = "/"): Promise<Answer> {
    return await send(this.httpPort, path, { ip: this.ip, headers: { host } });
  }

  /** Waits until requests for `host` are answered by the machine `id`. */
  async routes(host: string, id: string): Promise<void> {
    await until(`${this.options.name} routes ${host} to ${id}`, async () => {
      const answer = await this.request(host);
      return answer.status === 200 && answer.text === id;
    });
  }

  /** Waits until requests for `host` are answered with this status. */
  async refuses(host: string, status: number): Promise<void> {
    await until(`${this.options.name} answers ${status} for ${host}`, async () => {
      return (await this.request(host)).status === status;
    });
  }

  /** The last lines of its log. */
  tail(): string {
    return this.#log
      .slice(-40)
      .map((line) => JSON.stringify(line))
      .join("\n");
  }

  /** Ends it, the hard way if need be. */
  async end(): Promise<void> {
    await this.#process?.end();
  }
}

/** A machine: an HTTP server in a process of its own, so that it can be killed like one. */
export class TestMachine {
  readonly id: string;
  /** `host:port`, as machine documents have it. */
  readonly address: string;
  readonly #child: ChildProcess;

  private constructor(id: string, address: string, child: ChildProcess) {
    this.id = id;
    this.address = address;
    this.#child = child;
  }

  static async start(id: string, ip: string): Promise<TestMachine> {
    const child = spawn(process.execPath, ["-e", MACHINE, id, ip], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const [port] = (await once(child.stdout, "data")) as [Buffer];
    return new TestMachine(id, joinHostPort(ip, Number(port.toString())), child);
  }

  /** A whole document for `PUT /v1/machines/{id}`. */
  document(app: string, options: { state?: string; softLimit?: number } = {}): unknown {
    const { state = "started", softLimit = 500 } = options;
    const service = { name: "web", address: this.address, soft_limit: softLimit, hard_limit: 1000 };
    return { app, region: "test", state, services: [service] };
  }

  /** Ends it without notice. */
  kill(): void {
    this.#child.kill("SIGKILL");
  }
}

/** Clients that ask one request after the other: half keep their connection, half do not. */
export class Traffic {
  readonly #target: TestHost;
  readonly #agent = new Agent({ keepAlive: true });
  readonly #failures: string[] = [];
  readonly #running: Promise<unknown>;
  #answered = 0;
  #longestMs = 0;
  #isStopped = false;

  /** Asks for `one.test`, from now on. */
  constructor(target: TestHost) {
    this.#target = target;
    const agents = [this.#agent, this.#agent, false, false] as const;
    this.#running = Promise.all(agents.map((agent) => this.#run(agent)));
  }

  /** Requests that were answered 200. */
  get answered(): number {
    return this.#answered;
  }

  /** The longest that a client waited for its answer, or for its connection to be cut. */
  get longestMs(): number {
    return this.#longestMs;
  }

  /** Resolves when some more requests were answered. */
  async flows(): Promise<void> {
    const goal = this.#answered + 20;
    await until("requests are answered", () => this.#answered >= goal);
  }

  /** What went wrong, in all that were asked. */
  async stop(): Promise<readonly string[]> {
    this.#isStopped = true;
    await this.#running;
    this.#agent.destroy();
    return this.#failures;
  }

  async #run(agent: Agent | false): Promise<void> {
    while (!this.#isStopped) {
      const fromMs = performance.now();
      try {
        const status = await this.#ask(agent);
        if (status === 200) this.#answered += 1;
        else this.#failures.push(`status ${status}`);
      } catch (error) {
        const { code } = error as NodeJS.ErrnoException;
        this.#failures.push(code ?? errorText(error));
      }
      this.#longestMs = Math.max(this.#longestMs, performance.now() - fromMs);
    }
  }

  #ask(agent: Agent | false): Promise<number> {
    const { ip: host, httpPort: port } = this.#target;
    return new Promise((resolve, reject) => {
      const asked = httpRequest({ host, port, agent, headers: { host: "one.test" } }, (answer) => {
        answer.resume();
        answer.on("error", reject);
        answer.on("end", () => resolve(answer.statusCode ?? 0));
      });
      asked.on("error", reject);
      asked.end();
    });
  }
}

/** A process of the command line. */
export interface PatinaProcess {
  readonly child: ChildProcess;
  readonly ending: Promise<Ending>;
  readonly hasEnded: boolean;
  /** SIGTERM, then SIGKILL to its whole group; resolves when it is gone. */
  end(): Promise<void>;
}

/** Starts `patina ARGUMENTS` on the Node that runs the test. */
export function startPatina(
  args: readonly string[],
  options: { env?: Readonly<Record<string, string>>; stdin?: string } = {},
): PatinaProcess {
  const child = spawn(process.execPath, [join(ROOT, "bin/cli.ts"), ...args], {
    stdio: ["pipe", "pipe", "pipe"],
    env: { ...process.env, ...options.env },
  });
  child.stdin.on("error", () => undefined);
  child.stdin.end(options.stdin ?? "");
  const output = { stdout: "", stderr: "" };
  child.stdout.on("data", (bytes: Buffer) => (output.stdout += bytes.toString()));
  child.stderr.on("data", (bytes: Buffer) => (output.stderr += bytes.toString()));
  const hasEnded = (): boolean => child.exitCode !== null || child.signalCode !== null;
  const ending = once(child, "close").then(([code, signal]): Ending => {
    return { code: code as number | null, signal: signal as NodeJS.Signals | null, ...output };
  });
  return {
    child,
    ending,
    get hasEnded() {
      return hasEnded();
    },
    async end() {
      if (hasEnded()) return;
      const edges = childrenOf(child.pid);
      child.kill("SIGTERM");
      const hard = setTimeout(() => {
        for (const pid of edges) killQuietly(pid);
        child.kill("SIGKILL");
      }, END_LIMIT_MS);
      await ending;
      clearTimeout(hard);
    },
  };
}

/** Whether file systems can be mounted: needs root, and a kernel that lets it. */
export function canMount(): boolean {
  const folder = mkdtempSync(join(tmpdir(), "patina-mount-"));
  try {
    execFileSync("mount", ["-t", "tmpfs", "tmpfs", folder], { stdio: "ignore" });
    execFileSync("umount", [folder], { stdio: "ignore" });
    return true;
  } catch (error) {
    if (error instanceof Error) return false;
    throw error;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Runs `patina ARGUMENTS` to its end. */
export async function runPatina(
  args: readonly string[],
  options: { env?: Readonly<Record<string, string>>; stdin?: string } = {},
): Promise<Ending> {
  const running = startPatina(args, options);
  const limit = setTimeout(() => void running.end(), LIMIT_MS);
  const ending = await running.ending;
  clearTimeout(limit);
  return ending;
}

/**
 * Asks until the answer is yes. A question that fails because nobody listens yet counts as no; the
 * limit is for a product that never gets there, and far above what a loaded machine takes.
 */
export async function until(what: string, ask: () => Promise<boolean> | boolean): Promise<void> {
  const deadlineMs = performance.now() + LIMIT_MS;
  let last = "";
  while (performance.now() < deadlineMs) {
    try {
      if (await ask()) return;
    } catch (error) {
      if (!(error instanceof Error) || !("code" in error)) throw error;
      last = errorText(error);
    }
    // Leaves the processor to those that are waited for.
    await new Promise((resolve) => setTimeout(resolve, ASK_PERIOD_MS));
  }
  throw new Error(`${what}: never${last === "" ? "" : `; the last try: ${last}`}`);
}

/** A GET on a connection of its own. */
export async function get(
  port: number,
  path: string,
  options: { ip?: string } = {},
): Promise<Answer> {
  return await send(port, path, options);
}

/** A request on a connection of its own; rejects with the system's error. */
export async function send(
  port: number,
  path: string,
  options: {
    ip?: string;
    method?: string;
    body?: string;
    headers?: Readonly<Record<string, string>>;
  } = {},
): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>();
  const { ip = "127.0.0.1", method = "GET", body, headers = {} } = options;
  const type = body === undefined ? {} : { "content-type": "application/json" };
  const outgoing = httpRequest(
    { host: ip, port, path, method, agent: false, headers: { ...type, ...headers } },
    (response) => {
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (part: string) => (text += part));
      response.on("error", reject);
      response.on("end", () =>
        resolve({ status: response.statusCode ?? 0, headers: response.headers, text }),
      );
    },
  );
  outgoing.setTimeout(LIMIT_MS, () => outgoing.destroy(new Error(`${path}: no answer`)));
  outgoing.on("error", reject);
  outgoing.end(body);
  return await promise;
}

function readLine(line: string): LogLine {
  if (!line.startsWith("{")) return { event: "text", msg: line };
  return JSON.parse(line) as LogLine;
}

function childrenOf(pid: number | undefined): number[] {
  try {
    const text = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim();
    return text === "" ? [] : text.split(" ").map(Number);
  } catch (error) {
    // It is gone already, or this system has no /proc.
    if (error instanceof Error) return [];
    throw error;
  }
}

function killQuietly(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}

/** `/slow` starts its answer and ends it when asked on `/finish`. */
const MACHINE = `
const { createServer } = require("node:http");
const [id, ip] = process.argv.slice(1);
const slow = [];
const server = createServer({ keepAliveTimeout: 60_000 }, (request, response) => {
  request.resume();
  if (request.url === "/slow") {
    response.write("begun ");
    return void slow.push(response);
  }
  if (request.url === "/finish") for (const one of slow.splice(0)) one.end("and ended");
  response.setHeader("content-length", Buffer.byteLength(id));
  response.end(id);
});
server.listen(0, ip, () => process.stdout.write(String(server.address().port)));
`;
/** The machine may be loaded by other tests: stalls are provoked, never met by chance. */
const WATCHDOG = { steady_ms: 10_000, apply_ms: 10_000, boot_ms: 60_000, silence_ms: 30_000 };
/** For a wait that never ends; no test is about speed. */
const LIMIT_MS = 40_000;
const ASK_PERIOD_MS = 25;
const END_LIMIT_MS = 15_000;
