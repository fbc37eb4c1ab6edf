/**
 * The real supervisor with a tiny edge that stalls, crashes and drains on request. Nothing is timed
 * but by events: log lines, answers and exits.
 */
import { createServer as createTcpServer } from "node:net";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { listStalls, readStall } from "../driver/stall-files.ts";
import type { StallEvidence } from "../types.ts";
import { fetchText, openSupervised, type SupervisedEdge } from "./fixtures/supervised-edge.ts";

test("a stalled loop is bounced with evidence, and no connection is refused", async () => {
  const edge = openSupervised();
  const before = await edge.answer();
  const clients = edge.steadyClients(4);
  const block = edge.askOnce("/block").catch((error: unknown) => error);
  const alert = await edge.line("edge-bounced");
  const after = await edge.answer();
  expect(await clients.stop()).toBeGreaterThan(0);
  expect(await block).toBeInstanceOf(Error);
  expect(edge.refused).toBe(0);
  expect(after.pid).not.toBe(before.pid);

  const evidence = onlyEvidence(edge);
  expect(evidence).toMatchObject({ kind: "stall", loop: "main", phase: "steady", pid: before.pid });
  expect(evidence.stack.kind).toBe("javascript");
  const frames = evidence.stack.kind === "javascript" ? evidence.stack.frames : [];
  // The interrupt may find the loop inside `progress`, which it calls.
  const blocker = frames.find((frame) => frame.function === "blockForEver");
  expect(blocker?.url).toContain("tiny-edge.ts");
  expect(lineOf("tiny-edge.ts", blocker?.line ?? 0)).toContain("for (;;)");
  expect(evidence.breadcrumb).toBe("change 42");
  expect(evidence.lastBreadcrumbs).toEqual(["change 42"]);
  expect(evidence.resources["residentBytes"]).toBeGreaterThan(1e6);
  expect(evidence.loops[0]?.heapUsedBytes).toBeGreaterThan(1e5);
  expect(evidence.configHash).toBe("fixture");
  expect(alert).toMatchObject({ signal: "SIGKILL", stall: evidence.id, breadcrumb: "change 42" });
  // The innermost frame: the blocker's own or that of what it calls.
  expect(alert["at"]).toMatch(/tiny-edge\.ts|loop-beat\.ts/);
});

test("health and metrics answer while the main thread is stuck", async () => {
  const edge = openSupervised();
  const { healthPort } = await edge.answer();
  const probe = (path: string) => fetchText(`http://127.0.0.1:${healthPort}${path}`);
  expect(await probe("/readyz")).toMatchObject({ status: 200 });
  expect(await probe("/nothing")).toMatchObject({ status: 404 });
  // A thread stopped in a child process's wait() cannot be interrupted, so the kill takes longest.
  const block = edge.askOnce("/block-native").catch((error: unknown) => error);
  let silence = 0;
  while (silence < 0.4) {
    const { status, text } = await probe("/metrics");
    expect(status).toBe(200);
    silence = Number(/^patina_loop_silence_seconds{loop="main"} (.+)$/m.exec(text)?.[1]);
  }
  expect((await probe("/healthz")).text).toContain('"name":"main"');
  await block;
  await edge.line("edge-bounced");
  const evidence = onlyEvidence(edge);
  expect(evidence.stack).toMatchObject({ kind: "native", thread: { threadId: evidence.pid } });
  expect(evidence.breadcrumb).toBe("change 44");
});

test("a stalled loop that is only reported leaves the process serving", async () => {
  const edge = openSupervised();
  const before = await edge.answer();
  await edge.ask("/block-worker");
  const alert = await edge.line("loop-stalled");
  expect(alert).toMatchObject({ loop: "second", breadcrumb: "change 45" });
  expect(await edge.answer()).toEqual(before);
  const { stack } = onlyEvidence(edge);
  const frames = stack.kind === "javascript" ? stack.frames : [];
  expect(frames.map((frame) => frame.function)).toContain("blockThisWorker");
});

test("where the system has no socket groups, all threads accept from one socket", async () => {
  const edge = openSupervised({
    listen: [{ name: "http", host: "127.0.0.1", port: 0, sockets: 2, isShared: true }],
  });
  const clients = edge.steadyClients(4);
  const before = await edge.answer();
  process.kill(before.pid, "SIGKILL");
  await edge.line("edge-bounced");
  const after = await edge.answer();
  expect(after.pid).not.toBe(before.pid);
  expect(await clients.stop()).toBeGreaterThan(0);
  expect(edge.refused).toBe(0);
  const ports = edge.lines.filter(({ event }) => event === "listening").map(({ port }) => port);
  expect(ports).toEqual([ports[0], ports[0]]);
});

test("an edge whose watchdog is itself blocked is killed by the supervisor", async () => {
  const edge = openSupervised({ silenceLimitMs: 2000 });
  const before = await edge.answer();
  await edge.askOnce("/block-all").catch((error: unknown) => error);
  const alert = await edge.line("edge-bounced");
  expect(alert).toMatchObject({ pid: before.pid, signal: "SIGKILL", kind: "silence" });
  const evidence = onlyEvidence(edge);
  expect(evidence.threads.some((thread) => thread.name === "node-MainThread")).toBe(true);
  expect((await edge.answer()).pid).not.toBe(before.pid);
});

test("an exception leaves evidence too", async () => {
  const edge = openSupervised();
  await edge.answer();
  await edge.askOnce("/crash").catch((error: unknown) => error);
  const alert = await edge.line("edge-bounced");
  expect(alert).toMatchObject({ kind: "crash", exitCode: 1, breadcrumb: "change 43" });
  expect(alert["error"]).toBe("the fixture was told to crash");
  await edge.answer();
});

test("an edge that aborts leaves what it was at, told while it was late", async () => {
  const edge = openSupervised();
  await edge.answer();
  await edge.askOnce("/abort").catch((error: unknown) => error);
  const alert = await edge.line("edge-bounced");
  expect(alert).toMatchObject({ kind: "crash", signal: "SIGABRT", breadcrumb: "change 46" });
  expect(onlyEvidence(edge)).toMatchObject({ loop: "main", phase: "steady", action: "bounce" });
  await edge.answer();
});

test("an edge that is stopped for good is killed by the supervisor", async () => {
  const edge = openSupervised({ silenceLimitMs: 1000 });
  const { pid } = await edge.answer();
  process.kill(pid, "SIGSTOP");
  expect(await edge.line("edge-bounced")).toMatchObject({ pid, kind: "silence" });
  const stopped = onlyEvidence(edge).threads.map(({ state }) => state);
  expect(new Set(stopped)).toEqual(new Set(["T"]));
  expect((await edge.answer()).pid).not.toBe(pid);
});

test("four SIGKILLs under steady clients refuse nobody, and every request is answered", async () => {
  const edge = openSupervised({
    listen: [{ name: "http", host: "127.0.0.1", port: 0, sockets: 2 }],
  });
  const clients = edge.steadyClients(4);
  const pids = new Set<number>();
  for (let kill = 1; kill <= 4; kill++) {
    const { pid } = await edge.answer();
    pids.add(pid);
    await edge.line("edge-ready", kill);
    process.kill(pid, "SIGKILL");
    await edge.line("edge-bounced", kill);
  }
  await edge.answer();
  expect(await clients.stop()).toBeGreaterThan(0);
  expect(pids.size).toBe(4);
  expect(edge.refused).toBe(0);
});

test("SIGTERM drains: the request in flight is completed and the exit code is 0", async () => {
  const edge = openSupervised();
  await edge.line("edge-ready");
  const slow = edge.ask("/slow");
  await edge.answer();
  edge.child.kill("SIGTERM");
  expect(await slow).toBe("slow but complete");
  expect(await edge.ended).toEqual({ code: 0, signal: null });
});

test("an edge that never gets ready is started ever more slowly and then given up", async () => {
  const edge = openSupervised({ backOffFirstMs: 10, giveUpExits: 7 }, { exitCode: 1 });
  expect(await edge.ended).toEqual({ code: 9, signal: null });
  const delays = edge.lines
    .filter((line) => line.event === "edge-bounced")
    .map((line) => line["restartDelayMs"]);
  expect(delays).toEqual([0, 0, 0, 0, 10, 20]);
  expect(edge.lines.some((line) => line.event === "crash-loop")).toBe(true);
});

test("an exit code that no restart can mend is passed on at once", async () => {
  const edge = openSupervised({}, { exitCode: 2 });
  expect(await edge.ended).toEqual({ code: 2, signal: null });
  expect(edge.lines.some((line) => line.event === "edge-bounced")).toBe(false);
});

test.each([1, 2])("a port in use is one line and exit code 4 (%d sockets)", async (sockets) => {
  const other = createTcpServer().listen(0, "127.0.0.1");
  await once(other, "listening");
  const address = other.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  const edge = openSupervised({ listen: [{ name: "http", host: "127.0.0.1", port, sockets }] });
  expect(await edge.ended).toEqual({ code: 4, signal: null });
  expect(edge.lines.map((line) => line["msg"])).toEqual([
    `cannot listen on 127.0.0.1:${port} (http): the port is in use`,
  ]);
  expect(edge.plainLines).toEqual([]);
  other.close();
});

test("an edge whose supervisor is gone drains and ends", async () => {
  const edge = openSupervised();
  await edge.line("edge-ready");
  // stderr of both is one pipe: it closes when the last of them has ended.
  const bothEnded = once(edge.child, "close");
  edge.child.kill("SIGKILL");
  await edge.line("supervisor-gone");
  await bothEnded;
});

function onlyEvidence(edge: SupervisedEdge): StallEvidence {
  const ids = listStalls(edge.stateFolder);
  expect(ids).toHaveLength(1);
  const evidence = readStall(edge.stateFolder, ids[0] ?? "");
  if (!evidence.ok) throw new Error(evidence.error);
  return evidence.value;
}

function lineOf(file: string, line: number): string {
  const text = readFileSync(new URL(`./fixtures/${file}`, import.meta.url), "utf8");
  return text.split("\n")[line - 1] ?? "";
}
