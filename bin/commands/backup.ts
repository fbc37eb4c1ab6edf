/** `patina backup` and `patina restore`: the database as one file, without its owner's identity. */
import { existsSync, readdirSync, rmSync } from "node:fs";
import { join, resolve } from "node:path";
import { PatinaError } from "#base/errors.ts";
import { tableFileOf } from "../../proxy/table-file.ts";
import {
  backupDatabase,
  restoreDatabase,
  type RestoreIdentity,
} from "../../replica/driver/store/backup.ts";
import { databaseTarget, subscriptionsFolder, type GlobalOptions } from "../targets.ts";

/** Writes a backup to a new file; the replica may be running. */
export function backup(path: string, options: GlobalOptions): void {
  const source = databaseTarget(options);
  const bytes = backupDatabase({ source, target: resolve(path) });
  process.stdout.write(`${path}: ${bytes} bytes, from ${source}\n`);
}

/** Puts a backup in the place of the database; no replica may be running on it. */
export function restore(
  path: string,
  options: GlobalOptions & { readonly selfActorId?: boolean; readonly actorId?: string },
): void {
  const target = databaseTarget(options);
  const identity = identityFrom(options);
  const actorId = restoreDatabase({ backup: resolve(path), target, identity });
  dropSubscriptions(subscriptionsFolder(options));
  // It is of the database that is gone.
  rmSync(tableFileOf(target), { force: true });
  process.stdout.write(`${target}: restored from ${path} as actor ${actorId}\n`);
  if (identity.kind === "new") return;
  process.stderr.write(
    "what this actor published after the backup was taken is not in it: start it beside replicas" +
      " that have it, or restore without an actor id\n",
  );
}

/** Their change ids speak of the database that is gone; clients subscribe anew. */
function dropSubscriptions(folder: string): void {
  if (!existsSync(folder)) return;
  for (const name of readdirSync(folder)) {
    if (/^[0-9a-f]{32}$/.test(name)) rmSync(join(folder, name), { recursive: true, force: true });
  }
}

function identityFrom(options: { selfActorId?: boolean; actorId?: string }): RestoreIdentity {
  const { selfActorId, actorId } = options;
  if (actorId === undefined) return { kind: selfActorId === true ? "self" : "new" };
  if (selfActorId === true) {
    throw new PatinaError("USAGE", "--self-actor-id and --actor-id exclude each other");
  }
  const text = actorId.toLowerCase();
  if (/^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(text)) {
    return { kind: "given", actorId: text };
  }
  throw new PatinaError("USAGE", `--actor-id ${actorId}: not a UUID`);
}
