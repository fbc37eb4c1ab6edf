/**
 * Has two edges of the fleet apply a change of a shape that the table has never applied, and the
 * others wait until these two have had the time to stall.
 *
 * ```
 *  upsert ─► shape seen ────────────────────────────────► now
 *       └──► unseen ─► one of two lowest hashes ────────► now, and from then on seen
 *                 └──► another ─► waits `waitMs` ───────► due ─► one by one, from then on seen
 *                                    ├─ a notice of a victim: waits longer, see `immunity.ts`
 *                                    └─ a newer change of the row: dropped
 * ```
 *
 * What takes something out of service, and what has no shape (a delete), never waits. While a change
 * waits, the row before it stays in use. The two are chosen among the edges that are alive, by a hash
 * of the row's shape and the edge's actor id: every change of that shape goes to the same two, in
 * whatever order changes arrive. Before this edge knows who is alive it is neither of them.
 *
 * A table for which none were restored learns from what it applies, without waiting, until
 * `membersKnown`. No clock: `nowMs` is monotonic milliseconds.
 */
import { DelayQueue } from "#base/delay-queue.ts";
import type { ActorId, Watermark } from "../../replica/types.ts";
import type { RowChange } from "../types.ts";
import { isDown, keyText, rowId } from "./deny-set.ts";
import { Immunity, type StallNotice } from "./immunity.ts";
import type { ChangeName } from "./quarantine.ts";
import { SeenShapes, shapeText } from "./shapes.ts";

/** How a canary is made. */
export interface CanaryOptions {
  /** How long the others wait, in ms; 0 = nobody does. */
  readonly waitMs: number;
  /** How long the word of one edge that a change stalled extends the wait; 0 = not at all. */
  readonly extendMs: number;
  /** Actor ids of the edges that the table has rows of. */
  readonly edges: () => Iterable<ActorId>;
  /** A change as notices name it: the same on every edge, and of no other change. */
  readonly hashOf: (change: ChangeName) => string;
}

/** A change that waits, for people. */
export interface WaitingChange {
  /** `w` and the beginning of its hash. */
  readonly id: string;
  readonly change: ChangeName;
  readonly shape: string;
  /** Milliseconds still to wait. */
  readonly leftMs: number;
  /** Edges that say it stalled them. */
  readonly victims: number;
}

/** Counters for metrics. */
export interface CanaryStats {
  /** Changes of unseen shape that this edge was to apply first. */
  first: number;
  /** The same that it waited for. */
  waited: number;
  /** Entries looked at to find what is due. */
  looks: number;
}

interface Waiting {
  readonly change: RowChange;
  readonly hash: string;
  readonly seenMs: number;
  /** When it is due as far as its shape goes. */
  readonly ownDueMs: number;
  /** The same with what victims say. */
  dueMs: number;
  /** A stream that goes on from here brings the change again. */
  readonly since: Watermark | null;
  /** Seen again since the stream started over. */
  isCurrent: boolean;
}

/** One per routing table. */
export class Canary {
  readonly stats: CanaryStats = { first: 0, waited: 0, looks: 0 };
  readonly #options: CanaryOptions;
  readonly #immunity: Immunity;
  #shapes = new SeenShapes();
  readonly #waiting = new Map<string, Waiting>();
  /** The same by when they are due, with entries that are out of date. */
  #due = new DelayQueue<Waiting>();
  /** Of unseen shape, on their way into the table. */
  readonly #admitted: RowChange[] = [];
  readonly #up = new Set<ActorId>();
  #self: ActorId | null = null;
  #isLearning = true;
  #knowsMembers = false;

  constructor(options: CanaryOptions) {
    this.#options = options;
    this.#immunity = new Immunity(options.extendMs);
  }

  /** Takes over the shapes that an earlier process of the same build has applied. */
  restore(shapes: SeenShapes): void {
    this.#shapes = shapes;
    this.#isLearning = false;
  }

  /** When `takeDue` is next to be asked. */
  get deadlineMs(): number {
    return this.#firstDue()?.dueMs ?? Infinity;
  }

  /** Changes that wait. */
  get waitingCount(): number {
    return this.#waiting.size;
  }

  /** What is to be kept for the next process. */
  get shapes(): SeenShapes {
    return this.#shapes;
  }

  /** This edge's own id. */
  setSelf(actorId: ActorId): void {
    this.#self = actorId;
  }

  /** SWIM's word on another replica. */
  setUp(actorId: ActorId, isUp: boolean): void {
    if (isUp) this.#up.add(actorId);
    else this.#up.delete(actorId);
  }

  /** The replica has met the others: shapes are learnt, and canaries chosen, from here on. */
  membersKnown(): void {
    this.#isLearning = false;
    this.#knowsMembers = true;
  }

  /**
   * Whether the table is to have the change now; else it waits. `since` is a position from which
   * the stream brings it again.
   */
  admit(change: RowChange, { nowMs, since }: { nowMs: number; since: Watermark | null }): boolean {
    const isUnseen = this.#options.waitMs > 0 && !this.#shapes.has(change);
    const isTried = isUnseen && !this.#isLearning;
    if ((isTried || !this.#immunity.isEmpty) && !isDown(change)) {
      const waitMs = isTried && !this.#isCanaryFor(change) ? this.#options.waitMs : 0;
      const waiting = this.#waitingOf(change, { waitMs, nowMs, since });
      if (waiting.dueMs > nowMs) return this.#wait(waiting);
      if (isTried) this.stats.first++;
    }
    if (isUnseen) this.#admitted.push(change);
    if (this.#waiting.size > 0) this.#waiting.delete(rowId(change));
    return true;
  }

  /** A row of the first table, which is in use. */
  learn(change: RowChange): void {
    if (this.#options.waitMs > 0 && !this.#shapes.has(change)) this.#admitted.push(change);
  }

  /** The table has taken all that was admitted, and goes on. */
  applied(): void {
    for (const change of this.#admitted.splice(0)) this.#shapes.learn(change);
  }

  /**
   * Takes out a change whose wait is over, for the table to have by itself: a stall then names it;
   * `applied` is to follow. Null = none is due. While the stream starts over, one that has not come
   * again is not: its row may be gone.
   */
  takeDue(nowMs: number): RowChange | null {
    const first = this.#firstDue();
    if (first === null || first.dueMs > nowMs) return null;
    const { change } = first;
    this.#waiting.delete(rowId(change));
    this.#due.take(Infinity);
    this.#admitted.push(change);
    return change;
  }

  /** An edge says that a change stalled it. What is applied already stays so. */
  notice(notice: StallNotice): void {
    this.#immunity.take(notice);
    for (const waiting of this.#waiting.values()) {
      if (waiting.hash === notice.hash) this.#setDue(waiting, this.#dueMsOf(waiting));
    }
  }

  /** Has a change that waits applied at once. False when none waits under that id. */
  release(id: string): boolean {
    for (const waiting of this.#waiting.values()) {
      if (idOf(waiting) !== id) continue;
      this.#setDue(waiting, -Infinity);
      return true;
    }
    return false;
  }

  /** The stream starts over: what waits comes again, unless it is no more. */
  began(): void {
    for (const waiting of this.#waiting.values()) waiting.isCurrent = false;
  }

  /** All rows have come. */
  caughtUp(): void {
    for (const [id, { isCurrent }] of this.#waiting) if (!isCurrent) this.#waiting.delete(id);
  }

  /**
   * The position from which a later process must go on: `watermark`, or an earlier one that brings
   * again what waits.
   */
  resumeFrom(watermark: Watermark): Watermark {
    let from = watermark;
    for (const { since } of this.#waiting.values()) {
      if (since === null) return { ...watermark, dbVersion: 0 };
      if (since.dbVersion < from.dbVersion) from = since;
    }
    return from;
  }

  /** What waits, for people. */
  waiting(nowMs: number): WaitingChange[] {
    return [...this.#waiting.values()].map((waiting) => ({
      id: idOf(waiting),
      change: nameOf(waiting.change),
      shape: shapeText(waiting.change),
      leftMs: Math.max(0, Math.round(waiting.dueMs - nowMs)),
      victims: this.#immunity.victimsOf(waiting.hash, nowMs),
    }));
  }

  /** A change that comes again, because the stream starts over, has waited since it came first. */
  #waitingOf(
    change: RowChange,
    { waitMs, nowMs, since }: { waitMs: number; nowMs: number; since: Watermark | null },
  ): Waiting {
    const before = this.#waiting.get(rowId(change));
    const hash = this.#options.hashOf(nameOf(change));
    if (before?.hash === hash) return { ...before, change, since, isCurrent: true };
    const ownDueMs = nowMs + waitMs;
    const waiting = { change, hash, seenMs: nowMs, ownDueMs, dueMs: 0, since, isCurrent: true };
    return { ...waiting, dueMs: this.#dueMsOf(waiting) };
  }

  #wait(waiting: Waiting): false {
    const id = rowId(waiting.change);
    if (this.#waiting.get(id)?.hash !== waiting.hash) this.stats.waited++;
    this.#waiting.set(id, waiting);
    this.#setDue(waiting, waiting.dueMs);
    return false;
  }

  #setDue(waiting: Waiting, dueMs: number): void {
    waiting.dueMs = dueMs;
    // A row that comes again and again must not leave an entry for each time.
    if (this.#due.size > 2 * this.#waiting.size + SPARE_ENTRIES) {
      this.#due = new DelayQueue();
      for (const value of this.#waiting.values()) this.#due.push(value.dueMs, value);
    } else {
      this.#due.push(dueMs, waiting);
    }
  }

  /** What is out of date is dropped on the way: once for each time that it was added. */
  #firstDue(): Waiting | null {
    for (;;) {
      const { first } = this.#due;
      if (first === undefined) return null;
      this.stats.looks++;
      const { dueMs, value } = first;
      const isWaiting = this.#waiting.get(rowId(value.change)) === value;
      if (isWaiting && value.isCurrent && value.dueMs === dueMs) return value;
      this.#due.take(Infinity);
    }
  }

  #dueMsOf({ dueMs, ownDueMs, hash, seenMs }: Waiting): number {
    if (dueMs === -Infinity) return dueMs;
    return Math.max(ownDueMs, this.#immunity.waitUntilMs(hash, seenMs));
  }

  #isCanaryFor(change: RowChange): boolean {
    const self = this.#self;
    if (self === null || !this.#knowsMembers) return false;
    const shape = shapeText(change);
    const own = rankOf(shape, self);
    let before = 0;
    for (const actorId of new Set(this.#options.edges())) {
      if (actorId === self || !this.#up.has(actorId)) continue;
      const rank = rankOf(shape, actorId);
      if (rank < own || (rank === own && actorId < self)) before++;
    }
    return before < CANARIES;
  }
}

function idOf({ hash }: Waiting): string {
  return `w${hash.slice(0, 8)}`;
}

/** How breadcrumbs and lists name a change. */
export function nameOf({ actorId, version, table, key, row }: RowChange): ChangeName {
  const app = row?.["app_id"];
  return {
    actorId,
    version,
    table,
    key: keyText(key),
    app: typeof app === "string" ? app : "",
  };
}

/** 32 bits, well mixed: FNV-1a, with the finaliser of MurmurHash3. */
export function rankOf(shape: string, actorId: ActorId): number {
  const text = `${shape}\n${actorId}`;
  let hash = 0x811c9dc5;
  for (let at = 0; at < text.length; at++) {
    hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193);
  }
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

/** Arbitrary: below it nothing is worth tidying. */
const SPARE_ENTRIES = 64;
/** One may be down without anybody having noticed. */
const CANARIES = 2;
