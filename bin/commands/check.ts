/** `patina check`: validates a config file as `run`, or `agent`, would and prints what it comes to. */
import { loadConfig } from "../config-file.ts";
import { overridesFromFlags } from "../overrides.ts";
import { overridesFromGlobals, type GlobalOptions } from "../targets.ts";

/** Prints the effective config as JSON, its token hidden; throws `CONFIG_INVALID` with every error. */
export function check(
  options: GlobalOptions & { config: string; set?: string[]; agent?: boolean },
): void {
  const { config, hash, warnings } = loadConfig({
    file: options.config,
    overrides: [...overridesFromGlobals(options), ...overridesFromFlags(options.set ?? [])],
    environment: process.env,
    mode: options.agent === true ? "agent" : "edge",
  });
  // What is printed ends in terminals, tickets and logs.
  const hide = (key: string, value: unknown): unknown => (key === "bearer-token" ? "***" : value);
  process.stdout.write(`${JSON.stringify(config, hide, 2)}\n`);
  for (const warning of warnings) process.stderr.write(`${warning}\n`);
  process.stderr.write(`${options.config} is valid (sha256 ${hash.slice(0, 12)})\n`);
}
