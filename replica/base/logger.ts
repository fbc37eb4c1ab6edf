/**
 * One JSON line per event: `level, time, event, msg`, then fields.
 *
 * A disabled level is `undefined`, so `log.debug?.(...)` builds no arguments. The logger owns no
 * stream and no clock: the driver that creates it says where lines go and what time it is.
 */

/** Severity, most severe first: error = a human must act; warn = degraded and self-healing. */
export type LogLevel = "error" | "warn" | "info" | "debug" | "trace";

/** Fields of a line; names carry their units (`rttMs`, `changesetBytes`). */
export type LogFields = Readonly<Record<string, unknown>>;

/** Writes one event; `event` is a stable kebab-case name, `msg` is for humans. */
export type LogFunction = (event: string, msg: string, fields?: LogFields) => void;

/** A logger with a method per level; those above the configured level are absent. */
export interface Logger {
  readonly error: LogFunction;
  readonly warn?: LogFunction;
  readonly info?: LogFunction;
  readonly debug?: LogFunction;
  readonly trace?: LogFunction;
  /** The same logger with fields added to each line. */
  with(fields: LogFields): Logger;
}

/** What a logger needs from outside. */
export interface LoggerOptions {
  readonly level: LogLevel;
  /** Takes one finished line, newline included. */
  readonly write: (line: string) => void;
  /** Wall-clock milliseconds. */
  readonly nowMs: () => number;
  readonly fields?: LogFields;
}

/** Creates a logger; lines are written synchronously, in order. */
export function createLogger(options: LoggerOptions): Logger {
  const at = LEVELS.indexOf(options.level);
  const base = options.fields ?? {};
  const writer =
    (level: LogLevel): LogFunction =>
    (event, msg, fields) => {
      const time = new Date(options.nowMs()).toISOString();
      const line = { level, time, event, msg, ...base, ...fields };
      options.write(`${JSON.stringify(line, jsonSafe)}\n`);
    };
  return {
    error: writer("error"),
    ...(at >= 1 ? { warn: writer("warn") } : {}),
    ...(at >= 2 ? { info: writer("info") } : {}),
    ...(at >= 3 ? { debug: writer("debug") } : {}),
    ...(at >= 4 ? { trace: writer("trace") } : {}),
    with: (fields) => createLogger({ ...options, fields: { ...base, ...fields } }),
  };
}

/** The levels in order of severity, for validation of config and flags. */
export const LEVELS: readonly LogLevel[] = ["error", "warn", "info", "debug", "trace"];

function jsonSafe(_key: string, value: unknown): unknown {
  if (typeof value === "bigint") return value.toString();
  if (value instanceof Error) return value.message;
  return value;
}
