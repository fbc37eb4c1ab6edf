import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { StallEvidence } from "../types.ts";
import { listStalls, newStallId, readStall, stallsFolder, writeStall } from "./stall-files.ts";

let folder = "";

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "patina-stalls-"));
});

afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

test("what is written is read back, and no temporary file is left", () => {
  const evidence = evidenceAt(1);
  writeStall(folder, evidence, 20);
  expect(readStall(folder, evidence.id)).toEqual({ ok: true, value: evidence });
  expect(readdirSync(stallsFolder(folder))).toEqual([`${evidence.id}.json`]);
});

test("the newest files are kept and listed first", () => {
  for (let second = 1; second <= 6; second++) writeStall(folder, evidenceAt(second), 4);
  expect(listStalls(folder)).toEqual([6, 5, 4, 3].map((second) => evidenceAt(second).id));
});

test("no folder means no stalls", () => {
  expect(listStalls(join(folder, "nowhere"))).toEqual([]);
});

test.each([
  ["cut short", '{"format": 1, "id": "x'],
  ["empty", ""],
  ["of another format", '{"format": 2}'],
  ["not an object", "null"],
  ["without its fields", '{"format": 1, "id": "damaged", "kind": "stall"}'],
])("a file that is %s is a value that says so", (_what, text) => {
  writeStall(folder, evidenceAt(1), 20);
  writeFileSync(join(stallsFolder(folder), "damaged.json"), text);
  expect(readStall(folder, "damaged").ok).toBe(false);
  expect(listStalls(folder)).toHaveLength(2);
});

test.each(["../secret", "", ".hidden", "a/b", "a\0b"])("%j is not an id", (id) => {
  expect(readStall(folder, id)).toMatchObject({ ok: false });
});

test("a missing file is a value", () => {
  expect(readStall(folder, "absent").ok).toBe(false);
});

test("an id is a safe file name whatever the loop is called", () => {
  const id = newStallId(new Date(0), 12, "Data/plane 1");
  expect(id).toBe("19700101T000000000Z-12--ata-plane-1");
});

function evidenceAt(second: number): StallEvidence {
  const time = new Date(second * 1000);
  return {
    format: 1,
    id: newStallId(time, 1, "main"),
    kind: "stall",
    time: time.toISOString(),
    pid: 1,
    loop: "main",
    phase: "steady",
    action: "bounce",
    budgetMs: 1000,
    silentMs: 1050,
    misses: 21,
    stack: { kind: "javascript", frames: [] },
    error: null,
    breadcrumb: { change: second },
    lastBreadcrumbs: [],
    loops: [],
    resources: {},
    threads: [],
    configHash: "",
  };
}
