/**
 * Errors of the admin socket and of backup files, once each: what they mean, what they did to the
 * state, and whether trying again can help. None reaches an HTTP client.
 */
import { type ErrorKind, PatinaError } from "#base/errors.ts";

/** Codes of this folder. */
export type AdminErrorCode = keyof typeof ADMIN_ERRORS;

/** Every code that the admin socket, its client and the backup commands end with. */
export const ADMIN_ERRORS = {
  ADMIN_BIND: {
    meaning: "the admin socket cannot be made at its path",
    effect: "the replica does not start",
    retryable: false,
  },
  ADMIN_UNREACHABLE: {
    meaning: "nobody answers at the admin socket's path, or the connection broke",
    effect: "whether the last request was carried out is not known",
    retryable: true,
  },
  ADMIN_REFUSED: {
    meaning: "the replica answered the request with an error, whose text follows",
    effect: "nothing changed, unless the text says so",
    retryable: false,
  },
  EDGE_SILENT: {
    meaning: "the edge's main thread, which has the routing table, does not answer in time",
    effect: "none; the watchdog judges that thread by itself",
    retryable: true,
  },
  BACKUP_SOURCE: {
    meaning: "the file to copy is missing, no database, damaged, or none of a replica's",
    effect: "nothing was written",
    retryable: false,
  },
  BACKUP_TARGET: {
    meaning: "the file to write exists already, or cannot be written",
    effect: "nothing was written",
    retryable: false,
  },
} as const satisfies Record<string, ErrorKind>;

/** An error of this folder with one of its codes. */
export function adminError(code: AdminErrorCode, message: string, cause?: unknown): PatinaError {
  return new PatinaError(code, message, cause === undefined ? {} : { cause });
}
