import { expect, test } from "vitest";
import { assignSockets, passedSockets, watchdogPeriodMs } from "./systemd.ts";

test("sockets come in order from descriptor 3, with their names", () => {
  const environment = { LISTEN_PID: "7", LISTEN_FDS: "2", LISTEN_FDNAMES: "http:https" };
  expect(passedSockets(environment, 7)).toEqual([
    { name: "http", fd: 3 },
    { name: "https", fd: 4 },
  ]);
  expect(passedSockets({ LISTEN_PID: "7", LISTEN_FDS: "1" }, 7)).toEqual([{ name: "", fd: 3 }]);
});

test.each([
  ["for another process", { LISTEN_PID: "8", LISTEN_FDS: "2" }],
  ["none", { LISTEN_PID: "7", LISTEN_FDS: "0" }],
  ["no number", { LISTEN_PID: "7", LISTEN_FDS: "some" }],
  ["nothing said", {}],
])("no sockets are taken: %s", (_what, environment) => {
  expect(passedSockets(environment, 7)).toEqual([]);
});

test("each address gets the sockets of its name, and one that has none is left out", () => {
  const passed = ["https", "http", "https"].map((name, at) => ({ name, fd: 3 + at }));
  const assigned = assignSockets(passed, ["http", "https", "other"]);
  expect(assigned.ok && [...assigned.value]).toEqual([
    ["https", [3, 5]],
    ["http", [4]],
  ]);
});

test("a single socket is that of the single address, whatever its name", () => {
  const assigned = assignSockets([{ name: "patina.socket", fd: 3 }], ["http"]);
  expect(assigned.ok && [...assigned.value]).toEqual([["http", [3]]]);
});

test("a socket that nobody serves is an error that says what to set", () => {
  const passed = [{ name: "patina.socket", fd: 3 }];
  expect(assignSockets(passed, ["http", "https"])).toEqual({
    ok: false,
    error: expect.stringMatching(/"patina.socket".*http and https.*FileDescriptorName/),
  });
  expect(assignSockets(passed, []).ok).toBe(false);
});

test("a sign of life is due twice as often as it must come, and for this process only", () => {
  expect(watchdogPeriodMs({ WATCHDOG_USEC: "30000000" }, 7)).toBe(15_000);
  expect(watchdogPeriodMs({ WATCHDOG_USEC: "30000000", WATCHDOG_PID: "7" }, 7)).toBe(15_000);
  expect(watchdogPeriodMs({ WATCHDOG_USEC: "30000000", WATCHDOG_PID: "8" }, 7)).toBeNull();
  expect(watchdogPeriodMs({ WATCHDOG_USEC: "1" }, 7)).toBe(50);
  for (const text of ["", "0", "-1", "soon"]) {
    expect(watchdogPeriodMs({ WATCHDOG_USEC: text }, 7)).toBeNull();
  }
  expect(watchdogPeriodMs({}, 7)).toBeNull();
});
