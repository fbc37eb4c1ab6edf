/**
 * Clients that people use, through the proxy to `node:http`: undici, Node's own, and curl when it is
 * installed. Each does what its peculiarities are: pipelining, Expect, chunked uploads.
 */
import { execFile, execFileSync } from "node:child_process";
import { once } from "node:events";
import { Agent, request as httpRequest, type IncomingMessage } from "node:http";
import { promisify } from "node:util";
import { Client, request } from "undici";
import { afterEach, expect, test } from "vitest";

import type { TestProxy } from "../testing/test-proxy.ts";
import { TestStack } from "../testing/test-stack.ts";

const stack = new TestStack();
const BODY = Buffer.from(new Uint8Array(300_000).map((_, at) => (at * 31 + (at >> 8)) % 253));

afterEach(() => stack.close());

test("undici pipelines, uploads and reads trailers", async () => {
  const proxy = await echoProxy();
  const client = new Client(`http://127.0.0.1:${proxy.port}`, { pipelining: 10 });
  stack.defer(() => client.destroy());
  const answers = await Promise.all(
    Array.from({ length: 30 }, async (_, index) => {
      const { body } = await client.request({ path: `/${index}`, method: "GET" });
      return await body.text();
    }),
  );
  expect(answers).toEqual(Array.from({ length: 30 }, (_, index) => `GET /${index}`));
  const echoed = await request(`http://127.0.0.1:${proxy.port}/echo`, {
    method: "PUT",
    body: BODY,
    dispatcher: client,
  });
  expect(Buffer.from(await echoed.body.arrayBuffer()).equals(BODY)).toBe(true);
  expect(echoed.trailers).toEqual({ "x-sum": String(BODY.length) });
});

test("node:http keeps its connection, waits for 100-continue, and sends chunks", async () => {
  const proxy = await echoProxy();
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  stack.defer(() => agent.destroy());
  const at = { port: proxy.port, host: "127.0.0.1", agent };
  for (let index = 0; index < 3; index += 1) {
    expect((await bodyOf(httpRequest({ ...at, path: "/x" }).end())).toString()).toBe("GET /x");
  }
  const upload = httpRequest({
    ...at,
    path: "/echo",
    method: "POST",
    headers: { expect: "100-continue", "transfer-encoding": "chunked" },
  });
  upload.flushHeaders();
  await once(upload, "continue");
  for (let from = 0; from < BODY.length; from += 50_000) {
    upload.write(BODY.subarray(from, from + 50_000));
  }
  expect((await bodyOf(upload.end())).equals(BODY)).toBe(true);
  const head = httpRequest({ ...at, path: "/x", method: "HEAD" }).end();
  expect((await bodyOf(head)).length).toBe(0);
});

test.skipIf(!hasCurl())("curl gets, uploads with Expect, and speaks HTTP/1.0", async () => {
  const proxy = await echoProxy();
  const url = `http://127.0.0.1:${proxy.port}`;
  const curl = async (...flags: string[]): Promise<string> => {
    const running = promisify(execFile)("curl", ["-sS", "--max-time", "30", ...flags]);
    return (await running).stdout;
  };
  expect(await curl(`${url}/a`, `${url}/b`)).toBe("GET /aGET /b");
  expect(await curl("--http1.0", `${url}/old`)).toBe("GET /old");
  const data = "x".repeat(50_000);
  const expecting = ["-H", "Expect: 100-continue", "--data-binary", data];
  expect(await curl(...expecting, `${url}/echo`)).toBe(data);
  const chunked = ["-H", "Transfer-Encoding: chunked", "--data-binary", data];
  expect(await curl(...chunked, `${url}/echo`)).toBe(data);
  expect(await curl("-I", `${url}/a`)).toMatch(/^HTTP\/1\.1 200 OK\r\n/);
  expect(await curl("-o", "/dev/null", "-w", "%{http_code}", "-X", "TRACE", `${url}/`)).toBe("405");
});

/** A machine that says what it was asked for, or sends back what it got, with a trailer. */
async function echoProxy(): Promise<TestProxy> {
  const port = await stack.http((asked, response) => {
    if (asked.url !== "/echo") {
      asked.resume();
      return void response.end(`${asked.method} ${asked.url}`);
    }
    let sum = 0;
    const parts: Buffer[] = [];
    asked.on("data", (bytes: Buffer) => {
      sum += bytes.length;
      parts.push(bytes);
    });
    asked.on("end", () => {
      response.writeHead(200, { trailer: "x-sum" });
      for (const part of parts) response.write(part);
      response.addTrailers({ "x-sum": String(sum) });
      response.end();
    });
  });
  return stack.proxy({ ports: [port] });
}

async function bodyOf(sent: ReturnType<typeof httpRequest>): Promise<Buffer> {
  const [response] = (await once(sent, "response")) as [IncomingMessage];
  const parts: Buffer[] = [];
  for await (const part of response) parts.push(part as Buffer);
  return Buffer.concat(parts);
}

function hasCurl(): boolean {
  try {
    execFileSync("curl", ["--version"], { stdio: "ignore" });
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== "ENOENT";
  }
}
