/**
 * The engine's `EngineObserver`: numbers into shared memory, breadcrumbs for the watchdog, and the
 * access log. Handles are resolved once; per request it is a handful of additions.
 */
import type {
  MetricCounter,
  MetricGauge,
  MetricHistogram,
  MetricWriter,
} from "#base/metric-slots.ts";
import { PROXY_ERRORS } from "./errors.ts";
import { ATTEMPT_RESULTS, PICK_REASONS, STATUS_CLASSES } from "./metrics.ts";
import type {
  AttemptResult,
  EngineObserver,
  RequestSummary,
  TurnBytes,
  Upstream,
} from "./types.ts";

/** Where the observer reports besides metrics. All are called on the hot path. */
export interface EngineMetricsSinks {
  readonly turnStarted: (turn: TurnBytes) => void;
  readonly turnEnded: () => void;
  /** Bytes moved, a connection came or went, or a request ended. */
  readonly progressed: () => void;
  /** Absent = no access log. */
  readonly accessLog?: ((summary: RequestSummary) => void) | undefined;
}

/** Counts what the engine of one data-plane thread does. */
export class EngineMetrics implements EngineObserver {
  readonly #sinks: EngineMetricsSinks;
  readonly #requestsByClass: readonly MetricCounter[];
  readonly #errorsByCode: ReadonlyMap<string, MetricCounter>;
  readonly #attemptsByResult: ReadonlyMap<AttemptResult, MetricCounter>;
  readonly #picksByReason: ReadonlyMap<string, MetricCounter>;
  readonly #refusalsBySide: Readonly<Record<"client" | "upstream", MetricCounter>>;
  readonly #duration: MetricHistogram;
  readonly #bytesIn: MetricCounter;
  readonly #bytesOut: MetricCounter;
  readonly #retries: MetricCounter;
  readonly #connections: MetricGauge;
  readonly #queued: MetricGauge;
  #openConnections = 0;

  constructor(metrics: MetricWriter, sinks: EngineMetricsSinks) {
    this.#sinks = sinks;
    this.#requestsByClass = STATUS_CLASSES.map((code_class) =>
      metrics.counter("patina_http_requests_total", { code_class }),
    );
    const counters = <Key extends string>(
      name: string,
      label: string,
      values: readonly Key[],
    ): ReadonlyMap<Key, MetricCounter> =>
      new Map(values.map((value) => [value, metrics.counter(name, { [label]: value })]));
    this.#errorsByCode = counters("patina_http_errors_total", "code", Object.keys(PROXY_ERRORS));
    this.#attemptsByResult = counters("patina_upstream_attempts_total", "result", ATTEMPT_RESULTS);
    this.#picksByReason = counters<string>("patina_route_picks_total", "reason", PICK_REASONS);
    this.#refusalsBySide = {
      client: metrics.counter("patina_http_refusals_total", { side: "client" }),
      upstream: metrics.counter("patina_http_refusals_total", { side: "upstream" }),
    };
    this.#duration = metrics.histogram("patina_http_request_duration_seconds");
    this.#bytesIn = metrics.counter("patina_http_received_bytes_total");
    this.#bytesOut = metrics.counter("patina_http_sent_bytes_total");
    this.#retries = metrics.counter("patina_retries_total");
    this.#queued = metrics.gauge("patina_http_queued_requests");
    this.#connections = metrics.gauge("patina_http_connections");
  }

  turnStarted(turn: TurnBytes): void {
    this.#sinks.turnStarted(turn);
  }

  turnEnded(): void {
    this.#sinks.turnEnded();
  }

  requestFinished(summary: RequestSummary): void {
    const { status, attempts, errorCode } = summary;
    const statusClass = status === 0 ? NO_STATUS : Math.floor(status / 100) - 1;
    this.#requestsByClass[statusClass]?.add();
    this.#duration.observe(summary.durationMs / 1000);
    this.#bytesIn.add(summary.bytesIn);
    this.#bytesOut.add(summary.bytesOut);
    this.#picksByReason.get(summary.pickReason === "" ? "none" : summary.pickReason)?.add();
    if (attempts > 1) this.#retries.add(attempts - 1);
    if (errorCode !== "") this.#errorsByCode.get(errorCode)?.add();
    this.#sinks.progressed();
    this.#sinks.accessLog?.(summary);
  }

  upstreamAttempt(_upstream: Upstream, result: AttemptResult): void {
    this.#attemptsByResult.get(result)?.add();
  }

  parseRefused(side: "client" | "upstream", _code: string): void {
    this.#refusalsBySide[side].add();
  }

  connectionOpened(): void {
    this.#sinks.progressed();
    this.#connections.set(++this.#openConnections);
  }

  connectionClosed(): void {
    this.#sinks.progressed();
    this.#connections.set(--this.#openConnections);
  }

  queueChanged(count: number): void {
    this.#queued.set(count);
  }

  progressed(_bytes: number): void {
    this.#sinks.progressed();
  }
}

const NO_STATUS = STATUS_CLASSES.indexOf("none");
