/**
 * The data-plane threads beside the main one: started, told things, and replaced when one dies.
 *
 * A thread that dies or stalls closes its listening socket's descriptor, but the supervisor holds
 * the socket, so connections wait in its accept queue. Another thread takes the socket over through
 * the spare descriptor that came with it, once: a second end, an end without a spare, and a
 * replacement that does not accept in time are a matter for the whole process.
 *
 *   running ── error, exit or stall ──► ended ── spare ──► starting ── listening ──► running
 *                                         │                   │
 *                                         └─── no spare ──────┴── too late ──► bounce
 */
import { Worker, type MessagePort } from "node:worker_threads";
import { PatinaError, errorText } from "#base/errors.ts";
import type { Logger } from "#base/logger.ts";
import type { Watchdog } from "../../watchdog/watchdog.ts";
import type { ListenFds } from "../data-plane.ts";
import type {
  DataPlaneThreadData,
  DataPlaneThreadEvent,
  HostNews,
  QuarantineNews,
  ThreadCommand,
  WaitingRelease,
} from "./messages.ts";

/** One thread to start. */
export interface DataPlaneThreadPlan {
  /** Name of its loop. */
  readonly name: string;
  /** All that it gets but what is new with each start. */
  readonly data: Omit<DataPlaneThreadData, "storePort" | "fds">;
  readonly fds: ListenFds;
  /** The same sockets once more; null = the thread cannot be replaced. */
  readonly spare: ListenFds | null;
}

/** What the group needs of the process. */
export interface DataPlaneThreadsOptions {
  readonly watchdog: Pick<Watchdog, "recordCrash" | "setAction" | "noteEnd">;
  readonly log: Logger;
  /** From the end of a thread until another accepts in its place, in milliseconds. */
  readonly replaceLimitMs: number;
  /** A new connection to the store. */
  readonly connectStore: () => MessagePort;
  /** A thread is gone, and with it whatever it counted as open in shared memory. */
  readonly onEnded: (data: DataPlaneThreadPlan["data"]) => void;
  /** A thread was replaced. */
  readonly onReplaced: (cause: EndCause) => void;
  /** The process cannot go on. */
  readonly onFailure: (error: PatinaError) => void;
  /** The process must be killed: a thread that cannot be ended would hold up an orderly exit. */
  readonly onHopeless: (error: PatinaError) => void;
}

/** Why a thread had to be replaced. */
export type EndCause = "crash" | "stall";

interface PlaneThread {
  readonly plan: DataPlaneThreadPlan;
  spare: ListenFds | null;
  worker: Worker;
  ended: Promise<void>;
  /** What ended the worker, once known. */
  cause: EndCause;
  error: unknown;
  /** Runs from an end until the replacement accepts. */
  limit: NodeJS.Timeout | undefined;
  /** Settles when it first accepts. */
  readonly listening: PromiseWithResolvers<void>;
  /** Settles when it needs the store no more. */
  detached: PromiseWithResolvers<void>;
}

/** The threads of one process. */
export class DataPlaneThreads {
  readonly #options: DataPlaneThreadsOptions;
  readonly #threads: PlaneThread[] = [];
  /** The latest news of each host, for replacements. */
  readonly #newsByHost = new Map<string, HostNews>();
  #quarantine: QuarantineNews | null = null;
  #isReady = false;
  #isStopping = false;

  constructor(options: DataPlaneThreadsOptions) {
    this.#options = options;
  }

  /** Starts a thread. */
  start(plan: DataPlaneThreadPlan): void {
    const { worker, ended } = this.#spawn(plan, plan.fds);
    const thread: PlaneThread = {
      plan,
      spare: plan.spare,
      worker,
      ended,
      cause: "crash",
      error: undefined,
      limit: undefined,
      listening: Promise.withResolvers(),
      detached: Promise.withResolvers(),
    };
    this.#threads.push(thread);
    this.#watch(thread);
  }

  /** Tells all threads, and those that replace them. */
  tell(
    command: HostNews | QuarantineNews | WaitingRelease | { readonly kind: "ready" | "reload" },
  ): void {
    if ("actorId" in command) this.#keepNews(command);
    else if (command.kind === "ready") this.#isReady = true;
    else if (command.kind === "quarantine") this.#quarantine = command;
    for (const { worker } of this.#threads) worker.postMessage(command);
  }

  /** Resolves when every thread accepts. */
  async listening(): Promise<void> {
    await Promise.all(this.#threads.map((thread) => thread.listening.promise));
  }

  /** Has all threads leave the store, which is about to be closed; they go on serving. */
  async detach(): Promise<void> {
    await Promise.all(
      this.#threads.map(async (thread) => {
        thread.detached = Promise.withResolvers();
        thread.worker.postMessage({ kind: "detach" } satisfies ThreadCommand);
        await Promise.race([thread.detached.promise, thread.ended]);
      }),
    );
  }

  /** Has all threads follow the store again. */
  attach(): void {
    for (const { worker } of this.#threads) {
      const storePort = this.#options.connectStore();
      const command: ThreadCommand = { kind: "attach", storePort };
      worker.postMessage(command, [storePort]);
    }
  }

  /** The watchdog has proof, and evidence, that the loop of a thread stands still. */
  stalled(name: string): void {
    const thread = this.#threads.find(({ plan }) => plan.name === name);
    if (thread === undefined || this.#isStopping) return;
    thread.cause = "stall";
    this.#startLimit(thread);
    // What goes on is in `exit`; a thread stuck in native code never gets there.
    void thread.worker.terminate();
  }

  /** Drains all threads and waits for their ends; one that does not end is terminated. */
  async stop(deadlineMs: number): Promise<void> {
    this.#isStopping = true;
    await Promise.all(
      this.#threads.map(async (thread) => {
        clearTimeout(thread.limit);
        await stopThread(thread, { deadlineMs, leave: false });
      }),
    );
  }

  #spawn(plan: DataPlaneThreadPlan, fds: ListenFds): Pick<PlaneThread, "worker" | "ended"> {
    const storePort = this.#options.connectStore();
    const data: DataPlaneThreadData = { ...plan.data, storePort, fds };
    const worker = new Worker(new URL("./data-plane-thread.ts", import.meta.url), {
      name: plan.name,
      workerData: data,
      transferList: [storePort],
    });
    return { worker, ended: new Promise((resolve) => worker.once("exit", () => resolve())) };
  }

  #watch(thread: PlaneThread): void {
    const { worker } = thread;
    worker.on("message", (event: DataPlaneThreadEvent) => this.#onEvent(thread, event));
    worker.on("error", (error) => {
      thread.error = error;
      const action = thread.spare === null ? "bounce" : "report";
      this.#options.watchdog.recordCrash(thread.plan.name, error, action);
      this.#startLimit(thread);
    });
    worker.on("exit", (code) => this.#onExit(thread, code));
  }

  #onEvent(thread: PlaneThread, event: DataPlaneThreadEvent): void {
    if (event.kind === "failed") {
      this.#options.onFailure(new PatinaError(event.code, event.message));
    } else if (event.kind === "detached") {
      thread.detached.resolve();
    } else if (event.kind === "listening") {
      thread.listening.resolve();
      if (thread.limit === undefined) return;
      clearTimeout(thread.limit);
      thread.limit = undefined;
      const { name } = thread.plan;
      const { cause, error } = thread;
      const fields = {
        loop: name,
        cause,
        ...(cause === "crash" ? { error: errorText(error) } : {}),
      };
      this.#options.log.warn?.("data-plane-replaced", `${name} ended and was replaced`, fields);
      this.#options.onReplaced(cause);
    }
  }

  #onExit(thread: PlaneThread, code: number): void {
    if (this.#isStopping) return;
    const { plan, spare } = thread;
    const { watchdog } = this.#options;
    if (spare === null) {
      const what = thread.error === undefined ? `with code ${code}` : errorText(thread.error);
      const text = `the ${plan.name} thread ended (${what}) and cannot be replaced`;
      return this.#options.onFailure(new PatinaError("INTERNAL", text));
    }
    this.#startLimit(thread);
    watchdog.noteEnd(plan.name);
    watchdog.setAction(plan.name, "bounce");
    this.#options.onEnded(plan.data);
    thread.spare = null;
    Object.assign(thread, this.#spawn(plan, spare));
    this.#watch(thread);
    if (this.#quarantine !== null) thread.worker.postMessage(this.#quarantine);
    for (const news of this.#newsByHost.values()) thread.worker.postMessage(news);
    if (this.#isReady) thread.worker.postMessage({ kind: "ready" } satisfies ThreadCommand);
  }

  #startLimit(thread: PlaneThread): void {
    const { replaceLimitMs, onHopeless } = this.#options;
    thread.limit ??= setTimeout(() => {
      const text = `no thread accepts in the place of ${thread.plan.name} after ${replaceLimitMs} ms`;
      onHopeless(new PatinaError("INTERNAL", text));
    }, replaceLimitMs);
  }

  #keepNews(news: HostNews): void {
    const key = `${news.kind} ${news.actorId} ${news.kind === "notice" ? news.hash : ""}`;
    const [oldest] = this.#newsByHost.keys();
    if (this.#newsByHost.size >= NEWS_MAX && oldest !== undefined) this.#newsByHost.delete(oldest);
    this.#newsByHost.set(key, news);
  }
}

/** Asks a thread to stop and waits for its end; one that does not end is terminated. */
export async function stopThread(
  { worker, ended }: { readonly worker: Worker; readonly ended: Promise<void> },
  { deadlineMs, leave }: { readonly deadlineMs: number; readonly leave: boolean },
): Promise<void> {
  worker.postMessage({ kind: "stop", deadlineMs, leave } satisfies ThreadCommand);
  const timer = setTimeout(() => void worker.terminate(), deadlineMs + THREAD_MARGIN_MS);
  await ended;
  clearTimeout(timer);
}

const THREAD_MARGIN_MS = 5_000;
/** Two for each host of a cluster larger than any. */
const NEWS_MAX = 20_000;
