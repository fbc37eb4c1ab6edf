/**
 * Has checkpoints taken on schedule while the replica runs, and a new replica's database made of
 * the newest one, each by a process of its own (`checkpoint-process.ts`).
 *
 * Nothing here holds the replica up: what fails is counted, warned about, and tried again later.
 */
import { fork, type ChildProcess } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { Logger } from "#base/logger.ts";
import type { MetricWriter } from "#base/metric-slots.ts";
import type { CheckpointsConfig } from "../../config.ts";
import type { CheckpointAnswer, CheckpointJob } from "./checkpoint-process.ts";
import type { KeptCheckpoint } from "./checkpoint-target.ts";
import { nextLookMs } from "./schedule.ts";

/** What a keeper needs. */
export interface CheckpointKeeperOptions {
  readonly databasePath: string;
  readonly clusterId: number;
  readonly config: CheckpointsConfig;
  readonly metrics: MetricWriter;
  readonly log: Logger;
}

/** Takes the checkpoints of one replica. Does nothing without `checkpoints.target`. */
export class CheckpointKeeper {
  readonly #options: CheckpointKeeperOptions;
  readonly #running = new Set<ChildProcess>();
  #timer: NodeJS.Timeout | undefined;
  #newest: KeptCheckpoint | null = null;
  #failuresInRow = 0;
  #isStarted = false;
  #isStopped = false;

  constructor(options: CheckpointKeeperOptions) {
    this.#options = options;
  }

  /**
   * Makes the database of the newest checkpoint when there is no database. Never rejects: without
   * one the replica learns everything from others.
   */
  async boot(): Promise<void> {
    const { config, databasePath, log, metrics } = this.#options;
    if (!config.boot || config.target === undefined || existsSync(databasePath)) return;
    const startMs = performance.now();
    const answer = await this.#run("boot", config.boot_timeout_secs * 1000);
    if (this.#isStopped) return;
    if (answer.kind === "booted") {
      const { from, taken } = answer;
      const tookMs = Math.round(performance.now() - startMs);
      metrics.counter("patina_checkpoint_boots_total").add(1);
      log.info?.("checkpoint-booted", `starting from ${from}`, { taken, tookMs });
    } else if (answer.kind === "failed" && answer.code === "CHECKPOINT_NONE") {
      log.info?.("checkpoint-absent", answer.message);
    } else if (answer.kind === "failed") {
      metrics.counter("patina_checkpoint_boots_failed_total").add(1);
      const text = `${answer.message}; starting empty, everything comes from other replicas`;
      log.warn?.("checkpoint-boot-failed", text, { code: answer.code });
    }
  }

  /** From now on the database is worth a checkpoint. Idempotent. */
  start(): void {
    const { every_secs, target } = this.#options.config;
    if (this.#isStarted || this.#isStopped || target === undefined || every_secs === 0) return;
    this.#isStarted = true;
    this.#schedule();
  }

  /** Ends what is under way; what it leaves on the disk goes with the next one. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    clearTimeout(this.#timer);
    await Promise.all(
      [...this.#running].map(async (child) => {
        const ended = new Promise<void>((resolve) => child.once("close", () => resolve()));
        child.kill("SIGKILL");
        await ended;
      }),
    );
  }

  #schedule(): void {
    if (this.#isStopped) return;
    const waitMs = nextLookMs({
      newest: this.#newest,
      failuresInRow: this.#failuresInRow,
      nowMs: Date.now(),
      everySecs: this.#options.config.every_secs,
      random: Math.random(),
    });
    this.#timer = setTimeout(() => void this.#keep(), waitMs).unref();
  }

  async #keep(): Promise<void> {
    const { log, metrics, config } = this.#options;
    const startMs = performance.now();
    const answer = await this.#run("keep", null);
    if (this.#isStopped) return;
    if (answer.kind === "kept") {
      const { newest, isNew, removed } = answer;
      this.#failuresInRow = 0;
      this.#newest = newest;
      metrics
        .gauge("patina_checkpoint_newest_timestamp_seconds")
        .set(Date.parse(newest.taken) / 1000);
      if (isNew) {
        metrics.counter("patina_checkpoints_taken_total").add(1);
        metrics.gauge("patina_checkpoint_newest_bytes").set(newest.bytes);
        const tookMs = Math.round(performance.now() - startMs);
        const fields = { bytes: newest.bytes, removed, tookMs };
        log.info?.("checkpoint-taken", `${newest.name} in ${config.target}`, fields);
      }
    } else if (answer.kind === "failed") {
      this.#failuresInRow += 1;
      metrics.counter("patina_checkpoints_failed_total").add(1);
      const { code, message } = answer;
      log.warn?.("checkpoint-failed", message, { code, failuresInRow: this.#failuresInRow });
    }
    this.#schedule();
  }

  /** Runs a job in a process of its own; a process that ends without an answer is a failure. */
  #run(kind: CheckpointJob["kind"], limitMs: number | null): Promise<CheckpointAnswer> {
    const { databasePath: path, clusterId, config } = this.#options;
    const job: CheckpointJob = { kind, path, target: config.target ?? "", clusterId, config };
    const child = fork(ENTRY, [], { execArgv: [], stdio: ["ignore", "ignore", "inherit", "ipc"] });
    this.#running.add(child);
    return new Promise((resolve) => {
      const end = (text: string): void => {
        clearTimeout(timer);
        this.#running.delete(child);
        resolve({ kind: "failed", code: "INTERNAL", message: text });
      };
      let text = "the checkpoint's process ended without an answer";
      const timer = setTimeout(() => {
        text =
          limitMs === null
            ? `no checkpoint after ${LIMIT_MS / 1000} s`
            : `no database after ${config.boot_timeout_secs} s (checkpoints.boot_timeout_secs)`;
        child.kill("SIGKILL");
      }, limitMs ?? LIMIT_MS);
      child.once("message", (answer: CheckpointAnswer) => resolve(answer));
      // May come twice: of a process that cannot be started, and of the job that it is not sent.
      child.on("error", ({ message }) => end(message));
      child.once("close", (code, signal) => end(`${text} (${signal ?? `code ${code}`})`));
      // Without descriptors left there is no channel either, and nothing to send by.
      if (child.connected) child.send(job);
    });
  }
}

const ENTRY = fileURLToPath(new URL("./checkpoint-process.ts", import.meta.url));
/** Of one that is taken: a store that trickles holds nothing up but the next one. */
const LIMIT_MS = 3_600_000;
