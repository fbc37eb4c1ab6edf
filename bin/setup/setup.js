// @ts-check
/**
 * The set-up as a whole: npm packages, the pinned Node, the cr-sqlite extension. Everything is
 * looked at on each start and only done when missing, so it may be called at any time.
 */
import { killCommands } from "./command.js";
import { ensureCrsqlite } from "./crsqlite.js";
import { releaseAll } from "./lock.js";
import { ensurePackages } from "./packages.js";
import { PINNED_NODE, pinnedNodePath, rootFolder } from "./paths.js";
import { SetupError } from "./report.js";

/**
 * Makes sure of everything and says where it is. Throws SetupError.
 * @param {{ root?: string, isDev?: boolean }} [options]
 * @returns {Promise<{ nodePath: string, crsqlite: string }>}
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
    return { nodePath, crsqlite: await ensureCrsqlite({ root, nodePath }) };
  } finally {
    stopListening();
  }
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
