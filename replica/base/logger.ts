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
  readonly warn?: LogFunction | undefined;
  readonly info?: LogFunction | undefined;
  readonly debug?: LogFunction | undefined;
  readonly trace?: LogFunction | undefined;
  /** The same logger with fields added to each line. */
  with(fields: LogFields): Logger;
}

/** What a logger needs from outside. */
export interface LoggerOptions {
  readonly level: LogLevel | LogLevelCell;
  /** Takes one finished line, newline included. */
  readonly write: (line: string, level: LogLevel) => void;
  /** Wall-clock milliseconds. */
  readonly nowMs: () => number;
  readonly fields?: LogFields;
}

/** A level that every thread of a process shares and that may change while it runs. */
export class LogLevelCell {
  readonly #at: Int32Array;

  /** The level is that of `buffer` where one is given, as another thread's `buffer` says. */
  constructor(source: LogLevel | SharedArrayBuffer) {
    const isBuffer = typeof source !== "string";
    this.#at = new Int32Array(isBuffer ? source : new SharedArrayBuffer(4));
    if (!isBuffer) this.set(source);
  }

  /** What to give to another thread. */
  get buffer(): SharedArrayBuffer {
    return this.#at.buffer as SharedArrayBuffer;
  }

  /** Position of the level in `LEVELS`. */
  get index(): number {
    return Atomics.load(this.#at, 0);
  }

  /** Counts for every logger of the cell from its next line on. */
  set(level: LogLevel): void {
    Atomics.store(this.#at, 0, LEVELS.indexOf(level));
  }
}

/** Creates a logger; lines are written synchronously, in order. */
export function createLogger(options: LoggerOptions): Logger {
  const { level } = options;
  const cell = typeof level === "string" ? new LogLevelCell(level) : level;
  const base = options.fields ?? {};
  const writer =
    (level: LogLevel): LogFunction =>
    (event, msg, fields) => {
      const time = new Date(options.nowMs()).toISOString();
      const line = { level, time, event, msg, ...base, ...fields };
      options.write(`${JSON.stringify(line, jsonSafe)}\n`, level);
    };
  const [error, warn, info, debug, trace] = [
    writer("error"),
    writer("warn"),
    writer("info"),
    writer("debug"),
    writer("trace"),
  ];
  const from = (at: number, log: LogFunction): LogFunction | undefined =>
    cell.index >= at ? log : undefined;
  return {
    error,
    get warn() {
      return from(1, warn);
    },
    get info() {
      return from(2, info);
    },
    get debug() {
      return from(3, debug);
    },
    get trace() {
      return from(4, trace);
    },
    with: (fields) => createLogger({ ...options, level: cell, fields: { ...base, ...fields } }),
  };
}

/** The levels in order of severity, for validation of config and flags. */
export const LEVELS: readonly LogLevel[] = ["error", "warn", "info", "debug", "trace"];

function jsonSafe(_key: string, value: unknown): unknown {
  if (typeof value === "bigint") return value.toString();
  if (value instanceof Error) return value.message;
  return value;
}
