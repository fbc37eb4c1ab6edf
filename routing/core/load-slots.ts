/**
 * Requests in flight per machine service, counted in memory that all data-plane threads share.
 *
 * An open-addressing table: a service's 64-bit hash claims a slot once with compare-and-swap, from
 * any thread, and every thread then adds to the same counter. Slots are never given back while the
 * process lives; once the table is full, further services share the overflow slot 0, which counts
 * nothing, so such a service is never over a limit rather than wrongly full.
 *
 * A thread that may end alone also keeps what it counted itself, in a buffer of its own, so that the
 * others can take it out when the thread is gone.
 *
 * Layout: `Int32 x 3` per slot: `[hash low | hash high | in flight]`; slot 0 is the overflow slot. A
 * thread's share: `Int32` per slot.
 */

/** Counters of requests in flight, shared by the threads that hold the same buffer. */
export class LoadSlots {
  readonly buffer: SharedArrayBuffer;
  readonly #cells: Int32Array;
  readonly #capacity: number;
  readonly #share: Int32Array | null;
  /** Services that found no free slot. */
  overflowed = 0;

  /**
   * `capacity` is the number of services that can be told apart; default 65,536 (768 KiB). `share`
   * comes from `createShare` and is written by one thread.
   */
  constructor(
    source: { capacity?: number } | { buffer: SharedArrayBuffer; share?: SharedArrayBuffer | null },
  ) {
    this.buffer =
      "buffer" in source
        ? source.buffer
        : new SharedArrayBuffer((source.capacity ?? DEFAULT_CAPACITY) * CELLS * 4);
    this.#cells = new Int32Array(this.buffer);
    this.#capacity = this.#cells.length / CELLS;
    const share = "buffer" in source ? source.share : null;
    this.#share = share ? new Int32Array(share) : null;
  }

  /** Memory for what one thread counts itself; it is touched only where the thread counts. */
  createShare(): SharedArrayBuffer {
    return new SharedArrayBuffer(this.#capacity * 4);
  }

  /**
   * Takes out what a thread that has ended counted as in flight, and clears its share. It must run no
   * more. A thread that ended between its two steps of one count leaves that count wrong by one.
   * O(capacity).
   */
  forget(share: SharedArrayBuffer): void {
    const counts = new Int32Array(share);
    for (const [slot, count] of counts.entries()) {
      if (count !== 0) Atomics.sub(this.#cells, slot * CELLS + 2, count);
    }
    counts.fill(0);
  }

  /** The slot of a service, claimed when it has none. Same key, same slot, in every thread. */
  slotFor(key: string): number {
    const [low, high] = hash64(key);
    const span = this.#capacity - 1;
    let slot = 1 + ((low >>> 0) % span);
    for (let probe = 0; probe < PROBES_MAX; probe++) {
      const at = slot * CELLS;
      const held = Atomics.compareExchange(this.#cells, at, 0, low);
      if (held === 0) {
        Atomics.store(this.#cells, at + 1, high);
        return slot;
      }
      // Another thread may have claimed `low` and not yet written `high`: 0 there means "being
      // written", and only the same key hashes to the same `low` in practice.
      const heldHigh = Atomics.load(this.#cells, at + 1);
      if (held === low && (heldHigh === high || heldHigh === 0)) return slot;
      slot = slot === span ? 1 : slot + 1;
    }
    this.overflowed++;
    return 0;
  }

  /** Requests in flight. */
  inFlight(slot: number): number {
    return slot === 0 ? 0 : Atomics.load(this.#cells, slot * CELLS + 2);
  }

  /** Counts one request more. */
  add(slot: number): void {
    if (slot === 0) return;
    Atomics.add(this.#cells, slot * CELLS + 2, 1);
    if (this.#share !== null) this.#share[slot] = (this.#share[slot] ?? 0) + 1;
  }

  /** Counts one request less. Call once per `add`. */
  remove(slot: number): void {
    if (slot === 0) return;
    Atomics.sub(this.#cells, slot * CELLS + 2, 1);
    if (this.#share !== null) this.#share[slot] = (this.#share[slot] ?? 0) - 1;
  }
}

/** FNV-1a twice with different offsets; neither half is ever 0, which marks a free slot. */
function hash64(key: string): [number, number] {
  let low = 0x811c9dc5;
  let high = 0x9747b28c;
  for (let index = 0; index < key.length; index++) {
    const code = key.charCodeAt(index);
    low = Math.imul(low ^ code, 0x01000193);
    high = Math.imul(high ^ code, 0x85ebca6b) ^ (high >>> 13);
  }
  return [low | 0 || 1, high | 0 || 1];
}

const CELLS = 3;
/** Ten times the services of a busy region. */
const DEFAULT_CAPACITY = 65_536;
/** Long enough for a table nine tenths full; bounds the cost of a full one. */
const PROBES_MAX = 64;
