/**
 * The data plane of one thread: a routing table, an HTTP engine and a listening socket. It serves
 * from a snapshot of the database before the replica is up, and then follows its change stream.
 */
import { errorText } from "#base/errors.ts";
import type { Logger } from "#base/logger.ts";
import type { MetricGauge, MetricWriter } from "#base/metric-slots.ts";
import type { StoreClient } from "../replica/driver/store/store-client.ts";
import type { ActorId, ChangeStreamEvent, Watermark } from "../replica/types.ts";
import { LoadSlots, type LoadPlan } from "../routing/core/load-slots.ts";
import type { QuarantineState } from "../routing/core/quarantine.ts";
import { RoutingTable } from "../routing/routing-table.ts";
import type { LoopBeat } from "../watchdog/core/loop-beat.ts";
import { AccessLog } from "./access-log.ts";
import { noteBatch, noteRequest, noteRow } from "./breadcrumbs.ts";
import type { PatinaConfig } from "./config.ts";
import { EngineMetrics } from "./engine-metrics.ts";
import { rowFault, tcpDelays, withFaultPaths } from "./fault.ts";
import { createEngine, type Engine } from "./http1/engine.ts";
import { addressTest } from "./listeners/address-list.ts";
import type { ConnectionCounts } from "./types.ts";
import { connectionCountsOf } from "./upstream/connection-counts.ts";
import { ProcessLimits, type ProcessLimitsPlan } from "./listeners/core/process-limits.ts";
import { createHttpListener, type HttpListener } from "./listeners/http-listener.ts";
import { listenersOf } from "./listeners/listeners-of.ts";
import { RebuildHold } from "./rebuild-hold.ts";
import { TableFeed } from "./table-feed.ts";
import { TableRouter } from "./table-router.ts";
import { upstreamTlsOf } from "./upstream/upstream-tls.ts";

/** Tables that routing needs, with their key columns. */
export const ROUTING_TABLES: Readonly<Record<string, readonly string[]>> = {
  nodes: ["id"],
  hostnames: ["hostname"],
  machines: ["id"],
  services: ["machine_id", "name"],
  checks: ["machine_id", "service", "name"],
};

const TABLE_NAMES = Object.keys(ROUTING_TABLES);

/** What a data plane is made of. */
export interface DataPlaneOptions {
  /** Name of the loop it runs in. */
  readonly loop: string;
  readonly config: PatinaConfig;
  readonly metrics: MetricWriter;
  readonly beat: LoopBeat;
  readonly log: Logger;
  /** Requests in flight, shared with the other data-plane threads. */
  readonly load: LoadPlan;
  /** What it counts with the other data-plane threads. */
  readonly limits: ProcessLimitsPlan;
  /** Of TLS session tickets, the same in all threads. */
  readonly ticketKeys: Uint8Array;
  /** What is kept out of the table. */
  readonly quarantine: QuarantineState;
  readonly events: DataPlaneEvents;
}

/** What a data plane tells of its table. */
export interface DataPlaneEvents {
  /** Newer versions of these held rows have been applied. */
  superseded(ids: readonly string[]): void;
  /** What was to be applied row by row has been. */
  cautionOver(): void;
}

/** Sockets taken over from the supervisor; `null` = bind by the config. */
export interface ListenFds {
  readonly http: number | null;
  readonly https: number | null;
}

/** One thread's data plane. */
export class DataPlane {
  readonly table: RoutingTable;
  readonly #options: DataPlaneOptions;
  readonly #router: TableRouter;
  readonly #limits: ProcessLimits;
  readonly #connectionCounts: ConnectionCounts;
  readonly #engine: Engine;
  readonly #accessLog: AccessLog | null;
  readonly #stale: MetricGauge;
  readonly #listeners: HttpListener[] = [];
  /** What `listen` binds, once it has been read. */
  #prepared: ReturnType<typeof listenersOf> | null = null;
  /** Who waits for the next event of the change stream. */
  readonly #waiting = new Set<() => void>();
  #stream: AsyncIterableIterator<ChangeStreamEvent> | null = null;
  readonly #feed: TableFeed;
  readonly #hold: RebuildHold;
  /** See `QuarantineState`; null = batches are applied as they come. */
  #cautiousUntil: number | null;
  /** The stream is to start over. */
  #isRefeedAsked = false;
  #isPaused = false;
  #isStopped = false;

  constructor(options: DataPlaneOptions) {
    const { config, beat, metrics } = options;
    this.#options = options;
    const fault = rowFault(config);
    this.#limits = new ProcessLimits(options.limits, {
      connections: config.proxy.connections_max,
      connectionsPerClient: config.proxy.connections_per_client_max,
      waiting: config.proxy.queued_max,
      keptBodies: config.proxy.kept_bodies_max,
    });
    const load = new LoadSlots(options.load);
    this.#connectionCounts = connectionCountsOf(load, this.#limits);
    this.table = new RoutingTable({
      standpoint: standpointOf(config.replica),
      load,
      onRow: (change, previous) => {
        noteRow(beat, change, previous);
        fault?.(change, "apply");
      },
      onRebuild: (rows, watermark) => {
        noteBatch(beat, rows, watermark);
        if (fault) for (const row of rows) fault(row, "rebuild");
      },
      onGone: (candidate) => this.#engine.pool.dropMachine(candidate.machineId),
    });
    this.#feed = new TableFeed({
      ...options,
      table: this.table,
      dropMachine: (machineId) => this.#engine.pool.dropMachine(machineId),
    });
    this.#hold = new RebuildHold({
      databasePath: config.db.path,
      inUse: () => ({
        machines: this.table.machineCount,
        hostnames: [...this.table.hostnames()].length,
      }),
      changeOver: (event) => {
        this.#feed.apply(event);
        this.#wakeWaiting();
      },
      log: options.log,
    });
    this.#cautiousUntil = options.quarantine.cautiousUntil;
    this.#router = new TableRouter(this.table, () => performance.now());
    this.#accessLog = openAccessLog(config.proxy, metrics);
    this.#engine = this.#createEngine();
    this.#stale = metrics.gauge("patina_route_stale");
  }

  /** Address of the plain listener, once it listens. */
  get address(): { address: string; port: number } | null {
    return this.#listeners[0]?.address ?? null;
  }

  /** Whether requests are routed; before, they are answered with `ROUTE_NOT_READY`. */
  get isReady(): boolean {
    return this.#router.isReady;
  }

  /** What of the change stream the table has had, and what waits. */
  get feed(): TableFeed {
    return this.#feed;
  }

  /** Says whether the table may be older than what the replica could know. */
  setStale(isStale: boolean): void {
    this.#stale.set(isStale ? 1 : 0);
  }

  /** Says that the table holds everything there is to know for now. */
  setReady(): void {
    this.#router.isReady = true;
  }

  /**
   * `setReady` once the table holds what the store has committed by now: until then "no such app"
   * would be a lie. Needs `follow` under way; false when the plane was stopped first. With `orHeld` a
   * table that a rebuild keeps as it is will do.
   */
  async becomeReady(store: StoreClient, { orHeld = false } = {}): Promise<boolean> {
    const { dbVersion: target } = await store.stats();
    while (!this.#isStopped) {
      const moved = new Promise<void>((resolve) => this.#waiting.add(resolve));
      if ((orHeld && this.#hold.isOn) || (await this.#isAt(store, target))) {
        this.#feed.membersKnown();
        this.setReady();
        return true;
      }
      await moved;
    }
    return false;
  }

  /** Reads all that listening needs, and takes no traffic yet. Throws `CERTIFICATE_UNREADABLE`. */
  prepare(fds: ListenFds): void {
    const { config, ticketKeys, metrics, log } = this.#options;
    this.#prepared = listenersOf(config.proxy, fds, {
      ticketKeys,
      limits: this.#limits,
      metrics,
      log,
      viaName: viaNameOf(config),
      onProgress: () => this.#options.beat.progress(),
    });
  }

  /** Takes traffic, after `prepare`. Rejects with `LISTEN_FAILED`. */
  async listen(): Promise<void> {
    for (const one of this.#prepared ?? []) {
      this.#listeners.push(await createHttpListener({ ...one, engine: this.#engine }));
    }
  }

  /** Takes over what is kept out of the table; a refeed has all rows come again. */
  setQuarantine(state: QuarantineState, isRefeed: boolean): void {
    this.#feed.setQuarantine(state);
    if (!isRefeed) return;
    this.#isRefeedAsked = true;
    void this.#stream?.return?.();
  }

  /** Follows the change stream from where the table is, until the store closes, `pause` or `drain`. */
  async follow(store: StoreClient): Promise<void> {
    const { log } = this.#options;
    this.#isPaused = false;
    let from = this.#isRefeedAsked ? null : this.#feed.startFrom(store.actorId);
    try {
      for (;;) {
        await this.#followFrom(store, from);
        if (this.#isStopped || this.#isPaused || !this.#isRefeedAsked) return;
        from = null;
      }
    } catch (error) {
      if (this.#isStopped || this.#isPaused) return;
      log.error("change-stream-ended", errorText(error));
      throw error;
    }
  }

  /** Leaves the change stream; requests go on being routed by the table as it is. */
  async pause(): Promise<void> {
    this.#isPaused = true;
    this.#hold.stop();
    await this.#stream?.return?.();
  }

  /** Takes over certificates whose files changed, sooner than the listeners would by themselves. */
  refreshCertificates(): void {
    for (const listener of this.#listeners) listener.refreshCertificates();
  }

  /** A round trip to another replica's host. */
  sampleRtt(actorId: ActorId, rttMs: number): void {
    this.table.sampleRtt({ actorId }, rttMs);
  }

  /** SWIM's word on another replica's host. */
  setHostDown(actorId: ActorId, isDown: boolean): void {
    this.table.setHostDown(actorId, isDown);
    this.#feed.setUp(actorId, !isDown);
  }

  /**
   * Finishes what is in flight and stops; the answer is how many connections were cut. Clients have
   * `proxy.drain_wait_ms` to come with a next request, whose answer tells them to go elsewhere:
   * closing an idle connection at once would meet requests that are on their way.
   */
  async drain(deadlineMs: number): Promise<number> {
    this.#isStopped = true;
    this.#feed.stop();
    this.#hold.stop();
    this.#wakeWaiting();
    // Its port would keep a thread alive.
    await this.#stream?.return?.();
    this.#options.beat.enter("drain");
    this.#engine.startDraining();
    const waitMs = Math.min(this.#options.config.proxy.drain_wait_ms, deadlineMs);
    const isQuiet = this.#engine.connectionCount === 0;
    if (!isQuiet) await new Promise((resolve) => setTimeout(resolve, waitMs));
    for (const listener of this.#listeners) listener.stop();
    const cut = await this.#engine.drain(isQuiet ? deadlineMs : deadlineMs - waitMs);
    for (const listener of this.#listeners) await listener.close();
    await this.#accessLog?.close();
    return cut;
  }

  /**
   * Whether nothing that the table is made of was committed between its watermark and `target`. The
   * stream says nothing of other tables' rows, so a watermark below may be as good: asked for from
   * there, the store has nothing to send.
   */
  async #isAt(store: StoreClient, target: number): Promise<boolean> {
    const from = this.#feed.isResetting ? null : this.#feed.watermark;
    if (from === null) return false;
    if (from.dbVersion >= target) return true;
    for await (const event of store.changes({ from, tables: TABLE_NAMES })) {
      return event.kind === "caughtUp";
    }
    return false;
  }

  async #followFrom(store: StoreClient, from: Watermark | null): Promise<void> {
    this.#isRefeedAsked = false;
    const stream = store.changes({ from, tables: TABLE_NAMES });
    this.#stream = stream;
    for await (const event of stream) {
      if (this.#isStopped || this.#isPaused || this.#isRefeedAsked) return;
      for (const part of this.#partsOf(event).flatMap((one) => this.#hold.take(one))) {
        this.#feed.apply(part);
        // Rows taken one by one are many turns: requests come in between.
        if (part !== event) await new Promise((resolve) => setImmediate(resolve));
      }
      this.#endCaution(event);
      this.#wakeWaiting();
    }
  }

  /** A batch that may hold what stalled the table is taken row by row: a stall names the row. */
  #partsOf(event: ChangeStreamEvent): readonly ChangeStreamEvent[] {
    const isCautious = this.#cautiousUntil !== null && !this.#feed.isFrozen;
    if (!isCautious || event.kind !== "rows") return [event];
    return event.rows.map((row) => ({ ...event, rows: [row] }));
  }

  #endCaution(event: ChangeStreamEvent): void {
    const until = this.#cautiousUntil;
    if (until === null || this.#feed.isFrozen || event.kind === "reset") return;
    const isThrough = until > 0 && event.watermark.dbVersion >= until;
    if (!isThrough && event.kind !== "caughtUp") return;
    this.#cautiousUntil = null;
    this.#options.events.cautionOver();
  }

  #wakeWaiting(): void {
    for (const wake of this.#waiting) wake();
    this.#waiting.clear();
  }

  #createEngine(): Engine {
    const { config, metrics, beat } = this.#options;
    const { proxy, fault } = config;
    const log = this.#accessLog;
    const observer = new EngineMetrics(metrics, {
      turnStarted: (turn) => noteRequest(beat, turn),
      turnEnded: () => beat.done(),
      progressed: () => beat.progress(),
      accessLog: log === null ? undefined : (summary) => log.write(summary),
    });
    const delay = tcpDelays(fault);
    return createEngine({
      router: withFaultPaths(this.#router, fault, this.#options.loop),
      observer,
      places: this.#limits.waiting,
      bodyPlaces: this.#limits.keptBodies,
      retryCell: this.#limits.retryCell,
      connectionCounts: this.#connectionCounts,
      forwarding: {
        viaName: viaNameOf(config),
        isTrusted: addressTest(proxy.trusted_proxies) ?? (() => false),
        writesForwarded: proxy.forwarded_header,
        startsTraces: proxy.traceparent === "start",
      },
      times: {
        connectMs: proxy.connect_timeout_ms,
        connectTotalMs: proxy.connect_total_timeout_ms,
        stalledBodyMs: proxy.body_timeout_ms,
        queueMs: proxy.queue_timeout_ms,
        tunnelIdleMs: proxy.tunnel_idle_timeout_ms,
        upstreamIdleMs: proxy.upstream_idle_timeout_ms,
        responseHeadMs: proxy.response_timeout_ms,
        clientIdleMs: proxy.idle_timeout_ms,
        requestHeadMs: proxy.head_timeout_ms,
      },
      sizes: {
        attemptsMax: proxy.attempts_max,
        headBytesMax: proxy.head_bytes_max,
        headerLinesMax: proxy.header_lines_max,
        targetBytesMax: proxy.target_bytes_max,
        bodyBytesMax: proxy.body_bytes_max,
        bodyBytesPerSecondMin: proxy.body_bytes_per_second_min,
        keptBodyBytesMax: proxy.kept_body_bytes_max,
        responseBytesPerSecondMin: proxy.response_bytes_per_second_min,
        openPerUpstreamMax: proxy.upstream_connections_max,
        idlePerUpstreamMax: proxy.upstream_idle_connections_max,
        retryShare: proxy.retry_share,
        retriesPerSecond: proxy.retries_per_second,
        threads: proxy.threads,
        requestsPerConnectionMax: proxy.requests_per_connection_max,
      },
      ...(delay ? { delay } : {}),
      ...(proxy.upstream_tls.ca_file === undefined && proxy.upstream_tls.server_name === undefined
        ? {}
        : { upstreamTls: upstreamTlsOf(proxy.upstream_tls) }),
    });
  }
}

function openAccessLog(proxy: PatinaConfig["proxy"], metrics: MetricWriter): AccessLog | null {
  const { access_log: path, access_log_format: format } = proxy;
  if (path === undefined) return null;
  const dropped = metrics.counter("patina_log_lines_dropped_total");
  return new AccessLog({ path, format, onDropped: (lines) => dropped.add(lines) });
}

function viaNameOf({ proxy, replica }: PatinaConfig): string {
  return proxy.via ?? `patina-${replica.node}`;
}

function standpointOf(replica: PatinaConfig["replica"]) {
  const { region, latitude, longitude } = replica;
  return latitude === undefined || longitude === undefined
    ? { region }
    : { region, coordinates: { latitude, longitude } };
}
