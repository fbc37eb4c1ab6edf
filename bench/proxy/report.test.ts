import { expect, test } from "vitest";
import type { BenchReport, Sample } from "../measure.ts";
import { fixedReport } from "../report-fixture.ts";
import { allFigures } from "./figures.ts";
import { svgOf } from "./picture.ts";
import { markdownOf } from "./report.ts";

const SAMPLES: readonly Sample[] = [
  { "get-0 nginx CPU": 20, "get-0 patina CPU": 22, "get-0 patina/nginx CPU": 1.1 },
  { "get-0 nginx CPU": 20, "get-0 patina CPU": 30, "get-0 patina/nginx CPU": 1.5 },
  { "get-0 nginx CPU": 20, "get-0 patina CPU": 26, "get-0 patina/nginx CPU": 1.3 },
];

test("the report has goals, medians with their spread, and each proxy beside nginx", () => {
  const text = markdownOf(reportOf(SAMPLES));
  expect(text).toContain("| get-0 patina/nginx CPU | 1.30 (1.10-1.50) x | <= 1.2 | MISSED |");
  expect(text).toContain("| patina | 26.0 (22.0-30.0) | 1.30 | - | - |");
  expect(text).toContain("| nginx | 20.0 | 1.00 |");
  expect(text).toContain("a remark");
  // What was not measured has neither table nor goal.
  expect(text).not.toContain("get-1k");
  expect(text).not.toContain("| haproxy |");
});

test("the picture has a panel per measured case and a bar per proxy", () => {
  const svg = svgOf(reportOf(SAMPLES));
  expect(svg.match(/<g /g)).toHaveLength(1);
  // One rectangle is the page.
  expect(svg.match(/<rect /g)).toHaveLength(3);
  expect(svg).toContain("26.0  1.30x");
  expect(svg).not.toContain("NaN");
});

function reportOf(samples: readonly Sample[]): BenchReport {
  const figures = allFigures(["patina", "nginx", "haproxy"]);
  return fixedReport({ bench: "proxy", notes: ["a remark"], samples, figures });
}
