/** `patina backup` and `patina restore`: copies of the database without its owner's identity. */
import { closeSync, existsSync, openSync, readSync, rmSync } from "node:fs";
import { resolve } from "node:path";
import { errorText, PatinaError } from "#base/errors.ts";
import { tableFileOf } from "../../proxy/table-file.ts";
import { adminError } from "../../replica/driver/admin/errors.ts";
import {
  chooseCheckpoint,
  isStoreUrl,
  manifestOf,
  openTarget,
  placeText,
  refuseOtherCluster,
  restoreCheckpoint,
  takeCheckpoint,
} from "../../replica/driver/checkpoints/checkpoints.ts";
import {
  backupDatabase,
  restoreDatabase,
  storedClusterId,
  type RestoreIdentity,
} from "../../replica/driver/store/backup.ts";
import type { ActorId } from "../../replica/types.ts";
import {
  clearStage,
  dropSubscriptions,
  stagedPath,
} from "../../replica/driver/store/staged-database.ts";
import { confirm } from "../confirm.ts";
import {
  checkpointsTarget,
  clusterIdTarget,
  databaseTarget,
  subscriptionsFolder,
  type GlobalOptions,
} from "../targets.ts";
import { sizeText } from "./checkpoints.ts";
import { changeOver } from "./rebuild.ts";
import { isRunningOn } from "./upgrade.ts";

/** Flags of `restore`. */
type RestoreOptions = GlobalOptions & {
  readonly selfActorId?: boolean;
  readonly actorId?: string;
  readonly otherCluster?: boolean;
  readonly yes?: boolean;
};

/** Writes a checkpoint, or a plain copy to a new file; the replica may be running. */
export async function backup(
  text: string | undefined,
  options: GlobalOptions & { readonly plain?: boolean },
): Promise<void> {
  const source = databaseTarget(options);
  const { place, config } = checkpointsTarget(text, options);
  if (options.plain === true) {
    if (isStoreUrl(place)) throw new PatinaError("USAGE", "--plain writes to a file only");
    const bytes = backupDatabase({ source, target: resolve(place) });
    process.stdout.write(`${place}: ${bytes} bytes, from ${source}\n`);
    return;
  }
  const clusterId = clusterIdTarget(options) ?? 0;
  const taken = await takeCheckpoint({ source, target: place, clusterId, config });
  const { database } = taken.manifest;
  process.stdout.write(
    `${taken.text}: ${taken.bytes} bytes, of ${source} with ${sizeText(database.bytes)}\n`,
  );
}

/**
 * Puts a copy in the place of the database. Under a replica that runs it is made ready beside it, and
 * another process, which opens it, takes over.
 */
export async function restore(text: string | undefined, options: RestoreOptions): Promise<void> {
  const insteadOf = databaseTarget(options);
  const identity = identityFrom(options);
  const { place: source } = checkpointsTarget(text, options);
  const isLive = isRunningOn(insteadOf, options);
  if (isLive) clearStage(insteadOf);
  const target = isLive ? stagedPath(insteadOf) : insteadOf;
  const plan = { target, insteadOf, identity };
  const { from, actorId } = isPlain(source)
    ? await restorePlain({ ...plan, path: resolve(source) }, options)
    : await restorePacked({ ...plan, source: text }, options);
  if (isLive) await changeOver(insteadOf, options);
  else {
    dropSubscriptions(subscriptionsFolder(options));
    // It is of the database that is gone; an edge that runs goes on by it until it has caught up.
    rmSync(tableFileOf(target), { force: true });
  }
  process.stdout.write(`${insteadOf}: restored from ${from} as actor ${actorId}\n`);
  if (identity.kind === "new") return;
  process.stderr.write(
    "what this actor published after the backup was taken is not in it: start it beside replicas" +
      " that have it, or restore without an actor id\n",
  );
}

interface RestorePlan {
  /** Where it is written. */
  readonly target: string;
  /** The database whose place it takes. */
  readonly insteadOf: string;
  readonly identity: RestoreIdentity;
}

interface Restored {
  readonly from: string;
  readonly actorId: ActorId;
}

async function restorePlain(
  plan: RestorePlan & { readonly path: string },
  options: RestoreOptions,
): Promise<Restored> {
  const { path, ...rest } = plan;
  await confirmRestore(`${path} (a plain SQLite file)`, plan.insteadOf, options);
  const source = { kind: "file", path } as const;
  return { from: path, actorId: await restoreDatabase({ ...rest, source }) };
}

async function restorePacked(
  plan: RestorePlan & { readonly source: string | undefined },
  options: RestoreOptions,
): Promise<Restored> {
  const { target, insteadOf, identity } = plan;
  const { place: asked, config } = checkpointsTarget(plan.source, options);
  const place = await openTarget(asked, config);
  try {
    const own = storedClusterId(insteadOf) ?? clusterIdTarget(options);
    const clusterId = options.otherCluster === true ? null : own;
    const name = await chooseCheckpoint(place, clusterId);
    const from = placeText(place.target, name);
    const accept = (manifest: Awaited<ReturnType<typeof manifestOf>>): void => {
      if (clusterId !== null) refuseOtherCluster({ text: from, manifest }, clusterId);
    };
    const manifest = await manifestOf(place.target, name);
    accept(manifest);
    const what = `${from}, taken ${manifest.taken} of actor ${manifest.actor ?? "unknown"}`;
    await confirmRestore(what, insteadOf, options);
    const actorId = await restoreCheckpoint({
      place: { target: place.target, name },
      target,
      insteadOf,
      identity,
      accept,
    });
    return { from, actorId };
  } finally {
    place.target.close();
  }
}

/** Nobody need agree where nothing is lost. */
async function confirmRestore(
  what: string,
  target: string,
  options: RestoreOptions,
): Promise<void> {
  if (!existsSync(target)) return;
  const plan =
    `this replaces the database ${target} with ${what}: rows that only it has are lost, kept` +
    " subscriptions end, and readers start over";
  await confirm(plan, options);
}

/** Whether the source is a SQLite file as it is; throws `BACKUP_SOURCE` for one that is not there. */
function isPlain(source: string): boolean {
  if (isStoreUrl(source)) return false;
  const start = Buffer.alloc(SQLITE_START.length);
  try {
    const file = openSync(source, "r");
    try {
      readSync(file, start);
    } finally {
      closeSync(file);
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EISDIR") return false;
    throw adminError("BACKUP_SOURCE", `${source}: ${errorText(error)}`, error);
  }
  return start.toString("latin1") === SQLITE_START;
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

const SQLITE_START = "SQLite format 3\0";
