/**
 * Errors of checkpoints, once each: what they mean, what they did to the state, and whether trying
 * again can help. None reaches an HTTP client.
 */
import { type ErrorKind, PatinaError } from "#base/errors.ts";

/** Codes of this folder. */
export type CheckpointErrorCode = keyof typeof CHECKPOINT_ERRORS;

/** Every code that taking, listing and restoring checkpoints ends with. */
export const CHECKPOINT_ERRORS = {
  CHECKPOINT_NONE: {
    meaning: "there is no checkpoint of that name, or none at all",
    effect: "nothing was written",
    retryable: false,
  },
  CHECKPOINT_DAMAGED: {
    meaning: "the checkpoint is cut short, has other bytes than were written, or is something else",
    effect: "nothing was written; an older checkpoint may be whole",
    retryable: false,
  },
  CHECKPOINT_FORMAT: {
    meaning: "the checkpoint is of a newer format than this Patina reads",
    effect: "nothing was written",
    retryable: false,
  },
  CHECKPOINT_CLUSTER: {
    meaning: "the checkpoint is of another cluster id",
    effect: "nothing was written",
    retryable: false,
  },
  CHECKPOINT_STORE: {
    meaning: "the store cannot be reached, answers with an error, too slowly, or not to the end",
    effect: "no checkpoint was added or replaced; nothing was written here",
    retryable: true,
  },
  CHECKPOINT_DENIED: {
    meaning: "the store or the folder refuses access",
    effect: "nothing was written",
    retryable: false,
  },
} as const satisfies Record<string, ErrorKind>;

/** An error of this folder with one of its codes. */
export function checkpointError(
  code: CheckpointErrorCode,
  message: string,
  cause?: unknown,
): PatinaError {
  return new PatinaError(code, message, cause === undefined ? {} : { cause });
}
