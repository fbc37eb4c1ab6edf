/**
 * Replaces the replica's half of a process alone when one of its threads stalls or dies: both threads
 * are ended, without a word to the cluster, and started anew with the same actor id, while requests
 * go on being routed by the table as it is.
 *
 *   starting ── started ──► open ── stall, exception ──► ending ── both gone ──► opening ── started ─┐
 *                            ▲                              │                        │               │
 *                            │            native code that does not come back      failed          │
 *                            │                              └───────────┬────────────┘               │
 *                            │                                       bounce                          │
 *                            └───────────────────────────────────────────────────────────────────────┘
 *
 * A loop that is lost more often than now and then is a matter for the whole process, and so is
 * everything that goes wrong meanwhile.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { PatinaError, errorText } from "#base/errors.ts";
import type { Logger } from "#base/logger.ts";
import type { Watchdog } from "../watchdog/watchdog.ts";
import { REPLICA_LOOPS, type ReplicaLoop, type ReplicaSide } from "./replica-side.ts";
import type { EndCause } from "./threads/data-plane-threads.ts";

/** What it needs of the process. */
export interface ReplicaReplacementOptions {
  readonly watchdog: Pick<Watchdog, "recordCrash" | "setAction" | "noteEnd">;
  readonly log: Logger;
  /** Has every table leave the store, and gives up the side that is open. */
  readonly giveUp: () => Promise<ReplicaSide | null>;
  /** Opens a side again, for every table to follow. */
  readonly open: () => Promise<ReplicaSide>;
  readonly onReplaced: (cause: EndCause) => void;
  /** Before there was a replica: the process ends as for any failure of its start. */
  readonly onFailure: (error: unknown) => void;
  /** The process must be killed, once its requests are answered. */
  readonly onHopeless: (error: PatinaError) => void;
}

/** One per process. */
export class ReplicaReplacement {
  readonly #options: ReplicaReplacementOptions;
  /** When each loop was lost, newest last. */
  readonly #lossesMs = new Map<ReplicaLoop, number[]>();
  #isReplaceable = false;
  #replacing: Promise<void> | null = null;

  constructor(options: ReplicaReplacementOptions) {
    this.#options = options;
  }

  /** The replica is up: from here on a stall of one of its threads is reported alone. */
  started(): void {
    this.#isReplaceable = true;
    for (const loop of REPLICA_LOOPS) this.#options.watchdog.setAction(loop, "report");
  }

  /** The side is about to be closed on purpose. Resolves when no replacement is under way. */
  async retire(): Promise<void> {
    await this.#replacing;
    this.#isReplaceable = false;
    for (const loop of REPLICA_LOOPS) this.#options.watchdog.setAction(loop, "bounce");
  }

  /** The watchdog has proof, and evidence, that this loop stands still. */
  stalled(loop: ReplicaLoop): void {
    this.#lost(loop, "stall", new PatinaError("INTERNAL", `the ${loop} thread stands still`));
  }

  /** The thread of this loop has ended. */
  crashed(loop: ReplicaLoop, error: unknown): void {
    const mayBeReplaced = this.#isReplaceable && this.#replacing === null;
    this.#options.watchdog.recordCrash(loop, error, mayBeReplaced ? "report" : "bounce");
    this.#lost(loop, "crash", error);
  }

  #lost(loop: ReplicaLoop, cause: EndCause, error: unknown): void {
    if (!this.#isReplaceable && this.#replacing === null) return this.#options.onFailure(error);
    if (this.#replacing !== null || !this.#isWithinBudget(loop)) {
      const text = `the ${loop} thread was lost again: ${errorText(error)}`;
      return this.#options.onHopeless(new PatinaError("INTERNAL", text));
    }
    this.#replacing = this.#replace(loop, cause, error).finally(() => {
      this.#replacing = null;
    });
  }

  #isWithinBudget(loop: ReplicaLoop): boolean {
    const nowMs = performance.now();
    const before = this.#lossesMs.get(loop) ?? [];
    const recent = before.filter((atMs) => nowMs - atMs < WINDOW_MS);
    this.#lossesMs.set(loop, [...recent, nowMs]);
    return recent.length < LOSSES_MAX;
  }

  async #replace(loop: ReplicaLoop, cause: EndCause, error: unknown): Promise<void> {
    const { watchdog, log, giveUp, open, onReplaced, onHopeless } = this.#options;
    const fromMs = performance.now();
    const limit = setTimeout(() => {
      const text = `the ${loop} thread stands still in native code: it did not end in ${END_LIMIT_MS} ms`;
      onHopeless(new PatinaError("INTERNAL", text));
    }, END_LIMIT_MS);
    try {
      const side = await giveUp();
      // The end of a thread takes its time, and is no stall of it.
      for (const one of REPLICA_LOOPS) watchdog.noteEnd(one);
      await side?.abandon();
      clearTimeout(limit);
      await (
        await open()
      ).started;
      const tookMs = Math.round(performance.now() - fromMs);
      const fields = { loop, cause, error: errorText(error), tookMs };
      log.warn?.("replica-replaced", `the ${loop} thread ended and was replaced`, fields);
      onReplaced(cause);
    } catch (thrown) {
      clearTimeout(limit);
      const text = `the replica cannot be started in the place of the one before: ${errorText(thrown)}`;
      onHopeless(new PatinaError("INTERNAL", text, { cause: thrown }));
    }
  }
}

/**
 * Ends the process for another one to be started, once what `drains` begins is over or has had its
 * time. By a signal: a thread that does not end would hold up an orderly exit.
 */
export async function bounceAfter(
  cause: PatinaError,
  log: Logger,
  drains: (ms: number) => readonly unknown[],
): Promise<void> {
  log.error("edge-failed", cause.message, { code: cause.code });
  const drained = Promise.all(drains(BOUNCE_DRAIN_MS));
  await Promise.race([drained, sleep(BOUNCE_LIMIT_MS)]);
  process.kill(process.pid, "SIGKILL");
}

/** A thread that can be ended ends in milliseconds; this is room for a machine without CPU. */
const END_LIMIT_MS = 3_000;
/** Half of it still takes connections; those that come later wait for the next process. */
const BOUNCE_DRAIN_MS = 2_000;
const BOUNCE_LIMIT_MS = 2_500;
/** The first loss may be chance, and the second tells which change it was; a third helps nobody. */
const LOSSES_MAX = 2;
const WINDOW_MS = 60_000;
