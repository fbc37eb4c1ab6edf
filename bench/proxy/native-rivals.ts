/**
 * nginx, HAProxy and Caddy: their configs in bench/rivals/ filled in, and their processes. nginx
 * serves as the machine for GETs, too.
 */
import { createWriteStream, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer, type AddressInfo } from "node:net";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { freePorts } from "../../bin/demo/ports.ts";
import { BODY_BYTES_BY_PATH, GET_HOST, POST_HOST } from "./cases.ts";
import { LOAD_CORE, PROXY_CORE } from "./pinning.ts";
import { start } from "./programs.ts";
import type { Rival, Stage } from "./rivals.ts";

/** One worker. */
export async function startNginx(stage: Stage): Promise<Rival> {
  const ports = await twoPorts();
  const file = fillIn("nginx.conf", stage, { ...ports });
  return { name: "nginx", ...ports, pid: runNginx(stage, file, PROXY_CORE), cases: null };
}

/** nginx with fixed answers; returns its port. */
export async function startNginxUpstream(
  stage: Pick<Stage, "folder" | "context">,
): Promise<number> {
  const [port = 0] = await freePorts(1);
  const bodies = join(stage.folder, "bodies");
  mkdirSync(bodies);
  for (const [path, bytes] of Object.entries(BODY_BYTES_BY_PATH)) {
    writeFileSync(join(bodies, path), "x".repeat(bytes));
  }
  const file = fillIn("nginx-upstream.conf", stage, { port });
  runNginx(stage, file, LOAD_CORE);
  return port;
}

/** One thread. Its log goes to this process, which is on the load's core. */
export async function startHaproxy(stage: Stage): Promise<Rival> {
  const { folder, context } = stage;
  const ports = await twoPorts();
  const sinkPort = await startSink(stage);
  const hosts = `${GET_HOST} get_machines\n${POST_HOST} post_machines\n`;
  writeFileSync(join(folder, "hosts.map"), hosts);
  const pems = [stage.certFile, stage.keyFile].map((path) => readFileSync(path, "utf8"));
  writeFileSync(join(folder, "both.pem"), pems.join(""), { mode: 0o600 });
  const file = fillIn("haproxy.cfg", stage, { ...ports, sinkPort });
  const { stack } = context;
  const child = start(["haproxy", "-db", "-f", file], { stack, cores: PROXY_CORE });
  return { name: "haproxy", ...ports, pid: child.pid ?? 0, cases: null };
}

/** One thread that runs Go code at a time. */
export async function startCaddy(stage: Stage): Promise<Rival> {
  const { folder, context } = stage;
  const ports = await twoPorts();
  const file = fillIn("Caddyfile", stage, { ...ports });
  const command = ["caddy", "run", "--adapter", "caddyfile", "--config", file];
  const env = { GOMAXPROCS: String(THREADS), XDG_DATA_HOME: folder, XDG_CONFIG_HOME: folder };
  const { stack } = context;
  // It says at start what it does by default; what breaks it is seen by that it does not answer.
  const child = start(command, { stack, cores: PROXY_CORE, env, stderr: "ignore" });
  return { name: "caddy", ...ports, pid: child.pid ?? 0, cases: null };
}

/** Takes what comes over TCP into a file; returns its port. */
async function startSink(stage: Stage): Promise<number> {
  const file = createWriteStream(join(stage.folder, "haproxy-access.log"));
  const server = createServer((socket) => {
    socket.on("error", () => socket.destroy());
    socket.pipe(file, { end: false });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  server.unref();
  stage.context.stack.defer(() => {
    server.close();
    file.destroy();
  });
  return (server.address() as AddressInfo).port;
}

function runNginx(stage: Pick<Stage, "folder" | "context">, file: string, cores: string): number {
  const { folder, context } = stage;
  const command = ["nginx", "-c", file, "-p", folder, "-e", join(folder, "nginx-start.log")];
  return start(command, { stack: context.stack, cores }).pid ?? 0;
}

/** Fills in a config's `{{name}}`s; returns the path of the result. */
function fillIn(
  name: string,
  stage: Partial<Stage>,
  parts: Readonly<Record<string, number>>,
): string {
  const { folder = "", getUpstream = 0, postUpstream = 0, certFile = "", keyFile = "" } = stage;
  const all: Readonly<Record<string, string | number>> = {
    folder,
    getUpstream,
    postUpstream,
    certFile,
    keyFile,
    threads: THREADS,
    ...parts,
  };
  const template = fileURLToPath(new URL(`../rivals/${name}`, import.meta.url));
  // In comments a name stands for any.
  const text = readFileSync(template, "utf8").replaceAll(/\{\{(\w+)\}\}/g, (whole, key: string) =>
    String(all[key] ?? whole),
  );
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

async function twoPorts(): Promise<{ readonly port: number; readonly tlsPort: number }> {
  const [port = 0, tlsPort = 0] = await freePorts(2);
  return { port, tlsPort };
}

const THREADS = 1;
