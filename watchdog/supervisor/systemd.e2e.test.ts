/**
 * The real supervisor under a service manager like systemd, which opened its socket, and hears of it
 * through a program in the place of `systemd-notify` that writes down what it is told.
 */
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { expect, onTestFinished, test } from "vitest";
import { EXIT, LASTING_EXIT_CODES } from "./exit-codes.ts";
import { openSupervised, type SupervisedEdge } from "./fixtures/supervised-edge.ts";

test("on a socket that was passed, a bounce and a restart of the whole service refuse nobody", async () => {
  const edge = open({ socket: "http", env: {} });
  const before = await edge.answer();
  await edge.line("edge-ready");
  const clients = edge.steadyClients(2);
  process.kill(before.pid, "SIGKILL");
  await edge.line("edge-ready", 2);
  // The supervisor ends, and another one is started.
  edge.child.kill("SIGUSR1");
  await edge.line("edge-ready", 3);
  expect((await edge.answer()).pid).not.toBe(before.pid);
  expect(await clients.stop()).toBeGreaterThan(0);
  expect(edge.refused).toBe(0);
  expect(edge.lines.find(({ event }) => event === "listening")?.["msg"]).toContain("taking");
});

test("the service manager hears of start, reload, upgrade, end, and that the supervisor lives", async () => {
  const folder = mkdtempSync(join(tmpdir(), "patina-notify-"));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  const heard = join(folder, "heard");
  writeFileSync(heard, "");
  writeFileSync(
    join(folder, "systemd-notify"),
    `#!/bin/sh\necho "$NOTIFY_SOCKET $*" >> ${heard}\n`,
  );
  chmodSync(join(folder, "systemd-notify"), 0o755);
  const notices = (): string[] => readFileSync(heard, "utf8").split("\n").filter(Boolean);
  const wait = async (goal: (all: readonly string[]) => boolean): Promise<void> => {
    while (!goal(notices())) await setTimeout(10);
  };
  const edge = open({
    socket: "http",
    env: {
      PATH: `${folder}:${process.env["PATH"]}`,
      NOTIFY_SOCKET: "/run/notify",
      WATCHDOG_USEC: "400000",
    },
  });
  const { pid } = await edge.answer();
  await wait((all) => withoutLife(all).length > 0);
  const status = `STATUS=edge process ${pid} answers`;
  expect(withoutLife(notices())[0]).toBe(`/run/notify READY=1 ${status}`);
  await wait((all) => all.includes("/run/notify WATCHDOG=1"));

  // The supervisor is the child of the service manager here.
  const supervisor = Number(
    readFileSync(join(edge.stateFolder, "supervisor.pid"), "utf8").split(" ")[0],
  );
  process.kill(supervisor, "SIGHUP");
  await wait((all) => withoutLife(all).length >= 3);
  const reloading = expect.stringMatching(/^\/run\/notify RELOADING=1 MONOTONIC_USEC=\d+$/);
  expect(withoutLife(notices()).slice(1)).toEqual([reloading, "/run/notify READY=1"]);

  process.kill(supervisor, "SIGUSR2");
  await edge.line("upgrade-done");
  await wait((all) => withoutLife(all).length >= 6);
  expect(withoutLife(notices())[3]).toEqual(reloading);
  expect(withoutLife(notices()).at(-1)).toContain("READY=1");

  edge.child.kill("SIGTERM");
  expect(await edge.ended).toMatchObject({ code: 0 });
  expect(withoutLife(notices()).at(-1)).toBe("/run/notify STOPPING=1");
});

test("a socket of another name is taken where there is one address, and refused where it fits none", async () => {
  const single = open({ socket: "patina.socket", env: {} });
  await single.answer();
  const listen = ["http", "https"].map((name) => ({ name, host: "127.0.0.1", port: 0 }));
  const double = open({ socket: "patina.socket", env: {} }, { listen });
  expect(await double.ended).toMatchObject({ code: EXIT.config });
  const line = await double.line("listen-failed");
  expect(line["msg"]).toContain('a socket named "patina.socket"');
});

test("a service manager that cannot be told costs a warning and nothing else", async () => {
  const edge = open({ socket: "http", env: { NOTIFY_SOCKET: "/nowhere/notify" } });
  await edge.answer();
  expect(await edge.line("notice-failed")).toMatchObject({ level: "warn" });
  await edge.answer();
});

test("the units that are shipped name the sockets and the exit codes as they are", () => {
  const unit = (name: string): string =>
    readFileSync(new URL(`../../docs/examples/${name}`, import.meta.url), "utf8");
  const service = unit("patina.service");
  const codes = /^RestartPreventExitStatus=(.*)$/m.exec(service)?.[1]?.split(" ").map(Number);
  expect(codes).toEqual([...LASTING_EXIT_CODES].toSorted((one, other) => one - other));
  expect(service).toMatch(/^Type=notify$/m);
  expect(service).toMatch(/^NotifyAccess=all$/m);
  expect(unit("patina.socket")).toMatch(/^FileDescriptorName=http$/m);
});

function withoutLife(notices: readonly string[]): string[] {
  return notices.filter((notice) => !notice.endsWith("WATCHDOG=1"));
}

function open(
  service: { readonly socket: string; readonly env: NodeJS.ProcessEnv },
  supervisor: ConstructorParameters<typeof SupervisedEdge>[0] = {},
): SupervisedEdge {
  return openSupervised(supervisor, {}, {}, service);
}
