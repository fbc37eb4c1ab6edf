/**
 * A database that is ready beside the one in use and takes its place at the next opening: how a replica
 * that runs gets another one, by a restore or a rebuild, without a moment in which there is none.
 *
 * The one before stays as `<path>.before`, until the next time. A process that ends in the middle is no
 * matter: the staged file is moved last, and as long as it is there the next opening goes on.
 */
import { existsSync, readdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { lockStore } from "./database.ts";
import { storeError, toFileError } from "./errors.ts";

/** Where the database that is to take the place of the one at `path` is made ready. */
export function stagedPath(path: string): string {
  return `${path}.next`;
}

/** Where the database that was replaced stays. */
export function replacedPath(path: string): string {
  return `${path}.before`;
}

/** Clears what an attempt that was given up has left. Throws `STORE_LOCKED` while another one goes on. */
export function clearStage(path: string): void {
  const staged = stagedPath(path);
  lockStore(staged).close();
  for (const suffix of ["", ...SIDE_FILES, ".lock"]) rmSync(`${staged}${suffix}`, { force: true });
}

/**
 * Gives the staged database its place, if there is one; whether there was. Before the store opens. Throws
 * `STORE_LOCKED` while a process owns the database, `STORE_FULL` when a file cannot be moved.
 */
export function takeStaged(path: string): boolean {
  const staged = stagedPath(path);
  if (!existsSync(staged)) return false;
  const lock = lockStore(path);
  try {
    if (existsSync(`${staged}-wal`)) {
      const message = `${staged} was not closed: remove it, and stage it again`;
      throw storeError("STORE_CORRUPT", message);
    }
    // The main file last: without it there is nothing left to put aside.
    for (const suffix of existsSync(path) ? [...SIDE_FILES, ""] : []) {
      const [file, aside] = [`${path}${suffix}`, `${replacedPath(path)}${suffix}`];
      if (existsSync(file)) renameSync(file, aside);
      else rmSync(aside, { force: true });
    }
    // How its last run ended goes with it.
    if (existsSync(`${staged}.run`)) renameSync(`${staged}.run`, `${path}.run`);
    for (const suffix of ["-shm", ".lock"]) rmSync(`${staged}${suffix}`, { force: true });
    renameSync(staged, path);
    return true;
  } catch (thrown) {
    throw toFileError(thrown, path, "STORE_FULL");
  } finally {
    lock.close();
  }
}

/** Their change ids speak of the database that is gone; clients subscribe anew. */
export function dropSubscriptions(folder: string): void {
  if (!existsSync(folder)) return;
  for (const name of readdirSync(folder)) {
    if (/^[0-9a-f]{32}$/.test(name)) rmSync(join(folder, name), { recursive: true, force: true });
  }
}

/** `.run` tells a database that was copied from the one that was closed here. */
const SIDE_FILES = ["-wal", "-shm", ".run"];
