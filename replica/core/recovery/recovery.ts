/**
 * Finds out how far our own versions go when the store cannot tell: after a power loss, or with a
 * file that was put back. Until it is done no version of ours is given out.
 *
 * ```
 *  waiting --a peer has said what it knows of us--> asking
 *     |       rounds of sync bring our versions back   |
 *     |                         all of them, or a round without any of them
 *     |                                                v
 *     |  nobody is expected                        finishing --stored--> over
 *     |-------------------------------------------------^
 *     '--others are expected, none answers--> renewing (the process ends, and starts as another)
 * ```
 *
 * A few peers are asked, not one: what left us last may have reached only some. What they know of
 * and cannot give stays a gap, which any peer may fill later; it is skipped, not given out again.
 *
 * Known limit: a version that reached only replicas that cannot be reached meanwhile is given out
 * twice. Nothing on this side can tell.
 */
import type { Machine } from "#base/machine.ts";
import type { ActorId } from "../../types.ts";

/** What a recovery is told. */
export type RecoveryInput =
  /** Begins. `hasPeers`: others are configured or were members, so their silence means something. */
  | { readonly kind: "start"; readonly hasPeers: boolean }
  /** A peer said what it knows of us. */
  | { readonly kind: "compared"; readonly peer: ActorId; readonly head: number }
  /** A round of sync is over, and what it brought is stored. */
  | { readonly kind: "roundFinished"; readonly own: OwnBook; readonly members: number }
  | { readonly kind: "tick"; readonly own: OwnBook; readonly members: number }
  /** The answer to `finish`. */
  | { readonly kind: "finished"; readonly isStored: boolean };

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
  /** How long to wait for the first member. */
  readonly aloneMs: number;
  /** How long to wait for an answer when there are members. */
  readonly silentMs: number;
  /** Until the store is asked again that was too busy. */
  readonly retryMs: number;
}

/** The times of production. */
export const RECOVERY_DEFAULTS: RecoveryConfig = {
  aloneMs: 10_000,
  silentMs: 60_000,
  retryMs: 1_000,
};

/** One recovery; there is at most one in the life of a process. */
export class Recovery implements Machine<RecoveryInput, RecoveryOutput> {
  readonly #config: RecoveryConfig;
  #phase: "idle" | "waiting" | "asking" | "finishing" | "renewing" | "over" = "idle";
  #hasPeers = false;
  #startedMs = 0;
  #deadlineMs = Number.POSITIVE_INFINITY;
  readonly #compared = new Set<ActorId>();
  /** Greatest version of ours that anybody knows of. */
  #greatest = 0;
  /** What was missing at the end of the last round. */
  #missingBefore = Number.POSITIVE_INFINITY;
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
        this.#hasPeers = input.hasPeers;
        this.#startedMs = nowMs;
        this.#deadlineMs = nowMs + this.#config.aloneMs;
        return;
      case "compared":
        return this.#onCompared(input.peer, input.head);
      case "roundFinished":
        return this.#onRoundFinished(input.own, input.members, nowMs);
      case "tick":
        if (nowMs >= this.#deadlineMs) this.#onDeadline(input.own, input.members, nowMs);
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

  #onRoundFinished(own: OwnBook, members: number, nowMs: number): void {
    if (this.#phase !== "asking") return;
    const missing = own.missing + Math.max(0, this.#greatest - own.head);
    const isFruitless = missing >= this.#missingBefore;
    this.#missingBefore = missing;
    const isPatient = nowMs < this.#startedMs + this.#config.aloneMs;
    const hasAskedEnough = this.#compared.size >= Math.min(PEERS_ENOUGH, members);
    if ((missing === 0 || isFruitless) && (hasAskedEnough || !isPatient)) this.#finish(own);
    else this.#outbox.push({ kind: "askAgain" });
  }

  #onDeadline(own: OwnBook, members: number, nowMs: number): void {
    this.#deadlineMs = Number.POSITIVE_INFINITY;
    if (this.#phase === "finishing") return this.#finish(own);
    if (this.#phase === "asking") {
      // Whoever answered is gone again: what they know of is skipped all the same.
      if (members === 0) return this.#finish(own);
      this.#deadlineMs = nowMs + this.#config.aloneMs;
      this.#outbox.push({ kind: "askAgain" });
    }
    if (this.#phase !== "waiting") return;
    const isSilent = nowMs >= this.#startedMs + this.#config.silentMs;
    if (members > 0 && !isSilent) {
      this.#deadlineMs = this.#startedMs + this.#config.silentMs;
      this.#outbox.push({ kind: "askAgain" });
      return;
    }
    if (!this.#hasPeers && members === 0) return this.#finish(own);
    this.#phase = "renewing";
    this.#outbox.push({ kind: "renew" });
  }

  #finish(own: OwnBook): void {
    this.#phase = "finishing";
    this.#outbox.push({ kind: "finish", head: Math.max(own.head, this.#greatest) });
  }
}

/** What arrives at three arrives, as a rule, everywhere. */
const PEERS_ENOUGH = 3;
/**
 * No replica writes so much; a peer that claims more could leave us without any version to give out
 * that others believe in (`VERSION_BELIEVED_MAX`).
 */
export const OWN_HEAD_BELIEVED_MAX = 2 ** 48;
