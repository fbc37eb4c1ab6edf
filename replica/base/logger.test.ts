import { expect, test } from "vitest";
import { createLogger, LogLevelCell } from "./logger.ts";

test("a disabled level is undefined, so that its arguments are not built", () => {
  const log = createLogger({ level: "warn", write: () => undefined, nowMs: () => 0 });
  expect(log.warn).toBeDefined();
  expect(log.info).toBeUndefined();
});

test("a line has level, time, event and message before its fields", () => {
  const { lines, write } = collector();
  const log = createLogger({ level: "info", write, nowMs: () => 0 }).with({ thread: "main" });
  log.info?.("started", "up", { version: 2n, cause: new Error("none") });
  expect(lines).toEqual([
    '{"level":"info","time":"1970-01-01T00:00:00.000Z","event":"started","msg":"up",' +
      '"thread":"main","version":"2","cause":"none"}\n',
  ]);
});

test("a level that is changed counts at once in every logger of the cell, in other threads too", () => {
  const { lines, write } = collector();
  const cell = new LogLevelCell("info");
  const log = createLogger({ level: cell, write, nowMs: () => 0 });
  const child = log.with({ thread: "other" });
  log.debug?.("quiet", "not written");
  new LogLevelCell(cell.buffer).set("debug");
  log.debug?.("first", "written");
  child.debug?.("second", "written");
  cell.set("error");
  expect(child.warn).toBeUndefined();
  expect(lines.map((line) => (JSON.parse(line) as { event: string }).event)).toEqual([
    "first",
    "second",
  ]);
});

function collector(): { lines: string[]; write: (line: string) => void } {
  const lines: string[] = [];
  return { lines, write: (line) => void lines.push(line) };
}
