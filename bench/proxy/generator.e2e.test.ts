import { once } from "node:events";
import { connect, createServer, type AddressInfo, type Server } from "node:net";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, expect, test } from "vitest";
import { CASES, type Case } from "./cases.ts";
import type { GeneratorSpec, LoadResult } from "./generator.ts";
import { LOAD_CORE } from "./pinning.ts";
import { outputOf, startUntilLine } from "./programs.ts";
import { connectionsByLoop } from "./two-threads.ts";

let stack: AsyncDisposableStack;

beforeEach(() => {
  stack = new AsyncDisposableStack();
});

afterEach(() => stack.disposeAsync());

test("every kind of traffic is answered by the machine in Node", async () => {
  const command = [process.execPath, scriptPath("upstream.ts")];
  const { line } = await startUntilLine(command, { stack, cores: LOAD_CORE });
  const plain = CASES.filter(({ isTls }) => !isTls);
  expect(plain.length).toBeGreaterThan(8);
  for (const one of plain) {
    const result = await generate({ case: one, port: Number(line), seconds: 0.2, rate: null });
    expect(result, one.name).toMatchObject({ failures: 0 });
    expect(result.requests, one.name).toBeGreaterThan(0);
  }
});

/**
 * All requests wait for the first 700 ms. With two connections only two are sent by then; were the
 * others' clocks started when they are sent, half of all latencies would be next to nothing.
 */
test("a request's clock starts when it was due, not when a connection was free for it", async () => {
  let stallEnds: Promise<unknown> | null = null;
  const port = await listen((write) => {
    stallEnds ??= new Promise((resolve) => setTimeout(resolve, 700));
    void stallEnds.then(() => write(ANSWER));
  });
  const one = { ...caseOf("get-0"), connections: 1 };
  const result = await generate({ case: one, port, seconds: 1, rate: 100 });
  expect(result.requests + result.failures).toBe(100);
  expect(result.p50Ms).toBeGreaterThan(150);
});

test("what is never answered counts as failed, with the time it had waited", async () => {
  const port = await listen(() => undefined);
  const one = { ...caseOf("get-0"), connections: 1 };
  const result = await generate({ case: one, port, seconds: 1, rate: 50 });
  expect(result).toMatchObject({ requests: 0, failures: 50 });
  expect(result.p50Ms).toBeGreaterThan(1_000);
});

test.runIf(process.platform === "linux")(
  "the kernel tells which event loop has how many connections",
  async () => {
    const server = createServer((socket) => socket.pipe(socket));
    const port = await open(server);
    const clients = await Promise.all(
      Array.from({ length: 3 }, async () => {
        const client = connect(port, "127.0.0.1");
        stack.defer(() => void client.destroy());
        client.write("x");
        // What has answered is watched.
        await once(client, "data");
        return client;
      }),
    );
    expect(connectionsByLoop(process.pid, port)).toEqual([clients.length]);
  },
);

/** A server that hands each request to a listener. */
function listen(onRequest: (write: (answer: string) => void) => void): Promise<number> {
  return open(
    createServer((socket) => {
      socket.on("error", () => socket.destroy());
      socket.on("data", () => onRequest((answer) => void socket.write(answer)));
    }),
  );
}

async function open(server: Server): Promise<number> {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  stack.defer(() => void server.close());
  return (server.address() as AddressInfo).port;
}

async function generate(spec: GeneratorSpec): Promise<LoadResult> {
  const command = [process.execPath, scriptPath("generator.ts"), JSON.stringify(spec)];
  return JSON.parse(await outputOf(command, { cores: LOAD_CORE })) as LoadResult;
}

function caseOf(name: string): Case {
  return CASES.find((one) => one.name === name)!;
}

function scriptPath(name: string): string {
  return fileURLToPath(new URL(name, import.meta.url));
}

const ANSWER = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
