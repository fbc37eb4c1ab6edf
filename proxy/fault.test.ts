import { expect, test } from "vitest";
import type { RowChange } from "../replica/types.ts";
import { configFile } from "./config.ts";
import { rowFault } from "./fault.ts";

test("without the flag of the watchdog's section there is no fault, and the config says why", () => {
  const parsed = configFile.safeParse(rawConfig({ at: "deadlock", isAllowed: false }));
  expect(parsed.error?.issues.map(({ message }) => message)).toEqual([
    expect.stringContaining("watchdog.allow_fault_injection = true"),
  ]);
  const config = configFile.parse(rawConfig({ at: "slow", isAllowed: true }));
  const watchdog = { ...config.watchdog, allow_fault_injection: false };
  expect(rowFault({ ...config, watchdog })).toBeUndefined();
  expect(rowFault({ ...config, fault: { ...config.fault, enabled: false } })).toBeUndefined();
});

test("a slow fault takes twice as long each time, and other rows nothing", () => {
  const fault = rowFault(configFile.parse(rawConfig({ at: "slow", isAllowed: true })));
  const startMs = performance.now();
  for (let row = 0; row < 1_000; row++) fault?.(machine("fine"), "apply");
  for (let row = 0; row < 6; row++) {
    fault?.(machine("poison"), "apply");
    fault?.(machine("poison"), "rebuild");
  }
  // 1 + 2 + 4 + 8 + 16 + 32: no less, whatever else the machine is at.
  expect(performance.now() - startMs).toBeGreaterThanOrEqual(62);
});

test("an exception is thrown for the row that is meant and for no other", () => {
  const fault = rowFault(configFile.parse(rawConfig({ at: "throw", isAllowed: true })));
  expect(() => fault?.(machine("fine"), "apply")).not.toThrow();
  expect(() => fault?.({ ...machine("poison"), table: "nodes" }, "apply")).not.toThrow();
  expect(() => fault?.({ ...machine("poison"), row: null }, "apply")).not.toThrow();
  expect(() => fault?.(machine("poison"), "apply")).toThrow("injected fault");
});

function rawConfig({ at, isAllowed }: { at: string; isAllowed: boolean }): unknown {
  return {
    gossip: { plaintext: true },
    watchdog: { allow_fault_injection: isAllowed },
    fault: {
      enabled: true,
      stall_row: { table: "machines", column: "region", value: "poison", at },
    },
  };
}

function machine(region: string): RowChange {
  return { table: "machines", key: ["m1"], row: { id: "m1", region }, actorId: "a1", version: 1 };
}
