/**
 * The whole system in one process: the only place that constructs it.
 *
 * ```
 *  watchdog thread   first, so that boot is watched too
 *  main thread       last known routing table -> listen -> serve
 *  store worker      then the store,
 *  replica thread    then the replica, whose changes reach every table by the store's change stream
 *  data planes 1..n  each with its own table and socket
 * ```
 *
 * A bounced edge therefore serves before its replica is up. A fresh one has nothing to serve from
 * and is not ready until it has caught up with somebody, or there is nobody to learn from.
 */
import { randomBytes, randomInt } from "node:crypto";
import { Worker } from "node:worker_threads";
import { PatinaError } from "#base/errors.ts";
import { splitHostPort } from "#base/host-port.ts";
import type { Logger, LogLevelCell } from "#base/logger.ts";
import { MetricSlots } from "#base/metric-slots.ts";
import type { Salt } from "#base/salted-hash.ts";
import { SharedCounts } from "#base/shared-counts.ts";
import { StoreClient } from "../replica/driver/store/store-client.ts";
import { startStore, type StoreThread } from "../replica/driver/store/store-thread.ts";
import { REPLICA_METRICS } from "../replica/metrics.ts";
import type { EdgeQuestion } from "../replica/replica.ts";
import { LoadSlots } from "../routing/core/load-slots.ts";
import { NO_QUARANTINE } from "../routing/core/quarantine.ts";
import { attachLoop, startWatchdog, type Watchdog } from "../watchdog/watchdog.ts";
import type { LoopDeclaration, ReadyState } from "../watchdog/types.ts";
import { DataPlane, type ListenFds } from "./data-plane.ts";
import { answerEdge } from "./edge-answers.ts";
import type { EffectiveConfig } from "./effective-config.ts";
import { loadFirstTable, type FirstTable } from "./first-table.ts";
import { ProcessLimits } from "./listeners/core/process-limits.ts";
import { PROXY_METRICS } from "./metrics.ts";
import { QuarantineKeeper } from "./quarantine-keeper.ts";
import { readSchemaFiles } from "./schema-sources.ts";
import { TableSaver } from "./table-saver.ts";
import { DataPlaneThreads, stopThread, type EndCause } from "./threads/data-plane-threads.ts";
import type {
  ReplicaThreadData,
  ReplicaThreadEvent,
  ThreadCommand,
  ThreadData,
} from "./threads/messages.ts";

/** Sockets and the pipe that the supervisor passed on; null fields = started without one. */
export interface InheritedFds {
  readonly beat: number | null;
  /** One per data-plane thread. */
  readonly http: readonly number[];
  readonly https: readonly number[];
  /** Second descriptors of the same sockets but the first, by name, for threads that replace. */
  readonly spares: { readonly http?: readonly number[]; readonly https?: readonly number[] };
}

/** What the app is made of. */
export interface AppOptions {
  readonly effective: EffectiveConfig;
  readonly fds: InheritedFds;
  readonly log: Logger;
  /** The level of every thread's log. */
  readonly logLevel: LogLevelCell;
  /** Something failed that the process cannot go on without. */
  readonly onFailure: (error: PatinaError) => void;
}

/** A running edge or agent. */
export class App {
  readonly #options: AppOptions;
  readonly #metrics: MetricSlots;
  readonly #threadNames: readonly string[];
  readonly #salt: Salt = [randomInt(2 ** 32), randomInt(2 ** 32)];
  readonly #load = LoadSlots.allocate({ salt: this.#salt });
  readonly #limits = ProcessLimits.allocate(this.#salt);
  /** A client may come back to any thread with the ticket of another. */
  readonly #ticketKeys: Uint8Array = randomBytes(TICKET_KEYS_BYTES);
  #planes: DataPlaneThreads | null = null;
  #watchdog: Watchdog | null = null;
  #plane: DataPlane | null = null;
  #saver: TableSaver | null = null;
  #keeper: QuarantineKeeper | null = null;
  #store: StoreThread | null = null;
  /** The main data plane's own connection to the store. */
  #client: StoreClient | null = null;
  #replica: { readonly worker: Worker; readonly ended: Promise<void> } | null = null;
  #ready: ReadyState = { isReady: false, reason: "starting" };
  /** Why nothing can be written, when that lasts. */
  #storeFault: string | null = null;
  #isStopping = false;

  constructor(options: AppOptions) {
    this.#options = options;
    const { mode, config } = options.effective;
    const extra = mode === "edge" ? config.proxy.threads - 1 : 0;
    this.#threadNames = [
      "main",
      "replica",
      "store",
      ...Array.from({ length: extra }, (_, index) => `data-plane-${index + 1}`),
    ];
    const declarations = [...PROXY_METRICS, ...REPLICA_METRICS];
    this.#metrics = MetricSlots.allocate(declarations, this.#threadNames.length);
  }

  /** Address of the HTTP listener; null for an agent, or before it listens. */
  get httpAddress(): { address: string; port: number } | null {
    return this.#plane?.address ?? null;
  }

  /** Starts everything in order. Rejects with the error of whatever could not be started. */
  async start(): Promise<void> {
    const watchdog = this.#startWatchdog();
    this.#watchdog = watchdog;
    const { beat } = attachLoop(watchdog.loopPlan("main"));
    const { mode } = this.#options.effective;
    if (mode === "edge") {
      this.#keeper = await this.#openQuarantine();
      await this.#startDataPlane(beat, this.#keeper);
    }
    await watchdog.started;
    this.#store = await this.#startStore();
    if (mode === "edge") {
      const client = await StoreClient.connect(this.#store.connect());
      this.#client = client;
      this.#plane?.follow(client).catch((error: unknown) => {
        // In the turn of the exception: the breadcrumb is still that of the row.
        if (!(error instanceof PatinaError)) this.#watchdog?.recordCrash("main", error);
        this.#fail(error);
      });
    }
    this.#startReplica(this.#store);
    if (mode === "edge") this.#startDataPlaneThreads(watchdog, this.#store);
    beat.enter("steady");
  }

  /** Drains HTTP, leaves the cluster, closes the database. Idempotent. */
  async stop(): Promise<void> {
    if (this.#isStopping) return;
    this.#isStopping = true;
    const deadlineMs = this.#options.effective.config.proxy.drain_timeout_ms;
    this.#watchdog?.setReady({ isReady: false, reason: "draining" });
    const threads = this.#planes?.stop(deadlineMs);
    const cut = (await this.#plane?.drain(deadlineMs)) ?? 0;
    await this.#saver?.stop();
    await this.#keeper?.stop();
    await threads;
    if (this.#replica) await stopThread(this.#replica, deadlineMs);
    await this.#store?.close();
    this.#options.log.info?.("stopped", "drained and closed", { connectionsCut: cut });
    await this.#watchdog?.stop();
  }

  #startWatchdog(): Watchdog {
    const { effective, fds } = this.#options;
    const { config, stateFolder, hash } = effective;
    const { watchdog, telemetry } = config;
    const options = {
      loops: this.#threadNames.map((name) => this.#loopDeclaration(name)),
      metrics: this.#metrics.plan,
      stateFolder,
      http: splitHostPort(telemetry.prometheus.addr),
      beatFd: fds.beat,
      budgets: {
        boot: watchdog.boot_ms,
        load: watchdog.boot_ms,
        apply: watchdog.apply_ms,
        steady: watchdog.steady_ms,
      },
      jitterMs: watchdog.jitter_ms,
      breadcrumbDecoderUrl: new URL("./breadcrumbs.ts", import.meta.url).href,
      configHash: hash,
    };
    return startWatchdog(options, { onStall: ({ loop }) => this.#planes?.stalled(loop) });
  }

  /**
   * A statement is one turn of the store's loop, however large its author made it: a transaction of
   * 100,000 rows takes seconds, and killing the process would only make it start over. A data plane
   * that can be replaced is only reported.
   */
  #loopDeclaration(name: string): LoopDeclaration {
    const storeBudgetMs = this.#options.effective.config.watchdog.boot_ms;
    if (name === "store") {
      return { name, budgets: { steady: storeBudgetMs, apply: storeBudgetMs } };
    }
    const index = this.#threadNames.indexOf(name) - FIRST_DATA_PLANE;
    const isPlane = index >= 0 || (name === "main" && this.#options.effective.mode === "edge");
    const plane = { name, countsProgress: isPlane };
    return index >= 0 && this.#spareOf(index) !== null ? { ...plane, action: "report" } : plane;
  }

  /** Judges the stall that this start follows, before a row of it is touched. */
  #openQuarantine(): Promise<QuarantineKeeper> {
    const { effective, log } = this.#options;
    return QuarantineKeeper.open({
      stateFolder: effective.stateFolder,
      holdMs: effective.config.watchdog.quarantine_ms,
      log,
      metrics: this.#metrics.writer(0),
      onChange: (state, isRefeed) => {
        this.#plane?.setQuarantine(state, isRefeed);
        this.#planes?.tell({ kind: "quarantine", state, isRefeed });
      },
    });
  }

  async #startDataPlane(beat: DataPlaneBeat, keeper: QuarantineKeeper): Promise<void> {
    const { effective, log, fds } = this.#options;
    const { config } = effective;
    const plane = new DataPlane({
      loop: "main",
      config,
      metrics: this.#metrics.writer(0),
      beat,
      log,
      load: this.#load,
      limits: this.#limits,
      ticketKeys: this.#ticketKeys,
      quarantine: keeper.state,
      events: keeper,
    });
    this.#plane = plane;
    const { cautiousUntil } = keeper.state;
    const first = loadFirstTable(plane, { databasePath: config.db.path, log, cautiousUntil });
    await plane.listen({ http: fds.http[0] ?? null, https: fds.https[0] ?? null });
    // The clock starts with the process: what a bounce costs before anybody is answered.
    const bootMs = Math.round(performance.now());
    log.info?.("listening", `HTTP on ${plane.address?.address}:${plane.address?.port}`, { bootMs });
    this.#saver = new TableSaver({
      plane,
      databasePath: config.db.path,
      periodMs: config.proxy.table_save_ms,
      metrics: this.#metrics.writer(0),
      log,
    });
    if (first !== null && plane.table.machineCount > 0) this.#serveStale(first);
  }

  /** What the edge knew when it ended is better than nothing, and said to be no more than that. */
  #serveStale(first: FirstTable): void {
    this.#plane?.setStale(true);
    const fields =
      first.source === "file"
        ? { source: "file", savedTime: new Date(first.savedMs).toISOString() }
        : { source: "database" };
    const reason = `last known table, from the ${first.source}`;
    this.#options.log.info?.("table-stale", `serving from the ${reason}`, fields);
    this.#setReady(reason, { table: "stale", ...fields });
  }

  async #startStore(): Promise<StoreThread> {
    const { config, extensionPath, deadlinePath } = this.#options.effective;
    const store = await startStore(
      {
        path: config.db.path,
        extensionPath,
        deadlinePath,
        nodeId: config.replica.node,
        synchronous: config.db.synchronous,
        schemaFiles: readSchemaFiles(config.db.schema_paths),
      },
      {
        entry: new URL("./threads/store-thread.ts", import.meta.url),
        workerData: { beat: this.#loopPlan("store") },
      },
    );
    store.onFailure((error) => this.#fail(error));
    return store;
  }

  /** Has the schema files applied anew, once there is a replica; the log says what came of it. */
  reload(): void {
    this.#tellReplica({ kind: "reload" });
    this.#plane?.refreshCertificates();
    this.#planes?.tell({ kind: "reload" });
  }

  #startReplica(store: StoreThread): void {
    const storePort = store.connect();
    const data: ReplicaThreadData = { ...this.#threadData("replica"), storePort };
    const worker = new Worker(new URL("./threads/replica-thread.ts", import.meta.url), {
      name: "replica",
      workerData: data,
      transferList: [storePort],
      resourceLimits: { maxYoungGenerationSizeMb: REPLICA_YOUNG_GENERATION_MIB },
    });
    const ended = new Promise<void>((resolve) => worker.once("exit", () => resolve()));
    this.#replica = { worker, ended };
    worker.on("message", (event: ReplicaThreadEvent) => this.#onReplicaEvent(event));
    this.#watchThread(worker, "replica");
  }

  /** A thread that ends unasked ends the process, with evidence of the exception that ended it. */
  #watchThread(worker: Worker, name: string): void {
    worker.on("error", (error) => {
      this.#watchdog?.recordCrash(name, error);
      this.#fail(error);
    });
    worker.on("exit", (code) => {
      this.#fail(new PatinaError("INTERNAL", `the ${name} thread ended with code ${code}`));
    });
  }

  #onReplicaEvent(event: ReplicaThreadEvent): void {
    switch (event.kind) {
      case "rtt":
        this.#plane?.sampleRtt(event.actorId, event.rttMs);
        this.#planes?.tell(event);
        return;
      case "host":
        this.#plane?.setHostDown(event.actorId, event.isDown);
        this.#planes?.tell(event);
        return;
      case "started":
        if (this.#options.effective.mode === "agent") this.#setReady("replica started");
        return;
      case "synced":
        this.#onSynced().catch((error: unknown) => this.#fail(error));
        return;
      case "storeFault":
        this.#storeFault = event.reason;
        return this.#tellReady();
      case "ask":
        return this.#answer(event);
      case "failed":
        return this.#fail(new PatinaError(event.code, event.message));
      case "stopped":
        return;
    }
  }

  #answer({ id, question }: Extract<ReplicaThreadEvent, { kind: "ask" }>): void {
    this.#tellReplica({ kind: "answer", id, value: this.#answerTo(question) });
  }

  #answerTo(question: EdgeQuestion): unknown {
    if (question.kind === "quarantine") {
      return this.#keeper?.answer(question, this.#plane?.feed.waiting ?? []) ?? null;
    }
    const table = this.#plane?.table;
    return table ? answerEdge(table, question, performance.now()) : null;
  }

  /** The store has everything; the table follows it at a distance. */
  async #onSynced(): Promise<void> {
    if (!this.#plane || !this.#client) return;
    if (!(await this.#plane.becomeReady(this.#client))) return;
    this.#plane.setStale(false);
    this.#options.log.info?.("table-current", "the routing table has caught up");
    this.#setReady("caught up", { table: "current" });
    // The database has what the table takes next: without a file, a bounce would begin with it.
    this.#saver?.saveNow();
  }

  #startDataPlaneThreads(watchdog: Watchdog, store: StoreThread): void {
    const { effective, fds, log } = this.#options;
    const replaced = (cause: EndCause) =>
      this.#metrics.writer(0).counter("patina_data_plane_replacements_total", { cause });
    const counters = { crash: replaced("crash"), stall: replaced("stall") };
    const counts = new SharedCounts(this.#limits);
    const slots = new LoadSlots(this.#load);
    const planes = new DataPlaneThreads({
      watchdog,
      log,
      replaceLimitMs: effective.config.watchdog.replace_ms,
      connectStore: () => store.connect(),
      onEnded: ({ load, limits }) => {
        slots.forget(load);
        if (limits.share !== null) counts.forget(limits.share);
      },
      onReplaced: (cause) => counters[cause].add(),
      onFailure: (error) => this.#fail(error),
      onHopeless: (error) => {
        log.error("edge-failed", error.message, { code: error.code });
        process.kill(process.pid, "SIGKILL");
      },
    });
    this.#planes = planes;
    for (const [index, name] of this.#threadNames.slice(FIRST_DATA_PLANE).entries()) {
      const data = {
        ...this.#threadData(name),
        load: slots.planOfThread(),
        limits: { ...this.#limits, ...counts.planOfThread() },
        ticketKeys: this.#ticketKeys,
        quarantine: this.#keeper?.state ?? NO_QUARANTINE,
      };
      const own = { http: fds.http[index + 1] ?? null, https: fds.https[index + 1] ?? null };
      planes.start({ name, data, fds: own, spare: this.#spareOf(index) });
    }
  }

  /** Second descriptors of a data-plane thread's sockets; null unless there is one for each. */
  #spareOf(index: number): ListenFds | null {
    const { spares, https: all } = this.#options.fds;
    const http = spares.http?.[index] ?? null;
    const https = spares.https?.[index] ?? null;
    return http === null || (https === null && all.length > 0) ? null : { http, https };
  }

  #tellReplica(command: ThreadCommand): void {
    this.#replica?.worker.postMessage(command);
  }

  #setReady(reason: string, details: ReadyState["details"] = {}): void {
    if (this.#isStopping) return;
    this.#plane?.setReady();
    this.#planes?.tell({ kind: "ready" });
    this.#ready = { isReady: true, reason, details };
    this.#tellReady();
  }

  /** Readiness outwards: requests go on being answered while the store cannot write. */
  #tellReady(): void {
    if (this.#isStopping) return;
    const fault = this.#storeFault;
    const state = fault === null ? this.#ready : { ...this.#ready, isReady: false, reason: fault };
    this.#watchdog?.setReady(state);
  }

  #threadData(name: string): ThreadData {
    return {
      loop: name,
      effective: this.#options.effective,
      metrics: this.#metrics.plan,
      bank: this.#threadNames.indexOf(name),
      beat: this.#loopPlan(name),
      logLevel: this.#options.logLevel.buffer,
    };
  }

  #loopPlan(name: string): ThreadData["beat"] {
    const watchdog = this.#watchdog;
    if (!watchdog) throw new Error("the watchdog is started first");
    return watchdog.loopPlan(name);
  }

  #fail(error: unknown): void {
    if (this.#isStopping) return;
    this.#options.onFailure(
      error instanceof PatinaError
        ? error
        : new PatinaError("INTERNAL", error instanceof Error ? error.message : String(error), {
            cause: error,
          }),
    );
  }
}

type DataPlaneBeat = ConstructorParameters<typeof DataPlane>[0]["beat"];

/** After main, replica and store. */
const FIRST_DATA_PLANE = 3;
/** Name, HMAC and AES keys, as OpenSSL takes them. */
const TICKET_KEYS_BYTES = 48;
/**
 * Messages of a repair are garbage as soon as the store has them: V8's default lets three times
 * 16 MiB pile up before it looks (docs/performance.md).
 */
const REPLICA_YOUNG_GENERATION_MIB = 12;
