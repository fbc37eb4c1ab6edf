/**
 * Versions that came and could not be taken: the store refused them, or there was something in them
 * that nothing here can hold. Most likely they are so everywhere, and asking on would take the same
 * bytes again for ever.
 *
 * The first times are free, because it may have been the server's fault: whoever is asked next may
 * have it right. From then on a version is left alone for pauses that double up to an hour. It stays
 * in our needs meanwhile, so that nobody expects it of us.
 */
import type { Bookkeeping } from "../bookkeeping/bookkeeping.ts";
import type { ActorId } from "../../types.ts";
import type { ActorNeeds } from "./needs.ts";

/** Which versions are not asked for, and until when. */
export class SetAside {
  readonly #books: Bookkeeping;
  /** In the order of the last failure, oldest first. */
  readonly #entries = new Map<string, Entry>();

  constructor(books: Bookkeeping) {
    this.#books = books;
  }

  /** Versions that failed, and have not come since. */
  get size(): number {
    return this.#entries.size;
  }

  /** A version came and could not be taken. Says how often that has been so. */
  failed(failure: { actorId: ActorId; version: number }, nowMs: number): number {
    const { actorId, version } = failure;
    const key = `${actorId} ${version}`;
    const times = (this.#entries.get(key)?.times ?? 0) + 1;
    const doublings = Math.min(times - FREE_TRIES, DOUBLINGS_MAX);
    const pauseMs = doublings < 0 ? 0 : PAUSE_MIN_MS * 2 ** doublings;
    this.#entries.delete(key);
    this.#entries.set(key, { actorId, version, times, untilMs: nowMs + pauseMs });
    for (const [oldest] of this.#entries) {
      if (this.#entries.size <= ENTRIES_MAX) break;
      this.#entries.delete(oldest);
    }
    return times;
  }

  /** Takes out of `needs` what is not to be asked for at `nowMs`. O(versions that failed). */
  withhold(needs: Map<ActorId, ActorNeeds>, nowMs: number): void {
    for (const [key, { actorId, version, untilMs }] of this.#entries) {
      const versions = { start: version, end: version };
      if (this.#books.contains(actorId, versions)) this.#entries.delete(key);
      const needed = needs.get(actorId);
      if (needed === undefined || untilMs <= nowMs) continue;
      needed.full.remove(versions);
      needed.partial.delete(version);
      if (needed.full.isEmpty && needed.partial.size === 0) needs.delete(actorId);
    }
  }
}

interface Entry {
  readonly actorId: ActorId;
  readonly version: number;
  readonly times: number;
  readonly untilMs: number;
}

/** From this failure on there are pauses: three servers of a round may each be asked once. */
const FREE_TRIES = 3;
const PAUSE_MIN_MS = 30_000;
/** To an hour and a bit. */
const DOUBLINGS_MAX = 7;
/** Half a megabyte; beyond it the ones that failed longest ago are asked again. */
const ENTRIES_MAX = 4_096;
