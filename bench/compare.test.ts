import { expect, test } from "vitest";
import { compareReports } from "./compare.ts";
import type { BenchReport, Sample } from "./measure.ts";
import { fixedReport } from "./report-fixture.ts";

test("a change is told from the spread of the runs", () => {
  const before = reportOf([
    { apart: 10, overlapping: 10 },
    { apart: 11, overlapping: 12 },
  ]);
  const after = reportOf([
    { apart: 5, overlapping: 11 },
    { apart: 6, overlapping: 14 },
  ]);
  const text = compareReports(before, after);
  expect(text).toContain("| apart | 10.0 us (10.0-11.0) | 5.00 us (5.00-6.00) | -50.0 % | beyond");
  expect(text).toMatch(/\| overlapping \|.*\| \+10\.0 % \| within the spread \|/);
});

test("a figure that one side does not have is left out, also when it comes from a file", () => {
  const before = reportOf([{ apart: 10 }]);
  const after = reportOf([{ apart: 10, overlapping: 3 }]);
  const text = compareReports(fromFile(before), fromFile(after));
  expect(text).toContain("| apart |");
  expect(text).not.toContain("| overlapping |");
});

function reportOf(samples: readonly Sample[]): BenchReport {
  const figures = ["apart", "overlapping"].map((name) => ({ name, unit: "us" }));
  return fixedReport({ bench: "one", notes: [], samples, figures });
}

function fromFile(report: BenchReport): BenchReport {
  return JSON.parse(JSON.stringify(report)) as BenchReport;
}
