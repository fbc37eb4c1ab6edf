import { expect, test } from "vitest";
import { Worker } from "node:worker_threads";
import { once } from "node:events";
import { MetricSlots, type MetricDeclaration } from "./metric-slots.ts";

test("banks of all writers add up to one value per series", () => {
  const slots = MetricSlots.allocate(DECLARATIONS, 3);
  slots.writer(0).counter("picks_total", { reason: "nearest", code: "ok" }).add();
  slots.writer(2).counter("picks_total", { reason: "nearest", code: "ok" }).add(4);
  slots.writer(1).counter("picks_total", { reason: "spill", code: "no" }).add(2);
  expect(seriesOf(slots, "picks_total")).toEqual([
    { labels: { reason: "nearest", code: "ok" }, value: 5 },
    { labels: { reason: "nearest", code: "no" }, value: 0 },
    { labels: { reason: "spill", code: "ok" }, value: 0 },
    { labels: { reason: "spill", code: "no" }, value: 2 },
  ]);
});

test("a gauge is the sum of its banks, or their greatest where declared so", () => {
  const slots = MetricSlots.allocate(DECLARATIONS, 2);
  slots.writer(0).gauge("open_connections").set(3);
  slots.writer(1).gauge("open_connections").set(4);
  slots.writer(1).gauge("open_connections").set(5);
  slots.writer(0).gauge("lag_seconds").set(0.5);
  slots.writer(1).gauge("lag_seconds").set(0.25);
  expect(seriesOf(slots, "open_connections")).toEqual([{ labels: {}, value: 8 }]);
  expect(seriesOf(slots, "lag_seconds")).toEqual([{ labels: {}, value: 0.5 }]);
});

test("a histogram counts a value in the first bucket whose bound is not below it", () => {
  const slots = MetricSlots.allocate(DECLARATIONS, 2);
  const first = slots.writer(0).histogram("wait_seconds");
  const second = slots.writer(1).histogram("wait_seconds");
  for (const value of [0, 0.1, 0.11]) first.observe(value);
  for (const value of [1, 7]) second.observe(value);
  const [series] = seriesOf(slots, "wait_seconds");
  expect(series?.value).toBe(5);
  expect(series?.histogram?.counts).toEqual([2, 2, 1]);
  expect(series?.histogram?.sum).toBeCloseTo(8.21);
});

test("series do not overlap", () => {
  const slots = MetricSlots.allocate(DECLARATIONS, 1);
  const writer = slots.writer(0);
  writer.histogram("wait_seconds").observe(100);
  writer.gauge("lag_seconds").set(7);
  writer.gauge("open_connections").set(9);
  const values = slots.snapshot().flatMap((metric) => metric.series.map((one) => one.value));
  expect(values).toEqual([0, 0, 0, 0, 9, 7, 1]);
});

test.each([
  ["an undeclared metric", () => writer().counter("nothing_total")],
  ["a handle of another type", () => writer().gauge("picks_total")],
  ["a missing label", () => writer().counter("picks_total", { reason: "nearest" })],
  ["an unknown label value", () => writer().counter("picks_total", { reason: "x", code: "ok" })],
  ["an extra label", () => writer().gauge("open_connections", { app: "a" })],
  ["a bank that does not exist", () => MetricSlots.allocate(DECLARATIONS, 1).writer(1)],
  ["two declarations of a name", () => MetricSlots.allocate([...DECLARATIONS, ...DECLARATIONS], 1)],
])("%s is a broken invariant", (_what, attempt) => {
  expect(attempt).toThrow(/invariant broken/);
});

test("another thread writes through the plan", async () => {
  const slots = MetricSlots.allocate(DECLARATIONS, 2);
  const module = JSON.stringify(new URL("./metric-slots.ts", import.meta.url).href);
  const script = `
    const { workerData } = require("node:worker_threads");
    import(${module}).then(({ MetricSlots }) => {
      MetricSlots.attach(workerData).writer(1).gauge("open_connections").set(11);
    });`;
  await once(new Worker(script, { eval: true, workerData: slots.plan }), "exit");
  expect(seriesOf(slots, "open_connections")).toEqual([{ labels: {}, value: 11 }]);
});

const DECLARATIONS: readonly MetricDeclaration[] = [
  {
    name: "picks_total",
    help: "Picks.",
    type: "counter",
    labels: { reason: ["nearest", "spill"], code: ["ok", "no"] },
  },
  { name: "open_connections", help: "Open connections.", type: "gauge" },
  { name: "lag_seconds", help: "Lag.", type: "gauge", combine: "max" },
  { name: "wait_seconds", help: "Wait.", type: "histogram", buckets: [0.1, 1] },
];

function writer() {
  return MetricSlots.allocate(DECLARATIONS, 1).writer(0);
}

function seriesOf(slots: MetricSlots, name: string) {
  return slots.snapshot().find((metric) => metric.declaration.name === name)?.series ?? [];
}
