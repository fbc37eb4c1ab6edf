/**
 * What happens when machines are full, and when they break off what they took: the queue at the hard
 * limit and the budget of repeats, on real sockets.
 */
import { once } from "node:events";
import type { IncomingMessage, ServerResponse } from "node:http";
import { afterEach, expect, test } from "vitest";

import { LoadSlots } from "../../routing/core/load-slots.ts";
import { ProcessLimits } from "../listeners/core/process-limits.ts";
import { connectionCountsOf } from "../upstream/connection-counts.ts";
import type { TestClient } from "../testing/test-client.ts";
import type { TestProxy, TestProxyOptions } from "../testing/test-proxy.ts";
import { TestStack } from "../testing/test-stack.ts";

const stack = new TestStack();

afterEach(() => stack.close());

test("a request waits while all machines are full, and goes on when one is not", async () => {
  const { proxy, machine } = await full();
  const first = await asking(proxy, "/1");
  const answerFirst = await machine.next();
  const second = await asking(proxy, "/2");
  await proxy.queued(1);
  const third = await asking(proxy, "/3");
  await proxy.queued(2);
  expect(machine.waiting).toBe(0);
  answerFirst();
  expect((await first.response()).body).toBe("/1");
  (await machine.next())();
  expect((await second.response()).body).toBe("/2");
  (await machine.next())();
  expect((await third.response()).body).toBe("/3");
  const [one, two] = proxy.finished;
  expect(one?.queueMs).toBe(0);
  expect(two).toMatchObject({ status: 200, attempts: 1 });
  expect(two?.queueMs).toBeGreaterThan(0);
  expect(proxy.inFlight()).toBe(0);
});

test("a machine whose last place another thread took since the pick is picked anew, or waited for", async () => {
  const machine = await heldMachine();
  let overtakes = 2;
  const proxy = await stack.proxy({
    ports: [machine.port],
    hardLimit: 1,
    isOvertaken: () => overtakes > 0 && (overtakes -= 1) >= 0,
    // What was meant for a pick that came to nothing is free for the next.
    sizes: { openPerUpstreamMax: 1 },
  });
  const first = await asking(proxy, "/1");
  const answerFirst = await machine.next();
  expect([proxy.picks.length, proxy.inFlight()]).toEqual([3, 1]);
  const second = await asking(proxy, "/2");
  await proxy.queued(1);
  overtakes = 1;
  answerFirst();
  await first.response();
  (await machine.next())();
  expect((await second.response()).body).toBe("/2");
  expect(proxy.finished.map(({ attempts }) => attempts)).toEqual([1, 1]);
  expect(proxy.inFlight()).toBe(0);
});

test("a body that comes meanwhile waits too, and arrives whole", async () => {
  const { proxy, machine } = await full();
  const first = await asking(proxy, "/1");
  const answerFirst = await machine.next();
  const body = Buffer.alloc(1_000_000, "body");
  const second = await stack.client(proxy);
  second.write(`PUT /echo HTTP/1.1\r\nHost: a\r\nContent-Length: ${body.length}\r\n\r\n`);
  second.write(body);
  await proxy.queued(1);
  answerFirst();
  await first.response();
  expect((await second.response()).bytes.equals(body)).toBe(true);
});

test("one app's crowd does not hold up another's, and newcomers do not overtake", async () => {
  const { proxy, machine } = await full();
  await asking(proxy, "/1");
  const answerFirst = await machine.next();
  await asking(proxy, "/2");
  await proxy.queued(1);
  await asking(proxy, "/3");
  await proxy.queued(2);
  const unknown = await stack.client(proxy);
  unknown.write("GET / HTTP/1.1\r\nHost: unknown\r\n\r\n");
  expect((await unknown.response()).headers.get("patina-error")).toBe("ROUTE_NO_APP");
  answerFirst();
  const answerSecond = await machine.next();
  expect(machine.targets).toEqual(["/1", "/2"]);
  answerSecond();
  await machine.next();
  expect(machine.targets).toEqual(["/1", "/2", "/3"]);
});

test("whoever finds the queue full is told at once; whoever waits too long, then", async () => {
  const { proxy, machine } = await full({ sizes: { queuedMax: 1 } });
  await asking(proxy, "/1");
  await machine.next();
  const second = await asking(proxy, "/2");
  await proxy.queued(1);
  const third = await asking(proxy, "/3");
  expect(await errorOf(third)).toBe("503 ROUTE_ALL_FULL");
  proxy.engine.tick(performance.now() + 6_000);
  expect(await errorOf(second)).toBe("503 ROUTE_QUEUE_TIMEOUT");
  await proxy.queued(0);
});

test("a client that goes away leaves the queue", async () => {
  const { proxy, machine } = await full();
  await asking(proxy, "/1");
  const answerFirst = await machine.next();
  const second = await asking(proxy, "/2");
  await proxy.queued(1);
  second.socket.resetAndDestroy();
  await proxy.queued(0);
  answerFirst();
  await proxy.idle();
  expect(machine.targets).toEqual(["/1"]);
  const gone = proxy.finished.find(({ target }) => target === "/2");
  expect(gone).toMatchObject({ status: 0, errorCode: "CLIENT_GONE", attempts: 0 });
});

test("machines that appear serve those who wait", async () => {
  const { proxy, machine } = await full();
  await asking(proxy, "/1");
  await machine.next();
  const second = await asking(proxy, "/2");
  await proxy.queued(1);
  // The app lost all its machines: there is nothing to wait for any more.
  proxy.setPorts([]);
  proxy.engine.tick(performance.now());
  expect(await errorOf(second)).toBe("503 ROUTE_NO_MACHINE");
});

test("a machine with as many connections as it may have is passed over", async () => {
  const near = await heldMachine();
  const far = await heldMachine();
  const proxy = await stack.proxy({
    ports: [near.port, far.port],
    sizes: { openPerUpstreamMax: 1, queuedMax: 0 },
  });
  const first = await asking(proxy, "/1");
  const answerFirst = await near.next();
  await asking(proxy, "/2");
  await far.next();
  expect(await errorOf(await asking(proxy, "/3"))).toBe("503 ROUTE_ALL_FULL");
  answerFirst();
  await first.response();
  await asking(proxy, "/4");
  (await near.next())();
  expect(near.targets).toEqual(["/1", "/4"]);
  expect(proxy.engine.pool.openCount(`m0/web/127.0.0.1:${near.port}`)).toBe(1);
});

test("threads have one limit of connections to a machine; an idle one is closed for whoever waits", async () => {
  const { machine, one, two, open } = await twoThreads({ openPerUpstreamMax: 2 });
  // Both places are taken by the first thread, and idle then.
  const first = [await asking(one, "/1"), await asking(one, "/2")];
  const answers = [await machine.next(), await machine.next()];
  const waiting = await asking(two, "/3");
  await two.queued(1);
  for (const { engine } of [one, two]) engine.tick(performance.now());
  expect(machine.targets).toHaveLength(2);
  for (const answer of answers) answer();
  for (const client of first) await client.response();
  // The engines' own timers: the second thread asks again, the first makes room, and the second has it.
  (await machine.next())();
  expect((await waiting.response()).status).toBe(200);
  expect(open()).toEqual([1, 1]);
});

test("a thread that ends leaves its connections to the others", async () => {
  const { machine, one, two, endTwo } = await twoThreads({ openPerUpstreamMax: 1 });
  await asking(two, "/1");
  await machine.next();
  const waiting = await asking(one, "/2");
  await one.queued(1);
  endTwo();
  (await machine.next())();
  expect((await waiting.response()).status).toBe(200);
});

test("repeats of what a machine may have acted on end with their budget, and the log says so", async () => {
  let taken = 0;
  const breaking = await stack.raw((socket) => {
    socket.once("data", () => {
      taken += 1;
      socket.destroy();
    });
  });
  const good = await stack.http((_request, response) => response.end("x"));
  const proxy = await stack.proxy({
    ports: [breaking, good],
    sizes: { retryShare: 0, retriesPerSecond: 0 },
  });
  const client = await stack.client(proxy);
  const statuses: number[] = [];
  for (let index = 0; index < 3; index += 1) {
    client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    statuses.push((await client.response()).status);
  }
  expect(statuses).toEqual([200, 502, 502]);
  expect(proxy.finished.map(({ retrySkipped }) => retrySkipped)).toEqual([
    "",
    "budget-spent",
    "budget-spent",
  ]);
  expect(taken).toBe(3);
});

test("the log says why there was no further attempt: no other machine, or a late one", async () => {
  const proxy = await stack.proxy({ ports: [await stack.deadPort()] });
  expect(await errorOf(await asking(proxy, "/1"))).toBe("502 UPSTREAM_CONNECT");
  const silent = await heldMachine();
  proxy.setPorts([silent.port]);
  const late = await asking(proxy, "/2");
  await silent.next();
  proxy.engine.tick(performance.now() + 61_000);
  expect(await errorOf(late)).toBe("504 UPSTREAM_RESPONSE_TIMEOUT");
  expect(proxy.finished.map(({ retrySkipped }) => retrySkipped)).toEqual([
    "no-other-machine",
    "response-late",
  ]);
});

/** A machine that answers when the test says so; `/echo` at once. */
interface HeldMachine {
  readonly port: number;
  readonly targets: string[];
  /** Requests that `next` has not taken. */
  readonly waiting: number;
  /** Resolves with how to answer the next request. */
  next(): Promise<() => void>;
}

async function heldMachine(): Promise<HeldMachine> {
  const held: [IncomingMessage, ServerResponse][] = [];
  const targets: string[] = [];
  let wake = (): void => undefined;
  const port = await stack.http((request, response) => {
    targets.push(request.url ?? "");
    if (request.url === "/echo") return void request.pipe(response);
    held.push([request, response]);
    wake();
  });
  return {
    port,
    targets,
    get waiting() {
      return held.length;
    },
    next: async () => {
      while (held.length === 0) await new Promise<void>((resolve) => (wake = resolve));
      const [request, response] = held.shift()!;
      return () => response.end(request.url);
    },
  };
}

/** One machine that takes one request at a time. */
async function full(
  options: Partial<TestProxyOptions> = {},
): Promise<{ proxy: TestProxy; machine: HeldMachine }> {
  const machine = await heldMachine();
  const proxy = await stack.proxy({ ports: [machine.port], hardLimit: 1, ...options });
  return { proxy, machine };
}

/** Two engines that count with each other as those of two data-plane threads do. */
async function twoThreads(sizes: NonNullable<TestProxyOptions["sizes"]>) {
  const machine = await heldMachine();
  const plan = LoadSlots.allocate({ capacity: 64 });
  const slots = new LoadSlots(plan);
  const planOfTwo = slots.planOfThread();
  const max = { connections: 9, connectionsPerClient: 0, waiting: 9, keptBodies: 0 };
  const limits = new ProcessLimits(ProcessLimits.allocate([1, 2]), max);
  const start = (own: LoadSlots): Promise<TestProxy> =>
    stack.proxy({
      ports: [machine.port],
      sizes,
      times: { queueMs: 60_000 },
      connectionCounts: connectionCountsOf(own, limits),
    });
  const one = await start(slots);
  const two = await start(new LoadSlots(planOfTwo));
  const key = `m0/web/127.0.0.1:${machine.port}`;
  const open = (): number[] => [one, two].map(({ engine }) => engine.pool.openCount(key));
  return { machine, one, two, open, endTwo: () => slots.forget(planOfTwo) };
}

async function asking(proxy: TestProxy, target: string): Promise<TestClient> {
  const client = await stack.client(proxy);
  client.write(`GET ${target} HTTP/1.1\r\nHost: a\r\n\r\n`);
  if (client.socket.writableLength > 0) await once(client.socket, "drain");
  return client;
}

async function errorOf(client: TestClient): Promise<string> {
  const response = await client.response();
  return `${response.status} ${response.headers.get("patina-error")}`;
}
