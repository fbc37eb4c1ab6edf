/**
 * When a failed attempt may be repeated: the one table of it.
 *
 * The rule is proof: a request is repeated only when the failure shows that no upstream can have
 * acted on it, or when acting twice is the same as once.
 *
 * | what failed                               | repeat when                                       |
 * |-------------------------------------------|---------------------------------------------------|
 * | connect (nothing was sent)                | always, on another machine                        |
 * | pooled connection, no response byte       | idempotent and all that was sent is at hand; or   |
 * |                                           | the request has a body and none of it was sent    |
 * | fresh connection, no response byte        | idempotent and all that was sent is at hand: once |
 * |                                           | in a request, on another machine                  |
 * |                                           | while the budget (core/retry-budget.ts) lasts     |
 * | after a response byte                     | never                                             |
 *
 * The third line is for machines that die with requests in flight. It is bounded to one move, so that
 * a request that kills its machine does not go through all of them.
 *
 * A body that was not sent proves something only when there is one: a POST with an empty body is
 * whole as soon as its head is.
 */

/** What a failed attempt had done. */
export interface FailedAttempt {
  readonly stage: "connect" | "sent" | "answering";
  /** The connection came from the pool. */
  readonly wasReused: boolean;
  readonly isIdempotent: boolean;
  readonly hasBody: boolean;
  /** Body bytes that left for an upstream, over all attempts. */
  readonly bodySent: "none" | "kept" | "gone";
  /** Attempts made, this one included. */
  readonly attempts: number;
  readonly attemptsMax: number;
  /** A stale pooled connection was already made up for once in this request. */
  readonly wasRepeated: boolean;
  /** The request was already moved once from a machine that took it and broke off. */
  readonly wasMoved: boolean;
  /** Too much of the traffic was repeated lately. */
  readonly isBudgetSpent: boolean;
  /** The time allowed for connecting is used up. */
  readonly isOutOfTime: boolean;
}

/**
 * `exclude`: leave out the failed upstream; `again`: the same one may be picked, freshly dialled.
 */
export type RetryDecision =
  | { readonly kind: "exclude" }
  | { readonly kind: "again" }
  | { readonly kind: "skip"; readonly reason: RetrySkipped };

/** Why a failed attempt is not repeated; in the log as `retry_skipped`. */
export type RetrySkipped =
  | "response-started"
  | "attempts-used-up"
  | "out-of-time"
  | "moved-once"
  | "budget-spent"
  | "not-idempotent"
  | "body-gone";

/** Decides; allocates nothing. */
export function decideRetry(failed: FailedAttempt): RetryDecision {
  if (failed.stage === "answering") return SKIP["response-started"];
  if (failed.attempts >= failed.attemptsMax) return SKIP["attempts-used-up"];
  if (failed.stage === "connect") return failed.isOutOfTime ? SKIP["out-of-time"] : EXCLUDE;
  const isStale = failed.wasReused && !failed.wasRepeated;
  if (isStale && failed.hasBody && failed.bodySent === "none") return AGAIN;
  if (!failed.isIdempotent) return SKIP["not-idempotent"];
  if (failed.bodySent === "gone") return SKIP["body-gone"];
  if (isStale) return AGAIN;
  if (failed.wasMoved) return SKIP["moved-once"];
  return failed.isBudgetSpent ? SKIP["budget-spent"] : EXCLUDE;
}

const EXCLUDE: RetryDecision = { kind: "exclude" };
const AGAIN: RetryDecision = { kind: "again" };

const SKIP = {
  "response-started": { kind: "skip", reason: "response-started" },
  "attempts-used-up": { kind: "skip", reason: "attempts-used-up" },
  "out-of-time": { kind: "skip", reason: "out-of-time" },
  "moved-once": { kind: "skip", reason: "moved-once" },
  "budget-spent": { kind: "skip", reason: "budget-spent" },
  "not-idempotent": { kind: "skip", reason: "not-idempotent" },
  "body-gone": { kind: "skip", reason: "body-gone" },
} as const satisfies Record<RetrySkipped, RetryDecision>;
