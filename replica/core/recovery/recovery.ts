/**
 * Finds out how far our own versions go when the store cannot tell: after a power loss, or with a
 * file that was put back. Until it is done no version of ours is given out.
 *
 * ```
 *  waiting --a peer has said what it knows of us--> asking
 *     |       rounds of sync bring our versions back   |
 *     |              every member was asked, and all of them are here, or a round brought none
 *     |                                                v
 *     |                                            finishing --stored--> over
 *     |
 *     '--nobody there, or nobody answers--> renewing (the process ends, and starts as another)
 * ```
 *
 * Every member is asked that can be reached within ten seconds: what left us last may have reached
 * only one. New members are waited for a little, because a replica that starts hears of the others
 * one after another. What they know of and cannot give stays a gap, which any peer may fill later; it
 * is skipped, not given out again.
 *
 * Silence proves nothing, however few others are configured: a host by which others join has no
 * bootstrap, and in its first minutes no saved members.
 *
 * Known limit: a version that reached only replicas that cannot be reached meanwhile is given out
 * twice. Nothing on this side can tell.
 */
import type { Machine } from "#base/machine.ts";
import type { ActorId } from "../../types.ts";

/** What a recovery is told. */
export type RecoveryInput =
  | { readonly kind: "start" }
  /** A peer said what it knows of us. */
  | { readonly kind: "compared"; readonly peer: ActorId; readonly head: number }
  /** A round of sync is over, and what it brought is stored. */
  | ({ readonly kind: "roundFinished" } & RecoveryView)
  | ({ readonly kind: "tick" } & RecoveryView)
  /** The answer to `finish`. */
  | { readonly kind: "finished"; readonly isStored: boolean };

/** What is known at the time. */
export interface RecoveryView {
  readonly own: OwnBook;
  /** Active members. */
  readonly members: readonly ActorId[];
}

/** Our own book as it is. */
export interface OwnBook {
  readonly head: number;
  /** Versions at or below it that are missing or partial. */
  readonly missing: number;
}

/** What a recovery wants done. */
export type RecoveryOutput =
  /** Begin another round of sync soon. */
  | { readonly kind: "askAgain" }
  /** Go on above `head`; answer with `finished`. */
  | { readonly kind: "finish"; readonly head: number }
  /** Take a new identity, which needs a restart. */
  | { readonly kind: "renew" };

/** Times, in milliseconds. */
export interface RecoveryConfig {
  /** How long to wait for the first member, and for the last. */
  readonly aloneMs: number;
  /** Time without a new member after which no more are expected. */
  readonly calmMs: number;
  /** How long to wait for an answer when there are members. */
  readonly silentMs: number;
  /** Until the store is asked again that was too busy. */
  readonly retryMs: number;
}

/** The times of production. */
export const RECOVERY_DEFAULTS: RecoveryConfig = {
  aloneMs: 10_000,
  // Two exchanges of members over the slowest links, and a probe between them.
  calmMs: 2_000,
  silentMs: 60_000,
  retryMs: 1_000,
};

/** One recovery; there is at most one in the life of a process. */
export class Recovery implements Machine<RecoveryInput, RecoveryOutput> {
  readonly #config: RecoveryConfig;
  #phase: "idle" | "waiting" | "asking" | "finishing" | "renewing" | "over" = "idle";
  #startedMs = 0;
  #deadlineMs = Number.POSITIVE_INFINITY;
  readonly #compared = new Set<ActorId>();
  readonly #seen = new Set<ActorId>();
  /** When the last new member was seen. */
  #newMemberMs = 0;
  /** Greatest version of ours that anybody knows of. */
  #greatest = 0;
  /** What was missing at the end of the last round, once nobody is left to be asked. */
  #missingBefore = Number.POSITIVE_INFINITY;
  /** That round brought none of what was missing. */
  #isVain = false;
  #outbox: RecoveryOutput[] = [];

  constructor(config: RecoveryConfig) {
    this.#config = config;
  }

  /** Whether own versions may still be missing. */
  get isRunning(): boolean {
    return this.#phase !== "over";
  }

  handle(input: RecoveryInput, nowMs: number): void {
    switch (input.kind) {
      case "start":
        this.#phase = "waiting";
        this.#startedMs = nowMs;
        this.#deadlineMs = nowMs + this.#config.aloneMs;
        return;
      case "compared":
        return this.#onCompared(input.peer, input.head);
      case "roundFinished":
        return this.#onRoundFinished(input, nowMs);
      case "tick":
        if (nowMs >= this.#deadlineMs) this.#onDeadline(input, nowMs);
        return;
      case "finished":
        if (this.#phase !== "finishing") return;
        if (input.isStored) this.#phase = "over";
        this.#deadlineMs = input.isStored ? Number.POSITIVE_INFINITY : nowMs + this.#config.retryMs;
        return;
    }
  }

  drain(): RecoveryOutput[] {
    const outputs = this.#outbox;
    this.#outbox = [];
    return outputs;
  }

  deadlineMs(): number {
    return this.#deadlineMs;
  }

  #onCompared(peer: ActorId, head: number): void {
    if (this.#phase !== "waiting" && this.#phase !== "asking") return;
    this.#phase = "asking";
    this.#compared.add(peer);
    this.#greatest = Math.max(this.#greatest, Math.min(head, OWN_HEAD_BELIEVED_MAX));
  }

  #onRoundFinished(view: RecoveryView, nowMs: number): void {
    if (this.#phase !== "asking") return;
    this.#notice(view.members, nowMs);
    const missing = this.#missing(view.own);
    const hasAskedAll = this.#hasAskedAll(view.members);
    this.#isVain = missing >= this.#missingBefore;
    const isOut = nowMs >= this.#startedMs + this.#config.aloneMs;
    this.#missingBefore = hasAskedAll || isOut ? missing : Number.POSITIVE_INFINITY;
    const isDone = missing === 0 || this.#isVain;
    const calmMs = this.#newMemberMs + this.#config.calmMs;
    if (isDone && (isOut || (hasAskedAll && nowMs >= calmMs))) return this.#finish(view.own);
    if (isDone && hasAskedAll) this.#deadlineMs = Math.min(this.#deadlineMs, calmMs);
    else this.#outbox.push({ kind: "askAgain" });
  }

  #onDeadline(view: RecoveryView, nowMs: number): void {
    this.#deadlineMs = Number.POSITIVE_INFINITY;
    if (this.#phase === "finishing") return this.#finish(view.own);
    if (this.#phase === "asking") return this.#onAskingDeadline(view, nowMs);
    if (this.#phase !== "waiting") return;
    const silentMs = this.#startedMs + this.#config.silentMs;
    if (view.members.length > 0 && nowMs < silentMs) {
      this.#deadlineMs = silentMs;
      this.#outbox.push({ kind: "askAgain" });
      return;
    }
    this.#phase = "renewing";
    this.#outbox.push({ kind: "renew" });
  }

  #onAskingDeadline(view: RecoveryView, nowMs: number): void {
    const { members, own } = view;
    this.#notice(members, nowMs);
    const outMs = this.#startedMs + this.#config.aloneMs;
    const isDone = this.#missing(own) === 0 || this.#isVain;
    const isCalm = nowMs >= this.#newMemberMs + this.#config.calmMs;
    if (nowMs < outMs && isDone && isCalm && this.#hasAskedAll(members)) return this.#finish(own);
    // Whoever answered is gone again: what they know of is skipped all the same.
    if (nowMs >= outMs && members.length === 0) return this.#finish(own);
    this.#deadlineMs = nowMs < outMs ? outMs : nowMs + this.#config.aloneMs;
    this.#outbox.push({ kind: "askAgain" });
  }

  #notice(members: readonly ActorId[], nowMs: number): void {
    for (const member of members) {
      if (this.#seen.has(member)) continue;
      this.#seen.add(member);
      this.#newMemberMs = nowMs;
    }
  }

  #hasAskedAll(members: readonly ActorId[]): boolean {
    return members.every((member) => this.#compared.has(member));
  }

  #missing(own: OwnBook): number {
    return own.missing + Math.max(0, this.#greatest - own.head);
  }

  #finish(own: OwnBook): void {
    this.#phase = "finishing";
    this.#outbox.push({ kind: "finish", head: Math.max(own.head, this.#greatest) });
  }
}

/**
 * No replica writes so much; a peer that claims more could leave us without any version to give out
 * that others believe in (`VERSION_BELIEVED_MAX`).
 */
export const OWN_HEAD_BELIEVED_MAX = 2 ** 48;
