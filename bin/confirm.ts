/** Asks before something is destroyed. */
import { createInterface } from "node:readline/promises";
import { PatinaError } from "#base/errors.ts";

/**
 * Says what a command is about to do, and goes on when it was told `--yes` or somebody at the
 * terminal agrees. Throws `USAGE` otherwise; nothing was done then.
 */
export async function confirm(plan: string, options: { readonly yes?: boolean }): Promise<void> {
  process.stderr.write(`${plan}\n`);
  if (options.yes === true) return;
  if (!process.stdin.isTTY) {
    throw new PatinaError("USAGE", "nothing was done: repeat it with --yes, or at a terminal");
  }
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  try {
    const answer = await terminal.question("go on? [y/N] ");
    if (/^y(?:es)?$/i.test(answer.trim())) return;
  } finally {
    terminal.close();
  }
  throw new PatinaError("USAGE", "nothing was done");
}
