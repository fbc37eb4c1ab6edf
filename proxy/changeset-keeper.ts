/**
 * Keeps what `ChangesetHolds` decides: judges the watchdog's evidence at a start and at each loss of a
 * thread, keeps the outcome in a file, ends holds in time, and answers the operator.
 */
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { errorText } from "#base/errors.ts";
import type { Logger } from "#base/logger.ts";
import type { MetricWriter } from "#base/metric-slots.ts";
import { listStalls, readStall } from "../watchdog/driver/stall-files.ts";
import type { StallEvidence } from "../watchdog/types.ts";
import {
  ChangesetHolds,
  NO_CHANGESET_HOLDS,
  readChangesetHolds,
  type BlamedChangeset,
  type ChangesetHoldsState,
} from "./changeset-holds.ts";
import { REPLICA_LOOPS } from "./replica-side.ts";
import { setAside, writeWhole } from "./table-file.ts";

/** What a keeper needs. */
export interface ChangesetKeeperOptions {
  readonly stateFolder: string;
  readonly holdMs: number;
  readonly log: Logger;
  readonly metrics: MetricWriter;
  /** What is held has changed while the replica runs. */
  readonly onChange: (held: readonly BlamedChangeset[]) => void;
}

/** What is held according to the file; nothing where there is none. Throws what is wrong with it. */
export function readHeldChangesets(stateFolder: string): ChangesetHoldsState {
  let text: string;
  try {
    text = readFileSync(fileOf(stateFolder), "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return NO_CHANGESET_HOLDS;
    throw error;
  }
  const state = readChangesetHolds(JSON.parse(text));
  if (state === null) throw new Error("it holds no changesets in a format known here");
  return state;
}

/** One per process, in its main thread. */
export class ChangesetKeeper {
  readonly #options: ChangesetKeeperOptions;
  readonly #holds: ChangesetHolds;
  #timer: NodeJS.Timeout | undefined;
  #writing: Promise<void> = Promise.resolve();

  constructor(options: ChangesetKeeperOptions) {
    const { stateFolder, holdMs } = options;
    this.#options = options;
    mkdirSync(stateFolder, { recursive: true });
    this.#holds = new ChangesetHolds(readOrSetAside(options), { holdMs });
  }

  /** What is held. */
  get held(): readonly BlamedChangeset[] {
    return this.#holds.held;
  }

  /** Judges the evidence of losses since the last time. Resolves when the outcome is on disk. */
  async judge(): Promise<void> {
    const { stateFolder, log } = this.#options;
    for (const id of listStalls(stateFolder).toReversed()) {
      if (id <= this.#holds.state.lastStallId) continue;
      const evidence = readStall(stateFolder, id);
      if (!evidence.ok || !isOfReplica(evidence.value)) continue;
      const lostMs = Date.parse(evidence.value.time);
      const crumb = evidence.value.breadcrumb;
      const held = this.#holds.blame({ stallId: id, lostMs, crumb });
      if (held === null) continue;
      const fields = { id: held.id, actorId: held.actorId, version: held.version };
      const msg = `a changeset ended the replica's threads twice and is held: patina quarantine show ${held.id}`;
      log.error("changeset-held", msg, { ...fields, table: held.table, stall: id });
    }
    this.#holds.expire(Date.now());
    this.#settle();
    await this.#writing;
  }

  /** Plain data for the operator; undefined = `id` is of something else. */
  answer(action: "list" | "show" | "release" | "drop" | "thaw", id: string): unknown {
    const found = this.held.find((one) => one.id === id);
    if (action === "list") return this.held;
    if (found === undefined || action === "show" || action === "thaw") return found;
    if (action === "drop") this.#holds.drop(id);
    else this.#holds.release(id);
    this.#settle();
    this.#options.onChange(this.held);
    const ended = action === "drop" ? "changeset-dropped" : "changeset-released";
    this.#options.log.info?.(ended, "by the operator", { id });
    return found;
  }

  /** Ends the timer; resolves when everything is on disk. */
  async stop(): Promise<void> {
    clearTimeout(this.#timer);
    await this.#writing;
  }

  #settle(): void {
    const { stateFolder, log, metrics } = this.#options;
    metrics.gauge("patina_quarantine_holds", { kind: "changeset" }).set(this.held.length);
    this.#schedule();
    const text = `${JSON.stringify(this.#holds.state, null, 2)}\n`;
    this.#writing = this.#writing
      .then(() => writeWhole(fileOf(stateFolder), (file) => file.appendFile(text)))
      .catch((error: unknown) => {
        const msg = `which changesets are held does not outlive this process: ${errorText(error)}`;
        log.warn?.("changesets-not-saved", msg);
      });
  }

  #schedule(): void {
    clearTimeout(this.#timer);
    const waitMs = this.#holds.deadlineMs - Date.now();
    if (waitMs === Infinity) return;
    this.#timer = setTimeout(
      () => {
        const isOver = this.#holds.expire(Date.now());
        this.#settle();
        if (isOver) this.#options.onChange(this.held);
      },
      Math.min(Math.max(waitMs, 0), TIMER_MAX_MS),
    ).unref();
  }
}

function readOrSetAside({ stateFolder, log }: ChangesetKeeperOptions): ChangesetHoldsState {
  try {
    return readHeldChangesets(stateFolder);
  } catch (error) {
    const file = fileOf(stateFolder);
    // Evidence that is still there is judged anew, so that what it names twice stays held.
    const msg = `the file of held changesets is set aside: ${errorText(error)}`;
    log.warn?.("changesets-file-damaged", msg, { file, aside: setAside(file) });
    return NO_CHANGESET_HOLDS;
  }
}

function isOfReplica({ kind, loop }: StallEvidence): boolean {
  return kind !== "silence" && REPLICA_LOOPS.some((name) => name === loop);
}

function fileOf(stateFolder: string): string {
  return join(stateFolder, "held-changesets.json");
}

/** Timers hold 31 bits. */
const TIMER_MAX_MS = 86_400_000;
