/**
 * Keeps the quarantine of an edge: judges the watchdog's evidence at a start, keeps what is held in
 * a file, ends it in time, tells the routing tables, and answers the operator.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { errorText } from "#base/errors.ts";
import type { Logger } from "#base/logger.ts";
import type { MetricWriter } from "#base/metric-slots.ts";
import type { WaitingChange } from "../routing/core/canary.ts";
import type { EdgeQuestion } from "../replica/replica.ts";
import {
  NO_QUARANTINE,
  Quarantine,
  readState,
  readSuspect,
  type ChangeName,
  type QuarantineNote,
  type QuarantineState,
  type Suspect,
  type ThawReason,
} from "../routing/core/quarantine.ts";
import { PeerBounces } from "../watchdog/core/peer-bounces.ts";
import { Thaw } from "../watchdog/core/thaw.ts";
import { listStalls, readStall, stallFile } from "../watchdog/driver/stall-files.ts";
import type { FleetBudget, StallEvidence } from "../watchdog/types.ts";
import { setAside, writeWhole } from "./table-file.ts";
import type { HeldChange } from "./threads/notice-desk.ts";

/** What a keeper needs. */
export interface QuarantineKeeperOptions {
  readonly stateFolder: string;
  readonly holdMs: number;
  readonly log: Logger;
  readonly metrics: MetricWriter;
  /** The fleet's, and what peers say of their bounces. */
  readonly fleet: FleetBudget;
  /** What is held has changed; with `isRefeed`, rows that passed before are to come again. */
  readonly onChange: (state: QuarantineState, isRefeed: boolean) => void;
  /** The operator has a change applied that was held: others need not be warned of it. */
  readonly onReleased: (change: ChangeName) => void;
  /** A freeze has ended; `onChange` came first. */
  readonly onThaw: () => void;
}

/** The file that outlives the process. */
export function quarantineFile(stateFolder: string): string {
  return join(stateFolder, "quarantine.json");
}

/** Reads a state file; null = there is none. Throws what is wrong with it. */
export function readQuarantineFile(stateFolder: string): QuarantineState | null {
  let text: string;
  try {
    text = readFileSync(quarantineFile(stateFolder), "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw error;
  }
  const state = readState(JSON.parse(text));
  if (state === null) throw new Error("it is no quarantine of a format known here");
  return state;
}

/** One per edge process, in its main thread. */
export class QuarantineKeeper {
  readonly #options: QuarantineKeeperOptions;
  readonly #quarantine: Quarantine;
  #timer: NodeJS.Timeout | undefined;
  #thaw: Thaw | null = null;
  #bouncedMs: number | null = null;
  #writing: Promise<void> = Promise.resolve();

  private constructor(options: QuarantineKeeperOptions, state: QuarantineState) {
    this.#options = options;
    this.#quarantine = new Quarantine(state, { holdMs: options.holdMs });
  }

  /** Judges what happened since the last start. Resolves when the outcome is on disk. */
  static async open(options: QuarantineKeeperOptions): Promise<QuarantineKeeper> {
    const keeper = new QuarantineKeeper(options, readOrSetAside(options));
    keeper.#judge();
    await keeper.#writing;
    return keeper;
  }

  /** What others may not know yet: what is held, and when the bounce before this start was. */
  get news(): { readonly changes: readonly HeldChange[]; readonly bouncedMs: number | null } {
    const changes = this.state.holds.flatMap(({ change, isDown, expiresMs }) =>
      isDown || change.version === 0 || expiresMs === null ? [] : { change, expiresMs },
    );
    return { changes, bouncedMs: this.#bouncedMs };
  }

  /** What is held. */
  get state(): QuarantineState {
    return this.#quarantine.state;
  }

  /** Newer versions of held rows have been applied. */
  superseded(ids: readonly string[]): void {
    for (const id of ids) this.#quarantine.superseded(id);
    if (ids.length > 0) this.#settle({ isRefeed: false });
  }

  /** The table has taken what it was to take row by row. */
  cautionOver(): void {
    this.#quarantine.cautionOver();
    this.#settle({ isRefeed: false });
  }

  /** Ends a freeze, if there is one. */
  thaw(why: ThawReason): boolean {
    if (!this.#quarantine.thaw(why)) return false;
    this.#settle({ isRefeed: true });
    this.#options.onThaw();
    return true;
  }

  /** Plain data for the operator; `waiting` is what the table waits with, until `release` of its id. */
  answer(
    { action, id }: Extract<EdgeQuestion, { kind: "quarantine" }>,
    table: { readonly waiting: readonly WaitingChange[]; readonly release: (id: string) => void },
  ): unknown {
    if (action === "list") return listing(this.state, table.waiting);
    if (action === "thaw") {
      const { frozen } = this.state;
      return this.thaw("asked") ? frozen : { problem: "the edge is not frozen" };
    }
    const waits = table.waiting.find((one) => one.id === id);
    if (waits !== undefined) {
      if (action === "drop") return { problem: `${id} waits: it can be released` };
      if (action === "release") table.release(id);
      return waits;
    }
    const { holds, origins } = this.state;
    const found = [...holds, ...origins].find((one) => one.id === id);
    if (found === undefined) return { problem: `nothing is held as ${id}` };
    if (action === "release") {
      this.#quarantine.release(id);
      this.#settle({ isRefeed: true });
    } else if (action === "drop") {
      if (!this.#quarantine.drop(id)) {
        return { problem: `${id} is an origin: it can be released, and expires` };
      }
      this.#settle({ isRefeed: false });
    }
    return found;
  }

  /** Ends the timer; resolves when everything is on disk. */
  async stop(): Promise<void> {
    clearTimeout(this.#timer);
    await this.#writing;
  }

  #judge(): void {
    const { stateFolder } = this.#options;
    const last = this.state.lastStallId;
    for (const id of listStalls(stateFolder).toReversed()) {
      if (id <= last) continue;
      const evidence = readStall(stateFolder, id);
      if (!evidence.ok) {
        setEvidenceAside(this.#options, { id, problem: evidence.error });
        continue;
      }
      const stalledMs = Date.parse(evidence.value.time);
      const suspect = isOfTable(evidence.value) ? suspectOf(evidence.value) : null;
      this.#quarantine.blame({
        stallId: id,
        stalledMs: Number.isFinite(stalledMs) ? stalledMs : Date.now(),
        suspect,
        crumbs: evidence.value.lastBreadcrumbs,
      });
      this.#judgeFleet(evidence.value, stalledMs);
    }
    this.#quarantine.expire(Date.now());
    this.#settle({ isRefeed: false });
  }

  /** One that ended longer ago than the window says nothing of the fleet as it is. */
  #judgeFleet({ id, action, fleet }: StallEvidence, stalledMs: number): void {
    if (action !== "bounce" || !Number.isFinite(stalledMs)) return;
    this.#bouncedMs = stalledMs;
    const { windowMs } = this.#options.fleet.budget;
    if (fleet?.isSpent !== true || stalledMs + windowMs <= Date.now()) return;
    this.#quarantine.freeze({ stallId: id, sinceMs: stalledMs, peers: fleet.peers });
  }

  #settle({ isRefeed }: { isRefeed: boolean }): void {
    const { metrics, onChange } = this.#options;
    for (const note of this.#quarantine.drain()) this.#tell(note);
    const { holds, origins, frozen } = this.state;
    metrics.gauge("patina_quarantine_holds", { kind: "change" }).set(holds.length);
    metrics.gauge("patina_quarantine_holds", { kind: "origin" }).set(origins.length);
    metrics.gauge("patina_quarantine_frozen").set(frozen === null ? 0 : 1);
    this.#write();
    this.#schedule();
    onChange(this.state, isRefeed);
  }

  #tell(note: QuarantineNote): void {
    const { log } = this.#options;
    switch (note.kind) {
      case "held": {
        const { id, change, isDown, stallId, stalls, expiresMs } = note.hold;
        const how = isDown ? "is in force without the table" : "is held back";
        const fields = { id, ...change, stall: stallId, stalls, expires: timeText(expiresMs) };
        const msg = `a change stalled this edge and ${how}: patina quarantine show ${id}`;
        return log.error("change-held", msg, fields);
      }
      case "originHeld": {
        const { id, actorId, expiresMs } = note.origin;
        const msg = `changes of one origin stalled this edge twice: patina quarantine release ${id}`;
        return log.error("origin-held", msg, { id, actorId, expires: timeText(expiresMs) });
      }
      case "cautious":
        log.warn?.("batch-suspected", "a batch stalled this edge; its rows are taken one by one");
        return;
      case "frozen": {
        const { stallId: stall, peers, sinceMs } = note.freeze;
        const msg =
          `this edge serves from its last known table alone: ${peers} others were bounced as well; ` +
          "patina quarantine thaw";
        return log.error("edge-frozen", msg, { stall, peers, since: timeText(sinceMs) });
      }
      case "thawed":
        log.warn?.("edge-thawed", `the edge takes part again: ${note.why}`, { why: note.why });
        return;
      case "dropped":
        log.info?.("change-dropped", "a held change stays out for good", { id: note.hold.id });
        return;
      case "ended":
        if (note.why === "released" && note.change) this.#options.onReleased(note.change);
        log.info?.("hold-ended", `a hold has ended: ${note.why}`, { id: note.id, why: note.why });
        return;
    }
  }

  #schedule(): void {
    clearTimeout(this.#timer);
    this.#followFreeze();
    const dueMs = Math.min(this.#quarantine.deadlineMs, this.#thaw?.deadlineMs ?? Infinity);
    const waitMs = dueMs - Date.now();
    if (waitMs === Infinity) return;
    this.#timer = setTimeout(
      () => this.#onTimer(),
      Math.min(Math.max(waitMs, 0), TIMER_MAX_MS),
    ).unref();
  }

  #onTimer(): void {
    const { fleet } = this.#options;
    const freeMs = new PeerBounces(fleet.bounces).freeMs(fleet.budget);
    if (this.#thaw?.isOver(freeMs, Date.now()) === true) {
      this.thaw("the others are well again");
    } else if (this.#quarantine.expire(Date.now())) this.#settle({ isRefeed: true });
    else this.#schedule();
  }

  #followFreeze(): void {
    const { frozen } = this.state;
    if (frozen === null) this.#thaw = null;
    if (frozen === null || this.#thaw?.sinceMs === frozen.sinceMs) return;
    const { budget } = this.#options.fleet;
    this.#thaw = new Thaw({ budget, sinceMs: frozen.sinceMs, nextRandom: Math.random });
  }

  #write(): void {
    const { stateFolder, log } = this.#options;
    const text = `${JSON.stringify(this.state, null, 2)}\n`;
    this.#writing = this.#writing
      .then(() => writeWhole(quarantineFile(stateFolder), (file) => file.appendFile(text)))
      .catch((error: unknown) => {
        const msg = `what is held does not outlive this process: ${errorText(error)}`;
        log.warn?.("quarantine-not-saved", msg);
      });
  }
}

function readOrSetAside({ stateFolder, log }: QuarantineKeeperOptions): QuarantineState {
  try {
    return readQuarantineFile(stateFolder) ?? NO_QUARANTINE;
  } catch (error) {
    const file = quarantineFile(stateFolder);
    // Evidence that is still there is judged anew, so that what it names stays held.
    const msg = `the quarantine's file is set aside: ${errorText(error)}`;
    log.warn?.("quarantine-file-damaged", msg, { file, aside: setAside(file) });
    return NO_QUARANTINE;
  }
}

/** What it would have named is not held; everything else goes on. */
function setEvidenceAside(
  { stateFolder, log }: QuarantineKeeperOptions,
  { id, problem }: { readonly id: string; readonly problem: string },
): void {
  const file = stallFile(stateFolder, id);
  const msg = `evidence of a stall cannot be read: ${problem}`;
  try {
    log.warn?.("evidence-damaged", msg, { file, aside: setAside(file) });
  } catch (error) {
    log.warn?.("evidence-damaged", msg, { file, aside: null, error: errorText(error) });
  }
}

/** A first table that stalls as a whole is not to be loaded as a whole again. */
function suspectOf({ breadcrumb, phase }: StallEvidence): Suspect | null {
  const suspect = readSuspect(breadcrumb);
  return suspect?.kind === "batch" && phase === "load" ? { ...suspect, untilVersion: 0 } : suspect;
}

/** Only threads with a routing table note rows, but another one's request may be anything. */
function isOfTable({ kind, loop, action }: StallEvidence): boolean {
  const isEnd = kind === "crash" || (kind === "stall" && action === "bounce");
  return isEnd && (loop === "main" || loop.startsWith("data-plane-"));
}

/** What `patina quarantine list` shows: everything but the images. */
export function listing(
  { holds, origins, frozen }: QuarantineState,
  waiting: readonly WaitingChange[],
): unknown {
  const images = holds.map((hold) => ({ ...hold, previous: undefined }));
  return { holds: images, origins, waiting, frozen };
}

function timeText(ms: number | null): string {
  return ms === null ? "never" : new Date(ms).toISOString();
}

/** Timers hold 31 bits. */
const TIMER_MAX_MS = 86_400_000;
