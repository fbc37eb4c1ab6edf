import { expect, test } from "vitest";
import { createLogger } from "#base/logger.ts";
import { StoreFaultWatch } from "./store-fault.ts";

const FULL = { code: "STORE_FULL", message: "database or disk is full" };

test("a fault is in the log once, and told to the owner when it lasts", () => {
  const { watch, told } = createWatch();
  watch.take(FULL, 1_000);
  expect(watch.reason).toBe("/data/p.db cannot be written: database or disk is full");
  expect(told).toEqual(["error store-cannot-write"]);
  watch.take({ ...FULL, message: "disk I/O error" }, 3_999);
  expect(told).toHaveLength(1);
  watch.take(FULL, 4_000);
  watch.take(FULL, 5_000);
  expect(told.slice(1)).toEqual(["/data/p.db cannot be written: database or disk is full"]);
  watch.take(null, 6_000);
  expect(watch.reason).toBeNull();
  expect(told.slice(2)).toEqual(["info store-writes-again", null]);
  watch.take(null, 7_000);
  expect(told).toHaveLength(4);
});

test("a fault that is soon over does not reach the owner", () => {
  const { watch, told } = createWatch();
  watch.take(FULL, 0);
  watch.take(null, 1_000);
  expect(told).toEqual(["error store-cannot-write", "info store-writes-again"]);
});

function createWatch(): { watch: StoreFaultWatch; told: (string | null)[] } {
  const told: (string | null)[] = [];
  const log = createLogger({
    level: "info",
    nowMs: () => 0,
    write: (line) => {
      const { level, event } = JSON.parse(line) as { level: string; event: string };
      told.push(`${level} ${event}`);
    },
  });
  const events = { storeFault: (reason: string | null) => void told.push(reason) };
  return { watch: new StoreFaultWatch({ db: { path: "/data/p.db" }, log, events }), told };
}
