/** Commands that Corrosion has too, with its names and flags; each loads its file when asked for. */
import { InvalidArgumentError, type Command } from "commander";
import { wholeNumber } from "./patina-commands.ts";
import type { GlobalOptions } from "./targets.ts";

/** Adds them to the program. */
export function addCorrosionCommands(patina: Command): void {
  addStatementCommands(patina);
  addDatabaseCommands(patina);
  addClusterCommands(patina);
  addRepairCommands(patina);
  addInsightCommands(patina);
}

function addStatementCommands(patina: Command): void {
  patina
    .command("query")
    .description("run a read-only SQL query on a replica")
    .argument("<sql>")
    .option("--token <token>", "bearer token")
    .option("--columns", "print column names first")
    .option("--timer", "print how long it took")
    .option("--timeout <seconds>", "give the query up after so long", wholeNumber)
    .option("--param <value>", "a positional parameter; once for each", collect)
    .action(async (sql: string, _options, command: Command) => {
      const { query } = await import("./commands/query.ts");
      const { apiTarget } = await import("./targets.ts");
      const options = command.optsWithGlobals();
      await query(sql, { ...options, ...apiTarget(options) });
    });
  patina
    .command("exec")
    .description("run a writing SQL statement on a replica")
    .argument("<sql>")
    .option("--token <token>", "bearer token")
    .option("--timer", "print how long it took")
    .option("--timeout <seconds>", "undo the transaction after so long", wholeNumber)
    .option("--param <value>", "a positional parameter; once for each", collect)
    .action(async (sql: string, _options, command: Command) => {
      const { exec } = await import("./commands/query.ts");
      const { apiTarget } = await import("./targets.ts");
      const options = command.optsWithGlobals();
      await exec(sql, { ...options, ...apiTarget(options) });
    });
}

function addDatabaseCommands(patina: Command): void {
  patina
    .command("reload")
    .description("apply the schema files of db.schema_paths anew")
    .action(tell("Reload"));
  patina
    .command("reload-dicts")
    .description("load the compression dictionaries anew")
    .action(tell("ReloadDicts"));
}

function addClusterCommands(patina: Command): void {
  const cluster = patina.command("cluster").description("membership");
  cluster
    .command("rejoin")
    .description("take a new identity and join again")
    .action(tell({ Cluster: "Rejoin" }));
  cluster
    .command("members")
    .description("active members, with addresses and round trips")
    .action(tell({ Cluster: "Members" }));
  cluster
    .command("membership-states")
    .description("what SWIM holds of each replica, those that are down too")
    .action(tell({ Cluster: "MembershipStates" }));
  cluster
    .command("set-id")
    .description("move to another cluster id, and keep it over restarts")
    .argument("<id>", "0 to 65535", clusterId)
    .action(async (id: number, _options, command: Command) =>
      send({ Cluster: { SetId: id } }, command),
    );
}

function addRepairCommands(patina: Command): void {
  const sync = patina.command("sync").description("versions: heads, gaps, partials");
  sync
    .command("generate")
    .description("what this replica would tell a sync peer about itself")
    .action(tell({ Sync: "Generate" }));
  sync
    .command("check-bookie-consistency")
    .description("compare the books in memory, on disk, and the rows")
    .action(tell({ Sync: "CheckBookieConsistency" }));
  sync
    .command("reconcile-gaps")
    .description("write the books anew from memory, disk and rows")
    .action(tell({ Sync: "ReconcileGaps" }));
  sync
    .command("process-buffered-changes")
    .description("merge what is buffered of a version that has arrived whole")
    .argument("<actor-id>", "a UUID, as in sync generate", actorId)
    .argument("<version>", "the actor's version", wholeNumber)
    .option(
      "--chunk-size <number>",
      "for Corrosion's sake; a version is merged at once",
      wholeNumber,
    )
    .action(
      async (
        actor_id: string,
        version: number,
        options: { chunkSize?: number },
        command: Command,
      ) => {
        const inner = { actor_id, version, chunk_size: options.chunkSize ?? 0 };
        await send({ Sync: { ProcessBufferedChanges: inner } }, command);
      },
    );
}

function addInsightCommands(patina: Command): void {
  const actor = patina.command("actor").description("actors");
  actor
    .command("init")
    .description("make the database with its actor id, if it is not there, and print the id")
    .action(async (_options, command: Command) =>
      (await import("./commands/actor.ts")).init(command.optsWithGlobals<GlobalOptions>()),
    );
  actor
    .command("version")
    .description("what is known of one version of an actor")
    .argument("<actor-id>", "a UUID, as in sync generate", actorId)
    .argument("<version>", "the actor's version", wholeNumber)
    .action(async (actor_id: string, version: number, _options, command: Command) =>
      send({ Actor: { Version: { actor_id, version } } }, command),
    );
  const subs = patina.command("subs").description("live subscriptions");
  subs
    .command("list")
    .description("all of them, with id, hash and SQL")
    .action(tell({ Subs: "List" }));
  subs
    .command("info")
    .description("one of them")
    .option("--hash <hash>")
    .option("--id <uuid>")
    .action(async (options: { hash?: string; id?: string }, command: Command) =>
      send({ Subs: { Info: { hash: options.hash ?? null, id: options.id ?? null } } }, command),
    );
  patina
    .command("plumtree")
    .description("broadcast trees")
    .command("stats")
    .description("eager and lazy peers")
    .action(tell({ Plumtree: "Stats" }));
  const log = patina.command("log").description("levels of the log of a running replica");
  log
    .command("set")
    .description("change the level until the next start")
    .argument("<filter>", "error, warn, info, debug or trace")
    .action(async (filter: string, _options, command: Command) =>
      send({ Log: { Set: { filter } } }, command),
    );
  log
    .command("reset")
    .description("the level of the config")
    .action(tell({ Log: "Reset" }));
}

function collect(value: string, before: readonly string[] = []): string[] {
  return [...before, value];
}

/** 0 to 65535, of a flag or an argument. */
export function clusterId(text: string): number {
  const id = wholeNumber(text);
  if (id <= 0xffff) return id;
  throw new InvalidArgumentError("A number from 0 to 65535 is expected.");
}

/** A UUID, of a flag or an argument. */
export function actorId(text: string): string {
  if (/^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(text)) return text.toLowerCase();
  throw new InvalidArgumentError("A UUID is expected; `patina sync generate` lists actor ids.");
}

/** The action of a command that is one request and takes nothing. */
function tell(request: unknown): (options: unknown, command: Command) => Promise<void> {
  return (_options, command) => send(request, command);
}

async function send(request: unknown, command: Command): Promise<void> {
  const { tellReplica } = await import("./commands/admin.ts");
  await tellReplica(request, command.optsWithGlobals<GlobalOptions>());
}
