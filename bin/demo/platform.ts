/**
 * The demo's platform: PoPs, worker hosts and machines as real processes on loopback, each host with
 * its own database, ports and certificates, in one folder.
 *
 * Distances of a real map are emulated where packets leave a process (the fault-injection section of
 * each config); no process is told them as distances.
 */
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { createWriteStream, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { stringify } from "smol-toml";
import { request } from "undici";
import {
  createCertificateAuthority,
  issueClientCertificate,
  issueServerCertificate,
  type CertificatePems,
} from "../../replica/driver/certificates/certificates.ts";
import { initActor } from "../../replica/driver/store/database.ts";
import { errorText, PatinaError } from "#base/errors.ts";
import { crsqlitePath, sqlDeadlinePath } from "../setup/paths.js";
import { roundTripMs, type Place } from "./geography.ts";
import { freePorts } from "./ports.ts";

/** A host of the platform. */
export interface HostSpec {
  /** Node id: `ams-pop`, `fra-worker`. */
  readonly name: string;
  readonly kind: "edge" | "worker";
  readonly place: Place;
}

/** A host with its ports. */
export interface Host extends HostSpec {
  readonly folder: string;
  readonly gossipPort: number;
  readonly apiPort: number;
  readonly metricsPort: number;
  readonly httpPort: number;
}

/** A customer's machine: where it runs and where it listens. */
export interface Machine {
  readonly id: string;
  readonly workerName: string;
  readonly place: Place;
  readonly port: number;
}

/** What the platform tells: one line per event. */
export type EventListener = (line: string) => void;

/** Starts, publishes, kills and stops. */
export class Platform {
  readonly hosts = new Map<string, Host>();
  readonly machines = new Map<string, Machine>();
  readonly folder: string;
  readonly #appId = "hello";
  readonly #onEvent: EventListener;
  readonly #processByName = new Map<string, ChildProcess>();
  #authority: CertificatePems | null = null;
  #isStopping = false;

  private constructor(folder: string, onEvent: EventListener) {
    this.folder = folder;
    this.#onEvent = onEvent;
  }

  /** Wipes the folder, makes an authority, and gives every host and machine its ports. */
  static async create(options: {
    folder: string;
    hosts: readonly HostSpec[];
    machines: readonly Omit<Machine, "port" | "place">[];
    onEvent: EventListener;
  }): Promise<Platform> {
    const platform = new Platform(resolve(options.folder), options.onEvent);
    rmSync(platform.folder, { recursive: true, force: true });
    mkdirSync(platform.folder, { recursive: true });
    process.once("exit", () => platform.#killAll());
    platform.#authority = await createCertificateAuthority({ nowMs: Date.now() });
    const ports = await freePorts(options.hosts.length * 4 + options.machines.length);
    const nextPort = (): number => ports.pop() as number;
    for (const spec of options.hosts) {
      platform.hosts.set(spec.name, {
        ...spec,
        folder: join(platform.folder, spec.name),
        gossipPort: nextPort(),
        apiPort: nextPort(),
        metricsPort: nextPort(),
        httpPort: nextPort(),
      });
    }
    for (const machine of options.machines) {
      const { place } = platform.host(machine.workerName);
      platform.machines.set(machine.id, { ...machine, place, port: nextPort() });
    }
    return platform;
  }

  /** Hostname of the demo's app. */
  get hostname(): string {
    return "hello.demo";
  }

  host(name: string): Host {
    const host = this.hosts.get(name);
    if (!host) throw new Error(`the demo has no host ${name}`);
    return host;
  }

  machine(id: string): Machine {
    const machine = this.machines.get(id);
    if (!machine) throw new Error(`the demo has no machine ${id}`);
    return machine;
  }

  /** Starts a host's process and waits until it says it is ready. */
  async startHost(name: string, bootstrap: readonly string[]): Promise<void> {
    const host = this.host(name);
    await this.#writeHostFiles(host, bootstrap);
    const command = host.kind === "edge" ? "run" : "agent";
    const child = spawn(
      process.execPath,
      [CLI, command, "--config", join(host.folder, "patina.toml")],
      { ...OWN_GROUP, stdio: ["ignore", "pipe", "pipe"], cwd: host.folder },
    );
    this.#processByName.set(name, child);
    const log = createWriteStream(join(host.folder, "log.jsonl"), { flags: "a" });
    child.stdout.pipe(log, { end: false });
    createInterface({ input: child.stderr }).on("line", (line) => {
      log.write(`${line}\n`);
      this.#noteAlert(name, line);
    });
    child.once("exit", (code, signal) => {
      log.end();
      if (!this.#isStopping) this.#onEvent(`${name} ended (${signal ?? code})`);
    });
    await this.#waitReady(host, child);
  }

  /** Waits until a PoP has somewhere to send a request for the demo's app. */
  async waitRouted(name: string): Promise<void> {
    const host = this.host(name);
    const url = `http://127.0.0.1:${host.httpPort}/`;
    if (
      await eventually(
        () => answersOk(url, { host: this.hostname }),
        () => true,
      )
    )
      return;
    throw new PatinaError("DEMO_FAILED", `${name} routes nothing${logOf(host)}`);
  }

  /** Publishes the app and its hostname on one worker, the demo's control plane. */
  async publishApp(workerName: string): Promise<void> {
    await this.#put(workerName, `/v1/apps/${this.#appId}`, { name: "Hello" });
    await this.#put(workerName, `/v1/hostnames/${this.hostname}`, { app: this.#appId });
  }

  /** Starts a machine's server; does not publish it. */
  async startMachine(id: string): Promise<void> {
    const machine = this.machine(id);
    const child = spawn(
      process.execPath,
      [MACHINE_SERVER, id, machine.place.region, String(machine.port)],
      { ...OWN_GROUP, stdio: ["ignore", "pipe", "inherit"] },
    );
    this.#processByName.set(id, child);
    // The worker host watches its machines: one that ends is published as stopped at once.
    child.once("exit", () => {
      if (this.#isStopping) return;
      this.#onEvent(`${id} ended; ${machine.workerName} publishes it as stopped`);
      this.publishMachine(id, "stopped").catch((error: unknown) => {
        this.#onEvent(`${id} could not be published as stopped: ${errorText(error)}`);
      });
    });
    await Promise.race([once(child.stdout, "data"), once(child, "exit")]);
    if (isRunning(child)) return;
    throw new PatinaError("DEMO_FAILED", `${id} did not start on port ${machine.port}`);
  }

  /** Publishes a machine whole on its worker. */
  async publishMachine(id: string, state: "started" | "stopped"): Promise<void> {
    const machine = this.machine(id);
    await this.#put(machine.workerName, `/v1/machines/${id}`, {
      app: this.#appId,
      region: machine.place.region,
      state,
      services: [
        {
          name: "web",
          address: `127.0.0.1:${machine.port}`,
          protocol: "http",
          soft_limit: 500,
          hard_limit: 1000,
        },
      ],
      checks: [
        { service: "web", name: "up", status: state === "started" ? "passing" : "critical" },
      ],
    });
  }

  /** Sends a signal to a machine's or host's process. */
  kill(name: string, signal: NodeJS.Signals): void {
    this.#processByName.get(name)?.kill(signal);
  }

  /** Stops every process and waits for their ends; removes the folder unless it is to be kept. */
  async stop(options: { keep: boolean }): Promise<void> {
    this.#isStopping = true;
    const running = [...this.#processByName.values()].filter(isRunning);
    const ends = running.map((child) => once(child, "exit"));
    for (const child of running) child.kill("SIGTERM");
    const deadline = setTimeout(() => {
      for (const child of running) if (isRunning(child)) child.kill("SIGKILL");
    }, STOP_LIMIT_MS);
    await Promise.all(ends);
    clearTimeout(deadline);
    if (!options.keep) rmSync(this.folder, { recursive: true, force: true });
  }

  /** Nothing outlives the demo, however it ends. */
  #killAll(): void {
    for (const child of this.#processByName.values()) if (isRunning(child)) child.kill("SIGKILL");
  }

  /** Gossip address of a host, as others dial it. */
  gossipAddress(name: string): string {
    return `127.0.0.1:${this.host(name).gossipPort}`;
  }

  async #writeHostFiles(host: Host, bootstrap: readonly string[]): Promise<void> {
    const authority = this.#authority as CertificatePems;
    mkdirSync(host.folder, { recursive: true });
    const nowMs = Date.now();
    // Who it will be, so that its certificates can say so.
    const actorId = initActor({
      path: join(host.folder, DATABASE),
      extensionPath: crsqlitePath(),
      deadlinePath: sqlDeadlinePath(),
    });
    const leaf = { nowMs, actorId };
    const server = await issueServerCertificate(authority, { ...leaf, addresses: ["127.0.0.1"] });
    const client = await issueClientCertificate(authority, leaf);
    const write = (name: string, text: string): void =>
      writeFileSync(join(host.folder, name), text, { mode: 0o600 });
    write("ca.pem", authority.certificatePem);
    write("server.pem", server.certificatePem);
    write("server.key", server.keyPem);
    write("client.pem", client.certificatePem);
    write("client.key", client.keyPem);
    write("patina.toml", stringify(this.#configOf(host, bootstrap)));
  }

  #configOf(host: Host, bootstrap: readonly string[]): Record<string, unknown> {
    return {
      db: { path: DATABASE },
      gossip: {
        addr: `127.0.0.1:${host.gossipPort}`,
        bootstrap: [...bootstrap],
        preset: "lan",
        tls: {
          cert_file: "server.pem",
          key_file: "server.key",
          ca_file: "ca.pem",
          verify_actor: true,
          client: { cert_file: "client.pem", key_file: "client.key" },
        },
      },
      api: { addr: `127.0.0.1:${host.apiPort}` },
      replica: { node: host.name, region: host.place.region },
      telemetry: { prometheus: { addr: `127.0.0.1:${host.metricsPort}` } },
      log: { level: "info" },
      fault: this.#faultsOf(host),
      ...(host.kind === "edge"
        ? {
            proxy: { http: `127.0.0.1:${host.httpPort}`, connect_timeout_ms: 2_000 },
            // A request of the tour stalls an edge.
            watchdog: { allow_fault_injection: true },
          }
        : {}),
    };
  }

  #faultsOf(host: Host): Record<string, unknown> {
    const others = [...this.hosts.values()].filter((other) => other.name !== host.name);
    const udp = others.map((other) => [
      `127.0.0.1:${other.gossipPort}`,
      roundTripMs(host.place, other.place),
    ]);
    const tcp = [...this.machines.values()].map((machine) => [
      `127.0.0.1:${machine.port}`,
      roundTripMs(host.place, machine.place),
    ]);
    return {
      enabled: true,
      udp_rtt_ms: Object.fromEntries(udp),
      ...(host.kind === "edge"
        ? { tcp_rtt_ms: Object.fromEntries(tcp), stall_path: STALL_PATH }
        : {}),
    };
  }

  async #waitReady(host: Host, child: ChildProcess): Promise<void> {
    const url = `http://127.0.0.1:${host.metricsPort}/readyz`;
    if (
      await eventually(
        () => answersOk(url),
        () => isRunning(child),
      )
    )
      return;
    throw new PatinaError("DEMO_FAILED", `${host.name} did not become ready${logOf(host)}`);
  }

  async #put(hostName: string, path: string, document: unknown): Promise<void> {
    const { apiPort } = this.host(hostName);
    const response = await request(`http://127.0.0.1:${apiPort}${path}`, {
      method: "PUT",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(document),
    });
    const text = await response.body.text();
    if (response.statusCode >= 300) {
      throw new PatinaError(
        "DEMO_FAILED",
        `PUT ${path} at ${hostName}: ${response.statusCode} ${text}`,
      );
    }
  }

  #noteAlert(name: string, line: string): void {
    if (!line.startsWith("{")) return;
    const { level, event, msg } = JSON.parse(line) as Record<string, string>;
    if (level === "error" || event === "edge-bounced") this.#onEvent(`${name}: ${msg}`);
  }
}

/**
 * A Ctrl-C is for the demo alone, which then ends its processes in order: a supervisor that got it
 * too would take the demo's own signal for a second one, and kill.
 */
const OWN_GROUP = { detached: true } as const;

/** A request to this path of an edge blocks its loop for ever. */
export const STALL_PATH = "/__stall";

function logOf(host: Host): string {
  return `; its log is ${join(host.folder, "log.jsonl")}`;
}

/** Asks again and again while that makes sense; false when it took too long. */
async function eventually(
  isSo: () => Promise<boolean>,
  isPossible: () => boolean,
): Promise<boolean> {
  const deadline = performance.now() + START_LIMIT_MS;
  while (performance.now() < deadline && isPossible()) {
    if (await isSo()) return true;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return false;
}

async function answersOk(url: string, headers: Record<string, string> = {}): Promise<boolean> {
  try {
    const response = await request(url, { headers, headersTimeout: 1_000, bodyTimeout: 1_000 });
    await response.body.dump();
    return response.statusCode === 200;
  } catch (error) {
    // Nobody listens yet: that is what is being waited for.
    if (error instanceof Error) return false;
    throw error;
  }
}

function isRunning(child: ChildProcess): boolean {
  return child.exitCode === null && child.signalCode === null;
}

const CLI = fileURLToPath(new URL("../cli.ts", import.meta.url));
const MACHINE_SERVER = fileURLToPath(new URL("machine-server.ts", import.meta.url));
/** Eight processes start at once on two cores. */
const DATABASE = "patina.db";
const START_LIMIT_MS = 30_000;
const STOP_LIMIT_MS = 10_000;
