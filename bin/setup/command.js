// @ts-check
/**
 * Runs the tools of the set-up (npm, cargo, cc, apt-get) with their output kept for the error
 * message. Each runs in a process group of its own, so that an interrupted set-up can end a tool
 * together with everything it started.
 */
import { spawn } from "node:child_process";
import { accessSync, constants, statSync } from "node:fs";
import { delimiter, join } from "node:path";

/**
 * @typedef {object} CommandOptions
 * @property {string} [cwd]
 * @property {NodeJS.ProcessEnv} [env]
 * @property {number} [timeoutMs] The tool is killed after this time; none by default.
 */

/** Process groups that are running; `killCommands` ends them. @type {Set<number>} */
const running = new Set();

/**
 * Runs a tool to its end; never throws for the tool's own failure.
 * @param {string} file
 * @param {readonly string[]} args
 * @param {CommandOptions} [options]
 * @returns {Promise<{ isOk: boolean, stdout: string, output: string }>} output: stdout and stderr.
 */
export function runCommand(file, args, options = {}) {
  return new Promise((done) => {
    const child = spawn(file, args, {
      cwd: options.cwd,
      env: options.env ?? process.env,
      stdio: ["ignore", "pipe", "pipe"],
      detached: true,
    });
    if (child.pid !== undefined) running.add(child.pid);
    let stdout = "";
    let output = "";
    child.stdout.setEncoding("utf8").on("data", (text) => {
      stdout += text;
      output += text;
    });
    child.stderr.setEncoding("utf8").on("data", (text) => (output += text));
    const timer =
      options.timeoutMs === undefined
        ? null
        : setTimeout(() => killGroup(child.pid), options.timeoutMs);
    const finish = (/** @type {boolean} */ isOk) => {
      if (timer !== null) clearTimeout(timer);
      if (child.pid !== undefined) running.delete(child.pid);
      done({ isOk, stdout, output });
    };
    child.on("error", (error) => {
      output += `${error.message}\n`;
      finish(false);
    });
    child.on("close", (code) => finish(code === 0));
  });
}

/** Ends every tool that is running, with what it started. */
export function killCommands() {
  for (const pid of running) killGroup(pid);
}

/**
 * The absolute path of a tool on PATH, or null.
 * @param {string} name
 * @param {NodeJS.ProcessEnv} [env]
 */
export function findOnPath(name, env = process.env) {
  for (const folder of (env["PATH"] ?? "").split(delimiter)) {
    if (folder === "") continue;
    const candidate = join(folder, name);
    try {
      accessSync(candidate, constants.X_OK);
      if (statSync(candidate).isFile()) return candidate;
    } catch {
      // Not here; the next folder may have it.
    }
  }
  return null;
}

/** @param {number | undefined} pid */
function killGroup(pid) {
  if (pid === undefined) return;
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // It has ended by itself.
  }
}
