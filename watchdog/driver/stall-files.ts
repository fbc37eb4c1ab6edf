/**
 * Evidence on disk: one JSON file per stall in `<state folder>/stalls/`, the newest kept.
 *
 * Written synchronously, to a temporary name, synced and renamed, because the process is killed
 * right afterwards; a file under its final name is whole unless the disk lies. Reading treats every
 * file as hostile: a damaged one is a value, never an exception.
 */
import { closeSync, fsyncSync, mkdirSync, openSync, readFileSync, readdirSync } from "node:fs";
import { renameSync, rmSync, writeSync } from "node:fs";
import { join } from "node:path";
import { errorText } from "#base/errors.ts";
import { type Result, failure, success } from "#base/machine.ts";
import type { StallEvidence } from "../types.ts";

/** The folder of evidence files. */
export function stallsFolder(stateFolder: string): string {
  return join(stateFolder, "stalls");
}

/** The file of one stall. */
export function stallFile(stateFolder: string, id: string): string {
  return join(stallsFolder(stateFolder), `${id}${ENDING}`);
}

/** An id that sorts by time and is a safe file name. */
export function newStallId(time: Date, pid: number, loop: string): string {
  const stamp = time.toISOString().replaceAll(/[-:.]/g, "");
  return `${stamp}-${pid}-${loop.replaceAll(/[^a-z0-9-]/g, "-")}`;
}

/** Writes evidence durably and removes the oldest beyond `keep`. Throws when the disk refuses. */
export function writeStall(stateFolder: string, evidence: StallEvidence, keep: number): string {
  const folder = stallsFolder(stateFolder);
  mkdirSync(folder, { recursive: true });
  const file = stallFile(stateFolder, evidence.id);
  const temporary = `${file}.tmp`;
  const fd = openSync(temporary, "w", 0o640);
  try {
    let rest = Buffer.from(`${JSON.stringify(evidence, null, 2)}\n`);
    while (rest.length > 0) rest = rest.subarray(writeSync(fd, rest));
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
  renameSync(temporary, file);
  syncFolder(folder);
  for (const ending of [ENDING, `${ENDING}.damaged`]) {
    const old = namesIn(folder, ending).slice(keep);
    for (const name of old) rmSync(join(folder, name), { force: true });
  }
  return file;
}

/** Ids of all evidence files, newest first; empty where there is no folder. */
export function listStalls(stateFolder: string): readonly string[] {
  const names = namesIn(stallsFolder(stateFolder), ENDING);
  return names.map((name) => name.slice(0, -ENDING.length));
}

/** Reads one stall; the failure says what is wrong with the file. */
export function readStall(stateFolder: string, id: string): Result<StallEvidence, string> {
  if (!ID.test(id)) return failure(`"${id}" is not the id of a stall`);
  try {
    const value: unknown = JSON.parse(readFileSync(stallFile(stateFolder, id), "utf8"));
    if (!isEvidence(value)) return failure("not an evidence file of a format known here");
    return success(value);
  } catch (error) {
    return failure(errorText(error));
  }
}

/** Checks what readers rely on; the rest is shown as it is. */
function isEvidence(value: unknown): value is StallEvidence {
  if (typeof value !== "object" || value === null) return false;
  const { format, id, kind, time, loop, stack, lastBreadcrumbs } = value as Partial<StallEvidence>;
  const isNamed = [id, kind, time, loop].every((text) => typeof text === "string");
  const hasStack = typeof stack === "object" && stack !== null;
  return format === 1 && isNamed && hasStack && Array.isArray(lastBreadcrumbs);
}

/** Newest first. */
function namesIn(folder: string, ending: string): string[] {
  try {
    const names = readdirSync(folder).filter((name) => name.endsWith(ending));
    return names.sort().reverse();
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return [];
    throw error;
  }
}

/** The rename itself must survive a power cut. */
function syncFolder(folder: string): void {
  const fd = openSync(folder, "r");
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

const ENDING = ".json";
/** No separators and no leading dot: an id from a command line stays inside the folder. */
const ID = /^[0-9A-Za-z][0-9A-Za-z-]*$/;
