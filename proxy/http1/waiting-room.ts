/**
 * Where requests wait while every machine of their app is at its hard limit. They try again when a
 * request of this thread is over, once per turn of the loop, and at every tick, because other
 * threads free machines too and the table may bring new ones.
 */
import { WaitQueue, type Places } from "./core/wait-queue.ts";

/** A request that waits. */
export interface Waiting {
  /** Tries to go on; true = it did, or has failed, and has left. */
  tryAgain(): boolean;
}

/** The waiting requests of one engine. */
export class WaitingRoom {
  readonly #queue: WaitQueue<Waiting>;
  readonly #onChange: (count: number) => void;
  #isServing = false;

  /** `onChange` hears how many wait. */
  constructor(places: Places, onChange: (count: number) => void) {
    this.#queue = new WaitQueue(places);
    this.#onChange = onChange;
  }

  /** Whether others wait for the same host. */
  has(host: string): boolean {
    return this.#queue.has(host);
  }

  /** Waits; false = there is no room. */
  enter(host: string, waiting: Waiting): boolean {
    const hasRoom = this.#queue.add(host, waiting);
    if (hasRoom) this.#onChange(this.#queue.count);
    return hasRoom;
  }

  /** Waits no longer. Idempotent. */
  leave(host: string, waiting: Waiting): void {
    this.#queue.remove(host, waiting);
    this.#onChange(this.#queue.count);
  }

  /** A machine has one request fewer. Costs a comparison when nobody waits. */
  freed(): void {
    if (this.#queue.count === 0 || this.#isServing) return;
    this.#isServing = true;
    setImmediate(() => this.serve());
  }

  /** Lets those who wait try again. */
  serve(): void {
    this.#isServing = false;
    if (this.#queue.count > 0) this.#queue.serve((waiting) => waiting.tryAgain());
  }
}
