/**
 * Upgrades under the real supervisor, with a tiny edge that takes the steps or fails at one of them.
 * Steady clients ask meanwhile, each request on a connection of its own: none may be refused or break.
 */
import { writeFileSync } from "node:fs";
import { expect, test } from "vitest";
import { nextConfigFile, runningSupervisor } from "./driver/upgrade-files.ts";
import { openSupervised, type SupervisedEdge } from "./fixtures/supervised-edge.ts";

test("another process takes over, and no request is refused or lost", async () => {
  const edge = openSupervised();
  const before = await edge.answer();
  const clients = edge.steadyClients(4);
  const slow = edge.ask("/slow");
  const report = await edge.upgrade();
  expect(report).toMatchObject({ outcome: "done", pid: expect.any(Number) });
  expect(await slow).toBe("slow but complete");
  await expectServed(edge, report.pid);
  expect(report.pid).not.toBe(before.pid);
  expect(await clients.stop()).toBeGreaterThan(0);
  expect([edge.refused, edge.broken]).toEqual([0, 0]);
  expect(edge.lines.some(({ event }) => event === "edge-bounced")).toBe(false);

  // A bounce starts what the upgrade brought, and SIGTERM ends it.
  process.kill(report.pid, "SIGKILL");
  await edge.line("edge-ready", 3);
  edge.child.kill("SIGTERM");
  expect(await edge.ended).toEqual({ code: 0, signal: null });
  expect(runningSupervisor(edge.stateFolder)).toBeNull();
});

test.each(["starting", "handingOver", "takingOver"] as const)(
  "a new process that ends while %s changes nothing",
  async (step) => {
    // The old process fails to hand over where that is the step; the new one fails at the others.
    const edge =
      step === "handingOver"
        ? openSupervised({ upgradeStepLimitMs: 3000 }, { silentAt: step })
        : openSupervised();
    const before = await edge.answer();
    const clients = edge.steadyClients(2);
    const report = await edge.upgrade({}, step === "handingOver" ? {} : { exitAt: step });
    expect(report).toMatchObject({ outcome: "rolledBack", pid: before.pid });
    const alert = await edge.line("upgrade-rolled-back");
    const cause = step === "handingOver" ? "tooLate" : "exited";
    expect(alert).toMatchObject({ level: "error", step, cause });
    if (step !== "starting") await edge.line("tiny-resumed");
    expect(await edge.answer()).toEqual(before);
    await clients.stop();
    expect([edge.refused, edge.broken]).toEqual([0, 0]);
    // What failed is forgotten: a bounce starts the edge with the config that was good.
    process.kill(before.pid, "SIGKILL");
    expect((await edge.answer()).pid).not.toBe(before.pid);
  },
);

test("an edge that dies while it hands over is followed by the new process", async () => {
  const edge = openSupervised({}, { exitAt: "handingOver" });
  const before = await edge.answer();
  const report = await edge.upgrade();
  expect(report).toMatchObject({ outcome: "done" });
  expect(await edge.line("edge-bounced")).toMatchObject({ pid: before.pid, exitCode: 1 });
  await expectServed(edge, report.pid);
  expect(edge.refused).toBe(0);
});

test("SIGUSR2 alone starts the same config anew; one that listens elsewhere is refused", async () => {
  const edge = openSupervised();
  const before = await edge.answer();
  await edge.line("edge-ready");
  const moved = [{ name: "http", host: "127.0.0.1", port: 1 }];
  expect(await edge.upgrade({ listen: moved })).toMatchObject({ outcome: "refused" });
  writeFileSync(nextConfigFile(edge.configPath), "{ cut short");
  edge.child.kill("SIGUSR2");
  const line = await edge.line("upgrade-refused", 2);
  expect(line["msg"]).toContain("cannot read the effective config");
  expect(await edge.answer()).toEqual(before);
  edge.child.kill("SIGUSR2");
  expect(await edge.line("upgrade-done")).toMatchObject({ previousPid: before.pid });
});

test("SIGTERM in the middle of an upgrade ends both processes", async () => {
  const edge = openSupervised({}, { silentAt: "handingOver" });
  await edge.line("edge-ready");
  edge.child.kill("SIGUSR2");
  await edge.line("upgrade-begins");
  edge.child.kill("SIGTERM");
  expect(await edge.ended).toEqual({ code: 0, signal: null });
});

/** The retired process accepts until it has drained. */
async function expectServed(edge: SupervisedEdge, pid: number): Promise<void> {
  while ((await edge.answer()).pid !== pid);
}
