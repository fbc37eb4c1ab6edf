/**
 * Alerts of the real supervisor with a tiny edge, at a real receiver that fails, refuses and hangs.
 * Nothing is timed but by events: posts, log lines, answers and exits.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, fstatSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, onTestFinished, test } from "vitest";
import { NO_ALERTS } from "../core/alert-outbox.ts";
import { listStalls } from "../driver/stall-files.ts";
import { AlertReceiver, type ReceiverAnswer } from "./fixtures/alert-receiver.ts";
import { fetchText, openSupervised, type SupervisedEdge } from "./fixtures/supervised-edge.ts";
import type { SupervisorConfig } from "./supervisor-config.ts";

test("a stall is one alert that names the work, also where the receiver answers 500 twice", async () => {
  const receiver = await listen(500, 500);
  const edge = open({ alerts: { webhook: receiver.url, retryFirstMs: 10 } });
  await edge.answer();
  await edge.askOnce("/block").catch((error: unknown) => error);
  const posts = await receiver.posts(3);
  expect(posts[1]).toEqual(posts[0]);
  expect(posts[2]).toEqual(posts[0]);
  const [stall] = listStalls(edge.stateFolder);
  expect(posts[0]).toMatchObject({
    event: "edge-bounced",
    severity: 2,
    subject: stall,
    stall,
    breadcrumb: "change 42",
    msg: "the edge ended (SIGKILL) and is started again: loop main stalled at change 42",
  });
  // The metrics are those of the edge that took its place.
  const { healthPort } = await edge.answer();
  const page = await metricsWith(healthPort, 'patina_alert_posts_total{outcome="delivered"} 1');
  expect(page).toContain('patina_alerts_total{kind="edge-bounced"} 1');
  expect(page).toContain("patina_waiting_alerts 0");
  expect(receiver.bodies).toHaveLength(3);
});

test("a receiver that hangs delays neither a bounce nor what is told on stderr", async () => {
  const receiver = await listen("hang");
  const edge = open({ alerts: { webhook: receiver.url, timeoutMs: 600_000 } });
  const pids = [(await edge.answer()).pid];
  for (const bounce of [1, 2]) {
    await edge.line("edge-ready", bounce);
    process.kill(pids.at(-1) ?? 0, "SIGKILL");
    await edge.line("edge-bounced", bounce);
    pids.push((await edge.answer()).pid);
  }
  expect(new Set(pids).size).toBe(3);
  await receiver.posts(1);
  expect(receiver.bodies).toHaveLength(1);
  receiver.release(204);
  const posts = await receiver.posts(2);
  expect(posts.map(({ pid }) => pid)).toEqual(pids.slice(0, 2));
});

test("a post that is over its time is given up, and the next alert is posted", async () => {
  const receiver = await listen("hang");
  const edge = open({ alerts: { webhook: receiver.url, timeoutMs: 1_000, attemptsMax: 1 } });
  const { pid } = await edge.answer();
  await edge.line("edge-ready");
  process.kill(pid, "SIGKILL");
  await receiver.posts(1);
  expect(await edge.line("webhook-failed")).toMatchObject({ level: "warn" });
  await edge.ask("/alert");
  expect((await receiver.posts(2))[1]).toMatchObject({
    event: "edge-frozen",
    pid: expect.any(Number),
  });
});

test("the edge's own alert is the supervisor's line, and a repeat is none", async () => {
  const receiver = await listen();
  const edge = open({ alerts: { webhook: receiver.url } });
  await edge.ask("/alert");
  await edge.ask("/alert");
  expect(await edge.line("edge-frozen", 2)).toMatchObject({ level: "warn", isRepeat: true });
  const [first] = edge.lines.filter(({ event }) => event === "edge-frozen");
  expect(first).toMatchObject({ level: "error", process: "supervisor", peers: 3 });
  expect(await receiver.posts(1)).toMatchObject([{ event: "edge-frozen", severity: 2, peers: 3 }]);
});

test("a crash loop is one alert, and giving up another", async () => {
  const receiver = await listen();
  const alerts = { webhook: receiver.url };
  const edge = open({ backOffFirstMs: 10, giveUpExits: 7, alerts }, { exitCode: 1 });
  expect(await edge.ended).toEqual({ code: 9, signal: null });
  const posts = await receiver.posts(6);
  expect(posts.map(({ event, subject }) => [event, subject])).toEqual([
    ...Array.from({ length: 4 }, () => ["edge-bounced", expect.stringMatching(/^pid \d+$/)]),
    ["crash-loop", ""],
    ["crash-loop", "given up"],
  ]);
});

test("what one supervisor could not deliver the next one does", async () => {
  const receiver = await listen();
  const body = JSON.stringify({ event: "edge-bounced", id: "old" });
  const state = { ...NO_ALERTS, waiting: [{ id: "old", body }] };
  const edge = open({ alerts: { webhook: receiver.url } }, {}, JSON.stringify(state));
  expect(await receiver.posts(1)).toEqual([{ event: "edge-bounced", id: "old" }]);
  await edge.answer();
});

test("a damaged file of alerts is set aside with a warning, and the start goes on", async () => {
  const edge = open({}, {}, '{"format":1,"tot');
  expect(await edge.line("alerts-file-damaged")).toMatchObject({ level: "warn" });
  await edge.answer();
  const aside = join(edge.stateFolder, "alerts.json.damaged");
  expect(readFileSync(aside, "utf8")).toBe('{"format":1,"tot');
});

test("lines for the systemd journal begin with their priority", async () => {
  const edge = open({ giveUpExits: 1 }, { exitCode: 1 });
  await edge.ended;
  const file = join(edge.stateFolder, "stderr");
  const fd = openSync(file, "w");
  const { dev, ino } = fstatSync(fd);
  const main = fileURLToPath(new URL("./main.ts", import.meta.url));
  const config = join(edge.stateFolder, "effective-config.json");
  const child = spawn(process.execPath, [main, config], {
    stdio: ["ignore", "ignore", fd],
    env: { ...process.env, JOURNAL_STREAM: `${dev}:${ino}` },
  });
  closeSync(fd);
  await once(child, "exit");
  const lines = readFileSync(file, "utf8").trim().split("\n");
  const priorities = lines.map((line) => {
    const [, priority, json = "{}"] = /^<(\d)>(.*)$/.exec(line) ?? [];
    return [(JSON.parse(json) as { event?: string }).event, priority];
  });
  expect(priorities).toEqual([
    ["listening", "6"],
    ["crash-loop", "2"],
  ]);
});

function open(
  supervisor: Partial<SupervisorConfig>,
  fixture: ConstructorParameters<typeof SupervisedEdge>[1] = {},
  alertsFile?: string,
): SupervisedEdge {
  const files = alertsFile === undefined ? {} : { "alerts.json": alertsFile };
  return openSupervised(supervisor, fixture, files);
}

async function listen(...answers: readonly ReceiverAnswer[]): Promise<AlertReceiver> {
  const receiver = await AlertReceiver.listen(...answers);
  onTestFinished(() => receiver.close());
  return receiver;
}

/** The metrics page, once it has a line; it is read anew every two seconds. */
async function metricsWith(port: number, line: string): Promise<string> {
  for (;;) {
    const { text } = await fetchText(`http://127.0.0.1:${port}/metrics`);
    if (text.includes(`${line}\n`)) return text;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
