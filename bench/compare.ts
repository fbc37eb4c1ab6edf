/**
 * Two reports of one benchmark side by side: what has changed, and whether by more than the runs
 * differ among themselves.
 */
import { rounded, type BenchReport, type FigureResult } from "./measure.ts";

/**
 * A Markdown table of the figures that both have. A change is marked when the ranges of the runs (least
 * to greatest) do not overlap; with one run on a side every change is.
 */
export function compareReports(before: BenchReport, after: BenchReport): string {
  const lines = [describeSide("before", before), describeSide("after", after)];
  if (before.bench !== after.bench) lines.push("These are different benchmarks.");
  lines.push("", "| Figure | before | after | change | |", "|---|---|---|---|---|");
  const beforeByName = new Map(before.figures.map((figure) => [figure.name, figure]));
  for (const figure of after.figures) {
    const old = beforeByName.get(figure.name);
    // JSON has null for what is no number.
    if (old === undefined || typeof old.median !== "number") continue;
    if (typeof figure.median === "number") lines.push(describeChange(old, figure));
  }
  return lines.join("\n");
}

function describeSide(name: string, { bench, machine, samples }: BenchReport): string {
  const { commit, time, cores, cpu, loadAverage } = machine;
  return (
    `${name}: ${bench}, ${samples.length} runs, commit ${commit}, ${time}, ` +
    `${cores} cores (${cpu}), load average ${loadAverage.join(" ")}`
  );
}

function describeChange(old: FigureResult, figure: FigureResult): string {
  const change = ((figure.median - old.median) / Math.abs(old.median)) * 100;
  const sign = change > 0 ? "+" : "";
  const told = Number.isFinite(change) ? `${sign}${change.toFixed(1)} %` : "-";
  const isApart = figure.least > old.greatest || figure.greatest < old.least;
  const mark = isApart ? "beyond the spread" : "within the spread";
  return `| ${figure.name} | ${describeFigure(old)} | ${describeFigure(figure)} | ${told} | ${mark} |`;
}

function describeFigure({ median, least, greatest, unit }: FigureResult): string {
  return `${rounded(median)} ${unit} (${rounded(least)}-${rounded(greatest)})`;
}
