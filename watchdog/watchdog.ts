/**
 * The watchdog of a process: a thread outside every event loop that notices when one stops turning,
 * keeps evidence of it, and kills the process so that its supervisor can start it anew.
 *
 * The owner starts it first, then attaches each loop in the thread that runs it. What breadcrumbs
 * and metrics mean is the owner's business; here they are bytes and numbers.
 */
import { Worker, type MessagePort } from "node:worker_threads";
import { PatinaError, assert, errorText } from "#base/errors.ts";
import { MetricSlots } from "#base/metric-slots.ts";
import { fleetBounces } from "./core/peer-bounces.ts";
import { allocateLoops, CELL, loopRegion, readLoop } from "./core/shared-layout.ts";
import { STALL_BUDGETS } from "./core/stall-detector.ts";
import { type AttachedLoop, attachLoop as attach } from "./driver/attach-loop.ts";
import { buildEvidence, errorFrames, loopStatus } from "./driver/evidence.ts";
import { writeStall } from "./driver/stall-files.ts";
import type { FromWatchdogThread, ToWatchdogThread } from "./driver/thread-messages.ts";
import type { WatchdogThreadData, WatchedLoop } from "./driver/thread-messages.ts";
import { writeLogLine, writeText } from "./driver/write-line.ts";
import { WATCHDOG_LISTEN } from "./errors.ts";
import { watchdogMetrics } from "./metric-declarations.ts";
import type { BreadcrumbDecoder, LoopBeatPlan, ReadyState, StallAction } from "./types.ts";
import type { WatchdogEvents, WatchdogOptions } from "./types.ts";

/** A running watchdog. */
export interface Watchdog {
  /**
   * Settles when the health port is bound, with its number (null where none was asked for, or not
   * yet).
   * Rejects with `WATCHDOG_LISTEN`; loops are watched all the same.
   */
  readonly started: Promise<number | null>;
  /** What `attachLoop` needs in the thread that runs loop `name`. */
  loopPlan(name: string): LoopBeatPlan;
  /** Sets what `/readyz` answers; the first ready state is also told to the supervisor. */
  setReady(state: ReadyState): void;
  /**
   * Writes evidence of an exception that ends the process, synchronously. The main thread's own
   * uncaught exceptions are recorded without a call. `report`: the process goes on without it.
   */
  recordCrash(loop: string, thrown: unknown, action?: StallAction): void;
  /** Sets what a stall of loop `name` leads to from here on. */
  setAction(name: string, action: StallAction): void;
  /**
   * A port for a thread that is to know of a proven stall before the process is killed. It is sent a
   * `LastWords` each time, and is waited for until it answers, 300 ms at most. One at a time.
   */
  witnessPort(): MessagePort;
  /** The thread of loop `name` has ended: it is not watched until another one attaches. */
  noteEnd(name: string): void;
  /** Binds the health port, as at the start. Rejects with `WATCHDOG_LISTEN`. */
  serve(): Promise<number | null>;
  /** Gives the health port up. Watching goes on. */
  unserve(): Promise<void>;
  /** Ends watching and the health port. The last thing of a drain. */
  stop(): Promise<void>;
}

/** Starts the watchdog thread. Call it first in the process: boot is watched too. */
export function startWatchdog(options: WatchdogOptions, events: WatchdogEvents = {}): Watchdog {
  return new RunningWatchdog(options, events);
}

/** Attaches the calling thread's event loop; a timer of it beats every 100 ms. */
export function attachLoop(plan: LoopBeatPlan): AttachedLoop {
  return attach(plan);
}

class RunningWatchdog implements Watchdog {
  readonly started: Promise<number | null>;
  readonly #data: WatchdogThreadData;
  readonly #worker: Worker;
  #decoder: BreadcrumbDecoder | null = null;
  /** Who waits for the health port to be bound, or given up. */
  #port = Promise.withResolvers<number | null>();
  readonly #onUncaught = (thrown: unknown): void => {
    this.recordCrash(this.#data.loops[0]?.name ?? "main", thrown);
  };

  constructor(options: WatchdogOptions, events: WatchdogEvents) {
    this.#data = threadData(options);
    const url = new URL("./driver/watchdog-thread.ts", import.meta.url);
    // No error listener: a watchdog that dies takes the process with it, and the supervisor acts.
    this.#worker = new Worker(url, {
      name: "watchdog",
      workerData: this.#data,
      resourceLimits: { maxYoungGenerationSizeMb: YOUNG_GENERATION_MIB },
    });
    this.started = this.#whenStarted(events);
    // The owner may look at it late, or never.
    this.started.catch((error: unknown) => errorText(error));
    process.on("uncaughtExceptionMonitor", this.#onUncaught);
  }

  loopPlan(name: string): LoopBeatPlan {
    const loop = this.#data.loops.findIndex((one) => one.name === name);
    assert(loop !== -1, `loop ${name} is declared`);
    return { buffer: this.#data.loopBuffer, loop };
  }

  setReady(state: ReadyState): void {
    this.#post({ kind: "ready", state });
  }

  setAction(name: string, action: StallAction): void {
    this.#post({ kind: "action", loop: this.loopPlan(name).loop, action });
  }

  witnessPort(): MessagePort {
    const { port1: port, port2 } = new MessageChannel();
    this.#worker.postMessage({ kind: "witness", port } satisfies ToWatchdogThread, [port]);
    return port2;
  }

  noteEnd(name: string): void {
    const { buffer, loop } = this.loopPlan(name);
    Atomics.store(loopRegion(buffer, loop).cells, CELL.watched, 2);
  }

  recordCrash(loop: string, thrown: unknown, action: StallAction = "bounce"): void {
    const region = loopRegion(this.#data.loopBuffer, this.loopPlan(loop).loop);
    const evidence = buildEvidence({
      kind: "crash",
      loop,
      action,
      phase: readLoop(region).phase,
      budgetMs: 0,
      silentMs: 0,
      misses: 0,
      configHash: this.#data.configHash,
      stack: { kind: "javascript", frames: errorFrames(thrown) },
      error: errorText(thrown),
      fleet: action === "bounce" ? fleetBounces(this.#data.fleet, Date.now()) : undefined,
      region,
      loops: this.#data.loops.map(({ name }, at) =>
        loopStatus(name, loopRegion(this.#data.loopBuffer, at), 0),
      ),
      decoder: this.#decoder,
    });
    try {
      writeStall(this.#data.stateFolder, evidence, this.#data.stallFilesMax);
    } catch (error) {
      const lost = { level: "error", event: "evidence-lost", msg: errorText(error) };
      writeLogLine(`${JSON.stringify(lost)}\n`, "error");
      return;
    }
    if (this.#data.beatFd !== null) writeText(this.#data.beatFd, `s ${evidence.id}\n`);
  }

  serve(): Promise<number | null> {
    return this.#askPort("serve");
  }

  async unserve(): Promise<void> {
    await this.#askPort("unserve");
  }

  #askPort(kind: "serve" | "unserve"): Promise<number | null> {
    this.#port = Promise.withResolvers();
    this.#post({ kind });
    return this.#port.promise;
  }

  async stop(): Promise<void> {
    process.off("uncaughtExceptionMonitor", this.#onUncaught);
    this.#worker.ref();
    const ended = new Promise((resolve) => this.#worker.once("exit", resolve));
    this.#post({ kind: "stop" });
    await ended;
  }

  #whenStarted(events: WatchdogEvents): Promise<number | null> {
    const { breadcrumbDecoderUrl } = this.#data;
    this.#worker.on("message", (message: FromWatchdogThread) => {
      switch (message.kind) {
        case "stall":
          return events.onStall?.({ loop: message.loop, id: message.id });
        case "started":
          return this.#port.resolve(message.port);
        case "unserved":
          return this.#port.resolve(null);
        case "failed":
          return this.#port.reject(listenError(message, this.#data));
      }
    });
    // A listener refs the worker; the watchdog must never keep a finished process alive.
    this.#worker.unref();
    if (breadcrumbDecoderUrl !== null) void this.#loadDecoder(breadcrumbDecoderUrl);
    return this.#port.promise;
  }

  /** For crashes of this thread; the watchdog thread loads its own and says when it cannot. */
  async #loadDecoder(url: string): Promise<void> {
    const loaded: unknown = await import(url).catch(() => null);
    this.#decoder = loaded as BreadcrumbDecoder | null;
  }

  #post(message: ToWatchdogThread): void {
    this.#worker.postMessage(message);
  }
}

function threadData(options: WatchdogOptions): WatchdogThreadData {
  const names = options.loops.map((loop) => loop.name);
  assert(new Set(names).size === names.length, "loop names differ");
  const loops = options.loops.map((loop): WatchedLoop => ({
    name: loop.name,
    action: loop.action ?? "bounce",
    countsProgress: loop.countsProgress ?? false,
    budgets: { ...STALL_BUDGETS, ...options.budgets, ...loop.budgets },
  }));
  return {
    loops,
    loopBuffer: allocateLoops(loops.length),
    ownMetrics: MetricSlots.allocate(watchdogMetrics(names), 1).plan,
    metrics: options.metrics,
    stateFolder: options.stateFolder,
    http: options.http,
    isServing: options.isServing ?? true,
    beatFd: options.beatFd,
    jitterMs: options.jitterMs ?? JITTER_MS,
    breadcrumbDecoderUrl: options.breadcrumbDecoderUrl,
    configHash: options.configHash,
    stallFilesMax: options.stallFilesMax ?? STALL_FILES_MAX,
    stackLimitMs: options.stackLimitMs ?? STACK_LIMIT_MS,
    fleet: options.fleet ?? null,
  };
}

function listenError(
  failed: { readonly code: string; readonly message: string },
  { http }: WatchdogThreadData,
): PatinaError {
  const where = http === null ? "nowhere" : `${http.host} port ${http.port}`;
  const message = `cannot serve metrics on ${where}: ${failed.message}`;
  return new PatinaError(WATCHDOG_LISTEN, message, { details: { cause: failed.code } });
}

/** Spreads a fleet's bounces without anybody noticing the wait. */
const JITTER_MS = 200;
/** An inspector needs 20 to 50 ms; a sleeping thread that has not answered by then will not. */
const STACK_LIMIT_MS = 150;
/** A folder an operator can read through; at some 20 KB each. */
const STALL_FILES_MAX = 20;

/** It makes little garbage, and V8 lets any pile up to its limit before it looks. */
const YOUNG_GENERATION_MIB = 3;
