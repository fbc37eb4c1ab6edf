// @ts-check
/**
 * The set-up as a whole: npm packages, the pinned Node, SQLite's extensions. Everything is
 * looked at on each start and only done when missing, so it may be called at any time.
 */
import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { killCommands, runCommand } from "./command.js";
import { ensureCrsqlite } from "./crsqlite.js";
import { releaseAll } from "./lock.js";
import { ensurePackages } from "./packages.js";
import { PINNED_NODE, compileCacheFolder, pinnedNodePath, rootFolder } from "./paths.js";
import { SetupError, runStep } from "./report.js";
import { ensureSqlDeadline } from "./sql-deadline.js";

/**
 * Makes sure of everything and says where it is. Throws SetupError.
 * @param {{ root?: string, isDev?: boolean }} [options]
 * @returns {Promise<{ nodePath: string, crsqlite: string, sqlDeadline: string }>}
 */
export async function ensureSetup({ root = rootFolder, isDev = false } = {}) {
  const stopListening = endCleanlyOnSignal();
  try {
    await ensurePackages({ root, isDev });
    const nodePath = pinnedNodePath(root);
    if (nodePath === null) {
      throw new SetupError(
        `there is no npm package with Node ${PINNED_NODE} for ${process.platform}-${process.arch}.` +
          ` Run bin/patina with a Node of that version or newer (this one is ${process.versions.node}).`,
      );
    }
    const crsqlite = await ensureCrsqlite({ root, nodePath });
    const sqlDeadline = await ensureSqlDeadline({ root, nodePath });
    await fillCompileCache(nodePath);
    return { nodePath, crsqlite, sqlDeadline };
  } finally {
    stopListening();
  }
}

/**
 * Fills the compile cache when its folder does not exist; who makes the folder fills it. Never
 * fails: without the cache the first start of each command is slower, no more.
 * @param {string} nodePath
 */
async function fillCompileCache(nodePath) {
  const folder = compileCacheFolder();
  if (existsSync(folder)) return;
  try {
    if (mkdirSync(folder, { recursive: true }) === undefined) return;
  } catch {
    return;
  }
  const env = { ...process.env, NODE_COMPILE_CACHE: folder };
  const script = join(rootFolder, "bin", "setup", "warm.js");
  await runStep("filling Node's compile cache", () =>
    runCommand(nodePath, [script], { env, timeoutMs: WARM_MS_MAX }),
  );
}

/** A set-up that is interrupted ends its tools and gives back its locks, then dies of the signal. */
function endCleanlyOnSignal() {
  /** @type {NodeJS.Signals[]} */
  const signals = ["SIGINT", "SIGTERM", "SIGHUP"];
  const onSignal = (/** @type {NodeJS.Signals} */ signal) => {
    killCommands();
    releaseAll();
    for (const name of signals) process.off(name, onSignal);
    process.kill(process.pid, signal);
  };
  for (const name of signals) process.on(name, onSignal);
  return () => {
    for (const name of signals) process.off(name, onSignal);
  };
}

/** Ten times what it takes; a module that hangs when loaded must not hang the set-up. */
const WARM_MS_MAX = 15_000;
