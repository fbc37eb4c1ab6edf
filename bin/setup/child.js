// @ts-check
/**
 * Starts a process in the foreground: it has our terminal, gets our signals, and we end as it ends.
 */
import { spawn } from "node:child_process";
import { SetupError } from "./report.js";

/**
 * Runs a program in the foreground and answers how it ended. Throws SetupError when it cannot start.
 * @param {string} file
 * @param {readonly string[]} args
 * @param {{ env?: NodeJS.ProcessEnv, sockets?: number }} [options]
 *   sockets: how many sockets of systemd's to hand on, from file descriptor 3.
 * @returns {Promise<{ code: number | null, signal: NodeJS.Signals | null }>}
 */
export function runForeground(file, args, { env = process.env, sockets = 0 } = {}) {
  const passed = Array.from({ length: sockets }, (_, index) => FIRST_SOCKET + index);
  const child = spawn(file, args, { stdio: ["inherit", "inherit", "inherit", ...passed], env });
  const onSignal = (/** @type {NodeJS.Signals} */ signal) => {
    if (!isFromTerminal(signal)) child.kill(signal);
  };
  for (const name of PASSED_SIGNALS) process.on(name, onSignal);
  return new Promise((done, fail) => {
    child.on("error", (cause) => {
      fail(new SetupError(`${file} does not start: ${cause.message}.`, { cause }));
    });
    child.on("exit", (code, signal) => {
      for (const name of PASSED_SIGNALS) process.off(name, onSignal);
      done({ code, signal });
    });
  });
}

/**
 * Ends this process as the child ended: same exit code, or same signal.
 * @param {{ code: number | null, signal: NodeJS.Signals | null }} ending
 */
export function endAs({ code, signal }) {
  if (signal === null) process.exit(code ?? 1);
  process.kill(process.pid, signal);
}

/**
 * The terminal's interrupt goes to every process in the foreground, so the child has it already; a
 * second one would read as impatience.
 * @param {NodeJS.Signals} signal
 */
function isFromTerminal(signal) {
  if (signal !== "SIGINT" && signal !== "SIGQUIT") return false;
  return process.stdin.isTTY || process.stdout.isTTY || process.stderr.isTTY;
}

/** @type {NodeJS.Signals[]} */
const PASSED_SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"];

/** The first file descriptor systemd passes (sd_listen_fds). */
const FIRST_SOCKET = 3;
