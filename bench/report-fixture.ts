/** A report for tests of what is made of reports: one machine, figures summarised from samples. */
import { summarise, type BenchReport, type FigureSpec } from "./measure.ts";

/** A report on these figures. */
export function fixedReport(
  parts: Pick<BenchReport, "bench" | "notes" | "samples"> & {
    readonly figures: readonly FigureSpec[];
  },
): BenchReport {
  const { bench, notes, samples, figures } = parts;
  return {
    bench,
    machine: {
      time: "2026-01-01T00:00:00.000Z",
      cores: 2,
      cpu: "a",
      kernel: "6",
      node: "26",
      loadAverage: [0, 0, 0],
      commit: "c",
    },
    notes,
    samples,
    figures: summarise({ about: "", figures, run: () => [] as never }, samples),
  };
}
