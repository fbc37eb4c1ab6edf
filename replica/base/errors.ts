/**
 * Operating errors: something outside went wrong (a connect refused, a busy store) and somebody can
 * decide what to do about it.
 *
 * One class, many codes: each folder declares its codes once in its `errors.ts` with meaning, effect
 * on state, whether a retry can help, and the HTTP status if it can reach a client.
 */

/** An operating error with a stable code that logs, metrics and clients can rely on. */
export class PatinaError extends Error {
  override readonly name = "PatinaError";
  /** Stable, upper-case, prefixed by its area: `ROUTE_NONE`, `STORE_BUSY`. */
  readonly code: string;
  /** Typed facts for the log line; never needed to understand the message. */
  readonly details: Readonly<Record<string, unknown>>;

  constructor(
    code: string,
    message: string,
    options: { cause?: unknown; details?: Readonly<Record<string, unknown>> } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.details = options.details ?? {};
  }
}

/** What is true of every error of one code; `errors.ts` of each folder has a table of them. */
export interface ErrorKind {
  readonly meaning: string;
  /** What it did to the state. */
  readonly effect: string;
  /** Whether trying again can help. */
  readonly retryable: boolean;
}

/** The message of anything that was thrown, for a log line. */
export function errorText(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}

/** Fails on a broken invariant: a bug of ours, so the process must not go on. */
export function assert(condition: unknown, claim: string): asserts condition {
  if (!condition) throw new Error(`invariant broken: ${claim}`);
}
