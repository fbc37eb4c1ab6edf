/** The watchdog thread's handles on its own metrics, and the readings about the process. */
import type { MetricCounter, MetricGauge, MetricWriter } from "#base/metric-slots.ts";
import { resourcesOf } from "./proc-facts.ts";

/** Handles of one loop. */
export interface LoopMetrics {
  readonly stalls: MetricCounter;
  readonly suspicions: MetricCounter;
  readonly silence: MetricGauge;
  readonly utilisation: MetricGauge;
  readonly heapUsed: MetricGauge;
}

/** All handles; declared in `metric-declarations.ts`. */
export class ProcessMetrics {
  /** In the declared order of loops. */
  readonly loops: readonly LoopMetrics[];
  readonly oversleeps: MetricCounter;
  readonly evidenceFailures: MetricCounter;
  readonly ready: MetricGauge;
  readonly peersBounced: MetricGauge;
  readonly #resident: MetricGauge;
  readonly #openFiles: MetricGauge;
  readonly #threads: MetricGauge;
  readonly #cpu: MetricCounter;
  /** CPU seconds already counted. */
  #cpuSeconds = 0;

  constructor(writer: MetricWriter, loops: readonly string[]) {
    this.loops = loops.map((loop) => ({
      stalls: writer.counter("patina_loop_stalls_total", { loop }),
      suspicions: writer.counter("patina_loop_suspicions_total", { loop }),
      silence: writer.gauge("patina_loop_silence_seconds", { loop }),
      utilisation: writer.gauge("patina_loop_utilisation_ratio", { loop }),
      heapUsed: writer.gauge("patina_loop_heap_used_bytes", { loop }),
    }));
    this.oversleeps = writer.counter("patina_watchdog_oversleeps_total");
    this.evidenceFailures = writer.counter("patina_watchdog_evidence_failures_total");
    this.ready = writer.gauge("patina_ready");
    this.peersBounced = writer.gauge("patina_watchdog_bounced_peers");
    this.#resident = writer.gauge("patina_process_resident_bytes");
    this.#openFiles = writer.gauge("patina_process_open_files");
    this.#threads = writer.gauge("patina_process_threads");
    this.#cpu = writer.counter("patina_process_cpu_seconds_total");
    const startSeconds = Date.now() / 1000 - process.uptime();
    writer.gauge("patina_process_start_time_seconds").set(startSeconds);
  }

  /** Reads what belongs to the process; done per scrape. */
  readProcess(): void {
    const resources = resourcesOf(process.pid);
    this.#resident.set(process.memoryUsage.rss());
    this.#openFiles.set(resources["openFiles"] ?? 0);
    this.#threads.set(resources["threads"] ?? 0);
    const { user, system } = process.cpuUsage();
    const cpuSeconds = (user + system) / 1e6;
    this.#cpu.add(cpuSeconds - this.#cpuSeconds);
    this.#cpuSeconds = cpuSeconds;
  }
}
