/**
 * What one replica lacks and another can give, and how that is cut into questions.
 *
 * `computeNeeds` compares two sync states (protocol reference, section 4.3). `RoundPlan` shares the
 * needs of several servers out, so that one version is asked of one server only, newest versions
 * first: a replica that is far behind has the present state of most rows early.
 *
 * Deviation: versions above our head that the server says it lacks are not asked of it. Corrosion
 * asks and gets no answer, and meanwhile asks nobody else.
 */
import type { ActorId, SeqRange, SyncNeed, VersionRange } from "../../types.ts";
import { VERSION_BELIEVED_MAX } from "../bookkeeping/bookkeeping.ts";
import type { SyncState } from "../wire/types.ts";
import { RangeSet } from "#base/range-set.ts";

/** What can be had of one actor from one server. */
export interface ActorNeeds {
  /** Versions to ask whole. */
  readonly full: RangeSet;
  /** Partial versions of ours, with the missing seqs that the server holds. */
  readonly partial: Map<number, readonly SeqRange[]>;
}

/**
 * What `ours` lacks and `theirs` can give, per actor; actors without needs are absent. Of our own
 * versions none above `ownMax` is asked: as a rule our head, so that only gaps are filled, which a
 * loss has left.
 */
export function computeNeeds(
  ours: SyncState,
  theirs: SyncState,
  ownMax = ours.heads.get(ours.actorId) ?? 0,
): Map<ActorId, ActorNeeds> {
  const needs = new Map<ActorId, ActorNeeds>();
  for (const [actorId, theirHead] of theirs.heads) {
    const believedMax = actorId === ours.actorId ? ownMax : VERSION_BELIEVED_MAX;
    const head = Math.min(theirHead, believedMax);
    if (head < 1) continue;
    const theirGaps = RangeSet.from(theirs.need.get(actorId) ?? []);
    const theirPartials = theirs.partialNeed.get(actorId);
    const full = RangeSet.from(ours.need.get(actorId) ?? []);
    full.insert({ start: (ours.heads.get(actorId) ?? 0) + 1, end: head });
    full.remove({ start: head + 1, end: Number.MAX_SAFE_INTEGER });
    const partial = new Map<number, readonly SeqRange[]>();
    for (const [version, missing] of ours.partialNeed.get(actorId) ?? []) {
      if (version > head || theirGaps.contains(version)) continue;
      const theyLack = RangeSet.from(theirPartials?.get(version) ?? []);
      const seqs = RangeSet.from(missing).subtract(theyLack);
      if (!seqs.isEmpty) partial.set(version, seqs.ranges);
    }
    const actorNeeds = { full: full.subtract(theirGaps), partial };
    if (!actorNeeds.full.isEmpty || partial.size > 0) needs.set(actorId, actorNeeds);
  }
  return needs;
}

/** Number of versions in `needs`, whole or partial. */
export function countNeeds(needs: ReadonlyMap<ActorId, ActorNeeds>): number {
  let total = 0;
  for (const { full, partial } of needs.values()) total += full.total + partial.size;
  return total;
}

/** One question to a server: needs of one actor, with the versions they touch. */
export interface PlannedRequest {
  readonly actorId: ActorId;
  readonly needs: readonly SyncNeed[];
  readonly versions: readonly VersionRange[];
}

/** Limits of one turn of asking. */
export interface TurnLimits {
  /** Most needs in the turn, over all actors. */
  readonly needsMax: number;
  /** Most versions in one need. */
  readonly pieceVersions: number;
  /** Most versions in the turn; a turn may end up smaller, never larger. */
  readonly versionsMax: number;
}

/** The needs of one round, shared out over the servers of the round. */
export class RoundPlan {
  readonly #needsByServer = new Map<number, Map<ActorId, ActorNeeds>>();
  /** Asked in this round, of anyone, and not given back. */
  readonly #asked = new Map<ActorId, RangeSet>();

  /** Adds a server (named by its session) and what it can give. */
  addServer(sessionId: number, needs: Map<ActorId, ActorNeeds>): void {
    this.#needsByServer.set(sessionId, needs);
  }

  /** Takes a server out; what it was asked stays asked until given back. */
  removeServer(sessionId: number): void {
    this.#needsByServer.delete(sessionId);
  }

  /** Frees versions that a server was asked and will not answer, for others to be asked. */
  giveBack(actorId: ActorId, versions: Iterable<VersionRange>): void {
    for (const range of versions) this.#asked.get(actorId)?.remove(range);
  }

  /** Whether there is something to ask of this server that nobody was asked. */
  hasNeeds(sessionId: number): boolean {
    const limits = { needsMax: 1, pieceVersions: 1, versionsMax: 1 };
    return this.#take(sessionId, limits, false).length > 0;
  }

  /** Next turn of a server: partial versions first, then whole ones from the newest down. */
  takeTurn(sessionId: number, limits: TurnLimits): PlannedRequest[] {
    return this.#take(sessionId, limits, true);
  }

  #take(sessionId: number, limits: TurnLimits, isAsking: boolean): PlannedRequest[] {
    const requests: PlannedRequest[] = [];
    const needsByActor = this.#needsByServer.get(sessionId);
    if (needsByActor === undefined) return requests;
    const left: Budget = { needs: limits.needsMax, versions: limits.versionsMax };
    for (const [actorId, actorNeeds] of Array.from(needsByActor)) {
      if (left.needs <= 0 || left.versions <= 0) break;
      const asked = this.#askedOf(actorId);
      const needs = [
        ...takePartials(actorNeeds, asked, left),
        ...takeFull({ full: actorNeeds.full, asked, left, pieceVersions: limits.pieceVersions }),
      ];
      if (needs.length === 0) continue;
      const versions = needs.map(versionsOf);
      requests.push({ actorId, needs, versions });
      if (!isAsking) continue;
      for (const range of versions) asked.insert(range);
      // To the back, so that the next turn begins with another actor.
      needsByActor.delete(actorId);
      needsByActor.set(actorId, actorNeeds);
    }
    return requests;
  }

  #askedOf(actorId: ActorId): RangeSet {
    const known = this.#asked.get(actorId);
    if (known !== undefined) return known;
    const asked = new RangeSet();
    this.#asked.set(actorId, asked);
    return asked;
  }
}

/** The versions that a need touches. */
export function versionsOf(need: SyncNeed): VersionRange {
  return need.kind === "full" ? need.versions : { start: need.version, end: need.version };
}

interface Budget {
  needs: number;
  versions: number;
}

function takePartials(actorNeeds: ActorNeeds, asked: RangeSet, left: Budget): SyncNeed[] {
  const taken: SyncNeed[] = [];
  for (const [version, seqs] of actorNeeds.partial) {
    if (left.needs <= 0 || left.versions <= 0) break;
    if (asked.contains(version)) continue;
    taken.push({ kind: "partial", version, seqs });
    left.needs -= 1;
    left.versions -= 1;
  }
  return taken;
}

function takeFull(from: {
  full: RangeSet;
  asked: RangeSet;
  left: Budget;
  pieceVersions: number;
}): SyncNeed[] {
  const { asked, left } = from;
  const taken: SyncNeed[] = [];
  const ranges = from.full.subtract(asked).ranges.toReversed();
  for (const { start, end } of ranges) {
    let last = end;
    while (last >= start && left.needs > 0 && left.versions > 0) {
      const first = Math.max(start, last - Math.min(from.pieceVersions, left.versions) + 1);
      taken.push({ kind: "full", versions: { start: first, end: last } });
      left.needs -= 1;
      left.versions -= last - first + 1;
      last = first - 1;
    }
  }
  return taken;
}
