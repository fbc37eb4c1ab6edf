/**
 * Where checkpoints are kept: a folder, or a prefix in an S3-compatible store, behind one face.
 *
 * A checkpoint appears whole or not at all: a file is renamed to its name, and an object is there
 * when the store has all of it. Names begin with the time, so that the greatest is the newest.
 */
import { createReadStream } from "node:fs";
import { copyFile, mkdir, open, readdir, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { errorText } from "#base/errors.ts";
import type { CheckpointsConfig } from "../../config.ts";
import type { CheckpointBytes } from "./checkpoint-file.ts";
import { checkpointError } from "./errors.ts";
import type { Manifest } from "./manifest.ts";

/** A checkpoint that is kept, by what its name says. */
export interface KeptCheckpoint {
  readonly name: string;
  /** ISO 8601, to the second. */
  readonly taken: string;
  readonly clusterId: number;
  readonly bytes: number;
}

/** Where checkpoints are kept. Everything may throw `CHECKPOINT_STORE` and `CHECKPOINT_DENIED`. */
export interface CheckpointTarget {
  /** As people know it, for messages. */
  readonly text: string;
  /** Newest first; what has no name of a checkpoint is left out. */
  list(): Promise<KeptCheckpoint[]>;
  /** Adds the file as `name`; the file stays. */
  put(file: string, name: string): Promise<void>;
  /** The bytes of one. Also throws `CHECKPOINT_NONE`. */
  read(name: string): CheckpointBytes;
  remove(name: string): Promise<void>;
  /** Closes connections. */
  close(): void;
}

/** A target as it was written, and the one checkpoint in it where that was named. */
export interface TargetPlace {
  readonly target: CheckpointTarget;
  readonly name: string | null;
}

/** Whether the text is an address in a store. */
export function isStoreUrl(text: string): boolean {
  return /^[a-z0-9]+:\/\//i.test(text);
}

/**
 * The place that `s3://bucket/prefix`, a folder, or a file in either says. Throws `USAGE` for other
 * addresses. A path that is no folder and does not end in `/` is that of a file.
 */
export async function openTarget(text: string, config: CheckpointsConfig): Promise<TargetPlace> {
  if (isStoreUrl(text)) {
    const { openS3 } = await import("./s3-target.ts");
    return openS3(text, config);
  }
  const path = resolve(text);
  if (text.endsWith("/") || (await isFolder(path))) {
    return { target: new FolderTarget(path), name: null };
  }
  return { target: new FolderTarget(dirname(path)), name: basename(path) };
}

/**
 * The name of a checkpoint: when, of which cluster, and by whom, so that clusters may share a target
 * and no two replicas take the same name.
 */
export function checkpointName(manifest: Pick<Manifest, "taken" | "clusterId" | "actor">): string {
  const time = manifest.taken.slice(0, 19).replaceAll(/[-:]/g, "");
  const actor = (manifest.actor ?? "00000000").slice(0, 8);
  return `checkpoint-${time}Z-${manifest.clusterId}-${actor}${SUFFIX}`;
}

/** What a name says; null = not that of a checkpoint. */
export function parseName(name: string, bytes: number): KeptCheckpoint | null {
  const found = NAME.exec(name);
  if (found === null) return null;
  const [, year, month, day, hour, minute, second, clusterId] = found;
  const taken = `${year}-${month}-${day}T${hour}:${minute}:${second}Z`;
  return { name, bytes, taken, clusterId: Number(clusterId) };
}

/** Newest first. */
export function newestFirst(found: readonly (KeptCheckpoint | null)[]): KeptCheckpoint[] {
  const all = found.filter((one) => one !== null);
  return all.toSorted((one, other) => (one.name < other.name ? 1 : -1));
}

/** A folder of this machine. */
class FolderTarget implements CheckpointTarget {
  readonly text: string;

  constructor(path: string) {
    this.text = path;
  }

  async list(): Promise<KeptCheckpoint[]> {
    return this.#try(async () => {
      const names = (await readdir(this.text)).filter((name) => NAME.test(name));
      const found = names.map(async (name) =>
        parseName(name, (await stat(join(this.text, name))).size),
      );
      return newestFirst(await Promise.all(found));
    });
  }

  async put(file: string, name: string): Promise<void> {
    const path = join(this.text, name);
    const part = `${path}.part-${process.pid}`;
    await this.#try(async () => {
      try {
        await mkdir(this.text, { recursive: true });
        await copyFile(file, part);
        // A name may outlive a power loss that takes the bytes.
        await using copy = await open(part, "r+");
        await copy.sync();
        await rename(part, path);
      } finally {
        await rm(part, { force: true });
      }
    });
  }

  async *read(name: string): CheckpointBytes {
    try {
      yield* createReadStream(join(this.text, name), { highWaterMark: CHUNK_BYTES });
    } catch (error) {
      throw this.#error(error);
    }
  }

  async remove(name: string): Promise<void> {
    await this.#try(() => rm(join(this.text, name), { force: true }));
  }

  close(): void {
    // Nothing is kept open between calls.
  }

  async #try<Value>(work: () => Promise<Value>): Promise<Value> {
    try {
      return await work();
    } catch (error) {
      throw this.#error(error);
    }
  }

  #error(error: unknown): Error {
    const { code } = error as NodeJS.ErrnoException;
    const kind =
      code === "ENOENT" || code === "ENOTDIR"
        ? "CHECKPOINT_NONE"
        : code === "EACCES" || code === "EPERM"
          ? "CHECKPOINT_DENIED"
          : "CHECKPOINT_STORE";
    return checkpointError(kind, errorText(error), error);
  }
}

async function isFolder(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isDirectory();
  } catch (error) {
    // Whatever hides it, reading it will say so.
    if (error instanceof Error) return false;
    throw error;
  }
}

const SUFFIX = ".db.zst";
const NAME = /^checkpoint-(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z-(\d{1,5})-[0-9a-f]{8}\.db\.zst$/;
const CHUNK_BYTES = 1024 * 1024;
