// @ts-check
/**
 * A lock between processes, so that two set-ups at once do the work only once.
 *
 * The lock is a file created whole (written aside, then hard-linked to its name, which fails when
 * the name exists). It names its owner: process id, the process's start time, and host. An owner
 * that no longer lives leaves a stale lock, which the next one takes away. Only one may do that at
 * a time, or a slow one would remove the lock of a quick one: so removal happens under a lock of
 * its own, taken in the same way. On a file system shared between hosts the owner cannot be looked
 * up, so it refreshes the file's time while it works, and a lock not refreshed is stale.
 */
import { execFileSync } from "node:child_process";
import {
  linkSync,
  mkdirSync,
  readFileSync,
  statSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { hostname } from "node:os";
import { dirname } from "node:path";
import { SetupError } from "./report.js";

/**
 * Runs `work` while holding the lock.
 * @template T
 * @param {string} path The lock's file; its folder is created.
 * @param {(ownerPid: number) => void} onWait Called once, when another process holds the lock.
 * @param {() => Promise<T>} work
 * @returns {Promise<T>} Rejects with SetupError when the lock's folder cannot be written.
 */
export async function withLock(path, onWait, work) {
  try {
    mkdirSync(dirname(path), { recursive: true });
    await acquire(path, onWait);
  } catch (cause) {
    const { message } = /** @type {Error} */ (cause);
    throw new SetupError(
      `the cache folder cannot be written (${message}). Set XDG_CACHE_HOME to a folder that can be.`,
      { cause },
    );
  }
  held.add(path);
  const refresh = setInterval(() => touch(path), REFRESH_PERIOD_MS);
  try {
    return await work();
  } finally {
    clearInterval(refresh);
    release(path);
  }
}

/** Gives back every lock of this process; for the way out after a signal. */
export function releaseAll() {
  for (const path of held) release(path);
}

/** Locks this process holds. @type {Set<string>} */
const held = new Set();

/**
 * @param {string} path
 * @param {(ownerPid: number) => void} onWait
 */
async function acquire(path, onWait) {
  for (let attempt = 0; ; attempt += 1) {
    if (tryCreate(path)) return;
    const owner = readOwner(path);
    if (owner === null) continue; // Given back between the two calls.
    if (isStale(path, owner)) {
      await removeStale(path, owner);
      continue;
    }
    if (attempt === 0) onWait(owner.pid);
    await new Promise((wake) => setTimeout(wake, POLL_PERIOD_MS));
  }
}

/** @param {string} path */
function tryCreate(path) {
  const aside = `${path}.${process.pid}`;
  writeFileSync(aside, JSON.stringify(self()));
  try {
    linkSync(aside, path);
    return true;
  } catch (error) {
    if (/** @type {NodeJS.ErrnoException} */ (error).code === "EEXIST") return false;
    throw error;
  } finally {
    unlinkSync(aside);
  }
}

/**
 * @typedef {object} Owner
 * @property {number} pid
 * @property {string} startTime As the system tells it: only compared, never computed with.
 * @property {string} host
 */

/** @param {string} path @returns {Owner | null} null when the lock is gone. */
function readOwner(path) {
  try {
    return JSON.parse(readFileSync(path, "utf8"));
  } catch (error) {
    if (/** @type {NodeJS.ErrnoException} */ (error).code === "ENOENT") return null;
    // Not written by us, or cut short by a full disk: nobody's.
    return { pid: 0, startTime: "", host: hostname() };
  }
}

/** @param {string} path @param {Owner} owner */
function isStale(path, owner) {
  if (owner.host === hostname()) {
    const startTime = processStartTime(owner.pid);
    return startTime === null || startTime !== owner.startTime;
  }
  try {
    return Date.now() - statSync(path).mtimeMs > STALE_AFTER_MS;
  } catch {
    return false;
  }
}

/** @param {string} path @param {Owner} owner */
async function removeStale(path, owner) {
  await withLock(
    `${path}.removal`,
    () => {},
    async () => {
      const present = readOwner(path);
      if (present !== null && JSON.stringify(present) === JSON.stringify(owner)) unlinkSync(path);
    },
  );
}

/** @param {string} path */
function release(path) {
  held.delete(path);
  const owner = readOwner(path);
  if (owner === null || JSON.stringify(owner) !== JSON.stringify(self())) return;
  unlinkSync(path);
}

/** @param {string} path */
function touch(path) {
  try {
    const now = new Date();
    utimesSync(path, now, now);
  } catch {
    // Someone took the lock file away; the work's results are renamed into place whole anyway.
  }
}

/** @returns {Owner} */
function self() {
  selfOwner ??= {
    pid: process.pid,
    startTime: processStartTime(process.pid) ?? "",
    host: hostname(),
  };
  return selfOwner;
}

/** @type {Owner | null} */
let selfOwner = null;

/**
 * When a process started, or null when there is none. A process id alone is not enough: after a
 * restart of the machine another process may have it.
 * @param {number} pid
 */
function processStartTime(pid) {
  if (pid <= 0) return null;
  try {
    if (process.platform === "linux") {
      const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
      // The name in parentheses may hold spaces; field 22 is the 20th after it.
      const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      if (fields[0] === "Z") return null;
      return fields[19] ?? null;
    }
    return execFileSync("ps", ["-o", "lstart=", "-p", String(pid)], { encoding: "utf8" }).trim();
  } catch {
    return null;
  }
}

/** Short beside a build of seconds, long beside the cost of a look. */
const POLL_PERIOD_MS = 100;

const REFRESH_PERIOD_MS = 5_000;

/** Many refreshes may be late on a busy host before its lock counts as abandoned. */
const STALE_AFTER_MS = 12 * REFRESH_PERIOD_MS;
