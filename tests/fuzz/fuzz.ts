/**
 * `npm run fuzz`: hostile bytes from a seed for Patina's parsers, judged by others.
 *
 *   npm run fuzz -- http                             20,000 cases of seed 1, and 200 end to end
 *   npm run fuzz -- http --cases 10000000 --seed 7   more of them
 *   npm run fuzz -- http --seed 7 --case 1234        one case again, with its bytes
 *   npm run fuzz -- http --live 5000                 so many of them end to end, too
 *   npm run fuzz -- http --jobs 1                    processes; one per core unless given
 *   npm run fuzz -- splits                           every split of the corpus over three writes
 *
 * Exit code 1 when a case failed (the last line says how to repeat it), 2 when an argument is wrong.
 */
import { spawn } from "node:child_process";
import { availableParallelism } from "node:os";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

import { TestStack } from "../../proxy/testing/test-stack.ts";
import { addTally, createTally, Differential, type FuzzTally } from "./differential.ts";
import { startLive, type Reader } from "./live.ts";
import { hasNginx } from "./nginx.ts";
import { judgeSplits } from "./splits.ts";

/** What the arguments ask for. */
interface Plan {
  readonly what: "http" | "splits";
  readonly seed: number;
  readonly first: number;
  readonly count: number;
  readonly live: number;
  readonly jobs: number;
  readonly isShare: boolean;
}

/** What one process found. */
interface Findings {
  readonly tally: FuzzTally;
  readonly failed: Failure | null;
}

interface Failure {
  readonly index: number;
  readonly found: string;
  readonly isLive: boolean;
}

/** Below this a process of its own costs more than it saves. */
const CASES_PER_JOB_MIN = 50_000;

const plan = readPlan(process.argv.slice(2));
if (plan === null) {
  process.stderr.write(
    "usage: npm run fuzz -- http [--cases N] [--seed S] [--case I] [--live N] [--jobs N] | splits\n",
  );
  process.exitCode = 2;
} else if (plan.what === "splits") {
  process.exitCode = reportSplits();
} else if (plan.isShare) {
  const { tally, failed } = runShare(plan);
  process.send?.({ tally: { ...tally, refusals: [...tally.refusals] }, failed });
} else {
  process.exitCode = await runHttp(plan);
}

async function runHttp(all: Plan): Promise<number> {
  const startedMs = performance.now();
  const { tally, failed } = await runAll(all);
  const seconds = (performance.now() - startedMs) / 1_000;
  process.stdout.write(`${describe(tally)}\n${tally.cases} cases in ${seconds.toFixed(1)} s\n`);
  if (failed !== null) return reportFailure(all, failed);
  for (const reader of hasNginx() ? (["node", "nginx"] as const) : (["node"] as const)) {
    const failed = await runLive(all, reader);
    if (failed !== null) return reportFailure(all, failed);
  }
  return 0;
}

function reportFailure({ seed }: Plan, { index, found, isLive }: Failure): number {
  const live = isLive ? " --live 1" : "";
  process.stdout.write(`case ${index} of seed ${seed} FAILED: ${found}\n`);
  process.stdout.write(`npm run fuzz -- http --seed ${seed} --case ${index}${live}\n`);
  return 1;
}

/** Runs a plan in this process, or in several when there is enough to do. */
async function runAll(all: Plan): Promise<Findings> {
  const jobs = Math.min(all.jobs, Math.ceil(all.count / CASES_PER_JOB_MIN));
  if (jobs <= 1) return runShare(all);
  const share = Math.ceil(all.count / jobs);
  const found = await Promise.all(
    Array.from({ length: jobs }, (_, job) => {
      const first = all.first + job * share;
      return runChild({ ...all, first, count: Math.min(share, all.first + all.count - first) });
    }),
  );
  const tally = createTally();
  for (const one of found) addTally(tally, one.tally);
  return { tally, failed: found.find(({ failed }) => failed !== null)?.failed ?? null };
}

function runChild({ seed, first, count }: Plan): Promise<Findings> {
  const args = ["http", `--seed=${seed}`, `--first=${first}`, `--cases=${count}`, "--share"];
  const child = spawn(process.execPath, [fileURLToPath(import.meta.url), ...args], {
    stdio: ["ignore", "inherit", "inherit", "ipc"],
  });
  return new Promise((resolve, reject) => {
    let found: Findings | null = null;
    child.on("message", (message: Findings) => {
      const refusals = new Map(message.tally.refusals);
      found = { ...message, tally: { ...message.tally, refusals } };
    });
    child.on("error", reject);
    child.on("exit", (code) => {
      if (found === null) reject(new Error(`a fuzzing process ended with code ${code}`));
      else resolve(found);
    });
  });
}

function runShare({ seed, first, count }: Plan): Findings {
  const differential = new Differential();
  for (let index = first; index < first + count; index += 1) {
    const found = differential.judge(seed, index);
    if (found !== "") {
      return { tally: differential.tally, failed: { index, found, isLive: false } };
    }
  }
  return { tally: differential.tally, failed: null };
}

async function runLive(all: Plan, reader: Reader): Promise<Failure | null> {
  const count = Math.min(all.live, all.count);
  if (count === 0) return null;
  const stack = new TestStack();
  const live = await startLive(stack, reader);
  let failed: Failure | null = null;
  for (let index = all.first; index < all.first + count && failed === null; index += 1) {
    const found = await live.judge(all.seed, index);
    if (found !== "") failed = { index, found, isLive: true };
  }
  await stack.close();
  process.stdout.write(`end to end, ${reader} behind: ${JSON.stringify(live.tally)}\n`);
  return failed;
}

function reportSplits(): number {
  const { found, count } = judgeSplits({ isFull: true });
  process.stdout.write(found === "" ? `${count} splits change nothing\n` : `FAILED: ${found}\n`);
  return found === "" ? 0 : 1;
}

function describe(tally: FuzzTally): string {
  const refusals = [...tally.refusals].sort((a, b) => b[1] - a[1]);
  return [
    `${tally.passedWhole} messages passed on whole, ${tally.passedInPart} in part`,
    `${tally.refused} cases end with a refusal: ${refusals.map((pair) => pair.join(" ")).join(", ")}`,
    `${tally.nodeRefused} messages passed on are refused by Node for reasons of its own`,
  ].join("\n");
}

function readPlan(args: readonly string[]): Plan | null {
  const read = readFlags(args);
  if (read === null) return null;
  const { values, positionals } = read;
  const [what] = positionals;
  const cases = readNumber(values.cases, 20_000);
  const only = readNumber(values.case, -1);
  const numbers = {
    seed: readNumber(values.seed, 1),
    first: only >= 0 ? only : readNumber(values.first, 0),
    count: only >= 0 ? 1 : cases,
    live: readNumber(values.live, only >= 0 ? 0 : Math.floor(cases / 100)),
    jobs: readNumber(values.jobs, availableParallelism()),
  };
  if (positionals.length !== 1 || (what !== "http" && what !== "splits")) return null;
  if ([cases, only, ...Object.values(numbers)].some((one) => Number.isNaN(one))) return null;
  return { what, ...numbers, isShare: values.share === true };
}

function readFlags(args: readonly string[]) {
  const text = { type: "string" } as const;
  const options = { cases: text, seed: text, case: text, first: text, live: text, jobs: text };
  try {
    return parseArgs({
      args: [...args],
      allowPositionals: true,
      options: { ...options, share: { type: "boolean" } },
    });
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    process.stderr.write(`${error.message}\n`);
    return null;
  }
}

/** A whole number; NaN = not one. */
function readNumber(text: string | undefined, preset: number): number {
  if (text === undefined) return preset;
  return /^\d{1,10}$/.test(text) ? Number(text) : Number.NaN;
}
