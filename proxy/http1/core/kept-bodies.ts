/**
 * Memory for short request bodies that may have to be sent again: one block per request, so many in
 * all and no more. Blocks are used again for request after request.
 */
import type { Places } from "./wait-queue.ts";

/** How much is kept. */
export interface KeptBodiesOptions {
  /** Of one body; 0 = none is kept. */
  readonly bytesMax: number;
  /** One for each body that is kept at the moment, maybe shared with other threads. */
  readonly places: Places;
}

/** The blocks of one engine. */
export class KeptBodies {
  readonly #bytesMax: number;
  readonly #places: Places;
  readonly #spares: Uint8Array[] = [];

  constructor({ bytesMax, places }: KeptBodiesOptions) {
    this.#bytesMax = bytesMax;
    this.#places = places;
  }

  /** A block for a body that begins with so many bytes; null = it is too long, or no place is left. */
  take(bytes: number): Uint8Array | null {
    if (bytes > this.#bytesMax || !this.#places.take()) return null;
    return this.#spares.pop() ?? new Uint8Array(this.#bytesMax);
  }

  /** Once per block: nobody reads it any more. */
  give(block: Uint8Array): void {
    this.#places.give();
    if (this.#spares.length < SPARES_MAX) this.#spares.push(block);
  }
}

/** Beyond that they were for a burst: 1 MiB at the default size. */
const SPARES_MAX = 64;
