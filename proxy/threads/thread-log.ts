/** The log of any thread: one write to standard error per line, never through another thread. */
import type { Logger, LogLevelCell } from "#base/logger.ts";
import { createAlertingLog } from "../../watchdog/driver/alerting-log.ts";

/** A logger for the thread called `thread`; what is an alert goes to the supervisor. */
export function createThreadLog(level: LogLevelCell, thread: string): Logger {
  const fds = JSON.parse(process.env["PATINA_FDS"] ?? "{}") as { readonly beat?: number };
  return createAlertingLog({ level, fields: { thread }, beatFd: fds.beat ?? null });
}
