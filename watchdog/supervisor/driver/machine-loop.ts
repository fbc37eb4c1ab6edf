/**
 * Runs a machine by the monotonic clock of this process: what it wants done is done at once, and it
 * gets its tick when that is due.
 */
import type { Machine } from "#base/machine.ts";

/** What every machine takes when its time has come. */
export interface Tick {
  readonly kind: "tick";
}

/** One machine and its timer. */
export class MachineLoop<Input, Output> {
  readonly #machine: Machine<Input | Tick, Output>;
  readonly #perform: (output: Output) => void;
  readonly #keepsAlive: boolean;
  #timer: NodeJS.Timeout | undefined;

  /** `keepsAlive`: whether the process waits for the tick that is due. Default true. */
  constructor(
    machine: Machine<Input | Tick, Output>,
    perform: (output: Output) => void,
    { keepsAlive = true }: { readonly keepsAlive?: boolean } = {},
  ) {
    this.#machine = machine;
    this.#perform = perform;
    this.#keepsAlive = keepsAlive;
  }

  /** Gives the machine an input; what it wants done may lead to the next one. */
  run(input: Input | Tick): void {
    this.#machine.handle(input, performance.now());
    for (const output of this.#machine.drain()) this.#perform(output);
    this.stop();
    const dueMs = this.#machine.deadlineMs();
    if (dueMs === Infinity) return;
    const waitMs = Math.max(Math.ceil(dueMs - performance.now()), 1);
    this.#timer = setTimeout(() => this.run({ kind: "tick" }), waitMs);
    if (!this.#keepsAlive) this.#timer.unref();
  }

  /** No tick comes any more, until the next `run`. */
  stop(): void {
    clearTimeout(this.#timer);
  }
}
