/** One round of the sync client: whom it asks what, and what came of it. */
import type { ActorId } from "../../types.ts";
import { RoundPlan } from "./needs.ts";

/** A round from its first session to its last. Mutable; only `sync-client.ts` changes it. */
export interface Round {
  readonly plan: RoundPlan;
  readonly startedMs: number;
  /** Servers of this round, also those that are gone. */
  readonly asked: Set<ActorId>;
  /** A server had nothing that we lack. */
  isInStep: boolean;
  /** Versions answered. */
  received: number;
  /** Changesets that the store recorded. */
  applied: number;
  refused: number;
}

/** A round that begins now. */
export function createRound(nowMs: number): Round {
  const counts = { received: 0, applied: 0, refused: 0 };
  return {
    plan: new RoundPlan(),
    startedMs: nowMs,
    asked: new Set(),
    isInStep: false,
    ...counts,
  };
}
