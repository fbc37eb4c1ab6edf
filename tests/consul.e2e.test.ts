/** `patina consul sync` beside a worker that runs, against an agent's API that speaks as Consul's does. */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterAll, beforeAll, expect, test } from "vitest";
import { freePorts } from "../bin/demo/ports.ts";
import { EXIT } from "../watchdog/supervisor/exit-codes.ts";
import { get, until } from "./asking-fixture.ts";
import { Cluster, type TestHost } from "./cluster-fixture.ts";
import { startPatina, type PatinaProcess } from "./process-fixture.ts";
import { ROOT } from "./source-tree.ts";

/** As the agent of Consul 1.20 answers, with what does not matter here left in. */
const WEB = {
  ID: "web-1",
  Service: "web",
  Tags: ["edge", "v2"],
  Meta: { app_id: "7", app_name: "shop" },
  Port: 8080,
  Address: "192.0.2.7",
  TaggedAddresses: { lan_ipv4: { Address: "192.0.2.7", Port: 8080 } },
  Weights: { Passing: 1, Warning: 1 },
  EnableTagOverride: false,
  Datacenter: "dc1",
};
const UP = {
  Node: "host",
  CheckID: "service:web-1",
  Name: "Service 'web' check",
  Status: "passing",
  Notes: "",
  Output: "HTTP GET http://192.0.2.7:8080/: 200 OK",
  ServiceID: "web-1",
  ServiceName: "web",
  ServiceTags: ["edge", "v2"],
  Type: "http",
  Interval: "10s",
  Timeout: "1s",
  ExposedPort: 0,
  Definition: {},
  CreateIndex: 0,
  ModifyIndex: 0,
};

let cluster: Cluster;
let worker: TestHost;
let agent: FakeAgent;
let metricsPort: number;
let sync: PatinaProcess;
const events: string[] = [];

beforeAll(async () => {
  agent = new FakeAgent();
  await agent.listen(0);
  metricsPort = (await freePorts(1))[0]!;
  const consul = {
    client: { address: `127.0.0.1:${agent.port}` },
    pull_secs: 0.1,
    metrics_addr: `127.0.0.1:${metricsPort}`,
  };
  cluster = await Cluster.create([
    { name: "worker", kind: "worker", config: { consul, db: { schema_paths: ["schemas"] } } },
    { name: "bare", kind: "worker", config: { consul } },
  ]);
  worker = cluster.host("worker");
  mkdirSync(join(worker.folder, "schemas"));
  const [, tables = ""] = /```sql\n(.*?)```/s.exec(
    readFileSync(join(ROOT, "docs/consul.md"), "utf8"),
  )!;
  writeFileSync(join(worker.folder, "schemas", "consul.sql"), tables);
  await cluster.start("worker");
  await worker.api("POST", "/v1/transactions", [
    "INSERT INTO consul_services (node, id, name) VALUES ('worker', 'stale', 'gone')",
    "INSERT INTO consul_services (node, id, name, source) VALUES ('worker', 'own', 'ours', 'me')",
    "INSERT INTO consul_services (node, id, name) VALUES ('another', 'far', 'theirs')",
  ]);
  agent.services = { "web-1": WEB };
  agent.checks = { "service:web-1": UP };
  sync = startPatina(["--config", worker.configFile, "consul", "sync"]);
  createInterface({ input: sync.child.stderr! }).on("line", (line) => {
    events.push((JSON.parse(line) as { event: string }).event);
  });
});

afterAll(async () => {
  await sync.end();
  await agent.close();
  await cluster.close();
});

test("the agent's services and checks are this node's rows, and nobody else's are touched", async () => {
  await until("the rows are there", async () => (await rows("checks")).length === 1);
  expect(await rows("services")).toEqual([
    ["another", "far", "theirs", "[]", "{}", 0, ""],
    ["worker", "own", "ours", "[]", "{}", 0, ""],
    [
      "worker",
      "web-1",
      "web",
      '["edge","v2"]',
      '{"app_id":"7","app_name":"shop"}',
      8080,
      "192.0.2.7",
    ],
  ]);
  expect(await rows("checks")).toEqual([
    ["worker", "service:web-1", "web-1", "web", UP.Name, "passing", UP.Output],
  ]);
});

test("rounds without news write nothing, an output that differs is none unless notes say so", async () => {
  const before = await head();
  agent.checks = { "service:web-1": { ...UP, Output: "another" } };
  await agent.rounds(3);
  expect(await head()).toBe(before);
  const Notes = JSON.stringify({ hash_include: ["status", "output"] });
  agent.checks = { "service:web-1": { ...UP, Output: "a third", Notes } };
  await until("the output is there", async () => (await rows("checks"))[0]?.[6] === "a third");
  agent.checks = { "service:web-1": { ...UP, Status: "critical", Output: "a third", Notes } };
  await until("the status is there", async () => (await rows("checks"))[0]?.[5] === "critical");
  expect(await head()).toBe(before + 2);
});

test("an agent that is away, or answers otherwise than Consul, writes nothing", async () => {
  const before = [await rows("services"), await rows("checks"), await head()];
  agent.status = 500;
  await agent.rounds(1);
  agent.status = 200;
  agent.text = '{"web-1": {"ID"';
  await agent.rounds(1);
  agent.text = '{"web-1": {"ID": "web-1", "Port": "no number"}}';
  await agent.rounds(1);
  agent.text = null;
  const { port } = agent;
  await agent.close();
  await until("nobody answers", async () => (await errors()).includes('error="ECONNREFUSED"'));
  expect(events.filter((event) => event === "consul-round-failed").length).toBeGreaterThan(0);
  expect([await rows("services"), await rows("checks"), await head()]).toEqual(before);
  for (const error of ["status 500", "bad answer"]) {
    expect(await errors()).toContain(
      `corro_consul_consul_response_errors{type="services",error="${error}"}`,
    );
  }
  agent.services = {};
  agent.checks = {};
  await agent.listen(port);
  await until("what is gone is gone", async () => (await rows("checks")).length === 0);
  expect((await rows("services")).map(([, id]) => id)).toEqual(["far", "own"]);
  expect(events).toContain("consul-back");
});

test("SIGTERM ends it", async () => {
  sync.child.kill("SIGTERM");
  expect((await sync.ending).code).toBe(EXIT.ok);
});

async function rows(kind: "services" | "checks"): Promise<unknown[][]> {
  const columns =
    kind === "services"
      ? "node, id, name, tags, meta, port, address"
      : "node, id, service_id, service_name, name, status, output";
  const sql = `SELECT ${columns} FROM consul_${kind} ORDER BY node, id`;
  const { text } = await worker.api("POST", "/v1/queries", sql);
  return text.split("\n").flatMap((line) => {
    const { row } = JSON.parse(line || "{}") as { row?: [number, unknown[]] };
    return row === undefined ? [] : [row[1]];
  });
}

async function head(): Promise<number> {
  const { actor, heads } = await worker.status();
  return heads[actor] ?? 0;
}

async function errors(): Promise<string> {
  return (await get(metricsPort, "/metrics")).text;
}

class FakeAgent {
  services: Record<string, unknown> = {};
  checks: Record<string, unknown> = {};
  status = 200;
  /** Sent in place of what there is. */
  text: string | null = null;
  port = 0;
  #asked = 0;
  #server: Server | null = null;
  #watchers: (() => void)[] = [];

  async listen(port: number): Promise<void> {
    const server = createServer((request, response) => {
      const body = request.url === "/v1/agent/services" ? this.services : this.checks;
      response.statusCode = this.status;
      response.setHeader("content-type", "application/json");
      response.end(this.text ?? JSON.stringify(body));
      this.#asked += 1;
      for (const look of this.#watchers.splice(0)) look();
    });
    server.listen(port, "127.0.0.1");
    await once(server, "listening");
    this.port = (server.address() as AddressInfo).port;
    this.#server = server;
  }

  /** Resolves when so many rounds have begun after one that had begun before. */
  async rounds(count: number): Promise<void> {
    const end = this.#asked + 2 * (count + 1);
    while (this.#asked < end) await new Promise<void>((resolve) => this.#watchers.push(resolve));
  }

  async close(): Promise<void> {
    const server = this.#server;
    this.#server = null;
    if (server === null) return;
    const closed = once(server, "close");
    server.close();
    server.closeAllConnections();
    await closed;
  }
}
