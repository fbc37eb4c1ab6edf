/**
 * Requests in flight per machine service, counted in memory that all data-plane threads share.
 *
 * A table of slots with open addressing: every thread that holds a service finds the same slot by the
 * service's 64-bit hash, and counts there. A thread holds a service from when its table has it until
 * the table has it no more and the thread has nothing in flight on it. What no thread holds is free
 * for another service. When all places of a service are taken it gets the overflow slot 0, which
 * counts nothing, so such a service is never over a limit rather than wrongly full.
 *
 * Slots change hands under a version: even at rest, odd while one thread writes. Whoever wants to
 * change something looks at the version, finds its place, and makes the version odd only if nobody
 * came in between (compare-and-swap). What follows is a few stores without a call or a loop, where a
 * thread that is terminated cannot stop half-way. Counting itself is one atomic step, and needs none
 * of this.
 *
 * A thread that may end alone keeps what it counts and holds in memory that others can read, so that
 * they can take it out when the thread is gone.
 *
 * Layout: `Int32`; slots `[version | (hash low | hash high | holding threads) x capacity]`, where a
 * free slot has 0 in all three; counts and holds one cell per slot. Slot 0 is the overflow slot.
 */
import { SaltedHash, type Salt } from "#base/salted-hash.ts";
import { SharedCounts } from "#base/shared-counts.ts";

/** What a thread needs to count with the others. */
export interface LoadPlan {
  readonly salt: Salt;
  readonly slots: SharedArrayBuffer;
  /** Requests in flight of all threads. */
  readonly counts: SharedArrayBuffer;
  /** Those of this thread. */
  readonly share: SharedArrayBuffer;
  /** How often this thread's table has the service of a slot. */
  readonly holds: SharedArrayBuffer;
}

/** Counters of requests in flight, as one thread sees them. */
export class LoadSlots {
  readonly #plan: LoadPlan;
  readonly #cells: Int32Array;
  readonly #capacity: number;
  readonly #counts: SharedCounts;
  /** The same memory. */
  readonly #inFlight: Int32Array;
  readonly #own: Int32Array;
  readonly #holds: Int32Array;
  readonly #hash: SaltedHash;
  /** Slots that this thread holds only for what it has in flight. */
  #leaving = 0;

  constructor(plan: LoadPlan) {
    this.#plan = plan;
    this.#cells = new Int32Array(plan.slots);
    this.#capacity = (this.#cells.length - 1) / CELLS;
    this.#counts = new SharedCounts(plan);
    this.#inFlight = new Int32Array(plan.counts);
    this.#own = new Int32Array(plan.share);
    this.#holds = new Int32Array(plan.holds);
    this.#hash = new SaltedHash(plan.salt);
  }

  /**
   * Memory for a process, with the plan of its first thread. `capacity` is the number of services at
   * one time that can be told apart; default 65,536 (1 MiB, and 512 KiB per thread). A salt is for
   * where others choose the ids of machines.
   */
  static allocate({ capacity = DEFAULT_CAPACITY, salt = [0, 0] }: LoadSlotsOptions): LoadPlan {
    const cells = (count: number): SharedArrayBuffer => SharedCounts.allocate(count);
    const slots = cells(1 + capacity * CELLS);
    const [counts, share, holds] = [cells(capacity), cells(capacity), cells(capacity)] as const;
    return { salt, slots, counts, share, holds };
  }

  /** The plan of a further thread. */
  planOfThread(): LoadPlan {
    const share = SharedCounts.allocate(this.#capacity);
    return { ...this.#plan, share, holds: SharedCounts.allocate(this.#capacity) };
  }

  /**
   * The slot of a service, the same in every thread, until `letGo`, which is owed once per call. 0 =
   * there is none left.
   */
  hold(key: string): number {
    this.#hash.take(key);
    // Neither half is ever 0, which marks a free slot.
    const low = this.#hash.low || 1;
    const high = this.#hash.high || 1;
    for (;;) {
      const version = this.#settled();
      const slot = this.#find(low, high);
      if (slot === 0) return 0;
      if (this.#isHolding(slot)) {
        this.#holdAgain(slot);
        return slot;
      }
      const cells = this.#cells;
      const at = 1 + slot * CELLS;
      if (Atomics.compareExchange(cells, 0, version, (version + 1) | 0) !== version) continue;
      this.#holds[slot] = 1;
      Atomics.store(cells, at, low);
      Atomics.store(cells, at + 1, high);
      Atomics.add(cells, at + 2, 1);
      Atomics.store(cells, 0, (version + 2) | 0);
      return slot;
    }
  }

  /** The table has the service no more; what is in flight still counts until it is over. */
  letGo(slot: number): void {
    if (slot === 0) return;
    const holds = (this.#holds[slot] as number) - 1;
    if (holds === 0 && this.#own[slot] === 0) return this.#release(slot, this.#holds);
    this.#holds[slot] = holds;
    if (holds === 0) this.#leaving += 1;
  }

  /** Requests in flight. */
  inFlight(slot: number): number {
    return slot === 0 ? 0 : this.#counts.count(slot);
  }

  /**
   * Counts one request more on a slot that is held, unless there are `max` already in all threads; 0
   * = any number. False = nothing was counted.
   */
  take(slot: number, max: number): boolean {
    if (slot === 0) return true;
    if (max > 0) return this.#counts.take(slot, max);
    this.#counts.add(slot);
    return true;
  }

  /** Counts one request less. Call once per `take` that said true. */
  give(slot: number): void {
    if (slot === 0) return;
    this.#counts.give(slot);
    if (this.#leaving === 0 || this.#own[slot] !== 0 || this.#holds[slot] !== 0) return;
    this.#leaving -= 1;
    this.#release(slot, this.#holds);
  }

  /**
   * Takes out what a thread that has ended counted as in flight, lets go of what it held, and clears
   * both. It must run no more. A thread that ended between its two steps of one count leaves that
   * count wrong by one until its slot is free. O(capacity).
   */
  forget({ share, holds }: Pick<LoadPlan, "share" | "holds">): void {
    const inFlight = new Int32Array(share);
    const held = new Int32Array(holds);
    const isHeld = held.map((count, slot) => (count > 0 || inFlight[slot] !== 0 ? 1 : 0));
    this.#counts.forget(share);
    for (const [slot, one] of isHeld.entries()) if (one === 1) this.#release(slot, held);
  }

  #isHolding(slot: number): boolean {
    return this.#holds[slot] !== 0 || this.#own[slot] !== 0;
  }

  #holdAgain(slot: number): void {
    const holds = this.#holds[slot] as number;
    if (holds === 0) this.#leaving -= 1;
    this.#holds[slot] = holds + 1;
  }

  /** One thread holds the slot no more; `holds` are that thread's. */
  #release(slot: number, holds: Int32Array): void {
    const cells = this.#cells;
    const at = 1 + slot * CELLS;
    for (;;) {
      const version = this.#settled();
      const threads = Atomics.load(cells, at + 2) - 1;
      const isFree = threads === 0;
      if (Atomics.compareExchange(cells, 0, version, (version + 1) | 0) !== version) continue;
      holds[slot] = 0;
      Atomics.store(cells, at + 2, threads);
      if (isFree) {
        Atomics.store(cells, at, 0);
        Atomics.store(cells, at + 1, 0);
        Atomics.store(this.#inFlight, slot, 0);
      }
      Atomics.store(cells, 0, (version + 2) | 0);
      return;
    }
  }

  /** The slot of a hash; else one that is free; 0 = there is neither. */
  #find(low: number, high: number): number {
    const cells = this.#cells;
    const span = this.#capacity - 1;
    let slot = 1 + ((low >>> 0) % span);
    let free = 0;
    for (let probe = Math.min(PROBES_MAX, span); probe > 0; probe -= 1) {
      const at = 1 + slot * CELLS;
      // Plain reads, which cost a tenth: the version says whether they were worth anything.
      const held = cells[at] as number;
      // What was given back leaves holes: only the last place proves that the hash has none.
      if (held === low && cells[at + 1] === high) return slot;
      if (held === 0 && free === 0) free = slot;
      slot = slot === span ? 1 : slot + 1;
    }
    return free;
  }

  /** The version, when nobody is writing: that takes less than a microsecond, unless it is put off. */
  #settled(): number {
    for (;;) {
      const version = Atomics.load(this.#cells, 0);
      if ((version & 1) === 0) return version;
      Atomics.wait(this.#cells, 0, version, 1);
    }
  }
}

/** How the memory is made. */
export interface LoadSlotsOptions {
  readonly capacity?: number;
  readonly salt?: Salt;
}

const CELLS = 3;
/** Ten times the services of a busy region. */
const DEFAULT_CAPACITY = 65_536;
/** Long enough for a table nine tenths full; bounds the cost of a full one. */
const PROBES_MAX = 64;
