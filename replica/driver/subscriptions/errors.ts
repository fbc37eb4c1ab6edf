/**
 * Codes of subscriptions and updates, beside the store's and those of queries. None of them changes
 * the state that is replicated.
 */
import { PatinaError } from "#base/errors.ts";
import type { StoreErrorKind } from "../store/errors.ts";

/** Codes of subscriptions. */
export type SubscriptionErrorCode = keyof typeof SUBSCRIPTION_ERRORS;

/** Every code that subscribing rejects with, but for those of the store and of queries. */
export const SUBSCRIPTION_ERRORS = {
  SUBSCRIPTION_QUERY: {
    meaning: "the statement cannot be subscribed to",
    effect: "none",
    retryable: false,
    httpStatus: 400,
  },
  SUBSCRIPTION_TABLE: {
    meaning: "there is no such replicated table",
    effect: "none",
    retryable: false,
    httpStatus: 400,
  },
  SUBSCRIPTION_FROM: {
    meaning: "a change id was given for a query that nobody is subscribed to",
    effect: "none",
    retryable: false,
    httpStatus: 400,
  },
  SUBSCRIPTION_UNKNOWN: {
    meaning: "there is no subscription of this id; one without readers ends after ten minutes",
    effect: "none",
    retryable: false,
    httpStatus: 404,
  },
  SUBSCRIPTION_BUSY: {
    meaning: "as many subscriptions or readers as are allowed exist",
    effect: "none",
    retryable: true,
    httpStatus: 503,
  },
  SUBSCRIPTION_LOST: {
    meaning: "the thread of subscriptions ended",
    effect: "streams end; what is kept on disk is restored at the next start",
    retryable: true,
    httpStatus: 503,
  },
} as const satisfies Record<string, StoreErrorKind>;

/** An error of a subscription. */
export function subscriptionError(code: SubscriptionErrorCode, message: string): PatinaError {
  return new PatinaError(code, message);
}
