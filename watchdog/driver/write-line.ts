/**
 * Writes to descriptors without Node's streams: in a worker thread `console` and `process.stderr`
 * go through the main thread, which may be the one that is stuck.
 */
import { fstatSync, writeSync } from "node:fs";
import type { LogLevel } from "#base/logger.ts";

/** What became of a write. `gone` = the reader closed its end; `full` = it does not read. */
export type WriteOutcome = "written" | "full" | "gone" | "failed";

/** Writes all of `text` at once, or as much as the descriptor takes. Never throws. */
export function writeText(fd: number, text: string): WriteOutcome {
  try {
    let rest = Buffer.from(text);
    while (rest.length > 0) rest = rest.subarray(writeSync(fd, rest));
    return "written";
  } catch (error) {
    return outcomeOf(error);
  }
}

/**
 * Writes a finished line to standard error. Where that is the systemd journal, the line begins with
 * its priority as sd-daemon(3) has it. `severity` is a level, or syslog's number.
 */
export function writeLogLine(line: string, severity: LogLevel | number): void {
  const priority = typeof severity === "number" ? severity : PRIORITIES[severity];
  // A full pipe (nobody reads the log) loses the line rather than blocking or ending the process.
  writeText(2, isJournal() ? `<${priority}>${line}` : line);
}

/** `JOURNAL_STREAM` names the journal's socket; standard error may have been sent elsewhere. */
function isJournal(): boolean {
  const stream = process.env["JOURNAL_STREAM"];
  if (stream === undefined) return false;
  const { dev, ino } = fstatSync(2);
  return stream === `${dev}:${ino}`;
}

const PRIORITIES: Readonly<Record<LogLevel, number>> = {
  error: 3,
  warn: 4,
  info: 6,
  debug: 7,
  trace: 7,
};

function outcomeOf(error: unknown): WriteOutcome {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  if (code === "EAGAIN") return "full";
  return code === "EPIPE" || code === "EBADF" || code === "ECONNRESET" ? "gone" : "failed";
}
