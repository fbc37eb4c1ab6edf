/**
 * Files of an upgrade, all in the state folder: where the supervisor says which process it is, the
 * config that the next edge process starts with, and what came of the last upgrade.
 */
import { readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { errorText } from "#base/errors.ts";
import { type Result, failure, success } from "#base/machine.ts";
import type { UpgradeFailure, UpgradeRefusal } from "../../core/upgrade.ts";
import { type SupervisorConfig, readSupervisorConfig } from "../supervisor-config.ts";

/** What came of an upgrade. */
export interface UpgradeReport {
  /** Of the config it was asked with; null = by signal alone. */
  readonly id: string | null;
  readonly outcome: "done" | "rolledBack" | "refused";
  /** A sentence for the operator. */
  readonly reason: string;
  /** The edge process that serves. */
  readonly pid: number;
  /** ISO 8601, UTC. */
  readonly time: string;
}

/** An effective config with its path. */
export interface EdgeConfig {
  readonly config: SupervisorConfig;
  readonly path: string;
}

/** Why a config cannot be upgraded to. `id` is its own, where it can be read. */
export interface ClaimFailure {
  readonly reason: string;
  readonly id: string | undefined;
}

/** The effective config that waits for an upgrade, beside the one in force. */
export function nextConfigFile(configPath: string): string {
  return join(dirname(configPath), "effective-config.next.json");
}

/** The report on the last upgrade. */
function upgradeReportFile(stateFolder: string): string {
  return join(stateFolder, "upgrade.json");
}

/** The supervisor's process id. */
export function supervisorPidFile(stateFolder: string): string {
  return join(stateFolder, "supervisor.pid");
}

/**
 * Takes the config that waits out of the way of the next one that is asked for, and reads it; without
 * one it is the config in force. What is not to be kept, or does not do, is removed.
 */
export function claimNextConfig(
  inForce: EdgeConfig,
  { isKept }: { readonly isKept: boolean },
): Result<EdgeConfig, ClaimFailure> {
  const waiting = nextConfigFile(inForce.path);
  const path = isKept ? join(dirname(inForce.path), "effective-config.candidate.json") : waiting;
  try {
    if (isKept) renameSync(waiting, path);
    else readFileSync(waiting);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") {
      return failure({ reason: errorText(error), id: undefined });
    }
    return success(inForce);
  }
  const config = readSupervisorConfig(path);
  const isSame =
    config.ok && JSON.stringify(config.value.listen) === JSON.stringify(inForce.config.listen);
  if (!isKept || !isSame) rmSync(path, { force: true });
  if (!config.ok) return failure({ reason: config.error, id: undefined });
  if (isSame) return success({ config: config.value, path });
  return failure({ reason: LISTENS_ELSEWHERE, id: config.value.upgradeId });
}

/** The config of the candidate is the one in force from here on. */
export function takeNextConfig(next: EdgeConfig, inForcePath: string): EdgeConfig {
  if (next.path !== inForcePath) renameSync(next.path, inForcePath);
  return { config: next.config, path: inForcePath };
}

/** Removes the config of a candidate that did not get to be the edge. */
export function dropNextConfig(next: EdgeConfig, inForcePath: string): void {
  if (next.path !== inForcePath) rmSync(next.path, { force: true });
}

/** Why an upgrade came to nothing, for the operator. */
export function failureText({ step, cause, code, signal }: UpgradeFailure): string {
  const what = {
    starting: "before it had its routing table",
    handingOver: "while the edge handed over",
    takingOver: "while it took over the database and the ports",
  }[step];
  const how = {
    exited: `ended (${signal ?? `exit code ${code}`})`,
    tooLate: "was too slow and was killed",
    edgeLost: "was too slow and was killed, and the edge ended too,",
  }[cause];
  const after =
    cause === "edgeLost" ? "it is started as after any crash" : "the edge serves as before";
  return `the new edge process ${how} ${what}; ${after}`;
}

/** Why an upgrade was not begun, for the operator. */
export function refusalText(reason: UpgradeRefusal): string {
  return {
    underWay: "an upgrade is under way, or the edge of the last one still drains",
    edgeNotReady: "the edge is not ready: its next start takes the new build by itself",
    stopping: "the supervisor is about to end",
  }[reason];
}

/** Writes the report, whole or not at all. */
export function writeUpgradeReport(stateFolder: string, report: UpgradeReport): void {
  const file = upgradeReportFile(stateFolder);
  writeFileSync(`${file}.tmp`, `${JSON.stringify(report)}\n`, { mode: 0o640 });
  renameSync(`${file}.tmp`, file);
}

/** The last report; null = none that can be read. */
export function readUpgradeReport(stateFolder: string): UpgradeReport | null {
  try {
    return JSON.parse(readFileSync(upgradeReportFile(stateFolder), "utf8")) as UpgradeReport;
  } catch (error) {
    // Not there yet.
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw error;
  }
}

/**
 * The process id of the supervisor that runs with this state folder; null = none does. A file that
 * is left over names a process that is gone, or another one: its start tells, where there is /proc.
 */
export function runningSupervisor(stateFolder: string): number | null {
  try {
    const mark = readFileSync(supervisorPidFile(stateFolder), "utf8");
    const pid = Number(mark.split(" ", 1)[0]);
    if (!Number.isSafeInteger(pid) || pid < 1) return null;
    process.kill(pid, 0);
    return supervisorMark(pid) === mark ? pid : null;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ESRCH") return null;
    throw error;
  }
}

/** What stands in the file: the process id, and when the process started by the kernel's ticks. */
export function supervisorMark(pid: number): string {
  if (process.platform !== "linux") return `${pid} 0\n`;
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  // The name in parentheses may have anything in it; the start is the 20th field behind it.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return `${pid} ${fields[19]}\n`;
}

const LISTENS_ELSEWHERE =
  "it listens elsewhere, or with another number of threads: proxy.http, proxy.tls.addr and" +
  " proxy.threads change with a restart only";
