import { mkdtempSync, readFileSync, renameSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { AccessLog } from "./access-log.ts";
import { commonTime } from "./core/access-line.ts";
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
  const log = new AccessLog({ path: file });
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
    rttMs: 1.5,
    pick: "nearest",
    attempts: 1,
    durationMs: 1.235,
    connectMs: -1,
  });
  expect(first).not.toHaveProperty("error");
  expect(second).toMatchObject({ target: '/"\n\u2028' });
  expect(second).not.toHaveProperty("machine");
});

test("what went wrong is told: code, cause, and why there was no further attempt", async () => {
  const log = new AccessLog({ path: file });
  const failed = { errorCode: "UPSTREAM_CONNECT", cause: "ECONNREFUSED", status: 502 };
  log.write({ ...SUMMARY, ...failed, retrySkipped: "no-other-machine", queueMs: 12.3456 });
  await log.close();
  expect(lines()[0]).toMatchObject({
    status: 502,
    error: "UPSTREAM_CONNECT",
    cause: "ECONNREFUSED",
    retry_skipped: "no-other-machine",
    queueMs: 12.346,
  });
});

test("the common format is what log tools read", async () => {
  const log = new AccessLog({ path: file, format: "common" });
  log.write({ ...SUMMARY, target: '/"\\' });
  log.write({ ...SUMMARY, status: 0, method: "", clientAddress: "", httpMinor: 0 });
  await log.close();
  const [first, second] = readFileSync(file, "utf8").split("\n");
  const time = "\\[\\d\\d/[A-Z][a-z]{2}/\\d{4}:\\d\\d:\\d\\d:\\d\\d \\+0000\\]";
  expect(first).toMatch(
    new RegExp(`^192\\.0\\.2\\.7 - - ${time} "GET /\\\\"\\\\\\\\ HTTP/1\\.1" 200 20$`),
  );
  expect(second).toMatch(new RegExp(`^- - - ${time} "-" 499 20$`));
  expect(commonTime("2026-02-03T04:05:06.789Z")).toBe("03/Feb/2026:04:05:06 +0000");
});

test("a file that was moved away is opened anew, and no line is lost", async () => {
  const log = new AccessLog({ path: file });
  log.write({ ...SUMMARY, requestId: "before" });
  await written(file);
  renameSync(file, `${file}.1`);
  log.write({ ...SUMMARY, requestId: "between" });
  await log.look();
  log.write({ ...SUMMARY, requestId: "after" });
  await log.close();
  const rotated = readFileSync(`${file}.1`, "utf8") + readFileSync(file, "utf8");
  expect(rotated.match(/"id":"(\w+)"/g)).toEqual([
    '"id":"before"',
    '"id":"between"',
    '"id":"after"',
  ]);
  expect(lines().at(-1)).toMatchObject({ id: "after" });
});

test("a log that is there already is appended to", async () => {
  for (const requestId of ["a", "b"]) {
    const log = new AccessLog({ path: file });
    log.write({ ...SUMMARY, requestId });
    await log.close();
  }
  expect(lines().map((line) => line["id"])).toEqual(["a", "b"]);
});

test("close writes everything that was taken, in order", async () => {
  const log = new AccessLog({ path: file });
  for (let at = 0; at < 2_000; at++) log.write({ ...SUMMARY, requestId: String(at) });
  await log.close();
  expect(log.dropped).toBe(0);
  expect(lines().map((line) => line["id"])).toEqual(
    Array.from({ length: 2_000 }, (_, at) => `${at}`),
  );
});

test("what the disk cannot take is dropped and counted, not piled up", async () => {
  const log = new AccessLog({ path: file });
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
    let told = 0;
    const log = new AccessLog({ path: "/dev/full", onDropped: (count) => (told += count) });
    log.write(SUMMARY);
    await log.close();
    expect([log.dropped, told]).toEqual([1, 1]);
  },
);

test("a file that cannot be opened is an error of the config that names its key", () => {
  expect(() => new AccessLog({ path: join(folder, "nowhere", "log") })).toThrow(
    /^proxy\.access_log: .*ENOENT/,
  );
});

/** Resolves when the file has something. */
async function written(path: string): Promise<void> {
  while (statSync(path).size === 0) await new Promise((resolve) => setImmediate(resolve));
}

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
    appId: "shop",
    isTls: false,
    serviceName: "web",
    region: "ams",
    rttMs: 1.5,
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
