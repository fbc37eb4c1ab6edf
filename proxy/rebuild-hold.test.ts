import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, test, vi } from "vitest";
import { createLogger } from "#base/logger.ts";
import type { ChangeStreamEvent, RowChange } from "../replica/types.ts";
import { RebuildHold, rebuildMarkerOf } from "./rebuild-hold.ts";

const folder = mkdtempSync(join(tmpdir(), "patina-hold-"));
const databasePath = join(folder, "patina.db");
const marker = rebuildMarkerOf(databasePath);
const changed: ChangeStreamEvent[] = [];
afterEach(() => {
  vi.useRealTimers();
  changed.length = 0;
  rmSync(marker, { force: true });
});

test("without a rebuild every event is the table's at once", () => {
  const hold = open(2);
  const events = [RESET, rows(1, "a"), caughtUp(1)];
  expect(events.flatMap((event) => hold.take(event))).toEqual(events);
});

test("during a rebuild the table changes over with the machine that makes it as large", () => {
  writeFileSync(marker, "");
  const hold = open(2);
  expect(hold.take(RESET)).toEqual([RESET]);
  expect(hold.take(caughtUp(0))).toEqual([]);
  expect(hold.take(rows(1, "a"))).toEqual([rows(1, "a")]);
  expect(hold.take(gone(2, "a"))).toEqual([gone(2, "a")]);
  expect(hold.take(rows(3, "a"))).toEqual([rows(3, "a")]);
  expect(existsSync(marker)).toBe(true);
  // A machine that no hostname leads to is of no use to anybody.
  expect(hold.take(rows(4, "b"))).toEqual([rows(4, "b")]);
  expect(hold.take(hostname(4))).toEqual([hostname(4), caughtUp(4)]);
  expect(existsSync(marker)).toBe(false);
  expect(hold.take(rows(5, "c"))).toEqual([rows(5, "c")]);
});

test("what is there at the first moment counts, and an empty table waits for nothing", () => {
  writeFileSync(marker, "");
  const hold = open(1);
  hold.take(RESET);
  hold.take(rows(1, "a"));
  hold.take(hostname(1));
  expect(hold.take(caughtUp(1))).toEqual([caughtUp(1)]);
  writeFileSync(marker, "");
  const empty = open(0);
  empty.take(RESET);
  expect(empty.take(caughtUp(1))).toEqual([caughtUp(1)]);
});

test("the operator's word ends it with fewer machines", () => {
  vi.useFakeTimers();
  writeFileSync(marker, "");
  const hold = open(2);
  hold.take(RESET);
  hold.take(caughtUp(0));
  hold.take(rows(1, "a"));
  vi.advanceTimersByTime(1_000);
  expect(changed).toEqual([]);
  rmSync(marker);
  vi.advanceTimersByTime(1_000);
  expect(changed).toEqual([caughtUp(1)]);
});

const RESET: ChangeStreamEvent = { kind: "reset", reason: "another database" };

function open(machinesInUse: number): RebuildHold {
  const log = createLogger({ level: "error", nowMs: () => 0, write: () => undefined });
  const changeOver = (event: ChangeStreamEvent): void => void changed.push(event);
  return new RebuildHold({
    databasePath,
    inUse: () => ({ machines: machinesInUse, hostnames: machinesInUse > 0 ? 1 : 0 }),
    changeOver,
    log,
  });
}

function rows(dbVersion: number, id: string): ChangeStreamEvent {
  return { kind: "rows", rows: [change(id, { id })], watermark: watermark(dbVersion) };
}

function hostname(dbVersion: number): ChangeStreamEvent {
  const row = { ...change("shop.test", { hostname: "shop.test" }), table: "hostnames" };
  return { kind: "rows", rows: [row], watermark: watermark(dbVersion) };
}

function gone(dbVersion: number, id: string): ChangeStreamEvent {
  return { kind: "rows", rows: [change(id, null)], watermark: watermark(dbVersion) };
}

function caughtUp(dbVersion: number): ChangeStreamEvent {
  return { kind: "caughtUp", watermark: watermark(dbVersion) };
}

function change(id: string, row: RowChange["row"]): RowChange {
  return { table: "machines", key: [id], row, actorId: "", version: 1 };
}

function watermark(dbVersion: number): { databaseId: string; dbVersion: number } {
  return { databaseId: "d", dbVersion };
}
