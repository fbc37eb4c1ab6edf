// @ts-check
/**
 * What the set-up says: one line per step on stderr, and one kind of error with a message for the
 * person at the terminal. Nothing is printed when everything is in place.
 */

/** Exit code for "set-up failed"; 0 is success and 2 a usage or configuration error. */
export const EXIT_SETUP_FAILED = 3;

/** A failure the user can act on: the message says what to install or set. Shown without a stack. */
export class SetupError extends Error {
  /**
   * @param {string} message
   * @param {{ output?: string, cause?: unknown }} [details] output: what the failing tool printed.
   */
  constructor(message, details = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = "SetupError";
    /** What the failing tool printed. */
    this.output = details.output ?? "";
  }
}

/**
 * Runs one step and prints one line with its time. On a terminal the line starts at once, so that a
 * step of many seconds is not silence; elsewhere it is written whole, so that lines never mix.
 * @template T
 * @param {string} label
 * @param {() => Promise<T>} work
 * @returns {Promise<T>}
 */
export async function runStep(label, work) {
  const startedMs = Date.now();
  const isLive = process.stderr.isTTY === true;
  if (isLive) process.stderr.write(`${PREFIX}${label} ... `);
  const say = (/** @type {string} */ ending) =>
    process.stderr.write(isLive ? `${ending}\n` : `${PREFIX}${label} ... ${ending}\n`);
  try {
    const result = await work();
    say(`${((Date.now() - startedMs) / 1000).toFixed(1)} s`);
    return result;
  } catch (error) {
    say("failed");
    throw error;
  }
}

/** Prints one line of its own, for what is not a step. @param {string} text */
export function say(text) {
  process.stderr.write(`${PREFIX}${text}\n`);
}

/**
 * Prints a failure: the message, after the first and the last lines of the tool's output.
 * @param {SetupError} error
 */
export function printFailure(error) {
  const lines = error.output.split("\n").filter((line) => line.trim() !== "");
  const cut = lines.length - OUTPUT_LINES_HEAD - OUTPUT_LINES_TAIL;
  if (cut > 1) lines.splice(OUTPUT_LINES_HEAD, cut, `... ${cut} lines left out ...`);
  for (const line of lines) process.stderr.write(`    ${line}\n`);
  process.stderr.write(`${PREFIX}${error.message}\n`);
}

const PREFIX = "patina set-up: ";

/** npm says at the start of its output what is wrong. */
const OUTPUT_LINES_HEAD = 6;

/** Compilers say it at the end; few enough lines that our own message stays in view. */
const OUTPUT_LINES_TAIL = 14;
