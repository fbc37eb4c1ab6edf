/**
 * Connections by client, so that one client cannot have them all. A client is an IPv4 address, or
 * the first 64 bits of an IPv6 address: whoever has one address of such a network has all of them.
 *
 * Counted for the whole process in shared memory of a fixed size, as a count-min sketch (Cormode and
 * Muthukrishnan, 2005): each client adds to one cell in each of four rows, which a salted hash
 * chooses, and has as many connections as the least of its cells says. No client is ever let above
 * the limit. One may be refused below it, if in every row others share its cell that make up the
 * difference: with C connections, a limit L and n of its own at most (C / ((L - n) x 65,536))^4,
 * which at the defaults and n = 0 is 5 in 10^16. Two threads that reach the limit at the same moment
 * may both be refused the last one.
 */
import type { SaltedHash } from "#base/salted-hash.ts";
import type { SharedCounts } from "#base/shared-counts.ts";

/** Counters that `ClientCounts` needs. */
export const CLIENT_CELLS = 4 * 65_536;

/** What clients are counted in. */
export interface ClientCountsOptions {
  readonly counts: SharedCounts;
  /** First of `CLIENT_CELLS` counters. */
  readonly at: number;
  readonly hash: SaltedHash;
  /** Connections per client; 0 = any number. */
  readonly max: number;
}

/** Counts of all data-plane threads. */
export class ClientCounts {
  readonly #counts: SharedCounts;
  readonly #hash: SaltedHash;
  readonly #max: number;
  readonly #base: number;

  constructor({ counts, at, hash, max }: ClientCountsOptions) {
    this.#counts = counts;
    this.#hash = hash;
    this.#max = max;
    this.#base = at;
  }

  /** Counts one more; false = it has as many as it may, and nothing was counted. */
  take(address: string): boolean {
    if (this.#max === 0) return true;
    const counts = this.#counts;
    this.#hash.take(clientOf(address));
    // Whoever has its full share adds nothing, not even for a moment: others share its cells.
    if (this.#least() >= this.#max) return false;
    for (let row = 0; row < ROWS; row += 1) counts.add(this.#cell(row));
    // Read after all was added: of those that get in, the last to add sees all the others.
    if (this.#least() <= this.#max) return true;
    for (let row = 0; row < ROWS; row += 1) counts.give(this.#cell(row));
    return false;
  }

  /** One of them is closed; pair with a `take` that said true. */
  give(address: string): void {
    if (this.#max === 0) return;
    this.#hash.take(clientOf(address));
    for (let row = 0; row < ROWS; row += 1) this.#counts.give(this.#cell(row));
  }

  /** The least of the cells of the client that was hashed last: it has no more than that. */
  #least(): number {
    let least = Infinity;
    for (let row = 0; row < ROWS; row += 1) {
      const count = this.#counts.count(this.#cell(row));
      if (count < least) least = count;
    }
    return least;
  }

  #cell(row: number): number {
    const { low, high } = this.#hash;
    const half = row < 2 ? low : high;
    return this.#base + row * ROW_CELLS + ((row & 1) === 0 ? half & 0xffff : half >>> 16);
  }
}

/** What stands for a client: the address, or four groups of an IPv6 one. */
export function clientOf(address: string): string {
  if (address.startsWith("::ffff:") && address.includes(".")) return address.slice(7);
  if (!address.includes(":")) return address;
  const [head = "", tail] = address.split("::");
  const groups = head === "" ? [] : head.split(":");
  const after = tail === undefined || tail === "" ? 0 : tail.split(":").length;
  const missing = tail === undefined ? 0 : Math.max(0, 8 - groups.length - after);
  const all = [
    ...groups,
    ...Array.from({ length: missing }, () => "0"),
    ...(tail ?? "").split(":"),
  ];
  return `${all.slice(0, 4).join(":")}::/64`;
}

/** A quarter of a 64-bit hash each. */
const ROWS = 4;
const ROW_CELLS = 65_536;
