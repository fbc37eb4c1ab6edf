/**
 * The `patina` command on the pinned Node: one file per command in `commands/`, loaded when asked
 * for, so that `run` does not pay for what `demo` needs.
 *
 * Errors of the user's making are one clear line and a distinct exit code, never a stack trace.
 */
import { readFileSync } from "node:fs";
import { Command, CommanderError } from "commander";
import { PatinaError } from "#base/errors.ts";
import { exitCodeOf } from "../proxy/exit-code-of.ts";
import { addCertificateCommands } from "./certificate-commands.ts";
import { addCheckpointCommands } from "./checkpoint-commands.ts";
import { addCorrosionCommands } from "./corrosion-commands.ts";
import { addPatinaCommands } from "./patina-commands.ts";

await main(process.argv);

async function main(argv: readonly string[]): Promise<void> {
  try {
    await program().parseAsync([...argv]);
  } catch (error) {
    if (error instanceof CommanderError) {
      // Commander has printed its line; help and version end with 0.
      process.exitCode = error.exitCode === 0 ? 0 : exitCodeOf("USAGE");
    } else if (error instanceof PatinaError) {
      process.stderr.write(`${prefixed(error)}\n`);
      process.exitCode = exitCodeOf(error.code);
    } else {
      throw error;
    }
  }
}

function prefixed(error: PatinaError): string {
  return error.message
    .split("\n")
    .map((line) => `patina: ${line}`)
    .join("\n");
}

function program(): Command {
  const patina = new Command("patina")
    .description("HTTP edge routing proxy with an embedded Corrosion replica")
    .version(version())
    // Before the command or behind it, as `corrosion -c FILE agent`.
    .option("-c, --config <file>", 'config file (default: "patina.toml")')
    .option("--api-addr <host:port>", "the replica's API (default: as the config file says)")
    .option("--db-path <file>", "the database file (default: as the config file says)")
    .option("--admin-path <socket>", "the admin socket (default: as the config file says)")
    .configureHelp({ showGlobalOptions: true })
    .exitOverride()
    .showHelpAfterError("(patina --help lists commands and flags)");
  addPatinaCommands(patina);
  addCorrosionCommands(patina);
  addCertificateCommands(patina);
  addCheckpointCommands(patina);
  return patina;
}

function version(): string {
  const file = new URL("../package.json", import.meta.url);
  return (JSON.parse(readFileSync(file, "utf8")) as { version: string }).version;
}
