/**
 * Decides which change is to blame for a stall or crash, and for how long it is kept out of the
 * routing table.
 *
 * ```
 *  stall names a row    ──► the row's version is held ──► expires, is released, or a newer version
 *                                 │ again                 of the row comes, which is tried
 *                                 ▼
 *                           held twice as long
 *  a second change of the same origin stalls ──► everything of that origin is held
 *  stall names a batch  ──► cautious: rows one by one, so that the next stall names the row
 * ```
 *
 * What is held is decided per row in `quarantine-gate.ts`; nothing of it touches the database. The
 * state is plain data that outlives the process.
 */
import type { ImageRow } from "../types.ts";

/** A row as routing reads it; null = there was none. */
type Image = ImageRow | null;

/** The change that a breadcrumb names. */
export interface ChangeName {
  /** Empty where the row came from the first table, which does not know. */
  readonly actorId: string;
  /** 0 where it is not known. */
  readonly version: number;
  readonly table: string;
  /** As `keyText` writes it. */
  readonly key: string;
  readonly app: string;
}

/** A change that is kept out of the table. */
export interface Hold {
  /** Short and stable: `c1`. */
  readonly id: string;
  readonly change: ChangeName;
  /** It takes something out of service: in force by the deny-set, instead of held back. */
  readonly isDown: boolean;
  /** The row in force before; absent where the breadcrumb had no room for it. */
  readonly previous?: Image;
  /** Evidence of the last stall. */
  readonly stallId: string;
  readonly heldMs: number;
  /** Null = dropped by the operator: for good. */
  readonly expiresMs: number | null;
  /** Stalls by this very change. */
  readonly stalls: number;
}

/** An origin whose changes are kept out of the table. */
export interface OriginHold {
  /** `o1`. */
  readonly id: string;
  readonly actorId: string;
  readonly heldMs: number;
  readonly expiresMs: number | null;
}

/** The edge serves from its last known table alone, because too many others are bounced too. */
export interface Freeze {
  /** Evidence of the bounce that led to it. */
  readonly stallId: string;
  readonly sinceMs: number;
  /** Edges bounced shortly before. */
  readonly peers: number;
}

/** Everything that outlives the process. */
export interface QuarantineState {
  readonly format: 1;
  readonly nextId: number;
  /** Evidence up to this one has been judged. */
  readonly lastStallId: string;
  readonly holds: readonly Hold[];
  readonly origins: readonly OriginHold[];
  /** Changes that stalled, held or not any more, by which origins are judged; newest last. */
  readonly blamed: readonly { readonly change: ChangeName; readonly atMs: number }[];
  /** Rows are applied one by one up to this local version; 0 = until the first `caughtUp`. */
  readonly cautiousUntil: number | null;
  /** Rows that were in use before the suspected batch: the next start may know older ones only. */
  readonly images: readonly RowImage[];
  readonly frozen: Freeze | null;
}

/** A row that was in use. */
export interface RowImage {
  readonly table: string;
  readonly key: string;
  readonly image: ImageRow;
}

/** What evidence says of the work in progress: the breadcrumb, decoded and checked. */
export type Suspect =
  | {
      readonly kind: "row";
      readonly change: ChangeName;
      readonly isDown: boolean;
      readonly previous?: Image;
    }
  | { readonly kind: "batch"; readonly untilVersion: number };

/** A stall or crash of a routing table's thread. */
export interface Blame {
  readonly stallId: string;
  readonly stalledMs: number;
  readonly suspect: Suspect | null;
  /** Decoded breadcrumbs before it, newest first: of a batch they have the rows that were in use. */
  readonly crumbs?: readonly unknown[];
}

/** What the owner tells the operator. */
export type QuarantineNote =
  | { readonly kind: "held" | "dropped"; readonly hold: Hold }
  | { readonly kind: "originHeld"; readonly origin: OriginHold }
  | { readonly kind: "cautious"; readonly untilVersion: number }
  | { readonly kind: "frozen"; readonly freeze: Freeze }
  | { readonly kind: "thawed"; readonly why: ThawReason }
  | {
      readonly kind: "ended";
      readonly id: string;
      readonly why: "expired" | "released" | "superseded";
      /** Null = it was an origin's. */
      readonly change: ChangeName | null;
    };

/** What ended a freeze. */
export type ThawReason = "asked" | "the others are well again" | "no last known table";

/** Holds, origins and their ends. Times are wall-clock milliseconds: they outlive the process. */
export class Quarantine {
  readonly #holdMs: number;
  readonly #outbox: QuarantineNote[] = [];
  #state: QuarantineState;

  /** `holdMs` is how long a change is held the first time, and an origin each time. */
  constructor(state: QuarantineState, options: { readonly holdMs: number }) {
    this.#state = state;
    this.#holdMs = options.holdMs;
  }

  /** Plain data to keep. */
  get state(): QuarantineState {
    return this.#state;
  }

  /** When `expire` is next due. */
  get deadlineMs(): number {
    const { holds, origins } = this.#state;
    return Math.min(...[...holds, ...origins].map(({ expiresMs }) => expiresMs ?? Infinity));
  }

  /** Takes out what is to be told. */
  drain(): QuarantineNote[] {
    return this.#outbox.splice(0);
  }

  /** Judges one stall; one that was judged before changes nothing. Oldest first. */
  blame({ stallId, stalledMs, suspect, crumbs = [] }: Blame): void {
    if (stallId <= this.#state.lastStallId) return;
    this.#set({ lastStallId: stallId });
    if (suspect === null) return;
    if (suspect.kind === "batch") {
      this.#set({ cautiousUntil: suspect.untilVersion, images: crumbs.flatMap(imageOf) });
      this.#outbox.push({ kind: "cautious", untilVersion: suspect.untilVersion });
      return;
    }
    this.#hold(suspect, { stallId, stalledMs });
    this.#judgeOrigin(suspect.change, stalledMs);
  }

  /** Ends the holds whose time is over; the answer is whether there was one. */
  expire(nowMs: number): boolean {
    const isOver = ({ expiresMs }: Hold | OriginHold): boolean =>
      expiresMs !== null && expiresMs <= nowMs;
    const over = [...this.#state.holds, ...this.#state.origins].filter(isOver);
    for (const { id } of over) this.#end(id, "expired");
    return over.length > 0;
  }

  /** Lets a change or an origin in again. False when there is no such hold. */
  release(id: string): boolean {
    return this.#end(id, "released");
  }

  /** Keeps a change out for good; a newer version of its row ends that. False when unknown. */
  drop(id: string): boolean {
    const hold = this.#state.holds.find((one) => one.id === id);
    if (hold === undefined) return false;
    const dropped = { ...hold, expiresMs: null };
    this.#set({ holds: this.#state.holds.map((one) => (one === hold ? dropped : one)) });
    this.#outbox.push({ kind: "dropped", hold: dropped });
    return true;
  }

  /** A newer version of the held row has been applied and the table goes on. */
  superseded(id: string): void {
    this.#end(id, "superseded");
  }

  /** The batch that was to be taken row by row is through. */
  cautionOver(): void {
    this.#set({ cautiousUntil: null, images: [] });
  }

  /** The table is fed nothing from here on; one that is frozen already is so from `sinceMs` on. */
  freeze(freeze: Freeze): void {
    this.#set({ frozen: freeze });
    this.#outbox.push({ kind: "frozen", freeze });
  }

  /** Ends a freeze. False when there is none. */
  thaw(why: ThawReason): boolean {
    if (this.#state.frozen === null) return false;
    this.#set({ frozen: null });
    this.#outbox.push({ kind: "thawed", why });
    return true;
  }

  #hold(
    suspect: Extract<Suspect, { kind: "row" }>,
    { stallId, stalledMs }: { stallId: string; stalledMs: number },
  ): void {
    const { change, isDown, previous } = suspect;
    const before = this.#state.holds.find((hold) => isSameRow(hold.change, change));
    const isSame = before !== undefined && isSameChange(before.change, change);
    const stalls = 1 + this.#stallsOf(change);
    const image = (isSame ? before.previous : this.#imageOf(change)) ?? previous;
    const hold: Hold = {
      id: before?.id ?? `c${this.#state.nextId}`,
      change,
      isDown,
      ...(image === undefined ? {} : { previous: image }),
      stallId,
      heldMs: stalledMs,
      expiresMs: stalledMs + this.#holdMs * 2 ** Math.min(stalls - 1, DOUBLINGS_MAX),
      stalls,
    };
    const others = this.#state.holds.filter((one) => one !== before);
    this.#set({ nextId: this.#state.nextId + 1, holds: [...others, hold].slice(-HOLDS_MAX) });
    this.#outbox.push({ kind: "held", hold });
  }

  /** Two changes of one origin within the time of a hold: it may have many more of them. */
  #judgeOrigin(change: ChangeName, atMs: number): void {
    const { blamed, origins, nextId } = this.#state;
    const entry = { change, atMs };
    this.#set({ blamed: [...blamed, entry].slice(-BLAMED_MAX) });
    const { actorId } = change;
    if (actorId === "" || origins.some((one) => one.actorId === actorId)) return;
    const isOther = blamed.some(
      (one) =>
        one.change.actorId === actorId &&
        !isSameChange(one.change, change) &&
        one.atMs > atMs - this.#holdMs,
    );
    if (!isOther) return;
    const expiresMs = atMs + this.#holdMs;
    const origin: OriginHold = { id: `o${nextId}`, actorId, heldMs: atMs, expiresMs };
    this.#set({ nextId: nextId + 1, origins: [...origins, origin].slice(-ORIGINS_MAX) });
    this.#outbox.push({ kind: "originHeld", origin });
  }

  #imageOf({ table, key }: ChangeName): ImageRow | undefined {
    return this.#state.images.find((one) => one.table === table && one.key === key)?.image;
  }

  #stallsOf(change: ChangeName): number {
    return this.#state.blamed.filter((one) => isSameChange(one.change, change)).length;
  }

  #end(id: string, why: "expired" | "released" | "superseded"): boolean {
    const { holds, origins } = this.#state;
    const ended = [...holds, ...origins].find((one) => one.id === id);
    if (ended === undefined) return false;
    this.#set({
      holds: holds.filter((one) => one.id !== id),
      origins: origins.filter((one) => one.id !== id),
    });
    const change = "change" in ended ? ended.change : null;
    this.#outbox.push({ kind: "ended", id, why, change });
    return true;
  }

  #set(part: Partial<QuarantineState>): void {
    this.#state = { ...this.#state, ...part };
  }
}

/** Nothing held. */
export const NO_QUARANTINE: QuarantineState = {
  format: 1,
  nextId: 1,
  lastStallId: "",
  holds: [],
  origins: [],
  blamed: [],
  cautiousUntil: null,
  images: [],
  frozen: null,
};

/** Reads what a breadcrumb's decoder said; null = it names no change. Total for any value. */
export function readSuspect(crumb: unknown): Suspect | null {
  if (typeof crumb !== "object" || crumb === null) return null;
  const { what, actor, version, table, key, app, isDown, previous, until } = crumb as Readonly<
    Record<string, unknown>
  >;
  if (what === "batch") return { kind: "batch", untilVersion: wholeOr0(until) };
  if (what !== "row" || typeof table !== "string" || typeof key !== "string") return null;
  const change = {
    actorId: typeof actor === "string" ? actor : "",
    version: wholeOr0(version),
    table,
    key,
    app: typeof app === "string" ? app : "",
  };
  const image = readImage(previous);
  const known = image === undefined ? {} : { previous: image };
  return { kind: "row", change, isDown: isDown === true, ...known };
}

/** A kept state as read from JSON; null = it is not one. */
export function readState(value: unknown): QuarantineState | null {
  if (typeof value !== "object" || value === null) return null;
  const state = value as Partial<QuarantineState>;
  const { format, nextId, lastStallId, holds, origins, blamed, cautiousUntil, images } = state;
  // Files of older builds have none.
  const { frozen = null } = state;
  if (format !== 1 || !Number.isSafeInteger(nextId) || typeof lastStallId !== "string") return null;
  if (!Array.isArray(holds) || !holds.every(isHold)) return null;
  if (!Array.isArray(origins) || !origins.every(isOriginHold)) return null;
  if (!Array.isArray(blamed) || !blamed.every((one) => isName(one?.change))) return null;
  if (!Array.isArray(images) || !images.every(isRowImage)) return null;
  if (cautiousUntil !== null && !Number.isSafeInteger(cautiousUntil)) return null;
  if (frozen !== null && !isFreeze(frozen)) return null;
  return { ...(state as QuarantineState), frozen };
}

/** Whether both name the same version of the same row. */
function isSameChange(one: ChangeName, other: ChangeName): boolean {
  return isSameRow(one, other) && one.actorId === other.actorId && one.version === other.version;
}

function isSameRow(one: ChangeName, other: ChangeName): boolean {
  return one.table === other.table && one.key === other.key;
}

function imageOf(crumb: unknown): RowImage[] {
  const suspect = readSuspect(crumb);
  if (suspect?.kind !== "row" || !suspect.previous) return [];
  const { table, key } = suspect.change;
  return [{ table, key, image: suspect.previous }];
}

function isRowImage(value: Partial<RowImage> | null): boolean {
  const { table, key, image } = value ?? {};
  return typeof table === "string" && typeof key === "string" && Boolean(readImage(image));
}

function readImage(value: unknown): Image | undefined {
  if (value === null) return null;
  if (typeof value !== "object" || Array.isArray(value)) return undefined;
  const isPlain = Object.values(value).every(
    (one) => one === null || typeof one === "string" || typeof one === "number",
  );
  return isPlain ? (value as Image) : undefined;
}

function isHold(value: Partial<Hold> | null): boolean {
  const { id, change, isDown: down, previous, expiresMs } = value ?? {};
  const isImage = previous === undefined || readImage(previous) !== undefined;
  return typeof id === "string" && typeof down === "boolean" && isImage && isTime(expiresMs)
    ? isName(change)
    : false;
}

function isOriginHold(value: Partial<OriginHold> | null): boolean {
  return typeof value?.actorId === "string" && typeof value.id === "string"
    ? isTime(value.expiresMs)
    : false;
}

function isFreeze({ stallId, sinceMs, peers }: Partial<Freeze>): boolean {
  return typeof stallId === "string" && Number.isFinite(sinceMs) && Number.isFinite(peers);
}

function isName(value: Partial<ChangeName> | undefined): boolean {
  const { actorId, version, table, key, app } = value ?? {};
  const texts = [actorId, table, key, app].every((text) => typeof text === "string");
  return texts && Number.isSafeInteger(version);
}

function isTime(value: unknown): boolean {
  return value === null || (typeof value === "number" && Number.isFinite(value));
}

function wholeOr0(value: unknown): number {
  return typeof value === "number" && Number.isSafeInteger(value) && value > 0 ? value : 0;
}

/** An origin with more than a few is held as a whole, so these are many origins. */
const HOLDS_MAX = 100;
const ORIGINS_MAX = 100;
const BLAMED_MAX = 100;
/** Sixteen times the first hold. */
const DOUBLINGS_MAX = 4;
