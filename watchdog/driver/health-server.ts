/**
 * `/healthz`, `/readyz` and `/metrics` on a port of their own, served by the watchdog thread, so
 * that they answer while every other loop is stuck.
 *
 * `node:http` will do here: a scrape every few seconds is all it serves. prom-client is loaded with
 * the first scrape, so that it costs a start nothing.
 */
import { type IncomingMessage, type Server, type ServerResponse, createServer } from "node:http";
import type { Metric, Registry } from "prom-client";
import { errorText } from "#base/errors.ts";
import type { MetricSnapshot, SeriesSnapshot } from "#base/metric-slots.ts";

/** Answer of a probe: 200 or 503, and its body. */
export interface ProbeAnswer {
  readonly isOk: boolean;
  readonly body: Readonly<Record<string, unknown>>;
}

/** Where the answers come from; all synchronous, all cheap. */
export interface HealthSource {
  live(): ProbeAnswer;
  ready(): ProbeAnswer;
  metrics(): readonly MetricSnapshot[];
}

/** Creates the server; the caller listens and closes. */
export function createHealthServer(source: HealthSource): Server {
  const page = new MetricsPage(source);
  const server = createServer((request, response) => {
    void answer(request, response, { source, page });
  });
  server.maxConnections = CONNECTIONS_MAX;
  return server;
}

/** Renders snapshots through prom-client. */
export class MetricsPage {
  readonly #source: Pick<HealthSource, "metrics">;
  #registry: Registry | null = null;

  constructor(source: Pick<HealthSource, "metrics">) {
    this.#source = source;
  }

  /** The page in Prometheus' text format, with its content type. */
  async render(): Promise<{ readonly contentType: string; readonly text: string }> {
    const registry = (this.#registry ??= await this.#createRegistry());
    return { contentType: registry.contentType, text: await registry.metrics() };
  }

  async #createRegistry(): Promise<Registry> {
    const { Registry } = await import("prom-client");
    const registry = new Registry();
    // One snapshot serves all metrics of a page, because they are asked in the same turn.
    let snapshot: ReadonlyMap<string, MetricSnapshot> | null = null;
    const read = (name: string): MetricSnapshot | undefined => {
      if (snapshot === null) {
        snapshot = new Map(this.#source.metrics().map((one) => [one.declaration.name, one]));
        setImmediate(() => (snapshot = null));
      }
      return snapshot.get(name);
    };
    for (const { declaration } of this.#source.metrics()) {
      const { name, help, type } = declaration;
      const get = (): Promise<object> =>
        Promise.resolve({ name, help, type, aggregator: "sum", values: valuesOf(read(name)) });
      // prom-client only ever calls `get` of what is registered; its own classes keep values of
      // their own and cannot be set from totals.
      registry.registerMetric({ name, get } as unknown as Metric);
    }
    return registry;
  }
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  { source, page }: { source: HealthSource; page: MetricsPage },
): Promise<void> {
  request.resume();
  const path = (request.url ?? "").split("?", 1)[0];
  if (request.method !== "GET" && request.method !== "HEAD") {
    return sendJson(response, 405, { error: "only GET and HEAD" });
  }
  if (path === "/healthz") return sendProbe(response, source.live());
  if (path === "/readyz") return sendProbe(response, source.ready());
  if (path !== "/metrics") {
    return sendJson(response, 404, { error: "only /healthz, /readyz and /metrics" });
  }
  try {
    const { contentType, text } = await page.render();
    response.writeHead(200, { "content-type": contentType }).end(text);
  } catch (error) {
    sendJson(response, 500, { error: errorText(error) });
  }
}

function sendProbe(response: ServerResponse, { isOk, body }: ProbeAnswer): void {
  sendJson(response, isOk ? 200 : 503, body);
}

function sendJson(response: ServerResponse, status: number, body: object): void {
  const headers = { "content-type": "application/json", "cache-control": "no-store" };
  response.writeHead(status, headers).end(`${JSON.stringify(body)}\n`);
}

/** prom-client's rows of one metric. */
function valuesOf(metric: MetricSnapshot | undefined): readonly object[] {
  if (metric === undefined) return [];
  const { declaration, series } = metric;
  if (declaration.type !== "histogram")
    return series.map(({ labels, value }) => ({ labels, value }));
  return series.flatMap((one) => histogramRows(declaration.name, declaration.buckets ?? [], one));
}

function histogramRows(
  name: string,
  buckets: readonly number[],
  { labels, value, histogram }: SeriesSnapshot,
): readonly object[] {
  let total = 0;
  const bounds = [...buckets, "+Inf"];
  const rows: object[] = bounds.map((le, index) => {
    total += histogram?.counts[index] ?? 0;
    return { labels: { ...labels, le }, value: total, metricName: `${name}_bucket` };
  });
  rows.push({ labels, value: histogram?.sum ?? 0, metricName: `${name}_sum` });
  rows.push({ labels, value, metricName: `${name}_count` });
  return rows;
}

/** Scrapers and probes; more than that is a mistake or an attack. */
const CONNECTIONS_MAX = 64;
