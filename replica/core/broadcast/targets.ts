/**
 * Who gets a changeset in its next round.
 *
 *   small cluster    own            every member, at once
 *                    received       the next member in order of actor ids; the origin left out
 *                    and urgent     two more at random
 *   large cluster,   own, urgent    first round: all of ring 0, and some others at random
 *   or from a tree   else           some at random (protocol reference, 3.6)
 *
 * In a small cluster each member thus gets a changeset from its origin and from one neighbour: one
 * broken path keeps nothing back, at two copies each. With Corrosion's rule, by which a changeset is
 * passed on until everybody was sent it by everybody, ten replicas get eight copies and twenty
 * eighteen.
 */
import type { Prng } from "#base/prng.ts";
import type { ActorId, Address } from "../../types.ts";
import type { BroadcastEntry } from "./backlog.ts";
import type { BroadcastConfig, BroadcastMember } from "./types.ts";

/** The other members of our cluster, and the choice among them. */
export class Targets {
  readonly #config: BroadcastConfig;
  readonly #prng: Prng;
  /** In order of actor ids from ours on, around the end. */
  #members: readonly BroadcastMember[] = [];
  #addressById: ReadonlyMap<ActorId, Address> = new Map();
  #ringZero = 0;

  constructor(config: BroadcastConfig, prng: Prng) {
    this.#config = config;
    this.#prng = prng;
  }

  /** Other members of our cluster. */
  get count(): number {
    return this.#members.length;
  }

  /** Whether own changes go to all of them at once. */
  get isSmall(): boolean {
    return this.#members.length <= this.#config.smallClusterMembers;
  }

  /** Takes all known members; returns the addresses of those that are targets. */
  update(members: readonly BroadcastMember[]): ReadonlySet<Address> {
    const { actorId, clusterId } = this.#config;
    const others = members
      .filter((member) => member.clusterId === clusterId && member.actorId !== actorId)
      .toSorted((one, other) => (one.actorId < other.actorId ? -1 : 1));
    const next = others.findIndex((member) => member.actorId > actorId);
    this.#members = next <= 0 ? others : [...others.slice(next), ...others.slice(0, next)];
    this.#addressById = new Map(others.map((member) => [member.actorId, member.address]));
    this.#ringZero = others.filter(({ ring }) => ring === 0).length;
    return new Set(this.#addressById.values());
  }

  addressOf(actorId: ActorId): Address | undefined {
    return this.#addressById.get(actorId);
  }

  /** Whether somebody is left that was not sent this entry. */
  hasAny(entry: BroadcastEntry): boolean {
    return this.#members.some(({ address }) => !entry.sentTo.has(address));
  }

  /** Whether the origin of a received entry has sent it to all of a small cluster. */
  isSecondPath(entry: Pick<BroadcastEntry, "isLocal" | "isFromTree">): boolean {
    return this.isSmall && !entry.isLocal && !entry.isFromTree;
  }

  /** The targets of the entry's next round; `isHeldBack`: the byte budget is used up. */
  pick(entry: BroadcastEntry, isHeldBack: boolean): readonly BroadcastMember[] {
    const open = this.#members.filter(({ address }) => !entry.sentTo.has(address));
    if (this.isSmall && entry.isLocal) return open;
    if (this.isSecondPath(entry)) {
      const [next, ...others] = open;
      if (next === undefined || !entry.isUrgent) return open.slice(0, 1);
      return [next, ...this.#prng.sample(others, URGENT_RELAYS)];
    }
    const far = this.#members.length - this.#ringZero;
    const dynamic = Math.floor(far / (maxTransmissions(this.#members.length) * 10));
    const count = Math.max(isHeldBack ? 1 : FAN_OUT_MIN, isHeldBack ? dynamic >> 1 : dynamic);
    const isEager = entry.isLocal || entry.isUrgent;
    if (!isEager || entry.rounds > 0) return this.#prng.sample(open, count);
    const nearest = open.filter(({ ring }) => ring === 0);
    const others = open.filter(({ ring }) => ring !== 0);
    return [...nearest, ...this.#prng.sample(others, count)];
  }
}

/**
 * Rounds in which a changeset is sent at most, among `members` other members (foca's rule for its own
 * updates, which Corrosion takes over).
 */
export function maxTransmissions(members: number): number {
  return Math.max(1, Math.floor(4 * Math.log10(Math.max(1, members) + 1)));
}

/** Least number of random members per round in a large cluster (Corrosion's). */
const FAN_OUT_MIN = 3;
/** In a small cluster; with the next one three relays, of which a few lost streams leave one. */
const URGENT_RELAYS = 2;
