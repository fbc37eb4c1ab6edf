/**
 * The benchmarks' entry: `npm run bench -- NAME [--runs N] [--json FILE] [--flag VALUE]`, or without
 * a name the list of them; `npm run bench -- compare A.json B.json` for two reports.
 *
 * Exit code 0 whether or not targets are met; 1 when a benchmark broke, 2 for a wrong command line.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { errorText } from "#base/errors.ts";
import { bench as catchup } from "./catchup.ts";
import { bench as change } from "./change.ts";
import { bench as checkpoint } from "./checkpoint.ts";
import { bench as codec } from "./codec.ts";
import { compareReports } from "./compare.ts";
import {
  describeMachine,
  describeResult,
  describeSample,
  machineFacts,
  summarise,
  type Bench,
  type BenchReport,
  type Sample,
} from "./measure.ts";
import { bench as outage } from "./outage.ts";
import { bench as plumtree } from "./plumtree.ts";
import { bench as proxy } from "./proxy/proxy.ts";
import { bench as quic } from "./quic.ts";
import { bench as replica, REPLICA_PARTS } from "./replica.ts";
import { bench as stall } from "./stall.ts";

const BENCHES: Readonly<Record<string, Bench>> = {
  catchup,
  change,
  checkpoint,
  codec,
  outage,
  plumtree,
  proxy,
  quic,
  replica,
  stall,
};
const RUNS = 5;
const COMPARE_USAGE = "usage: npm run bench -- compare BEFORE.json AFTER.json";
/** As a shell says it of a process that ended by SIGINT. */
const EXIT_INTERRUPTED = 130;

process.exit(await main(process.argv.slice(2)));

async function main(args: readonly string[]): Promise<number> {
  const [name, ...rest] = args;
  if (name === "compare") return compare(rest);
  const flags = parseFlags(rest);
  if (name === undefined) {
    for (const [one, { about }] of Object.entries(BENCHES)) print(`${one.padEnd(10)} ${about}`);
    print(`\nusage: npm run bench -- NAME [--runs ${RUNS}] [--json FILE]`);
    print(COMPARE_USAGE);
    return 0;
  }
  const bench = benchOf(name, flags?.get("only"));
  const runs = Number(flags?.get("runs") ?? bench?.defaultRuns ?? RUNS);
  if (!bench || !flags || !Number.isInteger(runs) || runs < 1) {
    print(`usage: npm run bench -- ${Object.keys(BENCHES).join("|")} [--runs N] [--json FILE]`);
    return 2;
  }
  const report = await measure({ name, bench, runs, flags });
  if (report === null) return 1;
  const file = flags.get("json");
  if (file !== undefined) writeFileSync(file, `${JSON.stringify(report, null, 2)}\n`);
  bench.write?.(report, flags);
  return 0;
}

function compare(files: readonly string[]): number {
  const [before, after] = files.map(
    (file) => JSON.parse(readFileSync(file, "utf8")) as BenchReport,
  );
  if (before === undefined || after === undefined || files.length > 2) {
    print(COMPARE_USAGE);
    return 2;
  }
  print(compareReports(before, after));
  return 0;
}

/** A part of `replica` where one is named. */
function benchOf(name: string, only: string | undefined): Bench | undefined {
  return name === "replica" && only !== undefined ? REPLICA_PARTS[only] : BENCHES[name];
}

/** Runs the benchmark; null when it broke. */
async function measure(options: {
  readonly name: string;
  readonly bench: Bench;
  readonly runs: number;
  readonly flags: ReadonlyMap<string, string>;
}): Promise<BenchReport | null> {
  const { name, bench, runs, flags } = options;
  const machine = machineFacts();
  print(`${name}: ${bench.about}\n${describeMachine(machine)}`);
  const samples: Sample[] = [];
  const notes: string[] = [];
  const note = (line: string): void => {
    notes.push(line);
    print(`  ${line}`);
  };
  const stack = new AsyncDisposableStack();
  const ending = createEnding(stack);
  try {
    const say = (line: string): void => print(`  ${line}`);
    for await (const sample of bench.run({ runs, flags, stack, note, say })) {
      samples.push(sample);
      if (!bench.tell) print(`run ${samples.length}: ${describeSample(bench.figures, sample)}`);
      if (samples.length === runs) break;
    }
  } catch (error) {
    // What is ended under it breaks a benchmark: the reason is known then, and it is not this one.
    if (!ending.hasBegun) print(`${name} broke: ${describeError(error)}`);
    return null;
  } finally {
    await ending.end();
  }
  const figures = summarise(bench, samples);
  const report = { bench: name, machine, notes, samples, figures };
  if (bench.tell) print(bench.tell(report));
  else {
    print(`median of ${samples.length}:`);
    for (const figure of figures) print(`  ${describeResult(figure)}`);
  }
  return report;
}

interface Ending {
  readonly hasBegun: boolean;
  end(): Promise<void>;
}

/** Ends what was started, once: after the runs, or at a signal or an error that nobody caught. */
function createEnding(stack: AsyncDisposableStack): Ending {
  let ended: Promise<void> | null = null;
  const end = (): Promise<void> => (ended ??= stack.disposeAsync());
  const endWith = (code: number): void => void end().finally(() => process.exit(code));
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.once(signal, () => endWith(EXIT_INTERRUPTED));
  }
  process.once("uncaughtException", (error) => {
    print(describeError(error));
    endWith(1);
  });
  return {
    get hasBegun() {
      return ended !== null;
    },
    end,
  };
}

function describeError(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : errorText(error);
}

/** `--name value` pairs; null when the arguments are anything else. */
function parseFlags(args: readonly string[]): ReadonlyMap<string, string> | null {
  const flags = new Map<string, string>();
  for (let at = 0; at < args.length; at += 2) {
    const [flag, value] = [args[at], args[at + 1]];
    if (flag === undefined || !flag.startsWith("--") || value === undefined) return null;
    flags.set(flag.slice(2), value);
  }
  return flags;
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}
