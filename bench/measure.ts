/**
 * What every benchmark is and how its figures are told: the machine it ran on, each run, the median
 * of the runs, and the target where there is one.
 *
 * A benchmark is an async generator that yields the figures of one run at a time: it prepares before
 * the first yield, and registers what it started with `context.stack`, which is disposed of at the
 * end, on failure and on Ctrl-C alike.
 */
import { readFileSync } from "node:fs";
import { availableParallelism, cpus, loadavg, release } from "node:os";

/** One figure of a benchmark. */
export interface FigureSpec {
  readonly name: string;
  /** `ms`, `s`, `us`, `MB/s`: printed after the number. */
  readonly unit: string;
  /** What the median has to reach; absent = told, not judged. */
  readonly target?: { readonly atMost: number } | { readonly atLeast: number };
  /** What Corrosion reaches on this kind of machine, in the same unit. */
  readonly corrosion?: number;
}

/** Figures of one run by name; a figure that could not be taken is left out. */
export type Sample = Readonly<Record<string, number>>;

/** What a benchmark gets. */
export interface BenchContext {
  /** How many samples will be taken. */
  readonly runs: number;
  /** Flags of the benchmark's own: `--rows-per-version 1000`. */
  readonly flags: ReadonlyMap<string, string>;
  /** Ends everything that was started, last first. */
  readonly stack: AsyncDisposableStack;
  /** Prints a remark; it also stands in the JSON file. */
  note(line: string): void;
  /** Prints a line that is kept nowhere: how far it is. */
  say(line: string): void;
}

/** A benchmark, as each file of this folder exports one. */
export interface Bench {
  /** One sentence for the list. */
  readonly about: string;
  readonly figures: readonly FigureSpec[];
  /** Runs where the command line names no number; absent = 5. */
  readonly defaultRuns?: number;
  /** Yields one sample per run, for ever or until the caller has enough. */
  run(context: BenchContext): AsyncIterable<Sample>;
  /** The report as text, in place of a line per run and one per figure. */
  tell?(report: BenchReport): string;
  /** Writes the report into files that flags of its own name. */
  write?(report: BenchReport, flags: ReadonlyMap<string, string>): void;
}

/** Where figures were taken. */
export interface MachineFacts {
  readonly time: string;
  readonly cores: number;
  readonly cpu: string;
  readonly kernel: string;
  readonly node: string;
  /** Runnable threads over the last 1, 5 and 15 minutes when the benchmark began. */
  readonly loadAverage: readonly number[];
  readonly commit: string;
}

/** A finished benchmark. */
export interface BenchReport {
  readonly bench: string;
  readonly machine: MachineFacts;
  readonly notes: readonly string[];
  readonly samples: readonly Sample[];
  readonly figures: readonly FigureResult[];
}

/** One figure over all runs. */
export interface FigureResult extends FigureSpec {
  /** NaN when no run had it; `null` in JSON. */
  readonly median: number;
  /** Least and greatest of the runs; NaN likewise. */
  readonly least: number;
  readonly greatest: number;
  /** Absent where there is no target, or no figure. */
  readonly isMet?: boolean;
}

/** Reads the facts of this machine. */
export function machineFacts(): MachineFacts {
  return {
    time: new Date().toISOString(),
    cores: availableParallelism(),
    cpu: cpus()[0]?.model ?? "unknown",
    kernel: release(),
    node: process.versions.node,
    loadAverage: loadavg().map((load) => Math.round(load * 100) / 100),
    commit: headCommit(),
  };
}

/** Medians and verdicts. */
export function summarise(bench: Bench, samples: readonly Sample[]): FigureResult[] {
  return bench.figures.map((figure) => {
    const values = samples.flatMap((sample) => sample[figure.name] ?? []);
    const median = percentile(values, 0.5);
    const told = {
      ...figure,
      median,
      least: percentile(values, 0),
      greatest: percentile(values, 1),
    };
    if (figure.target === undefined || values.length === 0) return told;
    const isMet =
      "atMost" in figure.target ? median <= figure.target.atMost : median >= figure.target.atLeast;
    return { ...told, isMet };
  });
}

/** The `share` quantile by nearest rank: 0.5 is the median. NaN of nothing. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((left, right) => left - right);
  return sorted[Math.max(Math.ceil(share * sorted.length) - 1, 0)] ?? Number.NaN;
}

/** Two lines before the first run. */
export function describeMachine(machine: MachineFacts): string {
  const { cores, cpu, kernel, node, loadAverage, commit, time } = machine;
  return (
    `${cores} cores (${cpu}), kernel ${kernel}, Node ${node}, commit ${commit}, ${time}\n` +
    `load average at start ${loadAverage.join(" ")}`
  );
}

/** `name 12.3 ms, name 4 s`, in the order of the figures. */
export function describeSample(figures: readonly FigureSpec[], sample: Sample): string {
  return figures
    .flatMap(({ name, unit }) => {
      const value = sample[name];
      return value === undefined ? [] : [`${name} ${rounded(value)} ${unit}`];
    })
    .join(", ");
}

/** One line per figure: median, target, verdict. */
export function describeResult(result: FigureResult): string {
  const { name, unit, median, corrosion } = result;
  const beside = corrosion === undefined ? "" : `, Corrosion ${corrosion} ${unit}`;
  const value = `${name}: ${rounded(median)} ${unit}${beside}`;
  const wanted = describeTarget(result);
  if (wanted === null) return value;
  return `${value} (target ${wanted} ${unit}: ${describeVerdict(result)})`;
}

/** `<= 3`; null where there is no target. */
export function describeTarget({ target }: FigureSpec): string | null {
  if (target === undefined) return null;
  return "atMost" in target ? `<= ${target.atMost}` : `>= ${target.atLeast}`;
}

/** Of a figure with a target. */
export function describeVerdict({ isMet }: FigureResult): string {
  return isMet === undefined ? "not measured" : isMet ? "met" : "MISSED";
}

/** Three significant digits, without exponents; `-` of what is no number. */
export function rounded(value: number): string {
  if (!Number.isFinite(value)) return "-";
  const digits = Math.max(0, 2 - Math.floor(Math.log10(Math.max(Math.abs(value), 0.001))));
  return value.toFixed(Math.min(digits, 3));
}

/** The short id of the checked-out commit, read without git; `unknown` outside a repository. */
function headCommit(): string {
  const git = new URL("../.git/", import.meta.url);
  try {
    const head = readFileSync(new URL("HEAD", git), "utf8").trim();
    const ref = /^ref: (.+)$/.exec(head)?.[1];
    const id = ref === undefined ? head : readFileSync(new URL(ref, git), "utf8").trim();
    return id.slice(0, 9);
  } catch (error) {
    if (error instanceof Error) return "unknown";
    throw error;
  }
}
