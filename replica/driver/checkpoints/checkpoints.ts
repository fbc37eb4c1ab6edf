/**
 * Checkpoints: copies of a database, kept in a folder or a store, from which a replica can start.
 *
 * One is taken beside the running replica: a compact copy in one read transaction, stripped of what
 * is its owner's, packed with a manifest, and only then given to the target. Scratch files stand
 * beside the database, where there is room for one as large, and go in any case.
 */
import { existsSync, mkdirSync } from "node:fs";
import { rm, readdir, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import type { CheckpointsConfig } from "../../config.ts";
import type { ActorId } from "../../types.ts";
import { adminError } from "../admin/errors.ts";
import { copyWithoutOwner, restoreDatabase, type RestoreIdentity } from "../store/backup.ts";
import { packCheckpoint, readManifest, unpackCheckpoint } from "./checkpoint-file.ts";
import {
  checkpointName,
  isStoreUrl,
  openTarget,
  type CheckpointTarget,
  type KeptCheckpoint,
  type TargetPlace,
} from "./checkpoint-target.ts";
import { checkpointError } from "./errors.ts";
import type { Manifest } from "./manifest.ts";

/** A checkpoint that was taken, or is about to be restored. */
export interface NamedCheckpoint {
  /** Where it is, as people write it. */
  readonly text: string;
  readonly name: string;
  readonly manifest: Manifest;
}

/**
 * Takes a checkpoint of the database at `source` into `target`: a folder, a new file, or
 * `s3://bucket/prefix`. `clusterId` counts where the database says none. Throws `BACKUP_SOURCE`,
 * `BACKUP_TARGET`, `CHECKPOINT_STORE`, `CHECKPOINT_DENIED`; no checkpoint was added then.
 */
export async function takeCheckpoint(options: {
  readonly source: string;
  readonly target: string;
  readonly clusterId: number;
  readonly config: CheckpointsConfig;
}): Promise<NamedCheckpoint & { readonly bytes: number }> {
  const { source, clusterId, config } = options;
  const { target, name: asked } = await openTarget(options.target, config);
  const scratch = `${source}.checkpoint-${process.pid}`;
  const [copy, packed] = [scratch, `${scratch}.zst`];
  try {
    await sweepScratch(source);
    if (asked !== null && existsSync(join(target.text, asked))) {
      throw adminError("BACKUP_TARGET", `${join(target.text, asked)} exists already`);
    }
    const taken = new Date().toISOString();
    const owner = copyWithoutOwner({ source, target: copy });
    const facts = { ...owner, clusterId: owner.clusterId ?? clusterId, taken };
    const manifest = await packCheckpoint({ database: copy, target: packed, facts });
    const name = asked ?? checkpointName(manifest);
    const { size } = await stat(packed);
    await target.put(packed, name);
    return { text: placeText(target, name), name, manifest, bytes: size };
  } finally {
    target.close();
    await rm(copy, { force: true });
    await rm(packed, { force: true });
  }
}

/**
 * Puts a checkpoint in the place of the database at `target`; `accept` sees its manifest first and
 * may throw. Throws what `restoreDatabase` does, `CHECKPOINT_NONE`, `CHECKPOINT_DAMAGED`,
 * `CHECKPOINT_FORMAT`, `CHECKPOINT_STORE`, `CHECKPOINT_DENIED`; the database is as it was then.
 */
export async function restoreCheckpoint(options: {
  readonly place: TargetPlace & { readonly name: string };
  readonly target: string;
  readonly identity: RestoreIdentity;
  readonly accept: (manifest: Manifest) => void;
  /** See `restoreDatabase`. */
  readonly insteadOf?: string;
}): Promise<ActorId> {
  const { place, target, identity, accept, insteadOf = target } = options;
  mkdirSync(dirname(target), { recursive: true });
  await sweepScratch(target);
  const { target: from, name } = place;
  return restoreDatabase({
    source: {
      kind: "checkpoint",
      unpack: async (file) => {
        const bytes = from.read(name);
        await unpackCheckpoint({ bytes, name: placeText(from, name), target: file, accept });
      },
    },
    target,
    identity,
    insteadOf,
  });
}

/** Reads one whole and compares every sum. Throws as `restoreCheckpoint` does. */
export function verifyCheckpoint(target: CheckpointTarget, name: string): Promise<Manifest> {
  const bytes = target.read(name);
  return unpackCheckpoint({ bytes, name: placeText(target, name), target: null });
}

/** Only what it says of itself. */
export function manifestOf(target: CheckpointTarget, name: string): Promise<Manifest> {
  return readManifest(target.read(name), placeText(target, name));
}

/** The one that is named, else the newest, of a cluster or of any (null). Throws `CHECKPOINT_NONE`. */
export async function chooseCheckpoint(
  { target, name }: TargetPlace,
  clusterId: number | null,
): Promise<string> {
  if (name !== null) return name;
  const all = await target.list();
  const newest = all.find((kept) => clusterId === null || kept.clusterId === clusterId);
  if (newest !== undefined) return newest.name;
  const whose = clusterId === null ? "" : ` of cluster ${clusterId}`;
  throw checkpointError("CHECKPOINT_NONE", `there is no checkpoint${whose} in ${target.text}`);
}

/** Throws `CHECKPOINT_CLUSTER` when it is of another cluster than is expected here. */
export function refuseOtherCluster(
  checkpoint: { readonly text: string; readonly manifest: Manifest },
  clusterId: number,
): void {
  const { text, manifest } = checkpoint;
  if (manifest.clusterId === clusterId) return;
  throw checkpointError(
    "CHECKPOINT_CLUSTER",
    `${text} is of cluster ${manifest.clusterId}, and this replica of cluster ${clusterId}` +
      " (gossip.cluster_id); --other-cluster takes it all the same",
  );
}

/** Folder or address, and name. */
export function placeText(target: CheckpointTarget, name: string): string {
  return target.text.endsWith("/") ? `${target.text}${name}` : join(target.text, name);
}

/** Removes scratch files that processes left which were killed. */
async function sweepScratch(database: string): Promise<void> {
  const folder = dirname(database);
  for (const name of await readdir(folder)) {
    if (!name.startsWith(`${basename(database)}.`)) continue;
    const found = /^\.(?:checkpoint|restore)-(\d+)/.exec(name.slice(basename(database).length));
    if (found === null || isRunning(Number(found[1]))) continue;
    await rm(join(folder, name), { force: true });
  }
}

function isRunning(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

export type { CheckpointTarget, KeptCheckpoint, TargetPlace };
export { isStoreUrl, openTarget };
