/**
 * Notices a replica that no longer applies although changes arrive: batches are with the store, or
 * come back undone again and again, and none has been decided on for a while.
 *
 * It is said once, as an alert that names the change that waits longest, and once more when it is
 * over. Nothing is killed for it: the data plane serves what it knows. A store whose loop stands
 * still is the watchdog's to find.
 */
import type { Logger } from "#base/logger.ts";
import type { Changeset } from "../types.ts";

/** What a watch is made of. */
export interface ApplyWatchOptions {
  readonly log: Logger;
  /** How long changes may wait without any being decided on. */
  readonly limitMs: number;
}

/** Follows the batches of one replica; times on a monotonic clock. Close it when done. */
export class ApplyWatch {
  readonly #options: ApplyWatchOptions;
  /** Batches with the store, oldest first. */
  readonly #waiting = new Map<number, Changeset | undefined>();
  #nextId = 1;
  /** Since when nothing has been decided on although there was something to do; null = all is well. */
  #sinceMs: number | null = null;
  /** First changeset of the last batch that came back undone. */
  #undone: Changeset | undefined;
  #lastBegunMs = 0;
  #isTold = false;
  readonly #timer: NodeJS.Timeout;

  constructor(options: ApplyWatchOptions) {
    this.#options = options;
    this.#timer = setInterval(() => this.check(performance.now()), CHECK_PERIOD_MS).unref();
  }

  /** Follows a batch to the store's answer, and passes that on. */
  async watch<Outcome>(
    changesets: readonly Changeset[],
    answer: Promise<readonly Outcome[]>,
  ): Promise<readonly Outcome[]> {
    const id = this.begun(changesets, performance.now());
    const outcomes = await answer;
    this.ended(id, outcomes.length, performance.now());
    return outcomes;
  }

  /** Ends the watch. */
  close(): void {
    clearInterval(this.#timer);
  }

  /** A batch goes to the store; the answer is what `ended` wants to know of it. */
  begun(changesets: readonly Changeset[], nowMs: number): number {
    const id = this.#nextId++;
    this.#waiting.set(id, changesets[0]);
    this.#sinceMs ??= nowMs;
    this.#lastBegunMs = nowMs;
    return id;
  }

  /** The store has decided on `outcomes` changesets of a batch; 0 = it could not. */
  ended(id: number, outcomes: number, nowMs: number): void {
    const first = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (outcomes === 0) {
      this.#undone = first;
      return;
    }
    if (this.#isTold) {
      const afterMs = Math.round(nowMs - (this.#sinceMs ?? nowMs));
      this.#options.log.info?.("replica-applies-again", "changes are applied again", { afterMs });
    }
    this.#isTold = false;
    this.#undone = undefined;
    this.#sinceMs = this.#waiting.size > 0 ? nowMs : null;
  }

  /** Says so when nothing has been decided on for too long. Called every so often. */
  check(nowMs: number): void {
    const { limitMs, log } = this.#options;
    if (this.#isTold || this.#sinceMs === null || nowMs - this.#sinceMs < limitMs) return;
    // What came back undone and does not come again is not on its way any more.
    if (this.#waiting.size === 0 && nowMs - this.#lastBegunMs >= limitMs) return;
    this.#isTold = true;
    const [oldest = this.#undone] = this.#waiting.values();
    const forMs = Math.round(nowMs - this.#sinceMs);
    const change = oldest === undefined ? {} : nameOf(oldest);
    const fields = { forMs, batches: this.#waiting.size, ...change };
    log.error("replica-stuck", "changes arrive and none is applied; the edge serves on", fields);
  }
}

function nameOf(changeset: Changeset): Readonly<Record<string, unknown>> {
  const { actorId } = changeset;
  if (changeset.kind !== "full") return { actorId, version: changeset.versions.start };
  const table = changeset.changes[0]?.table;
  return { actorId, version: changeset.version, ...(table === undefined ? {} : { table }) };
}

const CHECK_PERIOD_MS = 1_000;
