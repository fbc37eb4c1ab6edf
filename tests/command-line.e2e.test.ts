/** The commands that people type, against a worker that runs. */
import { X509Certificate } from "node:crypto";
import { mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { EXIT } from "../watchdog/supervisor/exit-codes.ts";
import { Cluster, type TestHost } from "./cluster-fixture.ts";
import { runPatina, type Ending } from "./process-fixture.ts";

const TOKEN = "a-token-of-the-test";
let cluster: Cluster;
let worker: TestHost;
let guarded: TestHost;

beforeAll(async () => {
  const api = { authz: { "bearer-token": TOKEN } };
  cluster = await Cluster.create([
    { name: "worker", kind: "worker" },
    { name: "guarded", kind: "worker", bootstrap: ["worker"], config: { api } },
  ]);
  worker = cluster.host("worker");
  guarded = cluster.host("guarded");
  await cluster.start("worker", "guarded");
});

afterAll(async () => {
  await cluster.close();
});

describe("check", () => {
  test("prints the effective config of a valid file", async () => {
    const ending = await runPatina(["check", "--config", worker.configFile]);
    expect(ending.code).toBe(EXIT.ok);
    expect(JSON.parse(ending.stdout)).toMatchObject({
      replica: { node: "worker" },
      gossip: { addr: worker.gossip },
      proxy: { threads: 1 },
    });
  });

  test("lists what is wrong with an override, under its flag's name", async () => {
    const args = ["check", "--config", worker.configFile, "--set", "log.level=loud"];
    const ending = await runPatina(args);
    expect(ending.code).toBe(EXIT.config);
    expect(ending.stderr).toMatch(/^patina: --set log\.level: log\.level: found "loud"; allowed: /);
  });

  test("takes the environment below flags", async () => {
    const env = { PATINA__LOG__LEVEL: "warn", PATINA__GOSSIP__MAX_MTU: "1400" };
    const args = ["check", "--config", worker.configFile, "--set", "log.level=error"];
    const ending = await runPatina(args, { env });
    expect(JSON.parse(ending.stdout)).toMatchObject({
      log: { level: "error" },
      gossip: { max_mtu: 1400 },
    });
  });
});

describe("publish", () => {
  test("publishes machines from a file and says what changed", async () => {
    const file = join(cluster.folder, "machines.json");
    writeFileSync(file, JSON.stringify([machine("one"), { ...machine("two"), colour: "red" }]));
    const publish = ["publish", file, "--api-addr", worker.apiAddress];
    const ending = await runPatina(publish);
    expect(ending).toMatchObject({
      code: EXIT.ok,
      stdout: expect.stringMatching(/^one: version \d+\ntwo: version \d+\n$/),
      stderr: expect.stringMatching(/^two: .*colour/),
    });
    expect((await runPatina(publish)).stdout).toBe("one: no change\ntwo: no change\n");
  });

  test("reads standard input, and stops at the first that is refused, naming the place", async () => {
    const bad = { ...machine("bad"), services: [{ name: "web", address: "nowhere" }] };
    const stdin = JSON.stringify([machine("good"), bad, machine("never")]);
    const ending = await runPatina(["publish", "-", "--api-addr", worker.apiAddress], { stdin });
    expect(ending.stdout).toMatch(/^good: version \d+\n$/);
    expect(lineOf(ending)).toMatch(/bad \(2 of 3\).*422.*services\.0\.address/);
    expect((await worker.api("GET", "/v1/machines/never")).status).toBe(404);
  });

  test("says where the JSON of a broken file breaks off", async () => {
    const ending = await runPatina(["publish", "-"], { stdin: '{"id": "x",' });
    expect(ending.code).toBe(EXIT.config);
    expect(lineOf(ending)).toContain("JSON");
  });
});

describe("exec and query", () => {
  test("write and read rows, with parameters and column names", async () => {
    const at = ["--api-addr", worker.apiAddress];
    const insert = "INSERT INTO apps (id, name, node_id) VALUES (?, ?, 'worker')";
    const written = await runPatina([
      "exec",
      insert,
      ...at,
      "--param",
      "shop",
      "--param",
      "The shop",
    ]);
    expect(written).toMatchObject({
      code: EXIT.ok,
      stdout: "Rows affected: 1\n",
    });
    const select = "SELECT id, name FROM apps WHERE id = ?";
    const read = await runPatina(["query", ...at, "--columns", "--param", "shop", select]);
    expect(read).toMatchObject({ code: EXIT.ok, stdout: "id|name\nshop|The shop\n" });
  });

  test("print cells as Corrosion does: nothing for NULL, blobs in hexadecimal", async () => {
    const select = "SELECT NULL, 9007199254740993, 1.5, 2.0, 'a|b', x'00ff', x''";
    const read = await runPatina(["query", select, "--api-addr", worker.apiAddress]);
    expect(read.stdout).toBe("|9007199254740993|1.5|2|a|b|x'00ff'|x''\n");
  });

  test("refuse a query that writes and a statement that is wrong, in one line", async () => {
    const at = ["--api-addr", worker.apiAddress];
    const endings = [
      await runPatina(["query", "DELETE FROM apps", ...at]),
      await runPatina(["exec", "INSERT INTO nowhere VALUES (1)", ...at]),
    ];
    for (const ending of endings) {
      expect(ending.code).toBe(EXIT.refused);
      expect(lineOf(ending)).toMatch(/^patina: /);
    }
    expect(endings[1]?.stderr).toBe(
      "patina: the API answered 500: statement 1: no such table: nowhere\n",
    );
  });

  test("need the token where the API wants one", async () => {
    const query = ["query", "SELECT 1", "--api-addr", guarded.apiAddress];
    const refused = await runPatina(query);
    expect(refused.code).toBe(EXIT.refused);
    expect(lineOf(refused)).toContain("--token");
    expect((await runPatina([...query, "--token", TOKEN])).stdout).toBe("1\n");
  });

  test("say that nobody answers, and how to name another replica", async () => {
    const ending = await runPatina(["query", "SELECT 1", "--api-addr", "127.0.0.1:1"]);
    expect(ending.code).toBe(EXIT.unreachable);
    expect(lineOf(ending)).toMatch(/127\.0\.0\.1:1: ECONNREFUSED.*--api-addr/);
  });
});

describe("tls", () => {
  test("makes an authority and certificates that a cluster runs with", async () => {
    const out = join(cluster.folder, "certificates");
    const steps = [
      ["tls", "ca", "generate", "--out", out],
      ["tls", "server", "generate", "127.0.0.1", "--ca", out, "--out", out],
      ["tls", "client", "generate", "--ca", out, "--out", out],
    ];
    for (const step of steps) expect(await runPatina(step)).toMatchObject({ code: EXIT.ok });
    for (const key of ["ca.key", "server.key", "client.key"]) {
      expect(statSync(join(out, key)).mode & 0o777).toBe(0o600);
    }
  });

  test("binds a certificate to the actor that a database is made with", async () => {
    const folder = join(cluster.folder, "bound");
    const init = ["actor", "init", "--db-path", join(folder, "patina.db")];
    const first = await runPatina(init);
    const actor = first.stdout.trim();
    expect(actor).toMatch(/^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
    expect((await runPatina(init)).stdout).toBe(first.stdout);
    await runPatina(["tls", "ca", "generate", "--out", folder]);
    const flags = ["--actor", actor, "--ca", folder, "--out", folder];
    await runPatina(["tls", "server", "generate", "127.0.0.1", ...flags]);
    await runPatina(["tls", "client", "generate", ...flags]);
    for (const file of ["server.pem", "client.pem"]) {
      const { subjectAltName } = new X509Certificate(readFileSync(join(folder, file)));
      expect(subjectAltName).toContain(`URI:urn:uuid:${actor}`);
    }
    const wrong = await runPatina(["tls", "client", "generate", "--actor", "me", "--out", folder]);
    expect([wrong.code, lineOf(wrong)]).toEqual([EXIT.config, expect.stringContaining("A UUID")]);
  });

  test("overwrites nothing, and says which authority is missing", async () => {
    const out = join(cluster.folder, "once");
    await runPatina(["tls", "ca", "generate", "--out", out]);
    const again = await runPatina(["tls", "ca", "generate", "--out", out]);
    expect(again.code).toBe(EXIT.config);
    expect(lineOf(again)).toContain("ca.pem exists");
    const nowhere = join(cluster.folder, "nowhere");
    const orphan = await runPatina(["tls", "client", "generate", "--ca", nowhere]);
    expect(orphan.code).toBe(EXIT.certificateUnreadable);
    expect(lineOf(orphan)).toContain("patina tls ca generate");
  });
});

test("a demo wipes no folder of somebody else's without being told to", async () => {
  const folder = join(cluster.folder, "precious");
  mkdirSync(folder);
  writeFileSync(join(folder, "letters"), "dear");
  const ending = await runPatina(["demo", "--once", "--folder", folder]);
  expect(ending).toMatchObject({ code: EXIT.config, stderr: expect.stringContaining("--yes") });
  expect(ending.stderr).toContain(`wipes ${folder}`);
  expect(readFileSync(join(folder, "letters"), "utf8")).toBe("dear");
});

test("a command that does not exist is answered with the way to help, and 2", async () => {
  const ending = await runPatina(["rn"]);
  expect(ending.code).toBe(EXIT.config);
  expect(ending.stderr).toContain("patina --help");
});

function machine(id: string): Record<string, unknown> {
  const services = [{ name: "web", address: "127.0.0.1:1" }];
  return { id, app: "cli", region: "test", state: "started", services };
}

/** The one line that an error is. */
function lineOf({ stderr }: Ending): string {
  const lines = stderr.trim().split("\n");
  return lines.length === 1 ? (lines[0] ?? "") : `SEVERAL:\n${stderr}`;
}
