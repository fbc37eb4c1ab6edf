/**
 * The contract that everything that decides fulfils: a state machine with no I/O, clock or
 * randomness of its own.
 *
 * Time, randomness and bytes come in as arguments; sends, timers, writes and notifications go out
 * as values. A driver feeds it from real sockets and one timer; the simulator feeds it from virtual
 * time. Both run the same machine.
 */

/** A state machine whose effects are values. */
export interface Machine<Input, Output> {
  /**
   * Takes one input at monotonic time `nowMs`. Total: bad peer data is counted, not thrown. Never
   * awaits and never performs I/O.
   */
  handle(input: Input, nowMs: number): void;
  /** Takes out the effects queued since the last call, in the order they must be performed. */
  drain(): Output[];
  /** Monotonic milliseconds at which `handle({ kind: "tick" })` is next due; `Infinity` = never. */
  deadlineMs(): number;
}

/** A value that can be had, or the reason why not; for hostile or broken input, which never throws. */
export type Result<Value, Failure> =
  | { readonly ok: true; readonly value: Value }
  | { readonly ok: false; readonly error: Failure };

/** Wraps a value as a success. */
export function success<Value>(value: Value): { readonly ok: true; readonly value: Value } {
  return { ok: true, value };
}

/** Wraps the reason of a failure. */
export function failure<Failure>(error: Failure): { readonly ok: false; readonly error: Failure } {
  return { ok: false, error };
}
