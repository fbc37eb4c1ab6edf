/**
 * Codes of the API itself, and the HTTP status of every code that can reach a client of it.
 */
import type { PatinaError } from "#base/errors.ts";
import { QUERY_ERRORS } from "../query/errors.ts";
import { SUBSCRIPTION_ERRORS } from "../subscriptions/errors.ts";
import { STORE_ERRORS, type StoreErrorKind } from "../store/errors.ts";

/** Every code that the API throws. */
export const API_ERRORS = {
  API_BIND: {
    meaning: "the API's address cannot be bound",
    effect: "the API is not served",
    retryable: true,
    httpStatus: 503,
  },
} as const satisfies Record<string, StoreErrorKind>;

/** The status of an error: its code's; 500 for a code that was not meant for clients. */
export function httpStatusOf(error: PatinaError): number {
  const kinds: Readonly<Record<string, StoreErrorKind>> = KINDS;
  return Object.hasOwn(kinds, error.code) ? (kinds[error.code]?.httpStatus ?? 500) : 500;
}

const KINDS = { ...STORE_ERRORS, ...QUERY_ERRORS, ...SUBSCRIPTION_ERRORS, ...API_ERRORS };
