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
    .exitOverride()
    .showHelpAfterError("(patina --help lists commands and flags)");
  patina
    .command("run")
    .description("run an edge: proxy and replica")
    .option("-c, --config <file>", "config file", "patina.toml")
    .option("--set <key=value...>", "override a config key, e.g. gossip.addr=[::]:8788")
    .action(async (options) => (await import("./commands/run.ts")).run("edge", options));
  patina
    .command("agent")
    .description("run a replica alone, as on worker hosts")
    .option("-c, --config <file>", "config file", "patina.toml")
    .option("--set <key=value...>", "override a config key")
    .action(async (options) => (await import("./commands/run.ts")).run("agent", options));
  patina
    .command("check")
    .description("validate a config file and print what it comes to")
    .option("-c, --config <file>", "config file", "patina.toml")
    .option("--set <key=value...>", "override a config key")
    .action(async (options) => (await import("./commands/check.ts")).check(options));
  patina
    .command("demo")
    .description("a small platform on this machine: PoPs, worker hosts, machines, traffic")
    .option("--once", "run the tour, check each step, exit non-zero if one fails")
    .option("--keep", "keep the demo's folder at the end")
    .option("--folder <path>", "the demo's folder; wiped at start", ".patina-demo")
    .action(async (options) => (await import("./commands/demo.ts")).demo(options));
  patina
    .command("publish")
    .description("publish whole machines from a JSON file to a replica's API")
    .argument("<file>", "JSON: one machine document or an array of them; - for standard input")
    .option("--api-addr <host:port>", "the replica's API", "127.0.0.1:8081")
    .option("--token <token>", "bearer token")
    .action(async (file, options) =>
      (await import("./commands/publish.ts")).publish(file, options),
    );
  patina
    .command("query")
    .description("run a read-only SQL query on a replica")
    .argument("<sql>")
    .option("--api-addr <host:port>", "the replica's API", "127.0.0.1:8081")
    .option("--token <token>", "bearer token")
    .option("--columns", "print column names first")
    .option("--param <value...>", "positional parameters")
    .action(async (sql, options) => (await import("./commands/query.ts")).query(sql, options));
  patina
    .command("exec")
    .description("run a writing SQL statement on a replica")
    .argument("<sql>")
    .option("--api-addr <host:port>", "the replica's API", "127.0.0.1:8081")
    .option("--token <token>", "bearer token")
    .option("--param <value...>", "positional parameters")
    .action(async (sql, options) => (await import("./commands/query.ts")).exec(sql, options));
  patina
    .command("stalls")
    .description("list stalls, or print one")
    .argument("[id]", "a stall's id")
    .option("-c, --config <file>", "config file", "patina.toml")
    .action(async (id, options) => (await import("./commands/stalls.ts")).stalls(id, options));
  const tls = patina.command("tls").description("make a cluster's certificates");
  const ca = tls.command("ca").description("the cluster's authority");
  ca.command("generate")
    .option("--out <folder>", "folder for ca.pem and ca.key", ".")
    .action(async (options) => (await import("./commands/tls.ts")).generateAuthority(options));
  const server = tls.command("server").description("certificate shown when a replica is dialled");
  server
    .command("generate")
    .argument("<ip...>", "IP addresses under which the replica is dialled")
    .option("--ca <folder>", "folder of ca.pem and ca.key", ".")
    .option("--out <folder>", "folder for server.pem and server.key", ".")
    .action(async (ips, options) =>
      (await import("./commands/tls.ts")).generateServer(ips, options),
    );
  const client = tls.command("client").description("certificate shown when a replica dials");
  client
    .command("generate")
    .option("--ca <folder>", "folder of ca.pem and ca.key", ".")
    .option("--out <folder>", "folder for client.pem and client.key", ".")
    .action(async (options) => (await import("./commands/tls.ts")).generateClient(options));
  return patina;
}

function version(): string {
  const file = new URL("../package.json", import.meta.url);
  return (JSON.parse(readFileSync(file, "utf8")) as { version: string }).version;
}
