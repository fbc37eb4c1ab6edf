/**
 * Seeded randomness: the same seed gives the same numbers on every platform, so that a whole run is
 * a function of its seed.
 *
 * The generator is sfc32 (Chris Doty-Humphrey, PractRand): 128 bits of state, fast in 32-bit
 * arithmetic, passes BigCrush. It is not for secrets. A production driver seeds it from the system's
 * entropy; a simulation from its seed.
 */

/** A source of random numbers. Every draw advances it, so the order of calls matters. */
export interface Prng {
  /** A number in [0, 1) with 32 random bits. */
  next(): number;
  /** A whole number in [0, `bound`); 0 when `bound` is 0 or 1. `bound` is at most 2^32. */
  below(bound: number): number;
  /** One element, each equally likely; `undefined` of an empty array. */
  pick<Item>(items: readonly Item[]): Item | undefined;
  /** Up to `count` distinct elements in random order, in a fresh array. Copies the input. */
  sample<Item>(items: readonly Item[], count: number): Item[];
  /** Reorders the array in place (Fisher-Yates); every order is equally likely. Returns it. */
  shuffle<Item>(items: Item[]): Item[];
}

/**
 * Creates a generator. `seed` is one number or up to four; each is taken as 32 bits. Nearby seeds
 * give unrelated sequences.
 */
export function createPrng(seed: number | readonly number[]): Prng {
  return new Sfc32(typeof seed === "number" ? [seed] : seed);
}

class Sfc32 implements Prng {
  #a: number;
  #b: number;
  #c: number;
  /** Counter that keeps the period above 2^32 whatever the rest of the state is. */
  #counter = 1;

  constructor(seed: readonly number[]) {
    this.#a = seed[0] ?? 0;
    this.#b = seed[1] ?? 0;
    this.#c = seed[2] ?? 0;
    this.#counter = ((seed[3] ?? 0) + 1) | 0;
    for (let round = 0; round < WARM_UP_ROUNDS; round += 1) this.#draw();
  }

  next(): number {
    return this.#draw() / 4_294_967_296;
  }

  below(bound: number): number {
    return Math.floor(this.next() * bound);
  }

  pick<Item>(items: readonly Item[]): Item | undefined {
    return items[this.below(items.length)];
  }

  sample<Item>(items: readonly Item[], count: number): Item[] {
    const rest = items.slice();
    const wanted = Math.min(count, rest.length);
    for (let at = 0; at < wanted; at += 1) {
      const other = at + this.below(rest.length - at);
      const chosen = rest[other] as Item;
      rest[other] = rest[at] as Item;
      rest[at] = chosen;
    }
    rest.length = wanted;
    return rest;
  }

  shuffle<Item>(items: Item[]): Item[] {
    for (let last = items.length - 1; last > 0; last -= 1) {
      const other = this.below(last + 1);
      const moved = items[last] as Item;
      items[last] = items[other] as Item;
      items[other] = moved;
    }
    return items;
  }

  #draw(): number {
    const sum = (this.#a + this.#b + this.#counter) | 0;
    this.#counter = (this.#counter + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + sum) | 0;
    return sum >>> 0;
  }
}

/** Rounds until every bit of the seed has reached every bit of the state; PractRand's figure is 12. */
const WARM_UP_ROUNDS = 15;
