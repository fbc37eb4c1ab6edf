/**
 * A cluster of both makes: `corrosion agent` and `patina agent` side by side in plaintext mode. Runs
 * where `PATINA_CORROSION_BIN` names a binary of Corrosion, and is skipped elsewhere.
 */
import { execFile, spawn, type ChildProcess } from "node:child_process";
import { createWriteStream, existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { send, until } from "./asking-fixture.ts";
import { Cluster, type TestHost } from "./cluster-fixture.ts";

const binary = process.env["PATINA_CORROSION_BIN"];
const isThere = binary !== undefined && existsSync(binary);
if (binary !== undefined && !isThere) {
  throw new Error(`PATINA_CORROSION_BIN: there is no ${binary}; name a binary of Corrosion`);
}

const WRITES = 1_000;

/** How changes travel; where nodes compress, replicas of ours do not, and must understand. */
const WAYS = [
  { way: "gossip", broadcast: "gossip", isCompressed: false },
  { way: "Plumtree", broadcast: { plumtree: {} }, isCompressed: false },
  { way: "gossip, compressed at nodes", broadcast: "gossip", isCompressed: true },
  { way: "Plumtree, compressed at nodes", broadcast: { plumtree: {} }, isCompressed: true },
] as const;
type Way = (typeof WAYS)[number];

describe.skipIf(!isThere).each(WAYS)("beside nodes of PATINA_CORROSION_BIN, by $way", (way) => {
  let cluster: Cluster;
  let patinas: TestHost[];
  let nodes: Node[];

  beforeAll(async () => {
    const names = ["p1", "p2", "p3", "c1", "c2", "c3"];
    cluster = await Cluster.create(names.map((name) => ({ name, kind: "worker" as const })));
    const bootstrap = [cluster.host("c1").gossip, cluster.host("p1").gossip];
    patinas = ["p1", "p2", "p3"].map((name) => cluster.host(name));
    nodes = ["c1", "c2", "c3"].map((name) => new Node(cluster.host(name), { bootstrap, way }));
    const ours = { bootstrap, way: { ...way, isCompressed: false } };
    for (const host of patinas) writeFileSync(host.configFile, configOf(host, ours));
    // The third of each kind joins later.
    nodes[0]!.start();
    await cluster.start("p1", "p2");
    nodes[1]!.start();
  });

  afterAll(async () => {
    for (const node of nodes) await node.end();
    await cluster.close();
  });

  test("two of each kind become one cluster, joined through either", async () => {
    await everybodyKnows(3);
  });

  test(`${WRITES} writes on each are on all`, async () => {
    const running = [patinas[0]!, patinas[1]!, nodes[0]!.host, nodes[1]!.host];
    await Promise.all(running.map((host, at) => writeMany(host, 1_000_000 * (at + 1))));
    for (const host of running) await counts(host, WRITES * running.length);
  });

  test("a transaction of 5 MB crosses both ways", async () => {
    for (const [host, first] of [
      [patinas[0]!, 10_000_000],
      [nodes[0]!.host, 11_000_000],
    ] as const) {
      const text = "x".repeat(10_000);
      const rows = Array.from({ length: 500 }, (_, at) => insert(first + at, text));
      expect((await transact(host, rows)).status).toBe(200);
    }
    for (const host of [...patinas.slice(0, 2), ...nodes.slice(0, 2).map((node) => node.host)]) {
      await counts(host, WRITES * 4 + 1_000);
    }
  });

  test("changes travelled by the method that is set, packed where nodes pack", async () => {
    const [first, second] = [patinas[0]!, patinas[1]!];
    const compressed = "corro_decompression_bytes_extra";
    for (const host of way.isCompressed ? [first, second] : []) {
      await until(`${host.options.name} was sent compressed changes`, async () => {
        return (await host.metric(compressed)) > 0;
      });
    }
    if (!way.isCompressed) expect(await first.metric(compressed)).toBe(0);
    const fromTree = 'corro_plumtree_messages{msg_type="gossip"}';
    if (way.broadcast === "gossip") {
      expect(await first.metric(fromTree)).toBe(0);
      return;
    }
    for (const host of [first, second]) {
      await until(`${host.options.name} was sent changes by the tree`, async () => {
        return (await host.metric(fromTree)) > 0;
      });
    }
    // Each kind is on the other's tree, though links between two of them may be pruned to be lazy.
    const actors = await Promise.all(
      [first, second].map(async (host) => (await host.status()).actor),
    );
    for (const node of nodes.slice(0, 2)) {
      const stats = await node.run("plumtree", "stats");
      const { eager_peers: eager, lazy_peers: lazy } = JSON.parse(stats) as {
        eager_peers: string[];
        lazy_peers: string[];
      };
      expect([...eager, ...lazy]).toEqual(expect.arrayContaining(actors));
    }
  });

  test("an empty one of either kind gets everything", async () => {
    nodes[2]!.start();
    await cluster.start("p3");
    for (const host of [patinas[2]!, nodes[2]!.host]) await counts(host, WRITES * 4 + 1_000);
    await everybodyKnows(5);
  });

  test("one of either kind that is killed has missed nothing once it is back", async () => {
    nodes[1]!.kill();
    process.kill(patinas[1]!.edgePid(), "SIGKILL");
    await transact(patinas[0]!, [insert(12_000_000, "while they were gone")]);
    await transact(nodes[0]!.host, [insert(12_000_001, "while they were gone")]);
    nodes[1]!.start();
    for (const host of [patinas[1]!, nodes[1]!.host]) await counts(host, WRITES * 4 + 1_002);
    await transact(patinas[1]!, [insert(12_000_002, "from one that came back")]);
    await transact(nodes[1]!.host, [insert(12_000_003, "from one that came back")]);
    for (const host of [...patinas, ...nodes.map((node) => node.host)]) {
      await counts(host, WRITES * 4 + 1_004);
    }
  });

  test("in the end all know all, nobody lacks anything, and tables are equal row by row", async () => {
    await everybodyKnows(5);
    for (const host of patinas) {
      await until(`${host.options.name} needs nothing`, async () => {
        return (await host.status()).needs === 0;
      });
    }
    for (const node of nodes) {
      await until("a node needs nothing", async () => {
        const { need, partial_need: partial } = JSON.parse(await node.run("sync", "generate")) as {
          need: Record<string, unknown[]>;
          partial_need: Record<string, object>;
        };
        const open = [...Object.values(need), ...Object.values(partial).map(Object.keys)];
        if (open.some((one) => one.length > 0)) throw new Error(JSON.stringify({ need, partial }));
        return true;
      });
    }
    const tables: string[] = [];
    for (const host of [...patinas, ...nodes.map((node) => node.host)]) {
      tables.push(await rows(host, "SELECT id, v FROM t ORDER BY id"));
    }
    expect(tables[0]!.split("\n").length).toBe(WRITES * 4 + 1_004);
    expect(new Set(tables).size).toBe(1);
  });

  /** All that run know so many others, by what each kind says of itself. */
  async function everybodyKnows(others: number): Promise<void> {
    for (const host of patinas.slice(0, others === 3 ? 2 : 3)) {
      await until(`${host.options.name} knows ${others}`, async () => {
        const { members } = await host.status();
        return members.filter(({ state }) => state === "alive").length === others;
      });
    }
    for (const node of nodes.slice(0, others === 3 ? 2 : 3)) {
      await until(`a node knows ${others}`, async () => {
        const members = await node.run("cluster", "members");
        return members.split('"id"').length - 1 === others;
      });
    }
  }
});

/** A node of Corrosion on the folder and ports of a test host. */
class Node {
  readonly host: TestHost;
  readonly #configFile: string;
  #child: ChildProcess | null = null;
  #ended: Promise<unknown> = Promise.resolve();

  constructor(host: TestHost, gossip: Gossip) {
    this.host = host;
    this.#configFile = join(host.folder, "corrosion.toml");
    writeFileSync(this.#configFile, configOf(host, gossip));
  }

  start(): void {
    const child = spawn(binary ?? "", ["-c", this.#configFile, "agent"], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    const log = createWriteStream(join(this.host.folder, "corrosion.log"), { flags: "a" });
    child.stdout.pipe(log, { end: false });
    child.stderr.pipe(log, { end: false });
    this.#ended = new Promise((resolve) => child.once("exit", resolve)).then(() => log.end());
    this.#child = child;
  }

  kill(): void {
    this.#child?.kill("SIGKILL");
  }

  async end(): Promise<void> {
    this.kill();
    await this.#ended;
  }

  /** What one of its commands prints. */
  async run(...command: readonly string[]): Promise<string> {
    const run = promisify(execFile);
    const { stdout } = await run(binary ?? "", ["-c", this.#configFile, ...command]);
    // Lines of its log stand before the answer.
    return stdout.slice(Math.max(0, stdout.search(/^\{/m)));
  }
}

interface Gossip {
  readonly bootstrap: readonly string[];
  readonly way: Pick<Way, "broadcast" | "isCompressed">;
}

/** The same file for both kinds. */
function configOf(host: TestHost, { bootstrap, way }: Gossip): string {
  const { broadcast, isCompressed } = way;
  const others = bootstrap.filter((address) => address !== host.gossip);
  const compression = { enabled: isCompressed };
  const { gossip: addr } = host;
  return host.corrosionConfig({
    gossip: { addr, bootstrap: others, plaintext: true, broadcast, compression },
  });
}

async function writeMany(host: TestHost, first: number): Promise<void> {
  await until(`${host.options.name} answers`, async () => {
    return (await send(host.ports.api, "/v1/queries", query("SELECT 1"))).status === 200;
  });
  for (let at = 0; at < WRITES; at += 1) {
    const { status, text } = await transact(host, [
      insert(first + at, `${host.options.name} ${at}`),
    ]);
    expect([status, text]).toEqual([200, text]);
  }
}

async function counts(host: TestHost, expected: number): Promise<void> {
  await until(`${host.options.name} has ${expected} rows`, async () => {
    return (await rows(host, "SELECT count(*) FROM t")).includes(`[${expected}]`);
  });
}

async function transact(
  host: TestHost,
  statements: readonly unknown[],
): Promise<{ status: number; text: string }> {
  const body = JSON.stringify(statements);
  return await send(host.ports.api, "/v1/transactions", { method: "POST", body });
}

/** The lines of a query's rows. */
async function rows(host: TestHost, sql: string): Promise<string> {
  const { text } = await send(host.ports.api, "/v1/queries", query(sql));
  return text
    .split("\n")
    .filter((line) => line.startsWith('{"row"'))
    .join("\n");
}

function query(sql: string): { method: string; body: string } {
  return { method: "POST", body: JSON.stringify(sql) };
}

function insert(id: number, text: string): unknown {
  return ["INSERT INTO t (id, v) VALUES (?, ?)", [id, text]];
}
