import { expect, test } from "vitest";
import { MetricSlots } from "#base/metric-slots.ts";
import { MetricsPage } from "./health-server.ts";

test("every declared series is on the page, histograms cumulative", async () => {
  const slots = MetricSlots.allocate(
    [
      { name: "a_total", help: "A.", type: "counter", labels: { code: ["ok", 'q"uote'] } },
      { name: "b_bytes", help: "B.", type: "gauge" },
      { name: "c_seconds", help: "C.", type: "histogram", buckets: [0.1, 1], labels: { d: ["e"] } },
    ],
    2,
  );
  const page = new MetricsPage({ metrics: () => slots.snapshot() });
  slots.writer(0).counter("a_total", { code: "ok" }).add(3);
  slots.writer(1).gauge("b_bytes").set(2.5);
  for (const value of [0.05, 0.5, 5])
    slots.writer(1).histogram("c_seconds", { d: "e" }).observe(value);
  const { contentType, text } = await page.render();
  expect(contentType).toContain("text/plain");
  expect(
    text
      .trim()
      .split("\n")
      .filter((line) => line !== ""),
  ).toEqual([
    "# HELP a_total A.",
    "# TYPE a_total counter",
    'a_total{code="ok"} 3',
    'a_total{code="q\\"uote"} 0',
    "# HELP b_bytes B.",
    "# TYPE b_bytes gauge",
    "b_bytes 2.5",
    "# HELP c_seconds C.",
    "# TYPE c_seconds histogram",
    'c_seconds_bucket{d="e",le="0.1"} 1',
    'c_seconds_bucket{d="e",le="1"} 2',
    'c_seconds_bucket{d="e",le="+Inf"} 3',
    'c_seconds_sum{d="e"} 5.55',
    'c_seconds_count{d="e"} 3',
  ]);
});

test("each page shows the values of its own moment", async () => {
  const slots = MetricSlots.allocate([{ name: "a_total", help: "A.", type: "counter" }], 1);
  const page = new MetricsPage({ metrics: () => slots.snapshot() });
  const counter = slots.writer(0).counter("a_total");
  for (const expected of [1, 2]) {
    counter.add();
    expect((await page.render()).text).toContain(`a_total ${expected}`);
    await new Promise((resolve) => setImmediate(resolve));
  }
});
