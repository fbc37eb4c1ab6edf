/**
 * Exit codes of every Patina process, one meaning each. The supervisor passes its edge's code on.
 *
 * Codes from 128 up are 128 + the number of the signal that ended the process, as shells have it.
 */

/** Exit code by meaning. */
export const EXIT = {
  /** Ended as asked. */
  ok: 0,
  /** A bug of ours or an exception: the log or the stall file says which. */
  internal: 1,
  /** The config file or the command line is wrong. */
  config: 2,
  /** Set-up could not be completed: a tool or a package is missing. */
  setup: 3,
  portInUse: 4,
  /** Another process owns the database or the gossip port. */
  storeLocked: 5,
  databaseCorrupt: 6,
  diskFull: 7,
  certificateUnreadable: 8,
  /** The edge ended again and again before it was ready. */
  crashLoop: 9,
  /** An upgrade came to nothing, and the edge process before it goes on. */
  upgradeFailed: 10,
  /** Nobody runs, or answers in time, where a command asked. */
  unreachable: 11,
  /** A running replica answered a command with a refusal, whose text follows. */
  refused: 12,
  /** A backup or checkpoint could not be taken or used: its file, its store or what is in it. */
  copyUnusable: 13,
  /** A host or machine of the demo did not start. */
  demoFailed: 14,
} as const;

/** A meaning that has an exit code. */
export type ExitMeaning = keyof typeof EXIT;

/**
 * Codes that a restart cannot mend: somebody has to change something first. The supervisor ends with
 * them, unless an edge of its has already been ready.
 */
export const LASTING_EXIT_CODES: readonly number[] = [
  EXIT.config,
  EXIT.setup,
  EXIT.portInUse,
  EXIT.storeLocked,
  EXIT.databaseCorrupt,
  EXIT.diskFull,
  EXIT.certificateUnreadable,
];
