/**
 * How long each suspect has to refute (Lifeguard, Dadgar et al. 2017, section 4.2: dynamic
 * suspicion timeouts).
 *
 * A suspicion begins with the time that our awareness asks for, and shortens towards the configured
 * one as others say the same, each of them less than the one before. So a replica that is late
 * condemns nobody alone, and a crash that all see is found no later for it.
 *
 * Deviations from the paper. It begins every suspicion at six times the least; here a replica that
 * is well begins at the least, which keeps Corrosion's times. The wire names no accuser, so whoever
 * sends the suspicion confirms it, also one that merely passes it on; hence a confirmation always
 * leaves `graceMs`, for the refutation may be waiting right behind it.
 */
import type { ActorId } from "../../types.ts";

/** What a suspicion begins with. */
export interface SuspicionStart {
  readonly nowMs: number;
  /** Time to refute with every confirmation, and without any. */
  readonly leastMs: number;
  readonly longestMs: number;
  /** Who told us; ourselves after a probe of our own. */
  readonly teller: ActorId;
  /** Members that could confirm. */
  readonly others: number;
}

/** Who says so once more. */
export interface Confirmation {
  readonly nowMs: number;
  readonly teller: ActorId;
  /** Least time left after it. */
  readonly graceMs: number;
}

interface Suspicion {
  startedMs: number;
  deadlineMs: number;
  readonly leastMs: number;
  longestMs: number;
  /** Confirmations that bring it to the least. */
  readonly enough: number;
  /** The first teller and all who confirmed. */
  readonly tellers: Set<ActorId>;
}

/** The suspicions that run, by suspect; the caller keeps their timers. */
export class Suspicions {
  readonly #suspicionById = new Map<ActorId, Suspicion>();

  /** Begins a suspicion, in place of an earlier one of the same replica; returns its deadline. */
  begin(id: ActorId, start: SuspicionStart): number {
    const enough = Math.min(CONFIRMATIONS_ENOUGH, start.others);
    // Nobody could ever shorten it.
    const longestMs = enough < 1 ? start.leastMs : start.longestMs;
    const deadlineMs = start.nowMs + longestMs;
    this.#suspicionById.set(id, {
      startedMs: start.nowMs,
      deadlineMs,
      leastMs: start.leastMs,
      longestMs,
      enough,
      tellers: new Set([start.teller]),
    });
    return deadlineMs;
  }

  /** Takes a confirmation; returns the earlier deadline, or `null` when it stays. */
  confirm(id: ActorId, confirmation: Confirmation): number | null {
    const suspicion = this.#suspicionById.get(id);
    if (suspicion === undefined || suspicion.tellers.size > suspicion.enough) return null;
    const { nowMs, teller, graceMs } = confirmation;
    if (suspicion.tellers.has(teller)) return null;
    suspicion.tellers.add(teller);
    const earlierMs = Math.max(wantedDeadlineMs(suspicion), nowMs + graceMs);
    if (earlierMs >= suspicion.deadlineMs) return null;
    suspicion.deadlineMs = earlierMs;
    return earlierMs;
  }

  /**
   * Its time is over: returns a later deadline if `longestMs` has grown since, else `null`. A
   * replica finds out only by and by how late it is, after its first suspicions.
   */
  extend(
    id: ActorId,
    present: { readonly nowMs: number; readonly longestMs: number },
  ): number | null {
    const suspicion = this.#suspicionById.get(id);
    if (suspicion === undefined || suspicion.enough < 1) return null;
    suspicion.longestMs = Math.max(suspicion.longestMs, present.longestMs);
    const laterMs = wantedDeadlineMs(suspicion);
    if (laterMs <= present.nowMs) return null;
    suspicion.deadlineMs = laterMs;
    return laterMs;
  }

  /** Forgets a suspicion that was refuted or carried out. */
  end(id: ActorId): void {
    this.#suspicionById.delete(id);
  }

  /** Moves all of them later, as their timers are. */
  postponeAll(byMs: number): void {
    for (const suspicion of this.#suspicionById.values()) {
      suspicion.startedMs += byMs;
      suspicion.deadlineMs += byMs;
    }
  }
}

function wantedDeadlineMs(suspicion: Suspicion): number {
  const { startedMs, leastMs, longestMs, enough, tellers } = suspicion;
  const share = Math.log(tellers.size) / Math.log(enough + 1);
  return startedMs + longestMs - share * (longestMs - leastMs);
}

/** memberlist's for Lifeguard's preset; the paper found little use in more. */
const CONFIRMATIONS_ENOUGH = 3;
