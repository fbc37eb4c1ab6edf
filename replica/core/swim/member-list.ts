/**
 * What this replica knows of every other: one record per actor id, and which news supersede it.
 *
 * ```
 *            suspect, j >= i              expiry or any down
 *   alive(i) ---------------> suspect(j) --------------------> down
 *      ^  <-------------------------'                            |
 *      |      alive, j > i                 identity with a newer |
 *      '------------------------------------ or equal stamp <----'
 * ```
 *
 * Down is terminal for one identity (SWIM, Das et al. 2002, section 4.2): the replica comes back
 * under another, which it takes by itself when it learns that it counts as down. A down record is
 * kept for days so that stale news of that identity cannot raise it.
 *
 * Members are probed in shuffled rounds (section 4.3 of the paper), which bounds the time until
 * each has been probed to two rounds; a newcomer goes to a random place in the round.
 */
import type { Prng } from "#base/prng.ts";
import type { ActorId } from "../../types.ts";
import { type Actor, isSameActor, winsConflict } from "./actor.ts";
import type { MemberState, MemberUpdate } from "./packet.ts";

/** What is recorded of one replica. Never changed in place. */
export interface Member extends MemberUpdate {
  /** When this identity was first seen in this state here, monotonic milliseconds. */
  readonly sinceMs: number;
}

/** What news did to the list. */
export type ApplyOutcome =
  | {
      readonly kind: "unchanged";
      /** Whether the identity the news are about counts as alive or suspect here. */
      readonly isActive: boolean;
      /** The record where it supersedes the news, so that their sender has missed it. */
      readonly better: Member | null;
    }
  /** The record was made or replaced; `before` may be of an older identity of the replica. */
  | { readonly kind: "changed"; readonly before: Member | null; readonly after: Member }
  /** An unknown replica, and no room for it. */
  | { readonly kind: "full" };

/**
 * Whether news about an identity supersede what is known of the same identity. A claim of death
 * always does; otherwise the higher incarnation, which only the subject itself can raise, and at
 * equal incarnations suspicion over life.
 */
export function supersedes(known: Claim, news: Claim): boolean {
  if (known.state === "down") return false;
  if (news.state === "down") return true;
  if (news.incarnation !== known.incarnation) return news.incarnation > known.incarnation;
  return known.state === "alive" && news.state === "suspect";
}

/** A state with the incarnation it is claimed for. */
export interface Claim {
  readonly state: MemberState;
  readonly incarnation: number;
}

/** Whether a member takes part: it is probed, gossiped to and counted. */
export function isActive(member: Claim): boolean {
  return member.state !== "down";
}

/** The records of all other replicas. */
export class MemberList {
  readonly #memberById = new Map<ActorId, Member>();
  readonly #membersMax: number;
  readonly #prng: Prng;
  /** The round of probes: ids, some of which may no longer be active. */
  #round: ActorId[] = [];
  /** Place in the round of the next one to probe. */
  #next = 0;
  /** Active members, rebuilt after a change. */
  #active: readonly Member[] | null = null;

  constructor(options: { membersMax: number; prng: Prng }) {
    this.#membersMax = options.membersMax;
    this.#prng = options.prng;
  }

  /** All records, down ones included, in the order they were first heard of. */
  get all(): Member[] {
    return [...this.#memberById.values()];
  }

  /** Members that are alive or suspect. The array is not to be kept over a change. */
  get active(): readonly Member[] {
    this.#active ??= this.all.filter(isActive);
    return this.#active;
  }

  get(id: ActorId): Member | undefined {
    return this.#memberById.get(id);
  }

  /** Takes news about any replica but ourselves. */
  apply(news: MemberUpdate, nowMs: number): ApplyOutcome {
    const { actor, incarnation, state } = news;
    const before = this.#memberById.get(actor.id) ?? null;
    const isKnown = before !== null && isSameActor(before.actor, actor);
    if (isKnown && !supersedes(before, news)) {
      const better = supersedes(news, before) ? before : null;
      return { kind: "unchanged", isActive: isActive(before), better };
    }
    if (before !== null && !isKnown && winsConflict(before.actor, actor)) {
      return { kind: "unchanged", isActive: false, better: before };
    }
    if (before === null && !this.#makeRoom()) return { kind: "full" };
    const sinceMs = isKnown && before.state === state ? before.sinceMs : nowMs;
    const after: Member = { actor, incarnation, state, sinceMs };
    this.#memberById.set(actor.id, after);
    this.#active = null;
    if (isActive(after) && (before === null || !isActive(before))) this.#enterRound(actor.id);
    return { kind: "changed", before, after };
  }

  /** Whether a claim is about the identity that is on record. */
  has(actor: Actor): boolean {
    const known = this.#memberById.get(actor.id);
    return known !== undefined && isSameActor(known.actor, actor);
  }

  /** Drops a down record. An active one stays. */
  forgetDown(id: ActorId): void {
    const member = this.#memberById.get(id);
    if (member !== undefined && !isActive(member)) this.#memberById.delete(id);
  }

  /** The member to probe next, each active one once per round; `null` when there is none. */
  nextToProbe(): Member | null {
    for (let pass = 0; pass < 2; pass += 1) {
      while (this.#next < this.#round.length) {
        const member = this.#memberById.get(this.#round[this.#next] ?? "");
        this.#next += 1;
        if (member !== undefined && isActive(member)) return member;
      }
      this.#round = this.#prng.shuffle(this.active.map((member) => member.actor.id));
      this.#next = 0;
    }
    return null;
  }

  /** Up to `count` random active members, without the one called `exceptId`. */
  sampleActive(count: number, exceptId: ActorId | null = null): Member[] {
    if (exceptId === null) return this.#prng.sample(this.active, count);
    const others = this.active.filter((member) => member.actor.id !== exceptId);
    return this.#prng.sample(others, count);
  }

  /** Up to `count` random down members. */
  sampleDown(count: number): Member[] {
    const down = this.all.filter((member) => !isActive(member));
    return this.#prng.sample(down, count);
  }

  #enterRound(id: ActorId): void {
    if (this.#round.includes(id, this.#next)) return;
    const place = this.#prng.below(this.#round.length + 1);
    this.#round.splice(place, 0, id);
    if (place < this.#next) this.#next += 1;
  }

  /** Makes room for one record by dropping the oldest down one. O(members), only when full. */
  #makeRoom(): boolean {
    if (this.#memberById.size < this.#membersMax) return true;
    for (const [id, member] of this.#memberById) {
      if (isActive(member)) continue;
      this.#memberById.delete(id);
      return true;
    }
    return false;
  }
}
