/**
 * The file in which a supervisor keeps its alerts, and what the watchdog thread of its edge reads of
 * it for the metrics: the supervisor itself serves none.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { MetricCounter, MetricGauge, MetricWriter } from "#base/metric-slots.ts";
import {
  ALERT_KINDS,
  type AlertState,
  type AlertTotals,
  NO_ALERTS,
  readAlertState,
} from "../core/alert-outbox.ts";
import type { AlertKind } from "../types.ts";

/** The file that outlives the supervisor. */
export function alertFile(stateFolder: string): string {
  return join(stateFolder, "alerts.json");
}

/** Throws what is wrong with the text. */
export function parseAlertState(text: string): AlertState {
  const state = readAlertState(JSON.parse(text));
  if (state === null) throw new Error("it holds no alerts of a format known here");
  return state;
}

/** Counters of alerts; they go on from what the supervisor has counted since there was a file. */
export class AlertMetrics {
  readonly #file: string;
  readonly #raised: Readonly<Record<string, MetricCounter>>;
  readonly #posts: Readonly<Record<"delivered" | "failed" | "dropped", MetricCounter>>;
  readonly #waiting: MetricGauge;
  #counted: AlertTotals = NO_ALERTS.totals;
  #isReading = false;

  constructor(writer: MetricWriter, stateFolder: string) {
    this.#file = alertFile(stateFolder);
    this.#raised = Object.fromEntries(
      Object.keys(ALERT_KINDS).map((kind) => [
        kind,
        writer.counter("patina_alerts_total", { kind }),
      ]),
    );
    const posts = (outcome: string) => writer.counter("patina_alert_posts_total", { outcome });
    this.#posts = {
      delivered: posts("delivered"),
      failed: posts("failed"),
      dropped: posts("dropped"),
    };
    this.#waiting = writer.gauge("patina_waiting_alerts");
  }

  /** Reads the file, off this thread: a disk that hangs leaves the metrics as they are. */
  async read(): Promise<void> {
    if (this.#isReading) return;
    this.#isReading = true;
    try {
      this.#count(parseAlertState(await readFile(this.#file, "utf8")));
    } catch {
      // No alert yet, or the supervisor's to complain about.
    }
    this.#isReading = false;
  }

  #count({ totals, waiting }: AlertState): void {
    const before = this.#counted;
    for (const kind of Object.keys(ALERT_KINDS) as AlertKind[]) {
      const news = (totals.raised[kind] ?? 0) - (before.raised[kind] ?? 0);
      this.#raised[kind]?.add(Math.max(news, 0));
    }
    for (const outcome of ["delivered", "failed", "dropped"] as const) {
      this.#posts[outcome].add(Math.max(totals[outcome] - before[outcome], 0));
    }
    this.#waiting.set(waiting.length);
    this.#counted = totals;
  }
}
