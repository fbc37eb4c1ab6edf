/** The differential fuzz through a running engine, and the command that runs all of it. */
import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";

import { TestStack } from "../../proxy/testing/test-stack.ts";
import { ROOT } from "../source-tree.ts";
import { startLive, type LiveTally, type Reader } from "./live.ts";
import { goodRequest } from "./message-grammar.ts";
import { hasNginx } from "./nginx.ts";

const stack = new TestStack();
const SEED = 1;

afterEach(() => stack.close());

test("what arrives behind a running engine is what its parsers read", async () => {
  const tally = await judged("node", 400);
  expect(tally.arrived).toBeGreaterThan(100);
  expect(tally.answered).toBeGreaterThan(80);
  expect(tally.replaced).toBeGreaterThan(20);
  expect(tally.readerRefused).toBeLessThan(40);
});

describe.runIf(hasNginx())("where nginx is installed", () => {
  test("nginx reads the requests that the engine passes on as the same", async () => {
    const tally = await judged("nginx", 200);
    expect(tally.arrived).toBeGreaterThan(50);
    expect(tally.readerRefused).toBeLessThan(20);
  });
});

test("good requests in two writes arrive whole, wherever they are cut", async () => {
  const arrived: string[] = [];
  const port = await stack.http((request, response) => {
    let body = "";
    request.on("data", (bytes: Buffer) => (body += bytes.toString("latin1")));
    request.on("end", () => {
      arrived.push(`${request.method} ${request.url} ${body}`);
      response.end();
    });
  });
  const proxy = await stack.proxy({ ports: [port] });
  // Each cut is one later than the last, so that all places have their turn over the corpus.
  for (let index = 0; index < 200; index += 1) {
    const bytes = Buffer.from(goodRequest(SEED, index), "latin1");
    const seen: string[] = [];
    for (const cut of [0, 1 + (index % (bytes.length - 1)), bytes.length - 1]) {
      const client = await stack.client(proxy);
      if (cut > 0) {
        const progressed = proxy.nextProgress();
        client.write(bytes.subarray(0, cut));
        await progressed;
      }
      client.socket.end(bytes.subarray(cut));
      if (!client.socket.closed) await once(client.socket, "close");
      seen.push(arrived.splice(0).join("\n"));
    }
    expect(seen[0]).not.toBe("");
    expect(seen[1]).toBe(seen[0]);
    expect(seen[2]).toBe(seen[0]);
  }
  expect(proxy.refusals).toEqual([]);
});

test("the command says what it saw, and refuses what it does not know", () => {
  const good = fuzz("http", "--cases", "300", "--live", "4", "--seed", "3");
  expect(good.stdout).toContain("300 cases in ");
  expect(good.stdout).toContain("end to end, node behind: ");
  expect(good.status).toBe(0);
  expect(fuzz("http", "--case", "17", "--seed", "3").stdout).toContain("\n1 cases in ");
  for (const args of [[], ["tcp"], ["http", "--cases", "x"], ["http", "--nothing"]]) {
    expect(fuzz(...args)).toMatchObject({ status: 2, stdout: "" });
  }
});

async function judged(reader: Reader, count: number): Promise<LiveTally> {
  const live = await startLive(stack, reader);
  for (let index = 0; index < count; index += 1) {
    const found = await live.judge(SEED, index);
    if (found !== "") {
      expect.fail(`${found}\nnpm run fuzz -- http --seed ${SEED} --case ${index} --live 1`);
    }
  }
  return live.tally;
}

function fuzz(...args: string[]) {
  const file = join(ROOT, "tests/fuzz/fuzz.ts");
  return spawnSync(process.execPath, [file, ...args], { encoding: "utf8" });
}
