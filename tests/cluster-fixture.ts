/**
 * For end-to-end tests: a small cluster of real Patina processes on loopback, with certificates of
 * an authority of its own and ports from the system, and machines to route to.
 *
 * Everything is waited for by asking or by reading logs, never by time. `close` ends every process,
 * also after a failure, and removes the folder; what a failed wait saw of the logs is in its error.
 */
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { stringify } from "smol-toml";
import { expect } from "vitest";
import { joinHostPort } from "#base/host-port.ts";
import { freePorts } from "../bin/demo/ports.ts";
import {
  createCertificateAuthority,
  issueClientCertificate,
  issueServerCertificate,
} from "../replica/driver/certificates/certificates.ts";
import { type Answer, get, LIMIT_MS, send, until } from "./asking-fixture.ts";
import { type Ending, type PatinaProcess, startPatina } from "./process-fixture.ts";

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
  /** Key of `ca.pem` in each host's folder. */
  authorityKeyPem = "";

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
    this.authorityKeyPem = authority.keyPem;
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

  /**
   * Its config as a node of Corrosion has it: no section of Patina's own, and one table, `t (id, v)`.
   * `sections` are laid over it.
   */
  corrosionConfig(sections: Readonly<Record<string, Readonly<Record<string, unknown>>>>): string {
    const schemas = join(this.folder, "schemas");
    mkdirSync(schemas, { recursive: true });
    writeFileSync(
      join(schemas, "t.sql"),
      "CREATE TABLE t (id INTEGER NOT NULL PRIMARY KEY, v TEXT);",
    );
    return stringify({
      db: { path: this.databaseFile, schema_paths: [schemas] },
      gossip: { addr: this.gossip },
      api: { addr: this.apiAddress },
      admin: { path: join(this.folder, "admin.sock") },
      telemetry: { prometheus: { addr: joinHostPort(this.ip, this.metricsPort) } },
      ...sections,
    });
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

  /** Puts a document to its API; what it answers. */
  async put(path: string, document: unknown): Promise<{ version: unknown }> {
    const { status, text } = await this.api("PUT", path, document);
    expect({ status, text }).toMatchObject({ status: 200 });
    return JSON.parse(text) as { version: unknown };
  }

  /** Publishes a machine under a hostname, as the only one of the app that is called like it. */
  async publish(hostname: string, machine: TestMachine): Promise<void> {
    const app = machine.id;
    await this.put(`/v1/apps/${app}`, { name: app });
    await this.put(`/v1/hostnames/${hostname}`, { app });
    await this.put(`/v1/machines/${app}`, machine.document(app));
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

function readLine(line: string): LogLine {
  if (!line.startsWith("{")) return { event: "text", msg: line };
  return JSON.parse(line) as LogLine;
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
/**
 * The machine may be loaded by other tests: stalls are provoked, never met by chance. No edge waits for
 * others to try a change, which by these budgets would take half a minute.
 */
const WATCHDOG = {
  steady_ms: 10_000,
  apply_ms: 10_000,
  boot_ms: 60_000,
  silence_ms: 30_000,
  canary_ms: 0,
};
