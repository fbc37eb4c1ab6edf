/**
 * The log of a thread of the edge: lines on standard error, and alerts to the supervisor.
 *
 * An error whose event is a kind of alert is not written here but told to the supervisor, which
 * writes the line, posts it, and knows a repeat when it sees one: several threads may say the same.
 */
import { type Logger, type LoggerOptions, createLogger } from "#base/logger.ts";
import { ALERT_KINDS } from "../core/alert-outbox.ts";
import { alertLine } from "../core/pipe-lines.ts";
import type { AlertKind } from "../types.ts";
import { writeLogLine, writeText } from "./write-line.ts";

/** What such a log is made of. */
export interface AlertingLogOptions extends Pick<LoggerOptions, "level" | "fields"> {
  /** Descriptor of the pipe to the supervisor; null = there is none, and errors stay lines. */
  readonly beatFd: number | null;
}

/** Creates the log. */
export function createAlertingLog({ beatFd, ...options }: AlertingLogOptions): Logger {
  const log = createLogger({ ...options, nowMs: () => Date.now(), write: writeLogLine });
  return {
    error: (event, msg, fields = {}) => {
      const isTold = beatFd !== null && isKind(event) && tell(beatFd, event, { msg, fields });
      if (!isTold) log.error(event, msg, fields);
    },
    get warn() {
      return log.warn;
    },
    get info() {
      return log.info;
    },
    get debug() {
      return log.debug;
    },
    get trace() {
      return log.trace;
    },
    with: (fields) =>
      createAlertingLog({ ...options, beatFd, fields: { ...options.fields, ...fields } }),
  };
}

function tell(
  beatFd: number,
  kind: AlertKind,
  { msg, fields }: { readonly msg: string; readonly fields: Readonly<Record<string, unknown>> },
): boolean {
  const name = ALERT_KINDS[kind].subject;
  const named = name === null ? "" : fields[name];
  const subject = typeof named === "string" ? named : "";
  return writeText(beatFd, `${alertLine({ kind, subject, msg, fields })}\n`) === "written";
}

function isKind(event: string): event is AlertKind {
  return Object.hasOwn(ALERT_KINDS, event);
}
