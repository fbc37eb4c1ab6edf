/**
 * What waits to be sent to one peer: an urgent queue and an ordinary one, each first in, first out.
 *
 * The first ordinary entry after a quiet time is ready at once; the next ones wait until `coalesceMs`
 * after that stream, so that a burst shares streams while a single change never waits.
 */
import type { Address } from "../../types.ts";
import type { BroadcastEntry } from "./backlog.ts";

/** The queues of one peer. */
export class PeerLane {
  readonly address: Address;
  readonly #urgent = new Set<BroadcastEntry>();
  readonly #ordinary = new Set<BroadcastEntry>();
  #ordinaryBytes = 0;
  /** Streams without an answer. */
  inFlight = 0;
  /** Earliest time of the next ordinary stream below `flushBytes`. */
  notBeforeMs = Number.NEGATIVE_INFINITY;

  constructor(address: Address) {
    this.address = address;
  }

  /** Whether nothing waits. */
  get isEmpty(): boolean {
    return this.#urgent.size === 0 && this.#ordinary.size === 0;
  }

  /** Whether something urgent waits. */
  get hasUrgent(): boolean {
    return this.#urgent.size > 0;
  }

  /** Whether something ordinary waits. */
  get hasOrdinary(): boolean {
    return this.#ordinary.size > 0;
  }

  /** Payload bytes of the ordinary queue. */
  get ordinaryBytes(): number {
    return this.#ordinaryBytes;
  }

  /** Queues an entry by its urgency; nothing happens if it waits here already. */
  add(entry: BroadcastEntry): void {
    if (entry.lanes.has(this)) return;
    entry.lanes.add(this);
    if (entry.isUrgent) {
      this.#urgent.add(entry);
    } else {
      this.#ordinary.add(entry);
      this.#ordinaryBytes += entry.payload.length;
    }
  }

  /** Takes an entry out of whichever queue holds it. */
  remove(entry: BroadcastEntry): void {
    entry.lanes.delete(this);
    this.#urgent.delete(entry);
    if (this.#ordinary.delete(entry)) this.#ordinaryBytes -= entry.payload.length;
  }

  /** The ordinary entry that has waited longest. */
  oldestOrdinary(): BroadcastEntry | undefined {
    for (const entry of this.#ordinary) return entry;
    return undefined;
  }

  /** Takes out urgent entries for one stream: at least one, then as many as fit. */
  takeUrgent(bytesMax: number): BroadcastEntry[] {
    return this.#take(this.#urgent, bytesMax);
  }

  /** Takes out ordinary entries for one stream: at least one, then as many as fit. */
  takeOrdinary(bytesMax: number): BroadcastEntry[] {
    return this.#take(this.#ordinary, bytesMax);
  }

  /** Everything that waits, urgent first. */
  entries(): BroadcastEntry[] {
    return [...this.#urgent, ...this.#ordinary];
  }

  #take(queue: Set<BroadcastEntry>, bytesMax: number): BroadcastEntry[] {
    const taken: BroadcastEntry[] = [];
    let bytes = 0;
    for (const entry of queue) {
      bytes += entry.payload.length;
      if (taken.length > 0 && bytes > bytesMax) break;
      taken.push(entry);
      this.remove(entry);
    }
    return taken;
  }
}
