/**
 * A stalled loop under real processes: the edge is bounced on the same listening sockets, says what
 * stalled it, and is back in the cluster at once. One edge has one data-plane thread, one has two, of
 * which the second is replaced alone, once.
 */
import { connect, type Socket } from "node:net";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import { get, until } from "./asking-fixture.ts";
import { Cluster, type TestHost, type TestMachine } from "./cluster-fixture.ts";
import { runPatina } from "./process-fixture.ts";

const STALL_PATH = "/__stall";
const CRASH_PATH = "/__crash";
/** The loop of the second edge that these paths concern. */
const SECOND_LOOP = "data-plane-1";
/** Of both threads of the second edge together: more than the tests need at once. */
const CLIENT_CONNECTIONS_MAX = 100;
let cluster: Cluster;
let single: TestHost;
let double: TestHost;
let worker: TestHost;
let machine: TestMachine;

beforeAll(async () => {
  const fault = { enabled: true, stall_path: STALL_PATH };
  const secondFault = { ...fault, crash_path: CRASH_PATH, loop: SECOND_LOOP };
  // Long enough for other connections to be answered, and for the other tests' load.
  const watchdog = { allow_fault_injection: true, steady_ms: 3_000, replace_ms: 60_000 };
  // A thread that does not end by itself would be ended after the longest drain: never, here.
  const proxy = {
    threads: 2,
    drain_timeout_ms: 600_000,
    connections_per_client_max: CLIENT_CONNECTIONS_MAX,
  };
  const edge = { kind: "edge", bootstrap: ["worker"] } as const;
  cluster = await Cluster.create([
    { name: "worker", kind: "worker" },
    { ...edge, name: "single", config: { fault, watchdog } },
    { ...edge, name: "double", config: { fault: secondFault, watchdog, proxy } },
  ]);
  single = cluster.host("single");
  double = cluster.host("double");
  worker = cluster.host("worker");
  machine = await cluster.startMachine("one");
  await cluster.start("worker", "single", "double");
  await worker.publish("one.test", machine);
  await Promise.all([single, double].map((edge) => edge.routes("one.test", "one")));
});

afterAll(async () => {
  await cluster.close();
});

test("a stalled edge is bounced without a refused connection, and says which function did it", async () => {
  const from = single.log.length;
  const traffic = steadyTraffic(single);
  const stalled = single.request("one.test", STALL_PATH).catch((error: unknown) => error);
  const pid = single.edgePid();
  await until("the loop is stalled", async () => {
    // Answered by the watchdog thread, which the stall does not touch.
    return (await single.metric('patina_loop_silence_seconds{loop="main"}')) > 1;
  });
  expect(single.edgePid()).toBe(pid);

  const alert = await single.logged("edge-bounced", { from });
  traffic.noteBounce();
  expect(await stalled).toBeInstanceOf(Error);
  expect(alert).toMatchObject({ level: "error", signal: "SIGKILL", kind: "stall", loop: "main" });
  expect(alert["at"]).toContain("blockForEver");
  expect(alert["breadcrumb"]).toMatchObject({
    what: "request",
    line: expect.stringContaining(STALL_PATH),
  });

  await single.routes("one.test", "one");
  const counts = await traffic.stop();
  expect(counts.refused).toBe(0);
  expect(counts.answeredAfter).toBeGreaterThan(0);

  const id = String(alert["stall"]);
  const list = await runPatina(["stalls", "--config", single.configFile]);
  expect(list.stdout).toContain(`${id}  stall of main`);
  const one = await runPatina(["stalls", "show", id, "--config", single.configFile]);
  const short = await runPatina(["stalls", id, "--config", single.configFile]);
  expect(short.stdout).toBe(one.stdout);
  expect(JSON.parse(one.stdout)).toMatchObject({
    id,
    kind: "stall",
    configHash: expect.stringMatching(/^[0-9a-f]{64}$/),
  });
});

test("the first change published after a bounce arrives at once, and broadcasts flow again", async () => {
  const from = { single: single.log.length, worker: worker.log.length };
  process.kill(single.edgePid(), "SIGKILL");
  await single.logged("replica-started", { from: from.single });
  await worker.publish("after-bounce.test", machine);
  const publishedMs = performance.now();
  await single.routes("after-bounce.test", "one");
  const arrivedMs = performance.now() - publishedMs;
  // Without a redial it would take the 30 s after which a silent connection is given up.
  expect(arrivedMs).toBeLessThan(25_000);
  const news = "patina_broadcast_news_total";
  const known = "patina_broadcast_duplicates_total";
  await until("broadcasts have come in", async () => {
    return (await single.metric(news)) + (await single.metric(known)) > 0;
  });
});

test("after a drain it answers from the last known table, and says so until it has caught up", async () => {
  single.signal("SIGTERM");
  expect(await single.ending()).toMatchObject({ code: 0 });
  const from = single.log.length;
  await cluster.start("single");
  expect(await single.logged("table-stale", { from })).toMatchObject({ source: "file" });
  expect((await single.request("one.test")).text).toBe("one");
  await single.logged("table-current", { from });
  const events = single.log.slice(from).map(({ event }) => event);
  // It answers before the replica, whose database it would otherwise have waited for.
  expect(events.indexOf("table-stale")).toBeLessThan(events.indexOf("replica-started"));
  expect(events.indexOf("replica-started")).toBeLessThan(events.indexOf("table-current"));
  await until("the ready state says so too", async () => {
    const { text } = await get(single.metricsPort, "/readyz");
    return (JSON.parse(text) as { table: string }).table === "current";
  });
  expect(await single.metric("patina_route_stale")).toBe(0);
});

test("a data-plane thread that crashes is replaced alone, and no connection is refused", async () => {
  const from = double.log.length;
  const pid = double.edgePid();
  const clients = await openClients();
  await everyClientGets(clients, "one.test", "one");
  const traffic = steadyTraffic(double);
  // The thread that has them dies with its connections; those of the other one are answered.
  const answers = await Promise.all(clients.map((client) => client.get("one.test", CRASH_PATH)));
  expectSome(answers);

  const alert = await double.logged("loop-crashed", { from });
  expect(alert).toMatchObject({ kind: "crash", loop: SECOND_LOOP });
  expect(alert["error"]).toContain("crash_path");
  const line = await double.logged("data-plane-replaced", { from });
  expect(line).toMatchObject({ loop: SECOND_LOOP, cause: "crash" });
  traffic.noteBounce();
  expect((await traffic.stop()).refused).toBe(0);
  expect(double.edgePid()).toBe(pid);
  const replaced = 'patina_data_plane_replacements_total{cause="crash"}';
  expect(await double.metric(replaced)).toBe(1);

  await everyClientGets(await openClients(), "one.test", "one");
});

test("when the same thread stalls, its spare used up, the process is bounced", async () => {
  const from = double.log.length;
  const clients = await openClients();
  await everyClientGets(clients, "one.test", "one");
  const traffic = steadyTraffic(double);
  const answers = clients.map((client) => client.get("one.test", STALL_PATH));
  const alert = await double.logged("edge-bounced", { from });
  traffic.noteBounce();
  expectSome(await Promise.all(answers));
  expect(alert).toMatchObject({ signal: "SIGKILL", kind: "stall", loop: SECOND_LOOP });
  expect((await traffic.stop()).refused).toBe(0);
});

test("after the bounce both threads learn changes, and one that stalls is replaced alone", async () => {
  await worker.publish("both.test", machine);
  const others = await openClients();
  await everyClientGets(others, "both.test", "one");

  const from = double.log.length;
  const pid = double.edgePid();
  const clients = await openClients();
  await everyClientGets(clients, "both.test", "one");
  const all = [...others, ...clients, ...(await openRest())];
  expect(all.length).toBe(CLIENT_CONNECTIONS_MAX);
  const answers = await Promise.all(clients.map((client) => client.get("both.test", STALL_PATH)));
  expectSome(answers);
  const alert = await double.logged("loop-stalled", { from });
  expect(alert).toMatchObject({ kind: "stall", loop: SECOND_LOOP });
  expect(alert["at"]).toContain("blockForEver");
  const line = await double.logged("data-plane-replaced", { from });
  expect(line).toMatchObject({ loop: SECOND_LOOP, cause: "stall" });
  expect(double.edgePid()).toBe(pid);
  // What the thread had of the client's share of connections is free again, and no more than that.
  const alive = await Promise.all(all.map((client) => client.get("both.test")));
  expectSome(alive);
  const opened = await openRest();
  const kept = alive.filter((answer) => answer === "one").length;
  expect(kept + opened.length).toBe(CLIENT_CONNECTIONS_MAX);
  await everyClientGets(opened, "both.test", "one");
});

test("an edge with two data-plane threads ends as soon as nothing is in flight", async () => {
  double.signal("SIGTERM");
  expect(await double.ending()).toMatchObject({ code: 0, signal: null });
});

/** Requests one after the other, each on a connection of its own; counts what became of them. */
function steadyTraffic(edge: TestHost): {
  noteBounce(): void;
  stop(): Promise<{ refused: number; answeredAfter: number }>;
} {
  const counts = { refused: 0, answeredAfter: 0 };
  let isStopped = false;
  let isBounced = false;
  const run = async (): Promise<void> => {
    while (!isStopped) {
      try {
        const { status } = await edge.request("one.test");
        if (isBounced && status === 200) counts.answeredAfter++;
      } catch (error) {
        // What was in flight at the kill is cut; a connection that nobody takes is another matter.
        if ((error as NodeJS.ErrnoException).code === "ECONNREFUSED") counts.refused++;
      }
    }
  };
  const running = Promise.all([run(), run()]);
  return {
    noteBounce() {
      isBounced = true;
    },
    async stop() {
      await until("an answer after the bounce", () => counts.answeredAfter > 0);
      isStopped = true;
      await running;
      return counts;
    },
  };
}

/** Enough that each thread has some: the kernel spreads them over the sockets of the group. */
async function openClients(): Promise<readonly Client[]> {
  const clients = await Promise.all(Array.from({ length: 24 }, () => Client.open(double)));
  onTestFinished(() => {
    for (const client of clients) client.close();
  });
  return clients;
}

/** Opens connections until the edge refuses one; answers those that it took. */
async function openRest(): Promise<readonly Client[]> {
  const clients: Client[] = [];
  onTestFinished(() => {
    for (const client of clients) client.close();
  });
  for (;;) {
    const client = await Client.open(double);
    const answer = await client.get("both.test");
    if (answer?.includes("CLIENT_CONNECTIONS")) return clients;
    // A thread that is new may have to learn of the host yet.
    expect(answer).not.toBeNull();
    clients.push(client);
  }
}

/** Some connections were cut, and some were not. */
function expectSome(answers: readonly (string | null)[]): void {
  const answered = answers.filter((answer) => answer === "one").length;
  expect(answered).toBeGreaterThan(0);
  expect(answered).toBeLessThan(answers.length);
}

/** Both threads get the change, each through its own table: every connection must see it. */
async function everyClientGets(
  clients: readonly Client[],
  host: string,
  body: string,
): Promise<void> {
  await Promise.all(
    clients.map(async (client) => {
      await until(`${host} is answered on every connection`, async () => {
        return (await client.get(host)) === body;
      });
    }),
  );
}

/** A keep-alive connection, which stays with the thread that accepted it. */
class Client {
  readonly #socket: Socket;
  #text = "";
  #isOver = false;
  #wake: () => void = () => undefined;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.setEncoding("utf8");
    socket.on("data", (text: string) => {
      this.#text += text;
      this.#wake();
    });
    socket.on("error", () => this.#end());
    socket.on("close", () => this.#end());
  }

  static async open(edge: TestHost): Promise<Client> {
    const socket = connect(edge.httpPort, edge.ip);
    await new Promise<void>((resolve, reject) => {
      socket.once("connect", resolve);
      socket.once("error", reject);
    });
    return new Client(socket);
  }

  ask(host: string, path = "/"): void {
    this.#socket.write(`GET ${path} HTTP/1.1\r\nHost: ${host}\r\n\r\n`);
  }

  /** The body of the answer; null when the connection was cut first. */
  async get(host: string, path = "/"): Promise<string | null> {
    this.#text = "";
    this.ask(host, path);
    for (;;) {
      const body = bodyOf(this.#text);
      if (body !== null || this.#isOver) return body;
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }

  close(): void {
    this.#socket.destroy();
  }

  #end(): void {
    this.#isOver = true;
    this.#wake();
  }
}

function bodyOf(text: string): string | null {
  const end = text.indexOf("\r\n\r\n");
  if (end < 0) return null;
  const length = Number(/content-length: (\d+)/i.exec(text)?.[1] ?? 0);
  const body = text.slice(end + 4);
  return body.length >= length ? body : null;
}
