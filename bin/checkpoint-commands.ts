/** Commands about copies of the database; `backup` and `restore` have Corrosion's names and flags. */
import type { Command } from "commander";
import { clusterId } from "./corrosion-commands.ts";
import { wholeNumber } from "./patina-commands.ts";

/** Adds them to the program. */
export function addCheckpointCommands(patina: Command): void {
  patina
    .command("backup")
    .description("write a checkpoint of the database; the replica may run")
    .argument(
      "[target]",
      "a new file, a folder, or s3://bucket/prefix; default: checkpoints.target",
    )
    .option("--plain", "a plain SQLite file, without compression and checksums")
    .action(async (target: string | undefined, _options, command: Command) =>
      (await import("./commands/backup.ts")).backup(target, command.optsWithGlobals()),
    );
  patina
    .command("restore")
    .description("put a checkpoint in the place of the database; the replica may run")
    .argument("[source]", `${SOURCE}, or a plain SQLite file; default: checkpoints.target`)
    .option("--self-actor-id", "keep the actor id of the database that is replaced")
    .option("--actor-id <uuid>", "go on as this actor; without either flag, as a new one")
    .option("--other-cluster", "take a checkpoint of another cluster id")
    .option("--yes", "replace the database without being asked")
    .action(async (source: string | undefined, _options, command: Command) =>
      (await import("./commands/backup.ts")).restore(source, command.optsWithGlobals()),
    );
  const rebuild = patina
    .command("rebuild")
    .description("start this host over under another cluster id, with an empty database");
  rebuild
    .argument("<generation>", "the cluster id to start over under, 0 to 65535", clusterId)
    .option("--from <file>", "publish these machines into it: JSON, as patina publish takes it")
    .option("--per-second <number>", "machines a second", wholeNumber, 20)
    .option("--token <token>", "bearer token of the replica's API")
    .option("--yes", "without being asked")
    .action(async (generation: number, _options, command: Command) =>
      (await import("./commands/rebuild.ts")).rebuild(generation, command.optsWithGlobals()),
    );
  rebuild
    .command("finish")
    .description("route by the machines that are published by now, though there were more")
    .option("--yes", "without being asked")
    .action(async (_options, command: Command) =>
      (await import("./commands/rebuild.ts")).finish(command.optsWithGlobals()),
    );
  const checkpoints = patina.command("checkpoints").description("checkpoints that are kept");
  checkpoints
    .command("list")
    .description("what there is, newest first")
    .argument("[target]", "a folder or s3://bucket/prefix; default: checkpoints.target")
    .option("--json", "manifests as JSON")
    .action(async (target: string | undefined, _options, command: Command) =>
      (await import("./commands/checkpoints.ts")).list(target, command.optsWithGlobals()),
    );
  checkpoints
    .command("verify")
    .description("read one whole and compare its checksums")
    .argument("[source]", `${SOURCE}; default: checkpoints.target`)
    .option("--all", "every one that is kept there")
    .action(async (source: string | undefined, _options, command: Command) =>
      (await import("./commands/checkpoints.ts")).verify(source, command.optsWithGlobals()),
    );
}

const SOURCE = "a file, or the newest of a folder or of s3://bucket/prefix";
