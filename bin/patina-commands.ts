/** Patina's own commands; each loads its file when it is asked for. */
import { type Command, InvalidArgumentError } from "commander";
import { configFileOf, type GlobalOptions } from "./targets.ts";

/** Adds them to the program. */
export function addPatinaCommands(patina: Command): void {
  addProcessCommands(patina);
  addEdgeCommands(patina);
  addQuarantineCommands(patina);
  addSchemaCommands(patina);
  patina
    .command("publish")
    .description("publish whole machines from a JSON file to a replica's API")
    .argument("<file>", "JSON: one machine document or an array of them; - for standard input")
    .option("--token <token>", "bearer token")
    .action(async (file: string, _options, command: Command) => {
      const { publish } = await import("./commands/publish.ts");
      const { apiTarget } = await import("./targets.ts");
      await publish(file, apiTarget(command.optsWithGlobals()));
    });
  const showStalls = async (
    id: string | undefined,
    _options: unknown,
    command: Command,
  ): Promise<void> => {
    const { stalls } = await import("./commands/stalls.ts");
    stalls(id, { config: configFileOf(command.optsWithGlobals()) });
  };
  patina
    .command("stalls")
    .description("list stalls, or print one")
    .argument("[id]", "a stall's id")
    .action(showStalls)
    .command("show")
    .description("print one stall")
    .argument("<id>", "a stall's id")
    .action(showStalls);
  patina
    .command("consul")
    .description("services and checks of a Consul agent")
    .command("sync")
    .description("follow the local Consul agent, in a process beside the replica")
    .option("--token <token>", "bearer token of the replica's API")
    .action(async (_options, command: Command) =>
      (await import("./commands/consul.ts")).sync(command.optsWithGlobals()),
    );
  patina
    .command("debug")
    .description("looks inside")
    .command("decode")
    .description("print a captured message as JSON")
    .argument("<kind>", "swim (a datagram), broadcast or sync (a frame without its length)")
    .argument("<hex>", "the message in hexadecimal; - for standard input")
    .action(async (kind: string, hex: string) =>
      (await import("./commands/debug.ts")).decode(kind, hex),
    );
}

function addProcessCommands(patina: Command): void {
  const runners = [
    ["run", "edge", "run an edge: proxy and replica"],
    ["agent", "agent", "run a replica alone, as on worker hosts"],
  ] as const;
  for (const [name, mode, text] of runners) {
    patina
      .command(name)
      .description(text)
      .option("--set <key=value...>", "override a config key, e.g. gossip.addr=[::]:8788")
      .action(async (_options, command: Command) =>
        (await import("./commands/run.ts")).run(mode, withConfig(command)),
      );
  }
  patina
    .command("upgrade")
    .description("start this build and config in the place of the edge process that runs")
    .option("--set <key=value...>", "override a config key, beside those of the start")
    .action(async (_options, command: Command) =>
      (await import("./commands/upgrade.ts")).upgrade(withConfig(command)),
    );
  patina
    .command("check")
    .description("validate a config file and print what it comes to")
    .option("--set <key=value...>", "override a config key")
    .option("--agent", "as the command agent takes it: unknown keys are left out")
    .action(async (_options, command: Command) =>
      (await import("./commands/check.ts")).check(withConfig(command)),
    );
  patina
    .command("demo")
    .description("a small platform on this machine: PoPs, worker hosts, machines, traffic")
    .option("--once", "run the tour, check each step, exit non-zero if one fails")
    .option("--keep", "keep the demo's folder at the end")
    .option("--folder <path>", "the demo's folder; wiped at start", ".patina-demo")
    .option("--yes", "wipe a folder that no demo has made without being asked")
    .action(async (options) => (await import("./commands/demo.ts")).demo(options));
}

function addEdgeCommands(patina: Command): void {
  patina
    .command("status")
    .description("how a replica stands: members with round trips, heads, needs, store")
    .option("--json", "everything, as JSON")
    .action(async (_options, command: Command) =>
      (await import("./commands/status.ts")).status(command.optsWithGlobals()),
    );
  patina
    .command("routes")
    .description("list the hostnames of an edge's routing table and where they go")
    .option("--json", "as JSON")
    .option("--limit <number>", "hostnames at most, up to 1000", wholeNumber, 100)
    .action(async (_options, command: Command) =>
      (await import("./commands/routes.ts")).routes(command.optsWithGlobals()),
    );
  patina
    .command("explain")
    .description("say where an edge sends requests for a host, and why not elsewhere")
    .argument("<host>")
    .option("--json", "as JSON")
    .action(async (host: string, _options, command: Command) =>
      (await import("./commands/routes.ts")).explain(host, command.optsWithGlobals()),
    );
}

function addQuarantineCommands(patina: Command): void {
  const quarantine = patina
    .command("quarantine")
    .description("changes that stalled an edge and are kept out of its routing table");
  quarantine
    .command("list")
    .description("list what is held, and what waits for other edges to try it")
    .option("--json", "as JSON")
    .action(async (_options, command: Command) =>
      (await import("./commands/quarantine.ts")).list(command.optsWithGlobals()),
    );
  quarantine
    .command("thaw")
    .description("have a frozen edge take part again, before the others are well")
    .action(async (_options, command: Command) =>
      (await import("./commands/quarantine.ts")).one("thaw", "", command.optsWithGlobals()),
    );
  const actions = [
    ["show", "print everything about one hold, with the row that is in force instead"],
    ["release", "let a change, or an origin, in again"],
    ["drop", "keep a change out for good; a newer version of its row is taken"],
  ] as const;
  for (const [action, text] of actions) {
    quarantine
      .command(action)
      .description(text)
      .argument("<id>", "as listed")
      .action(async (id: string, _options, command: Command) =>
        (await import("./commands/quarantine.ts")).one(action, id, command.optsWithGlobals()),
      );
  }
}

function addSchemaCommands(patina: Command): void {
  const schema = patina.command("schema").description("changes of the tables");
  schema
    .command("plan")
    .description("print what applying schema files would do and cost; changes nothing")
    .argument("<files...>", ".sql files or folders of them")
    .option("--allow", "end with 0 above the budget, too")
    .option("--json", "as JSON")
    .action(async (files: string[], _options, command: Command) =>
      (await import("./commands/schema.ts")).planFiles(files, command.optsWithGlobals()),
    );
  schema
    .command("apply")
    .description("bring the database to schema files, all of them or none")
    .argument("<files...>", ".sql files or folders of them")
    .option("--allow", "above the budget, too")
    .action(async (files: string[], _options, command: Command) =>
      (await import("./commands/schema.ts")).applyFiles(files, command.optsWithGlobals()),
    );
}

/** A whole number from 0, of a flag or an argument. */
export function wholeNumber(text: string): number {
  const value = Number(text);
  if (/^\d+$/.test(text) && Number.isSafeInteger(value)) return value;
  throw new InvalidArgumentError("A whole number is expected.");
}

function withConfig(
  command: Command,
): GlobalOptions & { config: string; set?: string[]; agent?: boolean } {
  const options = command.optsWithGlobals<GlobalOptions & { set?: string[]; agent?: boolean }>();
  return { ...options, config: configFileOf(options) };
}
