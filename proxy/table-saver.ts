/**
 * Writes the routing table's file every so often, while the table goes on changing, and once more
 * at the end. Nothing waits for it: a disk that refuses costs a warning and the next start some
 * freshness.
 */
import { errorText } from "#base/errors.ts";
import type { Logger } from "#base/logger.ts";
import type { MetricWriter } from "#base/metric-slots.ts";
import type { DataPlane } from "./data-plane.ts";
import { tableFileOf, writeTableFile } from "./table-file.ts";

/** What a saver needs. */
export interface TableSaverOptions {
  readonly plane: DataPlane;
  readonly databasePath: string;
  /** Time between two files. */
  readonly periodMs: number;
  readonly metrics: MetricWriter;
  readonly log: Logger;
}

/** Saves the table of one data plane. */
export class TableSaver {
  readonly #options: TableSaverOptions;
  #timer: NodeJS.Timeout | undefined;
  #saving: Promise<void> = Promise.resolve();
  /** What the file on disk was made of, see `DataPlane.position`; empty = none by this process. */
  #savedPosition = "";
  #isFailing = false;
  #isStopped = false;

  constructor(options: TableSaverOptions) {
    this.#options = options;
    this.#schedule(options.periodMs);
  }

  /** Saves what has changed, at once. */
  saveNow(): void {
    this.#saving = this.#saving.then(() => this.#save());
  }

  /** Saves a last time what has changed. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    clearTimeout(this.#timer);
    await this.#saving;
    await this.#save();
  }

  #schedule(waitMs: number): void {
    this.#timer = setTimeout(() => {
      const startedMs = performance.now();
      this.saveNow();
      void this.#saving.then(() => {
        if (this.#isStopped) return;
        const spentMs = performance.now() - startedMs;
        this.#schedule(Math.max(this.#options.periodMs, spentMs * PAUSE_FACTOR));
      });
    }, waitMs).unref();
  }

  /** Never rejects. */
  async #save(): Promise<void> {
    const { plane, databasePath, metrics, log } = this.#options;
    const watermark = plane.feed.resumePoint;
    const position = plane.feed.position;
    if (watermark === null || position === this.#savedPosition) return;
    const path = tableFileOf(databasePath);
    try {
      const rows = plane.table.rows();
      const { build, shapes } = plane.feed;
      const savedMs = Date.now();
      await writeTableFile(path, { rows, watermark, savedMs, build, shapes: shapes.image() });
      this.#savedPosition = position;
      this.#isFailing = false;
      metrics.counter("patina_table_saves_total", { result: "done" }).add(1);
    } catch (error) {
      metrics.counter("patina_table_saves_total", { result: "failed" }).add(1);
      // Once per trouble: a full disk stays full for a while.
      if (!this.#isFailing) log.warn?.("table-save-failed", errorText(error), { file: path });
      this.#isFailing = true;
    }
  }
}

/** A very large table takes a hundredth of the thread's time at most. */
const PAUSE_FACTOR = 100;
