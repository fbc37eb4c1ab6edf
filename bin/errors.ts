/**
 * Errors that end a command or a process before or beside its work, once each: what they mean, what
 * they did to the state, and whether trying again can help. None reaches an HTTP client;
 * `proxy/exit-code-of.ts` gives the exit codes.
 */
import type { ErrorKind } from "#base/errors.ts";

/** Every code that a command ends with and that no other folder declares. */
export const COMMAND_ERRORS = {
  USAGE: {
    meaning: "a flag, an argument or a file given on the command line is not usable",
    effect: "nothing was done, or only the documents before the one named were published",
    retryable: false,
  },
  CONFIG_INVALID: {
    meaning: "the config file, with flags and environment laid over it, breaks a rule",
    effect: "nothing was started or written",
    retryable: false,
  },
  CONFIG_UNREADABLE: {
    meaning: "the config file cannot be read",
    effect: "nothing was started or written",
    retryable: false,
  },
  SCHEMA_BUDGET: {
    meaning: "a change of the schema costs more than a cluster takes unnoticed",
    effect: "nothing was changed; --allow lifts the budget",
    retryable: false,
  },
  API_UNREACHABLE: {
    meaning: "nobody answers at the replica's API address",
    effect: "whether the last request was carried out is not known",
    retryable: true,
  },
  API_REFUSED: {
    meaning: "the replica's API answered with a refusal, whose text follows",
    effect: "nothing of that request was written",
    retryable: false,
  },
  SUPERVISOR_UNREACHABLE: {
    meaning:
      "no supervisor runs by this config, or it says nothing of the upgrade it was asked for",
    effect: "none that is known: `upgrade.json` in the state folder says what came of it",
    retryable: true,
  },
  UPGRADE_REFUSED: {
    meaning: "the supervisor did not begin the upgrade, for the reason that follows",
    effect: "none: the edge process goes on",
    retryable: true,
  },
  UPGRADE_ROLLED_BACK: {
    meaning: "the new edge process did not get as far as serving, for the reason that follows",
    effect: "the old one goes on as before, with the config it had",
    retryable: true,
  },
  DEMO_FAILED: {
    meaning: "a host or machine of the demo did not start, or was refused what it published",
    effect: "the demo ends and stops its processes",
    retryable: true,
  },
  INTERNAL: {
    meaning: "a bug: something failed that no rule foresees",
    effect: "the process ends; its supervisor starts it again",
    retryable: true,
  },
} as const satisfies Record<string, ErrorKind>;
