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
 *
 * At an upgrade another process serves already, so the order is another: the last known table
 * (`prepare`), then all that the other process has given up (`handOver` there), and HTTP last, with a
 * table that has caught up with the database (`takeOver`). What fails on the way costs no request.
 */
import { randomBytes, randomInt } from "node:crypto";
import { MessageChannel } from "node:worker_threads";
import { assert, errorText, PatinaError } from "#base/errors.ts";
import type { Logger, LogLevelCell } from "#base/logger.ts";
import { MetricSlots } from "#base/metric-slots.ts";
import type { Salt } from "#base/salted-hash.ts";
import { SharedCounts } from "#base/shared-counts.ts";
import { REPLICA_METRICS } from "../replica/metrics.ts";
import type { EdgeQuestion } from "../replica/replica.ts";
import { LoadSlots } from "../routing/core/load-slots.ts";
import { NO_QUARANTINE } from "../routing/core/quarantine.ts";
import type { LoopBeat } from "../watchdog/core/loop-beat.ts";
import { allocatePeerBounces } from "../watchdog/core/peer-bounces.ts";
import { attachLoop, startWatchdog, type Watchdog } from "../watchdog/watchdog.ts";
import type { ReadyState } from "../watchdog/types.ts";
import { DataPlane } from "./data-plane.ts";
import { answerEdge } from "./edge-answers.ts";
import type { EffectiveConfig } from "./effective-config.ts";
import { loadFirstTable, type FirstTable } from "./first-table.ts";
import { spareOf, type InheritedFds } from "./inherited-fds.ts";
import { ProcessLimits } from "./listeners/core/process-limits.ts";
import { PROXY_METRICS } from "./metrics.ts";
import { QuarantineKeeper } from "./quarantine-keeper.ts";
import { frozenDetails, Readiness, staleDetails } from "./readiness.ts";
import { ReplicaSide } from "./replica-side.ts";
import { TableSaver } from "./table-saver.ts";
import { DataPlaneThreads, type EndCause } from "./threads/data-plane-threads.ts";
import type { ReplicaThreadEvent, ThreadData } from "./threads/messages.ts";
import {
  FIRST_DATA_PLANE,
  loopNames,
  restartBudgetOf,
  watchdogOptionsOf,
} from "./watched-loops.ts";

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
  readonly #bounces = allocatePeerBounces();
  readonly #salt: Salt = [randomInt(2 ** 32), randomInt(2 ** 32)];
  readonly #load = LoadSlots.allocate({ salt: this.#salt });
  readonly #limits = ProcessLimits.allocate(this.#salt);
  /** A client may come back to any thread with the ticket of another. */
  readonly #ticketKeys: Uint8Array = randomBytes(TICKET_KEYS_BYTES);
  #planes: DataPlaneThreads | null = null;
  #watchdog: Watchdog | null = null;
  #beat: LoopBeat | null = null;
  #plane: DataPlane | null = null;
  #saver: TableSaver | null = null;
  #keeper: QuarantineKeeper | null = null;
  /** Null also while another process has the database. */
  #side: ReplicaSide | null = null;
  #handingOver: Promise<void> = Promise.resolve();
  /** Settles when HTTP is served. */
  readonly #serving = Promise.withResolvers<void>();
  /** What waits for the end of a freeze. */
  #onceThawed: () => void = () => undefined;
  readonly #readiness = new Readiness((state) => this.#watchdog?.setReady(state));
  #isStopping = false;

  constructor(options: AppOptions) {
    this.#options = options;
    this.#threadNames = loopNames(options.effective);
    const declarations = [...PROXY_METRICS, ...REPLICA_METRICS];
    this.#metrics = MetricSlots.allocate(declarations, this.#threadNames.length);
  }

  /** Address of the HTTP listener; null for an agent, or before it listens. */
  get httpAddress(): { address: string; port: number } | null {
    return this.#plane?.address ?? null;
  }

  /** Starts everything in order. Rejects with the error of whatever could not be started. */
  async start(): Promise<void> {
    const watchdog = this.#startWatchdog({ isServing: true });
    if (this.#isEdge) {
      const plane = await this.#createDataPlane();
      const first = this.#loadFirstTable(plane);
      await this.#listen(plane);
      if (first !== null && plane.table.machineCount > 0) this.#serveStale(first);
    }
    await watchdog.started;
    await this.#openReplicaSide();
    if (this.#isEdge) this.#startDataPlaneThreads(watchdog);
    this.#serving.resolve();
    this.#beat?.enter("steady");
  }

  /** Gets as far as possible while another process has the database, the ports and the clients. */
  async prepare(): Promise<void> {
    this.#startWatchdog({ isServing: false });
    if (this.#isEdge) this.#loadFirstTable(await this.#createDataPlane());
  }

  /** After `prepare`, and when the other process has handed over: opens everything, then serves. */
  async takeOver(): Promise<void> {
    const { watchdog, plane } = this.#started;
    await watchdog.serve();
    await this.#reopenQuarantine();
    const side = await this.#openReplicaSide();
    await side.started;
    if (plane) {
      // What the other process knew, it knew from the database: no request sees an older table.
      await plane.becomeReady(side.client, { orHeld: true });
      await this.#listen(plane);
      await this.#startDataPlaneThreads(watchdog).listening();
      this.#serveStale({ source: "database" });
    }
    this.#serving.resolve();
    this.#beat?.enter("steady");
  }

  /** Gives up what two processes cannot share; HTTP is served on by the table as it is. */
  async handOver(): Promise<void> {
    await (this.#handingOver = this.#giveUp());
  }

  async #giveUp(): Promise<void> {
    const { watchdog, plane } = this.#started;
    const side = this.#side;
    this.#side = null;
    await Promise.all([plane?.pause(), this.#planes?.detach()]);
    await this.#saver?.stop();
    this.#saver = null;
    await this.#keeper?.stop();
    await side?.close({ deadlineMs: HAND_OVER_LIMIT_MS, leave: false });
    watchdog.noteEnd("store");
    await watchdog.unserve();
    this.#options.log.info?.("handed-over", "database and ports are free for another process");
  }

  /** Takes back what `handOver` gave up. */
  async resume(): Promise<void> {
    const { watchdog, plane } = this.#started;
    await watchdog.serve();
    await this.#reopenQuarantine();
    await this.#openReplicaSide();
    this.#planes?.attach();
    if (plane) this.#startSaver(plane);
    this.#options.log.info?.("resumed", "database and ports are this process's again");
  }

  /** Drains HTTP, leaves the cluster, closes the database. Idempotent. */
  async stop(): Promise<void> {
    if (this.#isStopping) return;
    this.#isStopping = true;
    // Half a handing over would leave a database open.
    await this.#handingOver;
    const deadlineMs = this.#options.effective.config.proxy.drain_timeout_ms;
    this.#readiness.draining();
    const threads = this.#planes?.stop(deadlineMs);
    const cut = (await this.#plane?.drain(deadlineMs)) ?? 0;
    await this.#saver?.stop();
    await this.#keeper?.stop();
    await threads;
    await this.#side?.close({ deadlineMs, leave: true });
    this.#options.log.info?.("stopped", "drained and closed", { connectionsCut: cut });
    await this.#watchdog?.stop();
  }

  get #isEdge(): boolean {
    return this.#options.effective.mode === "edge";
  }

  get #started(): { readonly watchdog: Watchdog; readonly plane: DataPlane | null } {
    const watchdog = this.#watchdog;
    assert(watchdog !== null, "the watchdog is started first");
    return { watchdog, plane: this.#plane };
  }

  #startWatchdog({ isServing }: { readonly isServing: boolean }): Watchdog {
    const { effective, fds } = this.#options;
    const metrics = this.#metrics.plan;
    const bounces = this.#bounces;
    const options = watchdogOptionsOf({ effective, fds, metrics, isServing, bounces });
    const started = startWatchdog(options, {
      onStall: ({ loop }) => this.#planes?.stalled(loop),
    });
    this.#watchdog = started;
    this.#beat = attachLoop(started.loopPlan("main")).beat;
    return started;
  }

  /** Judges the stall that this start follows, before a row of it is touched. */
  #openQuarantine(): Promise<QuarantineKeeper> {
    const { effective, log } = this.#options;
    return QuarantineKeeper.open({
      stateFolder: effective.stateFolder,
      holdMs: effective.config.watchdog.quarantine_ms,
      log,
      metrics: this.#metrics.writer(0),
      fleet: { budget: restartBudgetOf(effective.config), bounces: this.#bounces },
      onReleased: (change) => this.#side?.tell({ kind: "released", change }),
      onThaw: () => {
        this.#readiness.thawed();
        this.#onceThawed();
      },
      onChange: (state, isRefeed) => {
        this.#plane?.setQuarantine(state, isRefeed);
        this.#planes?.tell({ kind: "quarantine", state, isRefeed });
      },
    });
  }

  /** As the process before this one left it, which may have changed it since `prepare`. */
  async #reopenQuarantine(): Promise<void> {
    if (!this.#isEdge) return;
    const before = JSON.stringify(this.#keeper?.state);
    await this.#keeper?.stop();
    this.#keeper = await this.#openQuarantine();
    const { state } = this.#keeper;
    if (JSON.stringify(state) === before) return;
    this.#plane?.setQuarantine(state, true);
    this.#planes?.tell({ kind: "quarantine", state, isRefeed: true });
  }

  async #createDataPlane(): Promise<DataPlane> {
    const { effective, log, fds } = this.#options;
    const beat = this.#beat;
    assert(beat !== null, "the watchdog is started first");
    const keeper = await this.#openQuarantine();
    this.#keeper = keeper;
    const plane = new DataPlane({
      loop: "main",
      config: effective.config,
      metrics: this.#metrics.writer(0),
      beat,
      log,
      load: this.#load,
      limits: this.#limits,
      ticketKeys: this.#ticketKeys,
      quarantine: keeper.state,
      events: {
        superseded: (ids) => this.#keeper?.superseded(ids),
        cautionOver: () => this.#keeper?.cautionOver(),
      },
    });
    plane.prepare({ http: fds.http[0] ?? null, https: fds.https[0] ?? null });
    this.#plane = plane;
    return plane;
  }

  #loadFirstTable(plane: DataPlane): FirstTable | null {
    const { effective, log } = this.#options;
    const databasePath = effective.config.db.path;
    const { cautiousUntil, frozen } = this.#keeper?.state ?? NO_QUARANTINE;
    const isFrozen = frozen !== null;
    const first = loadFirstTable(plane, { databasePath, log, cautiousUntil, isFrozen });
    if (first !== null || !isFrozen) return first;
    // Frozen it would answer nobody.
    this.#keeper?.thaw("no last known table");
    return this.#loadFirstTable(plane);
  }

  async #listen(plane: DataPlane): Promise<void> {
    await plane.listen();
    // The clock starts with the process: what a bounce costs before anybody is answered.
    const bootMs = Math.round(performance.now());
    const where = `HTTP on ${plane.address?.address}:${plane.address?.port}`;
    this.#options.log.info?.("listening", where, { bootMs });
    this.#startSaver(plane);
  }

  #startSaver(plane: DataPlane): void {
    const { effective, log } = this.#options;
    const { db, proxy } = effective.config;
    this.#saver = new TableSaver({
      plane,
      databasePath: db.path,
      periodMs: proxy.table_save_ms,
      metrics: this.#metrics.writer(0),
      log,
    });
  }

  /** What the edge knew when it ended is better than nothing, and said to be no more than that. */
  #serveStale(first: FirstTable): void {
    this.#plane?.setStale(true);
    const details = staleDetails(first, this.#keeper?.state.frozen ?? null);
    const reason = `last known table, from the ${first.source}`;
    this.#options.log.info?.("table-stale", `serving from the ${reason}`, details);
    this.#setReady(reason, details);
  }

  /** Opens the database and starts the replica; the main table follows at once. */
  async #openReplicaSide(): Promise<ReplicaSide> {
    const side = await ReplicaSide.open({
      replica: this.#threadData("replica"),
      store: { beat: this.#loopPlan("store") },
      log: this.#options.log,
      metrics: this.#metrics.writer(0),
      bounces: this.#bounces,
      witnessPort: this.#isEdge ? this.#started.watchdog.witnessPort() : null,
      events: {
        event: (event) => this.#onReplicaEvent(event),
        crashed: (loop, error) => this.#watchdog?.recordCrash(loop, error),
        failed: (error) => this.#fail(error),
      },
    });
    this.#side = side;
    this.#plane?.follow(side.client).catch((error: unknown) => {
      // In the turn of the exception: the breadcrumb is still that of the row.
      if (!(error instanceof PatinaError)) this.#watchdog?.recordCrash("main", error);
      this.#fail(error);
    });
    return side;
  }

  /** Has the schema files applied anew, once there is a replica; the log says what came of it. */
  reload(): void {
    this.#side?.tell({ kind: "reload" });
    this.#plane?.refreshCertificates();
    this.#planes?.tell({ kind: "reload" });
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
      case "notice":
        this.#plane?.feed.notice(event);
        this.#planes?.tell(event);
        return;
      case "started":
        this.#tellHeld();
        if (!this.#isEdge) this.#setReady("replica started");
        return;
      case "synced": {
        const side = this.#side;
        this.#onSynced().catch((error: unknown) => {
          // One that was closed meanwhile has nothing to say any more.
          if (this.#side === side) this.#fail(error);
        });
        return;
      }
      case "storeFault":
        return this.#readiness.storeFault(event.reason);
      case "ask":
        return this.#answer(event);
      case "failed":
        return this.#fail(new PatinaError(event.code, event.message));
      case "stopped":
        return;
    }
  }

  #answer({ id, question }: Extract<ReplicaThreadEvent, { kind: "ask" }>): void {
    this.#side?.tell({ kind: "answer", id, value: this.#answerTo(question) });
  }

  #answerTo(question: EdgeQuestion): unknown {
    const plane = this.#plane;
    if (plane === null) return null;
    if (question.kind !== "quarantine") return answerEdge(plane.table, question, performance.now());
    const release = (id: string): void => {
      plane.feed.release(id);
      this.#planes?.tell({ kind: "releaseWaiting", id });
    };
    return this.#keeper?.answer(question, { waiting: plane.feed.waiting, release }) ?? null;
  }

  /** Where the process ended without last words, others learn now what it is not to apply. */
  #tellHeld(): void {
    if (this.#keeper) this.#side?.tell({ kind: "held", ...this.#keeper.news });
  }

  /** The store has everything; the table follows it at a distance. */
  async #onSynced(): Promise<void> {
    const side = this.#side;
    if (!this.#plane || !side) return;
    if (!(await this.#plane.becomeReady(side.client))) return;
    await this.#serving.promise;
    const freeze = this.#keeper?.state.frozen ?? null;
    if (freeze !== null) {
      this.#onceThawed = () => this.#onReplicaEvent({ kind: "synced" });
      return this.#setReady("frozen: last known table, and what goes down", frozenDetails(freeze));
    }
    this.#plane.setStale(false);
    this.#options.log.info?.("table-current", "the routing table has caught up");
    this.#setReady("caught up", { table: "current" });
    // The database has what the table takes next: without a file, a bounce would begin with it.
    this.#saver?.saveNow();
  }

  #startDataPlaneThreads(watchdog: Watchdog): DataPlaneThreads {
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
      // Nobody answers on it while another process has the database.
      connectStore: () => (this.#side ?? NO_STORE).connect(),
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
      planes.start({ name, data, fds: own, spare: spareOf(fds, index) });
    }
    return planes;
  }

  #setReady(reason: string, details: ReadyState["details"] = {}): void {
    if (this.#isStopping) return;
    this.#plane?.setReady();
    this.#planes?.tell({ kind: "ready" });
    this.#readiness.ready(reason, details);
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
    return this.#started.watchdog.loopPlan(name);
  }

  #fail(error: unknown): void {
    if (this.#isStopping) return;
    this.#options.onFailure(
      error instanceof PatinaError
        ? error
        : new PatinaError("INTERNAL", errorText(error), { cause: error }),
    );
  }
}

/** Name, HMAC and AES keys, as OpenSSL takes them. */
const TICKET_KEYS_BYTES = 48;
/** Closing the replica and the database takes milliseconds; a replica that hangs is terminated. */
const HAND_OVER_LIMIT_MS = 5_000;
const NO_STORE = { connect: () => new MessageChannel().port1 };
