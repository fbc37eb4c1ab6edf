// @ts-check
/**
 * `patina dev`: the commands of those who work on Patina itself. Runs on the pinned Node, which
 * also runs every tool started here.
 *
 *   patina dev test [vitest's arguments]    all tests, or those that the arguments choose
 *   patina dev check                        format, lint, types, tidiness, unit tests, simulation
 *   patina dev bench NAME [arguments]       one benchmark of bench/
 *   patina dev sim [arguments]              seeds of the simulation (bin/simulate.ts)
 *   patina dev fuzz NAME [arguments]        hostile bytes for the parsers (tests/fuzz/fuzz.ts)
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { endAs, runForeground } from "./setup/child.js";
import { rootFolder } from "./setup/paths.js";

/** @type {[name: string, tool: string, args: string[]][]} */
const CHECKS = [
  ["format", "oxfmt", ["--check"]],
  ["lint", "oxlint", ["--type-aware", "--deny-warnings"]],
  ["types", "typescript", ["--noEmit"]],
  [
    "tidiness and unit tests",
    "vitest",
    ["run", "--passWithNoTests", "--exclude=**/*.e2e.test.ts", "--exclude=**/*.sim.test.ts"],
  ],
  ["simulation", "vitest", ["run", "--passWithNoTests", ".sim.test.ts"]],
];

process.chdir(rootFolder);
const [command, ...args] = process.argv.slice(2);

if (command === "test") {
  endAs(await runTool("vitest", ["run", ...args]));
} else if (command === "check") {
  process.exitCode = await check();
} else if (command === "bench") {
  endAs(await runForeground(process.execPath, [join("bench", "bench.ts"), ...args]));
} else if (command === "sim") {
  endAs(await runForeground(process.execPath, [join("bin", "simulate.ts"), ...args]));
} else if (command === "fuzz") {
  endAs(await runForeground(process.execPath, [join("tests", "fuzz", "fuzz.ts"), ...args]));
} else {
  process.stderr.write(
    "usage: patina dev test [ARGS] | check | bench NAME [ARGS] | sim [ARGS] | fuzz NAME [ARGS]\n",
  );
  process.exitCode = 2;
}

/** Runs every check, also after one has failed, and answers the exit code. */
async function check() {
  /** @type {string[]} */
  const failed = [];
  for (const [name, tool, toolArgs] of CHECKS) {
    process.stdout.write(`\n== ${name}\n`);
    const { code, signal } = await runTool(tool, toolArgs);
    if (signal !== null) return 1;
    if (code !== 0) failed.push(name);
  }
  process.stdout.write(
    failed.length === 0 ? "\nall checks passed\n" : `\nfailed: ${failed.join(", ")}\n`,
  );
  return failed.length === 0 ? 0 : 1;
}

/**
 * Runs the command of an npm package on this Node.
 * @param {string} name
 * @param {readonly string[]} toolArgs
 */
function runTool(name, toolArgs) {
  const folder = join(rootFolder, "node_modules", name);
  const { bin } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  const script = typeof bin === "string" ? bin : (bin[name] ?? bin["tsc"]);
  return runForeground(process.execPath, [join(folder, script), ...toolArgs]);
}
