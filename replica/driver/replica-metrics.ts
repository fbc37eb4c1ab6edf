/** Carries the replica's counters into shared memory once a second; nothing else reads them. */
import { statSync } from "node:fs";
import type {
  MetricCounter,
  MetricGauge,
  MetricHistogram,
  MetricWriter,
} from "#base/metric-slots.ts";
import type { ReplicaCore } from "../core/replica-core.ts";
import { PATINA_METRICS } from "../metrics.ts";
import type { OpenApi } from "./api/open-api.ts";
import type { QueryResult } from "./api/api-request.ts";
import {
  CORROSION_HISTOGRAMS,
  CORROSION_METRICS,
  type CorrosionFigures,
  type PeerState,
} from "./corrosion-metrics.ts";
import type { QuicTransport } from "./quic/quic-transport.ts";
import type { CertificateWatch } from "./certificates/certificate-watch.ts";
import type { ReplicaDriver } from "./replica-driver.ts";
import type { StoreStats } from "./store/store.ts";

/** Where the figures come from. */
export interface ReplicaMetricSources {
  readonly core: ReplicaCore;
  readonly driver: ReplicaDriver;
  readonly transport: QuicTransport;
  readonly api: OpenApi;
  readonly databasePath: string;
  /** Null = none is watched. */
  readonly certificates: Pick<CertificateWatch, "first"> | null;
}

/** Copies figures into metric slots. */
export class ReplicaMetrics {
  readonly #counters = new Map<string, { counter: MetricCounter; last: number }>();
  readonly #gauges = new Map<string, MetricGauge>();
  readonly #corrosion: ((figures: CorrosionFigures) => void)[];
  /** Observed by whoever measures. */
  readonly rtt: MetricHistogram;
  readonly commitLag: MetricHistogram;
  readonly queryTime: Readonly<Record<QueryResult, MetricHistogram>>;

  constructor(metrics: MetricWriter) {
    this.rtt = metrics.histogram(CORROSION_HISTOGRAMS.rtt);
    this.commitLag = metrics.histogram(CORROSION_HISTOGRAMS.commitLag);
    this.queryTime = {
      success: metrics.histogram(CORROSION_HISTOGRAMS.queryTime, { result: "success" }),
      error: metrics.histogram(CORROSION_HISTOGRAMS.queryTime, { result: "error" }),
    };
    this.#corrosion = CORROSION_METRICS.flatMap(({ name, type, series }) =>
      series.map(([labels, read]) => {
        if (type === "gauge") {
          const gauge = metrics.gauge(name, labels);
          return (figures: CorrosionFigures) => gauge.set(read(figures));
        }
        const entry = { counter: metrics.counter(name, labels), last: 0 };
        return (figures: CorrosionFigures) => raise(entry, read(figures));
      }),
    );
    for (const { name, type } of PATINA_METRICS) {
      if (type === "counter") this.#counters.set(name, { counter: metrics.counter(name), last: 0 });
      else this.#gauges.set(name, metrics.gauge(name));
    }
  }

  /** Takes all figures as they are now. */
  report(sources: ReplicaMetricSources, store: StoreStats | null): void {
    const figures = { ...replicaFigures(sources), ...(store ? storeFigures(store) : {}) };
    for (const [name, value] of Object.entries(figures)) this.#set(`patina_${name}`, value);
    if (store === null) return;
    const corrosion = corrosionFigures(sources, store);
    for (const write of this.#corrosion) write(corrosion);
  }

  #set(name: string, value: number): void {
    const entry = this.#counters.get(name);
    if (entry) raise(entry, value);
    else this.#gauges.get(name)?.set(value);
  }
}

/** A counter that is a copy of another, whose last value was `entry.last`. */
function raise(entry: { readonly counter: MetricCounter; last: number }, value: number): void {
  entry.counter.add(Math.max(0, value - entry.last));
  entry.last = value;
}

/** Those of Patina's own figures that the core counts by itself, without `patina_`. */
export function coreFigures(core: ReplicaCore): Record<string, number> {
  const swim = core.swim.stats;
  const broadcast = core.broadcast.stats;
  const sync = core.syncClient.stats;
  const { brakes } = core;
  return {
    swim_members: core.swim.clusterSize,
    swim_awareness: core.swim.awareness,
    swim_packets_received_total: swim.packetsReceived,
    swim_packets_sent_total: swim.packetsSent,
    swim_probes_failed_total: swim.probesFailed,
    swim_refutations_total: swim.refutations,
    swim_renewals_total: swim.renewals,
    broadcast_frames_sent_total: broadcast.framesSent,
    broadcast_sent_bytes_total: broadcast.bytesSent,
    broadcast_urgent_sent_total: broadcast.urgentFramesSent,
    broadcast_news_total: core.stats.news,
    broadcast_duplicates_total: core.stats.known,
    broadcast_rate_limited_total: broadcast.rateLimited,
    broadcast_dropped_total: broadcast.dropped,
    brake_origins: brakes.origins.length,
    brake_rows: brakes.rows,
    brake_held_rows_total: brakes.stats.rowsHeld,
    brake_coalesced_rows_total: brakes.stats.rowsCoalesced,
    brake_left_to_sync_rows_total: brakes.stats.rowsLeftToSync,
    uplink_swim_bytes_total: core.uplink.stats.swimBytes,
    uplink_sync_bytes_total: core.uplink.stats.syncBytes,
    uplink_sync_waits_total: core.uplink.stats.syncHeldBack,
    sync_rounds_total: sync.rounds,
    sync_sessions_total: sync.sessions,
    sync_sessions_failed_total: sync.sessionsFailed,
    sync_versions_received_total: sync.versionsReceived,
    sync_needs_versions: lackingVersions(core),
    inbox_changesets: core.inboxSize,
    changesets_refused_total: core.stats.refused + sync.changesetsRefused,
    changesets_unreadable_total: sync.changesetsUnreadable,
    set_aside_versions: core.syncClient.setAside.size,
    books_origins: core.books.actorCount,
    strangers_refused_total: core.admission.refused,
    clock_skews_total: core.stats.clockSkews,
  };
}

/** What Corrosion's figures are read from, as far as it is the core's. */
export function coreCorrosionFigures(
  core: ReplicaCore,
): Pick<CorrosionFigures, "core" | "inbox" | "queue" | "broadcast" | "gaps"> {
  return {
    core,
    inbox: core.inboxStats,
    queue: core.syncClient.queueStats,
    broadcast: core.broadcast.stats,
    gaps: gapsByState(core),
  };
}

function replicaFigures(sources: ReplicaMetricSources): Record<string, number> {
  const { core, driver, transport, api } = sources;
  return {
    ...coreFigures(core),
    sync_streams: driver.syncStreams,
    hostile_packets_total:
      driver.stats.badPackets + driver.stats.badFrames + driver.syncStats.badFrames,
    store_busy_total: driver.stats.storeBusy,
    store_failures_total: driver.stats.storeFailed,
    gossip_certificate_expiry_seconds: Math.round(
      (sources.certificates?.first?.expiresAtMs ?? 0) / 1000,
    ),
    api_certificate_expiry_seconds: Math.round((api.certificate?.expiresAtMs ?? 0) / 1000),
    quic_packets_sent_total: transport.stats.packetsSent,
    quic_packets_received_total: transport.stats.packetsReceived,
    quic_sent_bytes_total: transport.stats.bytesSent,
    quic_received_bytes_total: transport.stats.bytesReceived,
    quic_dials_failed_total: transport.stats.dialsFailed,
    quic_datagrams_dropped_total: transport.stats.datagramsDropped,
    api_requests_total: api.server.stats.requests,
    api_refused_total: api.server.stats.refused + api.server.stats.shed,
  };
}

function storeFigures(store: StoreStats): Record<string, number> {
  return {
    store_kept_aside_changes: store.kept.changes,
    store_kept_aside_bytes: store.kept.bytes,
    store_cut_versions: store.kept.versionsCut,
    store_kept_aside_refused_total: store.apply.keptRefused,
    store_rows_changed_total: store.apply.rowsChanged,
    store_slices_over_total: store.apply.slicesOverBudget,
    store_checkpoints_total: store.checkpoints.done,
    store_checkpoints_failed_total: store.checkpoints.failed,
    store_log_syncs_total: store.logSyncs,
    store_queue_requests: store.queued,
    store_writable: store.fault === null ? 1 : 0,
    store_db_version: store.dbVersion,
    store_stream_resets_total: store.stream.resets,
  };
}

function corrosionFigures(sources: ReplicaMetricSources, store: StoreStats): CorrosionFigures {
  const { core, databasePath } = sources;
  return {
    ...sources,
    ...coreCorrosionFigures(core),
    store,
    databaseBytes: bytesOf(databasePath),
    logBytes: bytesOf(`${databasePath}-wal`),
  };
}

function gapsByState(core: ReplicaCore): Record<PeerState, number> {
  const gaps = { Alive: 0, Suspect: 0, Down: 0, orphan: 0 };
  for (const actorId of core.books.actors()) {
    const missing = core.books.missingVersions(actorId);
    if (missing > 0) gaps[STATE_NAMES[core.swim.memberById(actorId)?.state ?? "none"]] += missing;
  }
  return gaps;
}

function bytesOf(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0;
}

/** Versions that are known of and not known whole, over all actors: missing, or in part. */
export function lackingVersions(core: ReplicaCore): number {
  let lacking = 0;
  for (const actorId of core.books.actors()) lacking += core.books.lackingVersions(actorId);
  return lacking;
}

/** Versions that are known of and missing, over all actors; partial ones are not counted. */
export function missingVersions(core: ReplicaCore): number {
  let missing = 0;
  for (const actorId of core.books.actors()) missing += core.books.missingVersions(actorId);
  return missing;
}

const STATE_NAMES = { alive: "Alive", suspect: "Suspect", down: "Down", none: "orphan" } as const;
