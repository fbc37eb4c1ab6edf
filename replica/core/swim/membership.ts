/**
 * Takes news about replicas into the member list, and sees to what follows from a change: it is
 * spread, its timers run, and it is reported.
 *
 * All news take this way, whether they came with a packet, from a verdict of our own or from a file
 * of saved members. News about our current identity are only recognised here: the answer to them is
 * a matter of the protocol.
 */
import type { Prng } from "#base/prng.ts";
import type { TimerTable } from "#base/timer-table.ts";
import type { ActorId } from "../../types.ts";
import { isSameActor, NIL_ACTOR_ID } from "./actor.ts";
import type { Awareness } from "./awareness.ts";
import { maxTransmissions, suspectToDownMs, type SwimConfig } from "./config.ts";
import { DisseminationQueue } from "./dissemination.ts";
import type { SwimEvent } from "./events.ts";
import type { Identity } from "./identity.ts";
import { isActive, type Member, MemberList } from "./member-list.ts";
import type { MemberUpdate } from "./packet.ts";
import type { SwimStats } from "./stats.ts";
import { Suspicions } from "./suspicions.ts";

/** Timers that a change of a member sets and clears; their key is the member's actor id. */
export type MemberTimer = "suspicion" | "forgetDown";

/** What the membership works on; shared with the machine it is a part of. */
export interface MembershipOptions<Timer extends string> {
  readonly config: SwimConfig;
  readonly prng: Prng;
  readonly awareness: Awareness;
  readonly identity: Identity;
  readonly timers: TimerTable<Timer | MemberTimer>;
  readonly stats: SwimStats;
  readonly notify: (event: SwimEvent) => void;
}

/** How news about members is spread. */
export interface GossipState {
  /** Updates that are still sent. */
  readonly waiting: number;
  /** How often an update is sent in a cluster of this size. */
  readonly transmissionsMax: number;
  /** Members asked to probe indirectly. */
  readonly indirectProbes: number;
}

/** The member list with everything that hangs on its changes. */
export class Membership<Timer extends string> {
  /** The records; changed through `apply` alone, except for forgetting. */
  readonly list: MemberList;
  /** News to be spread. */
  readonly queue = new DisseminationQueue();
  readonly #suspicions = new Suspicions();
  readonly #options: MembershipOptions<Timer>;

  constructor(options: MembershipOptions<Timer>) {
    this.#options = options;
    this.list = new MemberList({ membersMax: options.config.membersMax, prng: options.prng });
  }

  get gossip(): GossipState {
    const { config } = this.#options;
    const transmissionsMax = maxTransmissions(config, this.list.active.length);
    const { indirectProbes } = config;
    return { waiting: this.queue.size, transmissionsMax, indirectProbes };
  }

  /**
   * Takes news about anyone from `teller`, which is ourselves for a verdict of our own. Says whether
   * the identity they are about counts as active afterwards, or that they are about our own, which
   * is left to the caller.
   */
  apply(news: MemberUpdate, teller: ActorId, nowMs: number): "active" | "inactive" | "aboutSelf" {
    const { actor } = news;
    const self = this.#options.identity.actor;
    if (actor.id === NIL_ACTOR_ID) return "inactive";
    if (isSameActor(actor, self)) return "aboutSelf";
    if (actor.id === self.id) {
      this.noteOwnIdentity(news);
      return "inactive";
    }
    const outcome = this.list.apply(news, nowMs);
    switch (outcome.kind) {
      case "unchanged":
        if (outcome.better !== null) this.#answerStale(outcome.better);
        else if (news.state === "suspect") this.#confirm(news, teller, nowMs);
        return outcome.isActive ? "active" : "inactive";
      case "full":
        this.#options.stats.membersRefused += 1;
        return "inactive";
      case "changed":
        this.spread(outcome.after);
        this.#setTimers(outcome.after, teller, nowMs);
        this.#report(outcome.before, outcome.after);
        return isActive(outcome.after) ? "active" : "inactive";
    }
  }

  /**
   * Somebody knows another identity of our id. The newest of our earlier ones is spread as down;
   * one newer than ours means that our stamps are behind, which the next renewal mends.
   */
  noteOwnIdentity({ actor }: Pick<MemberUpdate, "actor">): void {
    const age = this.#options.identity.note(actor);
    if (age === "known") return;
    this.spread({ actor, incarnation: 0, state: "down" });
    if (age === "earlier") return;
    this.#options.stats.identityConflicts += 1;
    this.#options.notify({ kind: "identityConflict", other: actor });
  }

  /** Moves every timer later: time in which we were not run counts against nobody. */
  postponeAll(byMs: number): void {
    this.#options.timers.postponeAll(byMs);
    this.#suspicions.postponeAll(byMs);
  }

  /** A suspicion's time is over: whether it waits on, because we have become later meanwhile. */
  extendSuspicion(id: ActorId, nowMs: number): boolean {
    const { config, timers, awareness } = this.#options;
    const longestMs = awareness.stretch(suspectToDownMs(config, this.list.active.length));
    const laterMs = this.#suspicions.extend(id, { nowMs, longestMs });
    if (laterMs !== null) timers.set("suspicion", laterMs, id);
    return laterMs !== null;
  }

  /** Queues news for the packets to come, in place of earlier ones about the same replica. */
  spread({ actor, incarnation, state }: MemberUpdate): void {
    const transmissions = maxTransmissions(this.#options.config, this.list.active.length);
    this.queue.add({ actor, incarnation, state }, transmissions);
  }

  /**
   * Whoever told us has missed something. Once is enough: with luck it rides on our answer to the
   * same packet.
   */
  #answerStale({ actor, incarnation, state }: Member): void {
    if (!this.queue.has(actor.id)) this.queue.add({ actor, incarnation, state }, 1);
  }

  #setTimers(after: Member, teller: ActorId, nowMs: number): void {
    const { config, timers, awareness } = this.#options;
    const { id } = after.actor;
    timers.clear("suspicion", id);
    timers.clear("forgetDown", id);
    this.#suspicions.end(id);
    if (after.state === "suspect") {
      const members = this.list.active.length;
      const leastMs = suspectToDownMs(config, members);
      const longestMs = awareness.stretch(leastMs);
      const start = { nowMs, leastMs, longestMs, teller, others: members - 1 };
      timers.set("suspicion", this.#suspicions.begin(id, start), id);
    } else if (after.state === "down") {
      timers.set("forgetDown", nowMs + config.forgetDownAfterMs, id);
    }
  }

  /** Another one suspects the same: the suspicion needs less time. */
  #confirm({ actor, incarnation }: MemberUpdate, teller: ActorId, nowMs: number): void {
    const { config, timers, awareness } = this.#options;
    const known = this.list.get(actor.id);
    if (known?.state !== "suspect" || known.incarnation !== incarnation) return;
    if (!isSameActor(known.actor, actor)) return;
    const graceMs = awareness.stretch(config.probePeriodMs);
    const earlierMs = this.#suspicions.confirm(actor.id, { nowMs, teller, graceMs });
    if (earlierMs !== null) timers.set("suspicion", earlierMs, actor.id);
  }

  #report(before: Member | null, after: Member): void {
    const { notify } = this.#options;
    const { actor, incarnation, state } = after;
    const wasActive = before !== null && isActive(before);
    const isRenamed = before !== null && !isSameActor(before.actor, actor);
    if (isRenamed) notify({ kind: "renamed", before: before.actor, after: actor });
    if (!wasActive && isActive(after)) notify({ kind: "memberUp", actor });
    if (wasActive && !isActive(after)) notify({ kind: "memberDown", actor });
    if (state === "suspect" && (isRenamed || before?.state !== "suspect")) {
      notify({ kind: "memberSuspect", actor, incarnation });
    }
    if (state === "alive" && before?.state === "suspect") {
      notify({ kind: "memberAlive", actor, incarnation });
    }
  }
}
