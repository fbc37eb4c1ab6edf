/** The log of any thread: one write to standard error per line, never through another thread. */
import { writeSync } from "node:fs";
import { createLogger, type Logger, type LogLevelCell } from "#base/logger.ts";

/** A logger for the thread called `thread`. */
export function createThreadLog(level: LogLevelCell, thread: string): Logger {
  return createLogger({
    level,
    nowMs: () => Date.now(),
    write: writeLine,
    fields: { thread },
  });
}

/** A full pipe (nobody reads the log) loses the line rather than blocking or ending the process. */
function writeLine(line: string): void {
  try {
    writeSync(2, line);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code !== "EAGAIN" && code !== "EPIPE") throw error;
  }
}
