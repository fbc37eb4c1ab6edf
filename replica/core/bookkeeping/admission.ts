/**
 * Whose changes are taken.
 *
 * An actor costs an entry in the books here, on the disk and in every sync state from then on, and whoever
 * may speak to us can invent actors, each with one valid change. So there is a number of places. Who has
 * one keeps it; active members find some that nobody else gets, so that they are never crowded out. What
 * is refused is neither stored nor passed on, and is asked of nobody.
 *
 * Places that members took stay taken when they are gone: their changes stay, too.
 */
import type { ActorId } from "../../types.ts";
import type { Bookkeeping } from "./bookkeeping.ts";

/** Who asks for a place. */
export interface AdmissionOptions {
  /** The replica's books; read only. */
  readonly books: Bookkeeping;
  readonly isMember: (actorId: ActorId) => boolean;
  /** Actors in the books beyond which only members are let in. */
  readonly actorsMax: number;
}

/** The places of one replica. */
export class Admission {
  readonly #options: AdmissionOptions;
  /** Let in, and not in the books yet. */
  readonly #coming = new Set<ActorId>();
  /** Changes, and heads in sync states, of actors that found no place. */
  refused = 0;

  constructor(options: AdmissionOptions) {
    this.#options = options;
  }

  /** Whether changes of an actor are taken; gives it a place if there is one. O(1). */
  admits(actorId: ActorId): boolean {
    const { books, isMember, actorsMax } = this.#options;
    if (books.knows(actorId) || this.#coming.has(actorId)) return true;
    const taken = books.actorCount + this.#coming.size;
    const places = taken < actorsMax || !isMember(actorId) ? actorsMax : actorsMax + MEMBER_PLACES;
    if (taken >= places) {
      this.refused += 1;
      return false;
    }
    this.#coming.add(actorId);
    return true;
  }

  /** The store has decided on something of an actor: it is in the books, or has no place. */
  decided(actorId: ActorId): void {
    this.#coming.delete(actorId);
  }

  /** Whatever was to come has come, or was given up: a round of sync is over. */
  forget(): void {
    this.#coming.clear();
  }
}

/** As many as there may be members. */
const MEMBER_PLACES = 10_000;
/** Default of `replica.actors_max`. Half a megabyte of each sync state, some MB here and on the disk. */
export const ACTORS_DEFAULT = 20_000;
