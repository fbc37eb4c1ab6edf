// @ts-check
/**
 * Keeps node_modules in step with package-lock.json by running `npm ci`.
 *
 * A stamp inside node_modules names the lock file it was installed from. `npm ci` removes the folder
 * first, so an installation cut short has no stamp and is done again. A folder without a stamp that
 * npm itself recorded as complete (the person ran `npm install`) is taken over as it is.
 */
import { createHash } from "node:crypto";
import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { cacheFolder } from "./paths.js";
import { findOnPath, runCommand } from "./command.js";
import { withLock } from "./lock.js";
import { SetupError, runStep, say } from "./report.js";

/**
 * Makes sure of node_modules. Cost when in place: two small files read and one hash.
 * @param {{ root: string, isDev: boolean }} options isDev: tools for development are needed too.
 */
export async function ensurePackages({ root, isDev }) {
  if (isInStep(root, isDev)) return;
  const lock = join(cacheFolder(), `packages-${sha256(root).slice(0, 12)}.lock`);
  await withLock(lock, sayWaiting, async () => {
    if (isInStep(root, isDev)) return;
    await runStep("installing npm packages", () => install(root, isDev));
    writeStamp(root);
  });
}

/** @param {number} ownerPid */
export function sayWaiting(ownerPid) {
  say(`waiting for process ${ownerPid}, which is doing the set-up`);
}

/**
 * @param {string} root
 * @param {boolean} isDev
 */
function isInStep(root, isDev) {
  const lockText = readText(join(root, "package-lock.json"));
  if (lockText === null) throw new SetupError(`${join(root, "package-lock.json")} is missing.`);
  if (isDev && !existsSync(join(root, "node_modules", "vitest"))) return false;
  const stamp = readText(join(root, "node_modules", STAMP));
  if (stamp !== null && parse(stamp)?.lockSha256 === sha256(lockText)) return true;
  if (!isInstalledByNpm(root, lockText)) return false;
  writeStamp(root);
  return true;
}

/**
 * True when npm's own record of node_modules is complete, fits the lock file, and every package it
 * names is there.
 * @param {string} root
 * @param {string} lockText
 */
function isInstalledByNpm(root, lockText) {
  const record = parse(readText(join(root, "node_modules", ".package-lock.json")) ?? "");
  const lock = parse(lockText);
  if (record === null || lock === null) return false;
  return Object.entries(lock.packages).every(([path, wanted]) => {
    if (path === "" || wanted.link) return true;
    const present = record.packages[path];
    if (present === undefined) return wanted.dev === true || wanted.optional === true;
    const manifest = parse(readText(join(root, path, "package.json")) ?? "");
    return (
      manifest !== null && present.version === wanted.version && manifest.version === wanted.version
    );
  });
}

/**
 * @param {string} root
 * @param {boolean} isDev
 */
async function install(root, isDev) {
  const npm = findOnPath("npm");
  if (npm === null) {
    throw new SetupError(
      "npm is missing. Install it (it comes with Node; on Debian: `apt-get install npm`).",
    );
  }
  const flags = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
  if (isDev) flags.push("--include=dev");
  let installed = await runCommand(npm, ["ci", ...flags], { cwd: root });
  // A registry that lacks packages for other platforms makes npm write a lock file without them,
  // which `npm ci` then refuses as incomplete. `npm install` takes it, and every version in it.
  if (!installed.isOk && installed.output.includes("EUSAGE")) {
    rmSync(join(root, "node_modules"), { recursive: true, force: true });
    installed = await runCommand(npm, ["install", "--no-save", ...flags], { cwd: root });
  }
  if (installed.isOk) return;
  throw new SetupError(
    "npm could not install the packages (output above). Is its registry in reach?",
    {
      output: installed.output,
    },
  );
}

/** @param {string} root */
function writeStamp(root) {
  const path = join(root, "node_modules", STAMP);
  const lockSha256 = sha256(readText(join(root, "package-lock.json")) ?? "");
  const aside = `${path}.${process.pid}`;
  try {
    writeFileSync(aside, `${JSON.stringify({ lockSha256 })}\n`);
    renameSync(aside, path);
  } catch {
    // A folder we may not write to was installed by someone else; looking again is cheap enough.
  }
}

/** @param {string} path */
function readText(path) {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return null;
  }
}

/** @param {string} text @returns {any} null for what is not JSON. */
function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** @param {string} text */
function sha256(text) {
  return createHash("sha256").update(text).digest("hex");
}

const STAMP = ".patina-setup.json";
