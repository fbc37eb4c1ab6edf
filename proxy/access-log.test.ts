import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { AccessLog } from "./access-log.ts";
import type { RequestSummary } from "./types.ts";

let folder: string;
let file: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "patina-access-log-"));
  file = join(folder, "access.jsonl");
});

afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

test("each request is one line of JSON, also when its target has quotes and line breaks", async () => {
  const log = new AccessLog(file);
  log.write(SUMMARY);
  log.write({ ...SUMMARY, target: '/"\n\u2028', upstream: null, pickReason: "" });
  await log.close();
  const [first, second, ...rest] = lines();
  expect(rest).toEqual([]);
  expect(first).toMatchObject({
    id: "r1",
    client: "192.0.2.7",
    method: "GET",
    host: "shop.test",
    target: "/a",
    status: 200,
    machine: "m1",
    region: "ams",
    pick: "nearest",
    attempts: 1,
    durationMs: 1.235,
    connectMs: -1,
  });
  expect(second).toMatchObject({ target: '/"\n\u2028', machine: "", region: "" });
});

test("a log that is there already is appended to", async () => {
  for (const requestId of ["a", "b"]) {
    const log = new AccessLog(file);
    log.write({ ...SUMMARY, requestId });
    await log.close();
  }
  expect(lines().map((line) => line["id"])).toEqual(["a", "b"]);
});

test("close writes everything that was taken, in order", async () => {
  const log = new AccessLog(file);
  for (let at = 0; at < 2_000; at++) log.write({ ...SUMMARY, requestId: String(at) });
  await log.close();
  expect(log.dropped).toBe(0);
  expect(lines().map((line) => line["id"])).toEqual(
    Array.from({ length: 2_000 }, (_, at) => `${at}`),
  );
});

test("what the disk cannot take is dropped and counted, not piled up", async () => {
  const log = new AccessLog(file);
  const summary = { ...SUMMARY, target: `/${"x".repeat(100_000)}` };
  // No turn of the loop in between: nothing can be written after the first batch.
  for (let at = 0; at < 200; at++) log.write(summary);
  expect(log.dropped).toBeGreaterThan(0);
  await log.close();
  expect(lines().length + log.dropped).toBe(200);
});

test.skipIf(process.platform !== "linux")(
  "a disk that refuses costs the lines, not the process",
  async () => {
    const log = new AccessLog("/dev/full");
    log.write(SUMMARY);
    await log.close();
    expect(log.dropped).toBe(1);
  },
);

test("a file that cannot be opened is an error of the config that names its key", () => {
  expect(() => new AccessLog(join(folder, "nowhere", "log"))).toThrow(
    /^proxy\.access_log: .*ENOENT/,
  );
});

function lines(): Record<string, unknown>[] {
  const text = readFileSync(file, "utf8").trimEnd();
  return text.split("\n").map((line) => JSON.parse(line) as Record<string, unknown>);
}

const SUMMARY: RequestSummary = {
  method: "GET",
  host: "shop.test",
  target: "/a",
  httpMinor: 1,
  clientAddress: "192.0.2.7",
  requestId: "r1",
  status: 200,
  errorCode: "",
  cause: "",
  upstream: {
    key: "k",
    host: "127.0.0.1",
    port: 80,
    machineId: "m1",
    serviceName: "web",
    region: "ams",
  },
  pickReason: "nearest",
  attempts: 1,
  retrySkipped: "",
  wasReused: false,
  bytesIn: 10,
  bytesOut: 20,
  durationMs: 1.2345678,
  queueMs: 0,
  connectMs: -1,
  firstByteMs: 1,
};
