/**
 * Entry of the supervisor process: `node watchdog/supervisor/main.ts <effective config file>`.
 *
 * No npm package is imported from here on.
 */
import { EXIT } from "./exit-codes.ts";
import { readSupervisorConfig } from "./supervisor-config.ts";
import { runSupervisor } from "./supervisor.ts";
import { writeText } from "../driver/write-line.ts";

async function main(configPath: string | undefined): Promise<number> {
  if (configPath === undefined) {
    writeText(2, "usage: node watchdog/supervisor/main.ts <effective config file>\n");
    return EXIT.config;
  }
  const config = readSupervisorConfig(configPath);
  if (!config.ok) {
    writeText(2, `patina: ${config.error}\n`);
    return EXIT.config;
  }
  return await runSupervisor(config.value, configPath);
}

// The threads that hold the sockets never end by themselves.
process.exit(await main(process.argv[2]));
