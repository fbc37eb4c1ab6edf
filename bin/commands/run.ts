/**
 * `patina run` and `patina agent`: validate, freeze the effective config, and become the supervisor.
 *
 * The process replaces itself, so that the supervisor carries none of the packages needed here.
 */
import { fileURLToPath } from "node:url";
import { PatinaError } from "#base/errors.ts";
import { writeEffectiveConfig, type Mode } from "../../proxy/effective-config.ts";
import { passedSockets } from "../../watchdog/core/systemd.ts";
import { readSupervisorConfig } from "../../watchdog/supervisor/supervisor-config.ts";
import { loadConfig, stateFolderOf } from "../config-file.ts";
import { environmentOverrides, overridesFromFlags } from "../overrides.ts";
import { overridesFromGlobals, type GlobalOptions } from "../targets.ts";
import { crsqlitePath, sqlDeadlinePath } from "../setup/paths.js";

/** Does not return when the config is valid; throws `CONFIG_INVALID` or `CONFIG_UNREADABLE`. */
export async function run(
  mode: Mode,
  options: GlobalOptions & { config: string; set?: string[] },
): Promise<void> {
  const overrides = [
    ...environmentOverrides(process.env),
    ...overridesFromGlobals(options),
    ...overridesFromFlags(options.set ?? []),
  ];
  const { config, file, hash, warnings } = loadConfig({ file: options.config, overrides, mode });
  for (const warning of warnings) process.stderr.write(`patina: ${warning}\n`);
  const path = writeEffectiveConfig({
    mode,
    config,
    file,
    hash,
    stateFolder: stateFolderOf(config),
    extensionPath: crsqlitePath(),
    deadlinePath: sqlDeadlinePath(),
    overrides,
  });
  if (passedSockets(process.env, process.pid).length > 0) await superviseHere(path);
  const supervisor = fileURLToPath(new URL("../../watchdog/supervisor/main.ts", import.meta.url));
  process.execve?.(process.execPath, [process.execPath, supervisor, path]);
}

/** Node has marked the descriptors that systemd passed as not to be inherited: they die with `execve`. */
async function superviseHere(path: string): Promise<never> {
  const config = readSupervisorConfig(path);
  if (!config.ok) throw new PatinaError("CONFIG_INVALID", config.error);
  const { runSupervisor } = await import("../../watchdog/supervisor/supervisor.ts");
  process.exit(await runSupervisor(config.value, path));
}
