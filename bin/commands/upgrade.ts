/**
 * `patina upgrade`: has the supervisor start this build, with the config as the file says now, in the
 * place of the edge process that runs, and says what came of it.
 */
import { randomUUID } from "node:crypto";
import { existsSync } from "node:fs";
import { setTimeout } from "node:timers/promises";
import { PatinaError } from "#base/errors.ts";
import {
  effectiveConfigFile,
  readEffectiveConfig,
  writeEffectiveConfig,
  type EffectiveConfig,
} from "../../proxy/effective-config.ts";
import {
  readUpgradeReport,
  runningSupervisor,
  type UpgradeReport,
} from "../../watchdog/supervisor/driver/upgrade-files.ts";
import { loadConfig, stateFolderOf } from "../config-file.ts";
import { overridesFromFlags } from "../overrides.ts";
import { crsqlitePath, sqlDeadlinePath } from "../setup/paths.js";
import { configFileOf, overridesFromGlobals, type GlobalOptions } from "../targets.ts";

/**
 * Resolves when the new edge process serves. Rejects with `CONFIG_INVALID`, `SUPERVISOR_UNREACHABLE`,
 * `UPGRADE_REFUSED` or `UPGRADE_ROLLED_BACK`; the old one serves then as before.
 */
export async function upgrade(
  options: GlobalOptions & { config: string; set?: string[] },
): Promise<void> {
  const inForce = configInForce(options);
  const { mode, stateFolder } = inForce;
  // What the supervisor was started with is laid over the file again, not this shell's environment.
  const overrides = [
    ...inForce.overrides,
    ...overridesFromGlobals(options),
    ...overridesFromFlags(options.set ?? []),
  ];
  const loaded = loadConfig({ file: options.config, overrides, mode });
  const { config, file, hash, warnings } = loaded;
  for (const warning of warnings) process.stderr.write(`patina: ${warning}\n`);
  refuseMoves(inForce, config, stateFolderOf(config));
  const pid = runningSupervisor(stateFolder);
  if (pid === null) throw unreachable(stateFolder);
  const upgradeId = randomUUID();
  writeEffectiveConfig({
    mode,
    config,
    file,
    hash,
    stateFolder,
    extensionPath: crsqlitePath(),
    deadlinePath: sqlDeadlinePath(),
    overrides,
    upgradeId,
  });
  process.kill(pid, "SIGUSR2");
  const report = await reportOn(upgradeId, stateFolder);
  if (report.outcome === "done") {
    process.stdout.write(`upgraded: ${report.reason} (pid ${report.pid})\n`);
    return;
  }
  const code = report.outcome === "refused" ? "UPGRADE_REFUSED" : "UPGRADE_ROLLED_BACK";
  throw new PatinaError(code, `not upgraded: ${report.reason}`);
}

/** Whether a supervisor runs by this config file, and with this database. */
export function isRunningOn(databasePath: string, options: GlobalOptions): boolean {
  const file = configFileOf(options);
  if (!existsSync(file)) return false;
  const { config } = loadConfig({ file, environment: process.env, mode: "agent" });
  const stateFolder = stateFolderOf(config);
  const path = effectiveConfigFile(stateFolder);
  if (!existsSync(path) || runningSupervisor(stateFolder) === null) return false;
  return readEffectiveConfig(path).config.db.path === databasePath;
}

/** Found through the state folder, which the config file names. */
function configInForce(
  options: GlobalOptions & { config: string; set?: string[] },
): EffectiveConfig {
  const { config } = loadConfig({
    file: options.config,
    overrides: [...overridesFromGlobals(options), ...overridesFromFlags(options.set ?? [])],
    environment: process.env,
    mode: "agent",
  });
  const stateFolder = stateFolderOf(config);
  const path = effectiveConfigFile(stateFolder);
  if (!existsSync(path)) throw unreachable(stateFolder);
  return readEffectiveConfig(path);
}

function unreachable(stateFolder: string): PatinaError {
  const text = `no Patina runs with the state folder ${stateFolder}: start it with patina run`;
  return new PatinaError("SUPERVISOR_UNREACHABLE", text);
}

/** One process after the other owns the database: it has to be the same one. */
function refuseMoves(
  inForce: EffectiveConfig,
  config: EffectiveConfig["config"],
  stateFolder: string,
): void {
  const changed = [
    ...(config.db.path === inForce.config.db.path ? [] : ["db.path"]),
    ...(stateFolder === inForce.stateFolder ? [] : ["watchdog.state_folder"]),
  ];
  if (changed.length === 0) return;
  const text = `${changed.join(" and ")} cannot change with an upgrade: stop and start instead`;
  throw new PatinaError("CONFIG_INVALID", text);
}

async function reportOn(id: string, stateFolder: string): Promise<UpgradeReport> {
  for (let waitedMs = 0; waitedMs < REPORT_LIMIT_MS; waitedMs += ASK_PERIOD_MS) {
    const report = readUpgradeReport(stateFolder);
    if (report?.id === id) return report;
    await setTimeout(ASK_PERIOD_MS);
  }
  const text = `the supervisor has not said after ${REPORT_LIMIT_MS / 1000} s what came of it`;
  throw new PatinaError("SUPERVISOR_UNREACHABLE", text);
}

const ASK_PERIOD_MS = 50;
/** The supervisor gives each of the three steps 30 s. */
const REPORT_LIMIT_MS = 120_000;
