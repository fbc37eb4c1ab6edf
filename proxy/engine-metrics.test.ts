import { expect, test } from "vitest";
import { MetricSlots } from "#base/metric-slots.ts";
import { EngineMetrics } from "./engine-metrics.ts";
import { PROXY_METRICS } from "./metrics.ts";
import type { RequestSummary, Upstream } from "./types.ts";

test.each([
  [0, "none"],
  [101, "1xx"],
  [200, "2xx"],
  [308, "3xx"],
  [404, "4xx"],
  [599, "5xx"],
])("a request with status %i counts in class %s", (status, code_class) => {
  const { metrics, counted } = observed();
  metrics.requestFinished(summaryOf({ status }));
  expect(counted("patina_http_requests_total")).toEqual([[{ code_class }, 1]]);
});

test("a finished request counts bytes, seconds, reason, code and the attempts after its first", () => {
  const { metrics, counted, slots } = observed();
  metrics.requestFinished(
    summaryOf({ status: 502, errorCode: "UPSTREAM_CONNECT", attempts: 3, pickReason: "spill" }),
  );
  expect(counted("patina_http_errors_total")).toEqual([[{ code: "UPSTREAM_CONNECT" }, 1]]);
  expect(counted("patina_route_picks_total")).toEqual([[{ reason: "spill" }, 1]]);
  expect(counted("patina_retries_total")).toEqual([[{}, 2]]);
  expect(counted("patina_http_received_bytes_total")).toEqual([[{}, 10]]);
  expect(counted("patina_http_sent_bytes_total")).toEqual([[{}, 20]]);
  const duration = slots
    .snapshot()
    .find(({ declaration }) => declaration.name === "patina_http_request_duration_seconds");
  expect(duration?.series[0]?.histogram?.sum).toBeCloseTo(0.25);
});

test("a request for which nothing was picked counts as such", () => {
  const { metrics, counted } = observed();
  metrics.requestFinished(summaryOf({ attempts: 0, pickReason: "", upstream: null }));
  expect(counted("patina_route_picks_total")).toEqual([[{ reason: "none" }, 1]]);
  expect(counted("patina_retries_total")).toEqual([]);
});

test("a code or reason that is not declared counts nowhere, and nothing breaks", () => {
  const { metrics, counted } = observed();
  metrics.requestFinished(summaryOf({ errorCode: "NO_SUCH_CODE", pickReason: "noSuchReason" }));
  expect(counted("patina_http_errors_total")).toEqual([]);
  expect(counted("patina_http_requests_total")).toHaveLength(1);
});

test("attempts, refusals and open connections are counted by their labels", () => {
  const { metrics, counted } = observed();
  metrics.upstreamAttempt(UPSTREAM, "connect-failed");
  metrics.parseRefused("client", "x");
  metrics.parseRefused("upstream", "x");
  metrics.connectionOpened();
  metrics.connectionOpened();
  metrics.connectionClosed();
  expect(counted("patina_upstream_attempts_total")).toEqual([[{ result: "connect-failed" }, 1]]);
  expect(counted("patina_http_refusals_total")).toEqual([
    [{ side: "client" }, 1],
    [{ side: "upstream" }, 1],
  ]);
  expect(counted("patina_http_connections")).toEqual([[{}, 1]]);
});

test("turns, progress and finished requests go to whoever watches and logs", () => {
  const { metrics, told } = observed();
  const turn = { bytes: Buffer.from("GET"), start: 0, end: 3 };
  metrics.turnStarted(turn);
  metrics.turnEnded();
  metrics.progressed(7);
  const summary = summaryOf({});
  metrics.requestFinished(summary);
  metrics.connectionOpened();
  metrics.connectionClosed();
  const progressed = "progressed";
  expect(told).toEqual([turn, "ended", progressed, progressed, summary, progressed, progressed]);
});

function observed() {
  const slots = MetricSlots.allocate(PROXY_METRICS, 1);
  const told: unknown[] = [];
  const metrics = new EngineMetrics(slots.writer(0), {
    turnStarted: (turn) => told.push(turn),
    turnEnded: () => told.push("ended"),
    progressed: () => told.push("progressed"),
    accessLog: (summary) => told.push(summary),
  });
  /** Series that are not zero. */
  const counted = (name: string): unknown[] => {
    const metric = slots.snapshot().find(({ declaration }) => declaration.name === name);
    const series = metric?.series ?? [];
    return series.filter(({ value }) => value !== 0).map(({ labels, value }) => [labels, value]);
  };
  return { slots, metrics, told, counted };
}

const UPSTREAM: Upstream = {
  key: "k",
  host: "127.0.0.1",
  port: 80,
  machineId: "m1",
  appId: "shop",
  isTls: false,
  serviceName: "web",
  region: "ams",
  rttMs: 1.5,
};

function summaryOf(changed: Partial<RequestSummary>): RequestSummary {
  return {
    method: "GET",
    host: "a.test",
    target: "/",
    httpMinor: 1,
    clientAddress: "192.0.2.7",
    requestId: "r",
    status: 200,
    errorCode: "",
    cause: "",
    upstream: UPSTREAM,
    pickReason: "nearest",
    attempts: 1,
    retrySkipped: "",
    wasReused: false,
    bytesIn: 10,
    bytesOut: 20,
    durationMs: 250,
    queueMs: 0,
    connectMs: 0,
    firstByteMs: 1,
    ...changed,
  };
}
