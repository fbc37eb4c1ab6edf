/**
 * Upgrades as the supervisor carries them out: `Upgrade` decides, this starts the other edge process,
 * passes on what the two say and are told, and reports what came of it.
 */
import { rmSync, writeFileSync } from "node:fs";
import { errorText } from "#base/errors.ts";
import type { Logger } from "#base/logger.ts";
import {
  Upgrade,
  type UpgradeFailure,
  type UpgradeInput,
  type UpgradeOutput,
} from "../core/upgrade.ts";
import type { Alerts } from "./driver/alerts.ts";
import { evidenceFields } from "./driver/edge-evidence.ts";
import type { EdgeExit, EdgeRun } from "./driver/edge-process.ts";
import { MachineLoop } from "./driver/machine-loop.ts";
import {
  type EdgeConfig,
  type UpgradeReport,
  claimNextConfig,
  dropNextConfig,
  failureText,
  refusalText,
  supervisorMark,
  supervisorPidFile,
  takeNextConfig,
  writeUpgradeReport,
} from "./driver/upgrade-files.ts";

/** What upgrades need of the supervisor. */
export interface UpgradesParts {
  readonly inForce: EdgeConfig;
  readonly log: Logger;
  readonly alerts: Pick<Alerts, "raise" | "resolve">;
  /** The edge in force; null = there is none at the moment. */
  readonly edge: () => EdgeRun | null;
  readonly setEdge: (run: EdgeRun) => void;
  /** Starts a process that loads its table and waits. */
  readonly start: (from: EdgeConfig) => EdgeRun;
  /** An upgrade has begun, and is over whatever came of it. */
  readonly begun: () => void;
  readonly over: () => void;
}

/** The upgrades of one supervisor. */
export class Upgrades {
  readonly #parts: UpgradesParts;
  readonly #upgrade: MachineLoop<UpgradeInput, UpgradeOutput>;
  readonly #stateFolder: string;
  /** The edge that an upgrade starts, until it is the one in force. */
  #candidate: EdgeRun | null = null;
  /** The edge that an upgrade replaced, until its end. */
  #retired: EdgeRun | null = null;
  /** What the next candidate is started with. */
  #next: EdgeConfig | null = null;
  #inForce: EdgeConfig;

  constructor(parts: UpgradesParts) {
    const { config } = parts.inForce;
    this.#parts = parts;
    this.#inForce = parts.inForce;
    this.#stateFolder = config.stateFolder;
    const upgrade = new Upgrade({
      stepLimitMs: config.upgradeStepLimitMs ?? 30_000,
      drainLimitMs: config.drainLimitMs ?? 60_000,
    });
    this.#upgrade = new MachineLoop(upgrade, (output) => this.#perform(output));
  }

  /** What edges are started with. */
  get inForce(): EdgeConfig {
    return this.#inForce;
  }

  /** Says where an upgrade can be asked for. */
  open(): void {
    const file = supervisorPidFile(this.#stateFolder);
    this.#tryToWrite(file, () => writeFileSync(file, supervisorMark(process.pid)));
  }

  /** Asked for by the operator. */
  ask(isEdgeReady: boolean): void {
    // Claimed first: another one may be asked for while this goes on.
    const isKept = this.#candidate === null;
    const next = claimNextConfig(this.#inForce, { isKept });
    this.#next = next.ok ? next.value : null;
    if (next.ok) this.#upgrade.run({ kind: "begin", isEdgeReady });
    else this.#refuse(next.error.reason, next.error.id);
  }

  /** An edge has said something that upgrades wait for. */
  told(run: EdgeRun, kind: "loaded" | "handedOver" | "ready"): void {
    const isExpected = run === (kind === "handedOver" ? this.#parts.edge() : this.#candidate);
    if (isExpected) this.#upgrade.run({ kind });
  }

  /** An edge that is not the one in force has ended. */
  otherExited(run: EdgeRun, exit: EdgeExit): void {
    if (run === this.#candidate) {
      this.#upgrade.run({ kind: "candidateExited", ...exit });
      this.#candidate = null;
    } else if (run === this.#retired) {
      this.#retired = null;
      this.#upgrade.run({ kind: "retiredExited" });
    }
  }

  /** The edge in force has ended unasked; true: a candidate has taken its place. */
  edgeExited(): boolean {
    this.#upgrade.run({ kind: "edgeExited" });
    return this.#parts.edge() !== null;
  }

  /** The supervisor is to end. */
  stop(): void {
    this.#upgrade.run({ kind: "stop" });
  }

  /** Resolves when no edge but the one in force is left; after `stop`. */
  async close(): Promise<void> {
    for (const run of [this.#candidate, this.#retired]) await run?.ended;
    this.#upgrade.stop();
    rmSync(supervisorPidFile(this.#stateFolder), { force: true });
  }

  #perform(output: UpgradeOutput): void {
    switch (output.kind) {
      case "spawn":
        return this.#startCandidate();
      case "tellEdge":
        return this.#parts.edge()?.process.tell(output.command);
      case "tellCandidate":
        return (this.#candidate ?? this.#parts.edge())?.process.tell(output.command);
      case "signal": {
        const target = output.to === "retired" ? this.#retired : this.#candidate;
        return target?.process.signal(output.signal);
      }
      case "promote":
        return this.#promote(output.isReady);
      case "rolledBack":
        return this.#tellRolledBack(output.failure);
      case "refused":
        return this.#refuse(refusalText(output.reason), this.#next?.config.upgradeId);
    }
  }

  #startCandidate(): void {
    const from = this.#next ?? this.#inForce;
    const { edgeEntry } = from.config;
    this.#parts.log.info?.("upgrade-begins", "another edge process is started", { edgeEntry });
    this.#parts.begun();
    this.#candidate = this.#parts.start(from);
  }

  /** The candidate is the edge from here on, and a bounce starts what it was started with. */
  #promote(isReady: boolean): void {
    const candidate = this.#candidate;
    if (candidate === null) return;
    const previous = this.#parts.edge();
    this.#retired = isReady ? previous : null;
    this.#candidate = null;
    this.#parts.setEdge(candidate);
    const { path } = this.#parts.inForce;
    this.#tryToWrite(path, () => {
      this.#inForce = takeNextConfig(candidate.from, path);
    });
    const { pid } = candidate.process;
    const tookMs = Math.round(performance.now() - candidate.startedMs);
    const reason = isReady
      ? "another edge process has taken over"
      : "the edge ended meanwhile, and the other process takes its place";
    const previousPid = previous?.process.pid ?? null;
    this.#parts.log.info?.("upgrade-done", reason, { pid, previousPid, tookMs });
    this.#parts.alerts.resolve("upgrade-rolled-back", "");
    this.#report("done", reason, candidate.from.config.upgradeId);
    this.#parts.over();
  }

  #tellRolledBack(failure: UpgradeFailure): void {
    const candidate = this.#candidate;
    const msg = failureText(failure);
    const stallId = candidate?.stallId ?? null;
    const fields = {
      ...failure,
      pid: candidate?.process.pid,
      ...(stallId === null ? {} : evidenceFields(this.#stateFolder, stallId)),
    };
    this.#parts.alerts.raise({ kind: "upgrade-rolled-back", subject: "", msg, fields });
    this.#report("rolledBack", msg, candidate?.from.config.upgradeId);
    this.#parts.over();
    dropNextConfig(candidate?.from ?? this.#inForce, this.#parts.inForce.path);
  }

  #refuse(reason: string, id: string | undefined): void {
    this.#parts.log.warn?.("upgrade-refused", reason);
    this.#report("refused", reason, id);
  }

  #report(outcome: UpgradeReport["outcome"], reason: string, id: string | undefined): void {
    const pid = this.#parts.edge()?.process.pid ?? 0;
    const time = new Date().toISOString();
    const report = { id: id ?? null, outcome, reason, pid, time };
    this.#tryToWrite(this.#stateFolder, () => writeUpgradeReport(this.#stateFolder, report));
  }

  /** A disk that refuses keeps nobody from serving. */
  #tryToWrite(file: string, write: () => void): void {
    try {
      write();
    } catch (error) {
      const fields = { file, error: errorText(error) };
      this.#parts.log.warn?.("supervisor-file-lost", "a file could not be written", fields);
    }
  }
}
