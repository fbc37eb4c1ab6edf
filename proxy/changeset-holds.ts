/**
 * Which changesets of other replicas are not handled here, because handling them stalled or ended a
 * thread of the replica's half.
 *
 * ```
 *  first loss  ──► the thread is replaced, and the changeset is handled again: it may have been chance
 *  second loss ──► held: not taken from anybody and not asked for; expires, is released, or dropped
 * ```
 *
 * Plain data and no I/O; a keeper writes it down. Times are wall-clock milliseconds.
 */

/** A changeset that was in progress when a thread was lost. */
export interface BlamedChangeset {
  /** Short and stable: `s1`. */
  readonly id: string;
  readonly actorId: string;
  readonly version: number;
  /** Of its first change; empty where there was none. */
  readonly table: string;
  /** Evidence of the last loss. */
  readonly stallId: string;
  readonly stalls: number;
  readonly heldMs: number;
  /** Null = dropped by the operator: for good. */
  readonly expiresMs: number | null;
}

/** Everything that outlives the process. */
export interface ChangesetHoldsState {
  readonly format: 1;
  readonly nextId: number;
  /** Evidence up to this one has been judged. */
  readonly lastStallId: string;
  /** Oldest first; those with one stall are known and not held. */
  readonly blamed: readonly BlamedChangeset[];
}

/** Nothing held. */
export const NO_CHANGESET_HOLDS: ChangesetHoldsState = {
  format: 1,
  nextId: 1,
  lastStallId: "",
  blamed: [],
};

/** What a loss is judged by. */
export interface Loss {
  readonly stallId: string;
  readonly lostMs: number;
  /** The decoded breadcrumb. */
  readonly crumb: unknown;
}

/** Holds and their ends. */
export class ChangesetHolds {
  readonly #holdMs: number;
  #state: ChangesetHoldsState;

  /** `holdMs` is how long a changeset is held the first time. */
  constructor(state: ChangesetHoldsState, { holdMs }: { readonly holdMs: number }) {
    this.#state = state;
    this.#holdMs = holdMs;
  }

  /** Plain data to keep. */
  get state(): ChangesetHoldsState {
    return this.#state;
  }

  /** What is held. */
  get held(): readonly BlamedChangeset[] {
    return this.#state.blamed.filter(isHeld);
  }

  /** When `expire` is next due. */
  get deadlineMs(): number {
    return Math.min(...this.#state.blamed.map(({ expiresMs }) => expiresMs ?? Infinity));
  }

  /** Judges one loss, oldest first; the changeset if it is held from now on. */
  blame({ stallId, lostMs, crumb }: Loss): BlamedChangeset | null {
    if (stallId <= this.#state.lastStallId) return null;
    this.#state = { ...this.#state, lastStallId: stallId };
    const suspect = readSuspect(crumb);
    if (suspect === null) return null;
    const { actorId, version } = suspect;
    const { blamed, nextId } = this.#state;
    const before = blamed.find((one) => one.actorId === actorId && one.version === version);
    const stalls = (before?.stalls ?? 0) + 1;
    const forMs = this.#holdMs * 2 ** Math.min(Math.max(stalls - HELD_FROM, 0), DOUBLINGS_MAX);
    const one = {
      ...suspect,
      // Not every breadcrumb names it.
      table: suspect.table === "" ? (before?.table ?? "") : suspect.table,
      id: before?.id ?? `s${nextId}`,
      stallId,
      stalls,
      heldMs: lostMs,
      expiresMs: lostMs + forMs,
    };
    const others = blamed.filter((other) => other !== before);
    this.#state = {
      ...this.#state,
      nextId: before === undefined ? nextId + 1 : nextId,
      blamed: [...others, one].slice(-BLAMED_MAX),
    };
    return isHeld(one) ? one : null;
  }

  /** Ends what is over; the answer is whether something was held. */
  expire(nowMs: number): boolean {
    const isOver = ({ expiresMs }: BlamedChangeset): boolean =>
      expiresMs !== null && expiresMs <= nowMs;
    const over = this.#state.blamed.filter(isOver);
    this.#keep((one) => !over.includes(one));
    return over.some(isHeld);
  }

  /** Has a changeset handled again; held again at its next loss. Null when nothing is held as `id`. */
  release(id: string): BlamedChangeset | null {
    const found = this.held.find((one) => one.id === id) ?? null;
    this.#keep((one) => one !== found);
    return found;
  }

  /** Keeps a changeset out for good. Null when nothing is held as `id`. */
  drop(id: string): BlamedChangeset | null {
    const found = this.held.find((one) => one.id === id);
    if (found === undefined) return null;
    const dropped = { ...found, expiresMs: null };
    const blamed = this.#state.blamed.map((one) => (one === found ? dropped : one));
    this.#state = { ...this.#state, blamed };
    return dropped;
  }

  #keep(isKept: (one: BlamedChangeset) => boolean): void {
    this.#state = { ...this.#state, blamed: this.#state.blamed.filter(isKept) };
  }
}

/** A kept state as read from JSON; null = it is not one. */
export function readChangesetHolds(value: unknown): ChangesetHoldsState | null {
  if (typeof value !== "object" || value === null) return null;
  const state = value as Partial<ChangesetHoldsState>;
  const { format, nextId, lastStallId, blamed } = state;
  if (format !== 1 || !Number.isSafeInteger(nextId) || typeof lastStallId !== "string") return null;
  if (!Array.isArray(blamed) || !blamed.every(isBlamed)) return null;
  return state as ChangesetHoldsState;
}

function isBlamed(value: Partial<BlamedChangeset> | null): boolean {
  const { id, actorId, table, stallId, version, stalls, heldMs, expiresMs } = value ?? {};
  const texts = [id, actorId, table, stallId].every((text) => typeof text === "string");
  const numbers = [version, stalls, heldMs].every((number) => Number.isFinite(number));
  return texts && numbers && (expiresMs === null || Number.isFinite(expiresMs));
}

function isHeld({ stalls }: BlamedChangeset): boolean {
  return stalls >= HELD_FROM;
}

/** Reads what a breadcrumb's decoder said; null = it names no changeset. */
function readSuspect(
  crumb: unknown,
): Pick<BlamedChangeset, "actorId" | "version" | "table"> | null {
  if (typeof crumb !== "object" || crumb === null) return null;
  const { what, actor, version, table } = crumb as Readonly<Record<string, unknown>>;
  if (what !== "changeset" || typeof actor !== "string") return null;
  if (typeof version !== "number" || !Number.isSafeInteger(version) || version < 1) return null;
  return { actorId: actor, version, table: typeof table === "string" ? table : "" };
}

/** The first loss may be chance: a changeset that is held is missing from the database. */
const HELD_FROM = 2;
const BLAMED_MAX = 100;
/** Sixteen times the first hold. */
const DOUBLINGS_MAX = 4;
