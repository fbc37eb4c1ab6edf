/**
 * The watchdog thread: polls the beats, serves health and metrics, tells the supervisor that it
 * lives, and on a stall captures evidence, writes it and kills the process.
 *
 * Nothing here goes through the main thread: descriptors are written with `writeSync`, and the
 * order on a bounce is evidence (synced), one line to the supervisor, SIGKILL. The alert is the
 * supervisor's, so that a hanging webhook or a full stderr delays nothing; without a supervisor the
 * alert line is written here.
 */
import type { Server } from "node:http";
import { parentPort, workerData, type MessagePort } from "node:worker_threads";
import { assert, errorText } from "#base/errors.ts";
import { createLogger } from "#base/logger.ts";
import { MetricSlots } from "#base/metric-slots.ts";
import { workLine } from "../core/pipe-lines.ts";
import { LifeSigns } from "../core/life-signs.ts";
import { fleetBounces } from "../core/peer-bounces.ts";
import { CELL, type LoopRegion, VITAL, loopRegion, readLoop } from "../core/shared-layout.ts";
import { type StallFacts, type StallOutput, StallDetector } from "../core/stall-detector.ts";
import type { BreadcrumbDecoder, LoopStatus, ReadyState, StallAction } from "../types.ts";
import type { FleetBounces, LastWords, StackEvidence, StallEvidence } from "../types.ts";
import { AlertMetrics } from "./alert-file.ts";
import { RUNNING_FACTOR, captureStack } from "./capture-stack.ts";
import { buildEvidence, loopStatus, workInProgress } from "./evidence.ts";
import { type HealthSource, type ProbeAnswer, createHealthServer } from "./health-server.ts";
import { starvedMs } from "./proc-facts.ts";
import { ProcessMetrics } from "./process-metrics.ts";
import { writeStall } from "./stall-files.ts";
import type { FromWatchdogThread, ToWatchdogThread } from "./thread-messages.ts";
import type { WatchdogThreadData } from "./thread-messages.ts";
import { writeLogLine, writeText } from "./write-line.ts";

class WatchdogThread implements HealthSource {
  readonly #data: WatchdogThreadData;
  readonly #regions: readonly LoopRegion[];
  /** What a stall of each loop leads to at present. */
  readonly #actions: StallAction[];
  readonly #detector: StallDetector;
  /** Breadcrumbs that the supervisor knows of, by loop: of those that are late. */
  readonly #toldCursors = new Map<number, number>();
  /** Peers that the supervisor knows to be beyond the budget. */
  #toldPeers = 0;
  /** By loop; null = it does not count its progress. */
  readonly #lifeSigns: readonly (LifeSigns | null)[];
  readonly #slots: readonly MetricSlots[];
  readonly #metrics: ProcessMetrics;
  readonly #alertMetrics: AlertMetrics;
  readonly #log = createLogger({
    level: "info",
    nowMs: () => Date.now(),
    write: writeLogLine,
    fields: { thread: "watchdog" },
  });
  /** Stacks of loops under suspicion; an oversleep keeps one until the next suspicion. */
  readonly #stackByLoop = new Map<number, Promise<StackEvidence>>();
  #decoder: BreadcrumbDecoder | null = null;
  #ready: ReadyState = { isReady: false, reason: "starting" };
  #server: Server | null = null;
  #witness: MessagePort | null = null;
  /** When the supervisor was found gone; the process then drains and ends. */
  #orphanSinceMs: number | null = null;

  constructor(data: WatchdogThreadData) {
    this.#data = data;
    this.#actions = data.loops.map(({ action }) => action);
    this.#regions = data.loops.map((_loop, at) => loopRegion(data.loopBuffer, at));
    this.#lifeSigns = data.loops.map((loop) => (loop.countsProgress ? new LifeSigns() : null));
    this.#detector = new StallDetector({
      loops: data.loops,
      pollPeriodMs: POLL_PERIOD_MS,
      captureLimitMs: data.stackLimitMs * (RUNNING_FACTOR + 3) + WITNESS_MS,
      nextJitterMs: () => Math.random() * data.jitterMs,
    });
    const own = MetricSlots.attach(data.ownMetrics);
    this.#slots = data.metrics === null ? [own] : [own, MetricSlots.attach(data.metrics)];
    this.#metrics = new ProcessMetrics(
      own.writer(0),
      data.loops.map((loop) => loop.name),
    );
    this.#alertMetrics = new AlertMetrics(own.writer(0), data.stateFolder);
  }

  start(): void {
    this.#beatSupervisor();
    let polls = 0;
    // One timer for all: what an idle thread costs is its wakes.
    setInterval(() => {
      this.#poll();
      polls += 1;
      if (polls % POLLS_PER_SUPERVISOR_BEAT === 0) this.#beatSupervisor();
      if (polls % POLLS_PER_ALERTS_READ === 0) void this.#alertMetrics.read();
    }, POLL_PERIOD_MS);
    void this.#loadDecoder();
    if (this.#data.isServing) this.#listen();
    else this.#post({ kind: "started", port: null });
  }

  onMessage(message: ToWatchdogThread): void {
    switch (message.kind) {
      case "stop":
        this.#server?.close();
        process.exit(0);
        return;
      case "serve":
        return this.#listen();
      case "unserve":
        return this.#stopListening();
      case "witness":
        this.#witness?.close();
        this.#witness = message.port;
        return;
      case "action":
        this.#actions[message.loop] = message.action;
        return this.#detector.handle(message, performance.now());
      case "ready": {
        const wasReady = this.#ready.isReady;
        this.#ready = message.state;
        if (wasReady !== message.state.isReady) this.#tellSupervisor(wasReady ? "d" : "r");
      }
    }
  }

  live(): ProbeAnswer {
    const loops = this.#loopStatuses();
    const stuck = loops.filter(({ isWatched, phase }, at) => {
      const budgetMs = this.#data.loops[at]?.budgets[phase] ?? Infinity;
      return isWatched && this.#stuckMs(at) > budgetMs;
    });
    const isOk = stuck.length === 0;
    return { isOk, body: { live: isOk, stuck: stuck.map((loop) => loop.name), loops } };
  }

  ready(): ProbeAnswer {
    const live = this.live();
    const isOk = live.isOk && this.#ready.isReady;
    const reason = live.isOk ? this.#ready.reason : "a loop is stuck";
    return { isOk, body: { ready: isOk, reason, ...this.#ready.details } };
  }

  metrics(): ReturnType<HealthSource["metrics"]> {
    this.#metrics.ready.set(this.ready().isOk ? 1 : 0);
    for (const [at, region] of this.#regions.entries()) {
      const loop = this.#metrics.loops[at];
      loop?.silence.set(this.#detector.silentMs(at) / 1000);
      loop?.utilisation.set(region.vitals[VITAL.utilisation] ?? 0);
      loop?.heapUsed.set(region.vitals[VITAL.heapUsed] ?? 0);
    }
    this.#metrics.peersBounced.set(this.#fleet()?.peers ?? 0);
    this.#metrics.readProcess();
    return this.#slots.flatMap((slots) => slots.snapshot());
  }

  #poll(): void {
    const loops = this.#regions.map((region, at) => {
      const { isWatched, beats, phase, nativeThreadId } = readLoop(region);
      // Reading /proc is most of a poll's cost, so it is asked only about a loop that is late.
      const isLate = this.#stuckMs(at) >= LATE_MS;
      const starved = isLate ? starvedMs(process.pid, nativeThreadId) : null;
      return { isWatched, beats, phase, signs: this.#signs(at), starvedMs: starved };
    });
    this.#detector.handle({ kind: "poll", wallMs: Date.now(), loops }, performance.now());
    this.#tellLateWork();
    this.#tellFleet();
    this.#perform();
  }

  /** A process that aborts leaves the judgement on its bounce to its supervisor. */
  #tellFleet(): void {
    const fleet = this.#fleet();
    const peers = fleet?.isSpent === true ? fleet.peers : 0;
    if (peers === this.#toldPeers) return;
    this.#toldPeers = peers;
    this.#tellSupervisor(`f ${peers}`);
  }

  #fleet(): FleetBounces | undefined {
    return fleetBounces(this.#data.fleet, Date.now());
  }

  /** A process that aborts leaves no evidence: what it was at then is what was told here. */
  #tellLateWork(): void {
    for (const [at, region] of this.#regions.entries()) {
      const isLate = this.#detector.silentMs(at) >= LATE_MS;
      const cursor = isLate ? Atomics.load(region.cells, CELL.cursor) : null;
      if (cursor === (this.#toldCursors.get(at) ?? null)) continue;
      if (cursor === null) this.#toldCursors.delete(at);
      else this.#toldCursors.set(at, cursor);
      const breadcrumb = isLate ? workInProgress(region, this.#decoder) : null;
      const loop = this.#data.loops[at]?.name ?? "";
      this.#tellSupervisor(workLine({ loop, phase: readLoop(region).phase, breadcrumb }));
    }
  }

  #signs(loop: number): number | null {
    const region = this.#regions[loop];
    if (region === undefined) return null;
    const cells = readLoop(region);
    const budgetMs = this.#data.loops[loop]?.budgets[cells.phase] ?? Infinity;
    return this.#lifeSigns[loop]?.read(cells, budgetMs) ?? null;
  }

  /** Without a beat, or without getting anywhere. */
  #stuckMs(loop: number): number {
    return Math.max(this.#detector.silentMs(loop), this.#detector.fruitlessMs(loop));
  }

  #perform(): void {
    for (const output of this.#detector.drain()) this.#performOne(output);
  }

  #performOne(output: StallOutput): void {
    switch (output.kind) {
      case "overslept":
        this.#metrics.oversleeps.add();
        return;
      case "suspect":
        this.#metrics.loops[output.stall.loop]?.suspicions.add();
        void this.#captureStack(output.stall.loop);
        return;
      case "accuse":
        void this.#capture(output.stall);
        return;
      case "left":
        this.#stackByLoop.delete(output.loop);
        return;
      case "recovered":
        this.#stackByLoop.delete(output.loop);
        if (output.from === "suspected") return;
        this.#log.warn?.("loop-recovered", "a stalled loop beats again", {
          loop: this.#data.loops[output.loop]?.name,
        });
        return;
      case "bounce":
        process.kill(process.pid, "SIGKILL");
        return;
      case "report":
        return;
    }
  }

  /** Begun with the suspicion: the random delay before the accusation pays for it. */
  #captureStack(loop: number): Promise<StackEvidence> {
    const region = this.#regions[loop] ?? loopRegion(this.#data.loopBuffer, loop);
    const { threadId, nativeThreadId } = readLoop(region);
    const limitMs = this.#data.stackLimitMs;
    const stack = captureStack({ threadId, nativeThreadId, limitMs });
    this.#stackByLoop.set(loop, stack);
    return stack;
  }

  async #capture(stall: StallFacts): Promise<void> {
    const region = this.#regions[stall.loop];
    const loop = this.#data.loops[stall.loop];
    if (region === undefined || loop === undefined) return;
    const begun = this.#stackByLoop.get(stall.loop) ?? this.#captureStack(stall.loop);
    this.#stackByLoop.delete(stall.loop);
    const stack = await begun;
    const action = this.#actions[stall.loop] ?? loop.action;
    const { isLivelock } = stall;
    const beats = isLivelock ? (this.#signs(stall.loop) ?? 0) : readLoop(region).beats;
    const evidence = buildEvidence({
      ...stall,
      kind: "stall",
      loop: loop.name,
      action,
      configHash: this.#data.configHash,
      stack,
      error: null,
      fleet: action === "bounce" ? this.#fleet() : undefined,
      region,
      loops: this.#loopStatuses(),
      decoder: this.#decoder,
    });
    this.#metrics.loops[stall.loop]?.stalls.add();
    const told = this.#tellWitness(evidence);
    this.#writeEvidence(evidence);
    await told;
    if (action === "report") this.#post({ kind: "stall", loop: loop.name, id: evidence.id });
    const input = { kind: "captured", loop: stall.loop, isLivelock, beats } as const;
    this.#detector.handle(input, performance.now());
    this.#perform();
  }

  /** Resolves when the witness has answered, or its time is over. */
  #tellWitness({ loop, action, breadcrumb }: StallEvidence): Promise<void> {
    const witness = this.#witness;
    if (witness === null) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, WITNESS_MS);
      witness.once("message", () => {
        clearTimeout(timer);
        resolve();
      });
      witness.postMessage({ loop, action, breadcrumb } satisfies LastWords);
    });
  }

  /** A disk that refuses must not save a stuck loop. */
  #writeEvidence(evidence: StallEvidence): void {
    const { id, loop, phase, silentMs, breadcrumb } = evidence;
    const fields = { id, loop, phase, silentMs, breadcrumb };
    try {
      const file = writeStall(this.#data.stateFolder, evidence, this.#data.stallFilesMax);
      this.#tellSupervisor(`s ${id}`);
      if (this.#data.beatFd !== null) return;
      this.#log.error("loop-stalled", `loop ${loop} stalled`, { ...fields, file });
    } catch (error) {
      this.#metrics.evidenceFailures.add();
      const msg = `loop ${loop} stalled, and its evidence could not be written`;
      this.#log.error("loop-stalled", msg, { ...fields, error: errorText(error) });
    }
  }

  #loopStatuses(): readonly LoopStatus[] {
    return this.#data.loops.map(({ name }, at) => {
      const region = this.#regions[at] ?? loopRegion(this.#data.loopBuffer, at);
      return loopStatus(name, region, this.#detector.silentMs(at));
    });
  }

  #beatSupervisor(): void {
    if (this.#orphanSinceMs === null) this.#tellSupervisor("b");
    else if (performance.now() - this.#orphanSinceMs > ORPHAN_LIMIT_MS) {
      process.kill(process.pid, "SIGKILL");
    }
  }

  #tellSupervisor(line: string): void {
    const { beatFd } = this.#data;
    if (beatFd === null || this.#orphanSinceMs !== null) return;
    if (writeText(beatFd, `${line}\n`) !== "gone") return;
    this.#orphanSinceMs = performance.now();
    this.#log.error("supervisor-gone", "the supervisor ended; draining", {});
    process.kill(process.pid, "SIGTERM");
  }

  async #loadDecoder(): Promise<void> {
    const url = this.#data.breadcrumbDecoderUrl;
    if (url === null) return;
    try {
      this.#decoder = (await import(url)) as BreadcrumbDecoder;
    } catch (error) {
      const fields = { url, error: errorText(error) };
      this.#log.warn?.("breadcrumb-decoder", "breadcrumbs stay undecoded in evidence", fields);
    }
  }

  #listen(): void {
    const { http } = this.#data;
    if (http === null) return this.#post({ kind: "started", port: null });
    const server = createHealthServer(this);
    this.#server = server;
    server.once("error", (error) => {
      const code = "code" in error ? String(error.code) : "UNKNOWN";
      this.#post({ kind: "failed", code, message: error.message });
    });
    server.listen({ ...http, backlog: 128 }, () => {
      const address = server.address();
      const port = typeof address === "object" && address !== null ? address.port : null;
      this.#post({ kind: "started", port });
    });
  }

  /** The port is free at once; answers under way are finished. */
  #stopListening(): void {
    this.#server?.close();
    this.#server?.closeIdleConnections();
    this.#server = null;
    this.#post({ kind: "unserved" });
  }

  #post(message: FromWatchdogThread): void {
    parentPort?.postMessage(message);
  }
}

/** A commit and an urgent broadcast take a tenth of it; a store that is stuck takes no more. */
const WITNESS_MS = 300;
/** Ten polls per default `steady` budget. */
const POLL_PERIOD_MS = 100;
/** A loop that turns beats every 100 ms: it is seen to be silent for a poll or two, no longer. */
const LATE_MS = 150;
/** A beat each 200 ms: the supervisor kills after fifty silent ones. */
const POLLS_PER_SUPERVISOR_BEAT = 2;
/** Each two seconds: an alert is in the metrics by the next scrape. */
const POLLS_PER_ALERTS_READ = 20;
/** How long a process without a supervisor may drain. */
const ORPHAN_LIMIT_MS = 30_000;

assert(parentPort !== null, "the watchdog runs in a worker thread");
const thread = new WatchdogThread(workerData as WatchdogThreadData);
parentPort.on("message", (message: ToWatchdogThread) => thread.onMessage(message));
thread.start();
