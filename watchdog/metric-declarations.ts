/** The metrics that the watchdog thread itself writes. Loop names are the declared ones. */
import type { MetricDeclaration } from "#base/metric-slots.ts";
import { ALERT_KINDS } from "./core/alert-outbox.ts";

/** Declares the watchdog's metrics for the loops of one process. */
export function watchdogMetrics(loops: readonly string[]): readonly MetricDeclaration[] {
  const labels = { loop: loops };
  return [
    counter("patina_loop_stalls_total", "Proven stalls of a loop.", labels),
    counter("patina_loop_suspicions_total", "Times a loop was silent beyond its budget.", labels),
    gauge("patina_loop_silence_seconds", "Time since the loop was last seen to beat.", labels),
    gauge("patina_loop_utilisation_ratio", "Busy share of the loop's last second.", labels),
    gauge("patina_loop_heap_used_bytes", "JavaScript heap in use by the loop's thread.", labels),
    counter("patina_watchdog_oversleeps_total", "Polls that came so late that they prove nothing."),
    counter("patina_watchdog_evidence_failures_total", "Evidence files that could not be written."),
    gauge(
      "patina_watchdog_bounced_peers",
      "Edges bounced within watchdog.fleet_window_ms, by their own word.",
    ),
    counter("patina_alerts_total", "Alerts raised on this host, by kind.", {
      kind: Object.keys(ALERT_KINDS),
    }),
    counter("patina_alert_posts_total", "Alerts for the webhook, by what became of them.", {
      outcome: ["delivered", "failed", "dropped"],
    }),
    gauge("patina_waiting_alerts", "Alerts that wait for the webhook."),
    gauge("patina_ready", "1 when /readyz answers 200."),
    gauge("patina_process_resident_bytes", "Resident memory of the process."),
    gauge("patina_process_open_files", "Open file descriptors of the process."),
    gauge("patina_process_threads", "Threads of the process."),
    gauge("patina_process_start_time_seconds", "Start of the process since the Unix epoch."),
    counter("patina_process_cpu_seconds_total", "User and system time of the process."),
  ];
}

function counter(name: string, help: string, labels?: MetricDeclaration["labels"]) {
  return { name, help, type: "counter", ...(labels && { labels }) } as const;
}

function gauge(name: string, help: string, labels?: MetricDeclaration["labels"]) {
  return { name, help, type: "gauge", ...(labels && { labels }) } as const;
}
