/** The suite's report as Markdown: goals, one table per case, the machine and how it was measured. */
import {
  describeMachine,
  describeTarget,
  describeVerdict,
  rounded,
  type BenchReport,
  type FigureResult,
} from "../measure.ts";
import { CASES } from "./cases.ts";
import { figureName, THREADS, UNIT_BY_WHAT, type What } from "./figures.ts";

/** Medians, with the least and greatest of the runs behind them. */
export function markdownOf(report: BenchReport): string {
  const figures = new Map(
    report.figures.filter(({ median }) => Number.isFinite(median)).map((one) => [one.name, one]),
  );
  const lines = ["# Patina beside other proxies", "", ...goals(report.figures)];
  for (const { name, about } of CASES) lines.push(...caseTable(name, about, figures));
  const memory = (name: string): FigureResult | undefined =>
    figures.get(figureName("idle", name, "memory"));
  const idle = rivalsIn("idle", figures);
  if (idle.length > 0) {
    lines.push("## idle: memory per idle connection", "", "| | KiB |", "|---|---|");
    for (const rival of idle) lines.push(`| ${rival} | ${described(memory(rival))} |`);
    lines.push("");
  }
  const rateRatio = figures.get(THREADS.rateRatio);
  if (rateRatio) lines.push(`Requests/s of two threads beside one: ${described(rateRatio)} x.`, "");
  lines.push(
    "## How it was measured",
    "",
    `Medians of ${report.samples.length} runs, least and greatest in brackets.`,
    ...describeMachine(report.machine).split("\n"),
    "",
    ...report.notes.map((note) => `- ${note}`),
    "",
    "CPU: user and system time of the whole process tree per request of a closed loop. Below 90 % of",
    "its core busy a proxy's requests/s are the load's limit, not its own. p50, p99, p99.9: open loop.",
    "Answered: share of the open loop's requests; the others count with the time they had waited.",
    "",
  );
  return lines.join("\n");
}

/** Names of those that a case has figures of, in the order in which they are told. */
export function rivalsIn(one: string, figures: ReadonlyMap<string, FigureResult>): string[] {
  const names = [...figures.keys()].flatMap((name) => {
    const [first, rival, what] = name.split(" ");
    const isOne = first === one && what !== undefined && what in UNIT_BY_WHAT;
    return isOne && rival !== undefined && !/^patina[-/]nginx|-node-net$/.test(rival)
      ? [rival]
      : [];
  });
  return [...new Set(names)];
}

function goals(figures: readonly FigureResult[]): string[] {
  const rows = figures.flatMap((figure) => {
    const target = describeTarget(figure);
    if (target === null || !Number.isFinite(figure.median)) return [];
    const verdict = describeVerdict(figure);
    return [`| ${figure.name} | ${described(figure)} ${figure.unit} | ${target} | ${verdict} |`];
  });
  if (rows.length === 0) return [];
  return ["| Figure | | Goal | |", "|---|---|---|---|", ...rows, ""];
}

function caseTable(
  one: string,
  about: string,
  figures: ReadonlyMap<string, FigureResult>,
): string[] {
  const rivals = rivalsIn(one, figures);
  if (rivals.length === 0) return [];
  const of = (rival: string, what: What): FigureResult | undefined =>
    figures.get(figureName(one, rival, what));
  const hasThroughput = rivals.some((rival) => of(rival, "throughput") !== undefined);
  const whats: What[] = ["rate", "busy", "p50", "p99", "p99.9", "answered"];
  if (hasThroughput) whats.splice(1, 0, "throughput");
  const heads = whats.map((what) => HEAD_BY_WHAT[what] ?? `${what} ${UNIT_BY_WHAT[what]}`);
  const nginxUs = of("nginx", "CPU")?.median ?? Number.NaN;
  const rows = rivals.map((rival) => {
    const cpu = of(rival, "CPU");
    const ratio = (cpu?.median ?? Number.NaN) / nginxUs;
    const cells = whats.map((what) => described(of(rival, what)));
    return `| ${[rival, described(cpu), rounded(ratio), ...cells].join(" | ")} |`;
  });
  return [
    `## ${one}: ${about}`,
    "",
    `| | CPU us | / nginx | ${heads.join(" | ")} |`,
    `|---|---|---|${"---|".repeat(heads.length)}`,
    ...rows,
    "",
  ];
}

/** `12.3 (11.9-13.0)`. */
function described(figure: FigureResult | undefined): string {
  if (figure === undefined) return "-";
  const { median, least, greatest } = figure;
  if (least === greatest) return rounded(median);
  return `${rounded(median)} (${rounded(least)}-${rounded(greatest)})`;
}

const HEAD_BY_WHAT: Partial<Record<What, string>> = {
  rate: "requests/s",
  busy: "core busy %",
};
