/**
 * Slows down what one origin has broadcast when it writes too much: its changed rows are paced, and
 * while they wait only the newest value of each cell stays (`held-rows.ts`).
 *
 * A token bucket of rows: `limit` a second, ten seconds of it at once, so that a host's start and
 * a transaction of a few hundred rows pass. What is beyond waits in order of its version. Urgent
 * changes never wait and take along what waits of their rows, so that nobody gets half a row.
 *
 *   offered ──tokens, nothing waits──────────────────────────────► released
 *      │ else: cells of those that wait are taken over                ▲  ▲
 *      └──► waits, oldest first ──tokens, about each 100 ms───────────┘  │ as Empty, versions that died,
 *                  │                                                     │ once what took their cells
 *                  └── 40 s, or too many ──► left to sync          urgent  has left and is kept
 *
 * Sync is the second way out: it reads the database, where a row has one value. While something waits
 * the head that it is told moves each ten seconds only, so that a row in a loop of writes goes
 * that way at most as often; and what has waited for three times as long has gone that way already.
 *
 * The limit follows the history: four times the mean of the last ten minutes, not counting times of
 * braking, within the bounds of the config. Nothing here is kept over a restart: what waited then
 * goes by sync.
 */
import type { Prng } from "#base/prng.ts";
import type { FullChangeset, VersionRange } from "../../types.ts";
import { countRows, HeldRows, type HeldVersion } from "./held-rows.ts";

/** Bounds of the limit, in changed rows per second of one origin. */
export interface BrakeConfig {
  readonly isEnabled: boolean;
  readonly rowsPerSecondMin: number;
  readonly rowsPerSecondMax: number;
}

/** What may be broadcast, in this order. */
export type Released<Carried> =
  | {
      readonly kind: "version";
      readonly changesets: readonly FullChangeset[];
      readonly carried: Carried;
    }
  | { readonly kind: "empty"; readonly versions: VersionRange; readonly ts: bigint | null };

/** One version that is to be broadcast. */
export interface Offer<Carried> {
  readonly changesets: readonly FullChangeset[];
  readonly carried: Carried;
  /** `urgent` passes, and so does `whole: false`: chunks without the others of their version. */
  readonly isUrgent: boolean;
  readonly isWhole: boolean;
}

/** Plain counters since the start. */
export interface BrakeStats {
  /** Rows that waited. */
  rowsHeld: number;
  /** Of these, rows of which a newer value came before they left. */
  rowsCoalesced: number;
  /** Of these, rows that were given up: sync has brought them, or will. */
  rowsLeftToSync: number;
}

/** The defaults of `[replica.brake]`. */
export const BRAKE_DEFAULTS: BrakeConfig = {
  isEnabled: true,
  rowsPerSecondMin: 50,
  rowsPerSecondMax: 200,
};

/** What a brake is made of. */
export interface BrakeOptions {
  readonly prng: Prng;
  /** May be shared by many. */
  readonly stats: BrakeStats;
  /** Whether this version outlives the loss of the one who wrote it, or of what it wrote last. */
  readonly isKept: (version: number) => boolean;
}

/** The brake of one origin. */
export class Brake<Carried> {
  readonly #config: BrakeConfig;
  readonly #prng: Prng;
  readonly #stats: BrakeStats;
  readonly #held = new HeldRows<Carried>();
  /** Rows that may leave at once; below zero = owed. */
  #level: number;
  /** Mean rows per second of the last ten minutes, as of `#atMs`. */
  #mean: number;
  #atMs = Number.NEGATIVE_INFINITY;
  #nextReleaseMs = Number.POSITIVE_INFINITY;
  #lastHeldMs = Number.NEGATIVE_INFINITY;
  #isOn = false;
  #isFlushing = false;
  readonly #isKept: (version: number) => boolean;
  /** A version that has left and has to be kept before those it emptied are told of; 0 = none. */
  #unkept = 0;
  /** What sync is told while something waits. */
  #told = { head: 0, atMs: 0 };
  #released: Released<Carried>[] = [];

  constructor(config: BrakeConfig, of: BrakeOptions) {
    this.#config = config;
    this.#prng = of.prng;
    this.#stats = of.stats;
    this.#isKept = of.isKept;
    // Without a history the upper bound holds.
    this.#mean = config.rowsPerSecondMax / MEAN_FACTOR;
    this.#level = config.rowsPerSecondMax * BURST_SECONDS;
  }

  /** Whether something waits, or did a moment ago. */
  get isOn(): boolean {
    return this.#isOn;
  }

  /** Rows per second that may leave. */
  get limit(): number {
    const { rowsPerSecondMin, rowsPerSecondMax } = this.#config;
    return Math.max(rowsPerSecondMin, Math.min(rowsPerSecondMax, MEAN_FACTOR * this.#mean));
  }

  /** Rows that wait. */
  get rows(): number {
    return this.#held.rows;
  }

  /** Whether this version waits here. */
  has(version: number): boolean {
    return this.#held.has(version);
  }

  /** The version to be kept before more can be told of; 0 = none. See `noteKept`. */
  get unkept(): number {
    return this.#unkept;
  }

  /** More is kept than when `unkept` was asked for. */
  noteKept(): void {
    this.#tellDead([]);
  }

  /** Takes a version in; `drain` gives what may be broadcast. */
  offer(offer: Offer<Carried>, nowMs: number): void {
    if (!this.#config.isEnabled) return this.#pass(offer);
    this.#advance(nowMs);
    const rows = countRows(offer.changesets);
    this.#stats.rowsCoalesced += this.#held.supersede(offer.changesets);
    if (offer.isUrgent || !offer.isWhole) {
      for (const held of this.#held.touchedBy(offer.changesets)) this.#release(held);
    } else if (this.#held.size > 0 || this.#level <= 0) {
      return this.#hold(offer, rows, nowMs);
    }
    this.#take(rows);
    this.#tellDead(offer.changesets);
    this.#pass(offer);
  }

  /** Lets go what is due. */
  tick(nowMs: number): void {
    if (nowMs < this.deadlineMs()) return;
    this.#advance(nowMs);
    if (nowMs >= this.#nextReleaseMs) this.#releaseSome(nowMs);
    if (this.#held.size > 0) return;
    this.#tellDead([]);
    if (this.#held.dead > 0) return;
    this.#nextReleaseMs = Number.POSITIVE_INFINITY;
    if (nowMs >= this.#lastHeldMs + CALM_MS) this.#isOn = false;
  }

  /** Lets go everything, also what is not kept yet: it is about to be, for the store is closed next. */
  flush(): void {
    this.#isFlushing = true;
    for (let held = this.#held.first(); held !== undefined; held = this.#held.first()) {
      this.#release(held);
    }
    this.#tellDead([]);
    this.#isFlushing = false;
  }

  drain(): Released<Carried>[] {
    const released = this.#released;
    if (released.length > 0) this.#released = [];
    return released;
  }

  deadlineMs(): number {
    if (!this.#isOn) return Number.POSITIVE_INFINITY;
    const isWaiting = this.#held.size > 0 || this.#held.dead > 0;
    return isWaiting ? this.#nextReleaseMs : this.#lastHeldMs + CALM_MS;
  }

  /** The head that sync may know of, when it is `head` in truth. */
  headForSync(head: number, nowMs: number): number {
    if (this.#held.size === 0) return head;
    if (nowMs >= this.#told.atMs + TELL_SYNC_MS) this.#told = { head, atMs: nowMs };
    return Math.min(head, this.#told.head);
  }

  #pass({ changesets, carried }: Offer<Carried>): void {
    this.#released.push({ kind: "version", changesets, carried });
  }

  #hold({ changesets, carried }: Offer<Carried>, rows: number, nowMs: number): void {
    const version = changesets[0]?.version ?? 0;
    if (this.#held.size === 0) {
      if (!this.#isOn) this.#told = { head: version - 1, atMs: nowMs };
      this.#planRelease(nowMs);
    }
    this.#isOn = true;
    this.#lastHeldMs = nowMs;
    this.#stats.rowsHeld += rows;
    this.#held.add({ changesets, carried, bornMs: nowMs });
    while (this.#held.rows > HELD_ROWS_MAX && this.#held.size > 1) this.#leaveToSync();
  }

  /** At random around the mean: rows that are rewritten in a regular loop all get their turn. */
  #planRelease(nowMs: number): void {
    this.#nextReleaseMs = nowMs + RELEASE_MS * (0.5 + this.#prng.next());
  }

  #releaseSome(nowMs: number): void {
    this.#held.forgetDead(nowMs - HELD_MS_MAX);
    for (let held = this.#held.first(); held !== undefined; held = this.#held.first()) {
      if (held.bornMs < nowMs - HELD_MS_MAX) {
        this.#leaveToSync();
        continue;
      }
      if (this.#level <= 0) break;
      this.#take(held.cells.size);
      this.#release(held);
    }
    this.#planRelease(nowMs);
  }

  /**
   * Empty before full, because receivers handle the last frame of a stream first: they believe an
   * Empty only below a version that they know of.
   */
  #release(held: HeldVersion<Carried>): void {
    const { changesets, carried } = held;
    this.#held.remove(held);
    this.#tellDead(changesets);
    this.#released.push({ kind: "version", changesets, carried });
  }

  /** `before`: what is released next. */
  #tellDead(before: readonly FullChangeset[]): void {
    const ts = before[0]?.ts ?? null;
    const { ranges, unkept } = this.#held.takeDead(
      (version) => this.#isFlushing || this.#isKept(version),
    );
    this.#unkept = unkept;
    for (const { start, end } of ranges) {
      for (let at = start; at <= end; at += EMPTY_VERSIONS_MAX) {
        const versions = { start: at, end: Math.min(end, at + EMPTY_VERSIONS_MAX - 1) };
        this.#released.push({ kind: "empty", versions, ts });
      }
    }
  }

  #leaveToSync(): void {
    const held = this.#held.first();
    if (held === undefined) return;
    this.#stats.rowsLeftToSync += held.cells.size;
    this.#held.remove(held);
  }

  #take(rows: number): void {
    // What one transaction owes is bounded: the origin's next word is never minutes away.
    this.#level = Math.max(-BURST_SECONDS * this.limit, this.#level - rows);
    if (this.#held.size === 0 && !this.#isOn) this.#mean += rows / MEAN_SECONDS;
  }

  #advance(nowMs: number): void {
    if (nowMs <= this.#atMs) return;
    const seconds = (nowMs - this.#atMs) / 1000;
    this.#atMs = nowMs;
    if (!Number.isFinite(seconds)) return;
    if (!this.#isOn) this.#mean *= Math.exp(-seconds / MEAN_SECONDS);
    const burst = BURST_SECONDS * this.limit;
    this.#level = Math.min(burst, this.#level + seconds * this.limit);
  }
}

/** A start of a host and its machines is over in one; a loop is not. */
const BURST_SECONDS = 10;
/** The memory of the history. */
const MEAN_SECONDS = 600;
/** So much more than usual is no storm yet. */
const MEAN_FACTOR = 4;
/** A stream of a few rows, rather than one for each. */
const RELEASE_MS = 100;
/** Quiet for so long, and the brake is off. */
const CALM_MS = 10_000;
const TELL_SYNC_MS = 10_000;
/** Sync was told of it by then, and had twice the longest pause between its rounds. */
const HELD_MS_MAX = TELL_SYNC_MS + 2 * 15_000;
/** Some tens of MB at worst. */
const HELD_ROWS_MAX = 20_000;
/** Receivers walk through every version of an Empty (protocol reference, 4.3). */
const EMPTY_VERSIONS_MAX = 1_000;
