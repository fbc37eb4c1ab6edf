import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { LogSync } from "./log-sync.ts";

let folder = "";
let log: LogSync;
/** Ends the sync that is under way. */
const syncs: ((error: Error | null) => void)[] = [];
let answers: string[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "patina-log-"));
  writeFileSync(join(folder, "a.db-wal"), "");
  log = new LogSync(join(folder, "a.db"), { isOff: false, sync: (_, done) => syncs.push(done) });
  answers = [];
});

afterEach(() => {
  log.close();
  for (const done of syncs.splice(0)) done(null);
  rmSync(folder, { recursive: true });
});

test("without a commit of our own since the last sync an answer waits for nothing", () => {
  ask("first");
  expect(answers).toEqual(["first: kept"]);
  log.committed();
  ask("second");
  expect(answers).toHaveLength(1);
  syncs.shift()?.(null);
  ask("third");
  expect(answers).toEqual(["first: kept", "second: kept", "third: kept"]);
  expect(log.syncs).toBe(1);
});

test("answers share a sync, but for those that rest on a commit after it began", () => {
  log.committed();
  ask("first");
  ask("second");
  log.committed();
  ask("third");
  expect(syncs).toHaveLength(1);
  syncs.shift()?.(null);
  expect(answers).toEqual(["first: kept", "second: kept"]);
  syncs.shift()?.(null);
  expect(answers).toEqual(["first: kept", "second: kept", "third: kept"]);
});

test("a disk that fails is told of, and asked again by the next", () => {
  log.committed();
  ask("first");
  syncs.shift()?.(Object.assign(new Error("EIO: i/o error, fdatasync"), { code: "EIO" }));
  ask("second");
  syncs.shift()?.(null);
  expect(answers).toEqual([expect.stringMatching(/^first: .*EIO/), "second: kept"]);
});

test("where each commit is synced there is nothing to wait for", () => {
  const full = new LogSync(join(folder, "a.db"), { isOff: true });
  full.committed();
  full.whenSynced((error) => answers.push(String(error)));
  full.close();
  expect(answers).toEqual(["null"]);
});

function ask(name: string): void {
  log.whenSynced((error) => answers.push(`${name}: ${error === null ? "kept" : error.message}`));
}
