/**
 * Whatever keeps Patina from starting is one clear line on standard error and an exit code of its
 * own, never a stack trace and never a process that hangs or restarts for ever.
 */
import { execFileSync } from "node:child_process";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { mkdirSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { EXIT } from "../watchdog/supervisor/exit-codes.ts";
import { Cluster, type TestHost } from "./cluster-fixture.ts";
import { canMount, runPatina, type Ending } from "./process-fixture.ts";

let cluster: Cluster;
let edge: TestHost;

beforeAll(async () => {
  cluster = await Cluster.create([
    { name: "edge", kind: "edge" },
    { name: "owner", kind: "worker" },
  ]);
  edge = cluster.host("edge");
});

afterAll(async () => {
  await cluster.close();
});

describe("a port in use", () => {
  test.each(["http", "api", "metrics"] as const)("of %s ends with 4", async (name) => {
    const port = { http: edge.httpPort, api: edge.ports.api, metrics: edge.metricsPort }[name];
    const server = createServer().listen(port, "127.0.0.1");
    await once(server, "listening");
    onTestFinished(() => void server.close());
    expect(failureOf(await runEdge())).toEqual({
      code: EXIT.portInUse,
      line: expect.stringContaining(`:${port}`),
    });
  });

  test("of gossip ends with 4", async () => {
    const socket = createSocket("udp4").bind(edge.ports.gossip, "127.0.0.1");
    await once(socket, "listening");
    onTestFinished(() => void socket.close());
    expect(failureOf(await runEdge())).toEqual({
      code: EXIT.portInUse,
      line: expect.stringContaining(edge.gossip),
    });
  });
});

describe("a certificate", () => {
  test("that is not there ends with 8 and names its key", async () => {
    const ending = await runEdge("gossip.tls.cert_file=nowhere.pem");
    expect(failureOf(ending)).toEqual({
      code: EXIT.certificateUnreadable,
      line: expect.stringMatching(/gossip\.tls\.cert_file.*nowhere\.pem/),
    });
  });

  test("that is no certificate ends with 8", async () => {
    writeFileSync(join(edge.folder, "noise.pem"), "this is no certificate\n");
    const ending = await runEdge("gossip.tls.cert_file=noise.pem");
    expect(failureOf(ending)).toEqual({
      code: EXIT.certificateUnreadable,
      line: expect.stringContaining("certificate"),
    });
  });

  test("whose key belongs to another ends with 8", async () => {
    const ending = await runEdge("gossip.tls.key_file=client.key");
    expect(failureOf(ending)).toMatchObject({ code: EXIT.certificateUnreadable });
  });
});

describe("a database", () => {
  test("that is no SQLite file ends with 6 and names it", async () => {
    writeFileSync(join(edge.folder, "noise.db"), "noise ".repeat(2_000));
    expect(failureOf(await runEdge("db.path=noise.db"))).toEqual({
      code: EXIT.databaseCorrupt,
      line: expect.stringContaining("noise.db"),
    });
  });

  test("that another process owns ends with 5, and the owner goes on", async () => {
    await cluster.start("owner");
    const owner = cluster.host("owner");
    const ending = await runEdge(`db.path=${owner.databaseFile}`);
    expect(failureOf(ending)).toEqual({
      code: EXIT.storeLocked,
      line: expect.stringContaining(owner.databaseFile),
    });
    expect((await owner.api("GET", "/v1/status")).status).toBe(200);
  });

  test.skipIf(!canMount())("on a full disk ends with 7", async () => {
    const folder = join(cluster.folder, "full");
    mkdirSync(folder);
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=64k", "tmpfs", folder]);
    onTestFinished(() => void execFileSync("umount", ["-l", folder]));
    const ending = await runEdge(
      `db.path=${folder}/patina.db`,
      `watchdog.state_folder=${edge.folder}/state`,
    );
    expect(failureOf(ending)).toMatchObject({ code: EXIT.diskFull });
  });
});

describe("a folder that cannot be written", () => {
  const isRoot = process.getuid?.() === 0;
  test.skipIf(isRoot && !canMount())("for the database ends with 7 and names it", async () => {
    const folder = join(cluster.folder, "read-only");
    mkdirSync(folder, { mode: 0o555 });
    if (isRoot) {
      execFileSync("mount", ["-t", "tmpfs", "-o", "ro", "tmpfs", folder]);
      onTestFinished(() => void execFileSync("umount", ["-l", folder]));
    }
    const state = `watchdog.state_folder=${edge.folder}/state`;
    expect(failureOf(await runEdge(`db.path=${folder}/patina.db`, state))).toEqual({
      code: EXIT.diskFull,
      line: expect.stringContaining(`${folder}/patina.db`),
    });
  });
});

describe("a config", () => {
  test("with mistakes ends with 2 and a line for each", async () => {
    const ending = await runEdge("proxy.threads=0", "log.level=loud", "gosip.addr=x");
    expect(ending.code).toBe(EXIT.config);
    const lines = ending.stderr.trim().split("\n");
    expect(lines).toHaveLength(3);
    expect(lines.every((line) => line.startsWith("patina: "))).toBe(true);
  });

  test("that is not there ends with 2 and says how to name another", async () => {
    const ending = await runPatina(["run", "--config", join(edge.folder, "nowhere.toml")]);
    expect(ending.code).toBe(EXIT.config);
    expect(ending.stderr).toMatch(/^patina: .*nowhere\.toml.*--config\n$/);
  });

  test("with an address that this host does not have ends with 2", async () => {
    const ending = await runEdge("proxy.http=192.0.2.1:8080");
    expect(failureOf(ending)).toEqual({
      code: EXIT.config,
      line: expect.stringContaining("192.0.2.1:8080"),
    });
  });
});

/** Runs the edge with overrides to its end. */
async function runEdge(...overrides: readonly string[]): Promise<Ending> {
  const flags = overrides.length === 0 ? [] : ["--set", ...overrides];
  return await runPatina(["run", "--config", edge.configFile, ...flags]);
}

/** The exit code and the one line that says why; a second line or a stack trace shows as such. */
function failureOf({ code, stderr }: Ending): { code: number | null; line: string } {
  const lines = stderr.trim().split("\n");
  const isNotice = (line: string): boolean => /^\{"level":"(?:info|warn)"/.test(line);
  const errors = lines.filter((line) => !isNotice(line));
  return {
    code,
    line: errors.join("\n").includes("\n") ? `SEVERAL:\n${stderr}` : (errors[0] ?? ""),
  };
}
