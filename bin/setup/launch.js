// @ts-check
/**
 * The launcher behind bin/patina: makes sure of the set-up, starts the TypeScript entry on the
 * pinned Node, passes signals on, and ends as the entry ended.
 */
import { join } from "node:path";
import { endAs, runForeground } from "./child.js";
import { compileCacheFolder, rootFolder } from "./paths.js";
import { EXIT_SETUP_FAILED, SetupError, printFailure } from "./report.js";
import { ensureSetup } from "./setup.js";

/** @param {readonly string[]} args as after `patina`. */
export async function launch(args) {
  const isDev = args[0] === "dev";
  try {
    const { nodePath, crsqlite, sqlDeadline } = await ensureSetup({ isDev });
    const entry = isDev ? join(rootFolder, "bin", "dev.js") : join(rootFolder, "bin", "cli.ts");
    const env = {
      ...process.env,
      PATINA_CRSQLITE: crsqlite,
      PATINA_SQL_DEADLINE: sqlDeadline,
      NODE_COMPILE_CACHE: compileCacheFolder(),
    };
    endAs(await startEntry(nodePath, [entry, ...args.slice(isDev ? 1 : 0)], env));
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    printFailure(error);
    process.exitCode = EXIT_SETUP_FAILED;
  }
}

/**
 * Starts a program on the pinned Node, with the sockets of systemd when it passed any.
 * @param {string} nodePath
 * @param {readonly string[]} args
 * @param {NodeJS.ProcessEnv} env
 */
export function startEntry(nodePath, args, env) {
  const sockets = Number(env["LISTEN_PID"]) === process.pid ? Number(env["LISTEN_FDS"]) || 0 : 0;
  if (sockets === 0) return runForeground(nodePath, args, { env });
  // systemd names the process its sockets are for. The shell puts in its own id, which the entry
  // keeps, because `exec` does not change it.
  const script = 'LISTEN_PID=$$ exec "$@"';
  return runForeground("/bin/sh", ["-c", script, "sh", nodePath, ...args], { env, sockets });
}
