/**
 * Metrics under Corrosion's names (protocol reference, section 8.4), so that dashboards made for
 * Corrosion go on working. One table: what Corrosion calls it, and which of our figures it is.
 *
 * A name is here only where we count the same events; labels have Corrosion's names and values. Those
 * whose values would be tables or queries are left out, as no label of ours is ever unbounded. What
 * is not here, and why, stands in docs/corrosion-compatibility.md.
 */
import type { MetricDeclaration, MetricLabels } from "#base/metric-slots.ts";
import type { PlumtreeStats } from "../core/broadcast/plumtree-types.ts";
import type { BroadcastStats } from "../core/broadcast/types.ts";
import type { ReplicaCore } from "../core/replica-core.ts";
import type { ApplyQueueStats } from "../core/replica-stats.ts";
import type { OpenApi } from "./api/open-api.ts";
import type { ZstdStats } from "./compression/zstd.ts";
import type { QuicTransport } from "./quic/quic-transport.ts";
import type { ReplicaDriver } from "./replica-driver.ts";
import type { StoreStats } from "./store/store.ts";

/** What the figures are read from; one moment's. */
export interface CorrosionFigures {
  readonly core: ReplicaCore;
  readonly driver: ReplicaDriver;
  readonly transport: QuicTransport;
  readonly api: OpenApi;
  readonly store: StoreStats;
  readonly inbox: ApplyQueueStats & { readonly dropped: number };
  readonly queue: ApplyQueueStats;
  readonly broadcast: BroadcastStats;
  /** Versions that are missing, by what SWIM says of their actor. */
  readonly gaps: Readonly<Record<PeerState, number>>;
  readonly databaseBytes: number;
  readonly logBytes: number;
}

/** Corrosion's words for what SWIM says of an actor; `orphan` = nothing. */
export const PEER_STATES = ["Alive", "Suspect", "Down", "orphan"] as const;
export type PeerState = (typeof PEER_STATES)[number];

/** One metric with a value or several. */
export interface CorrosionMetric {
  /** Corrosion's name, with underscores for its dots. */
  readonly name: string;
  readonly type: "counter" | "gauge";
  readonly help: string;
  readonly series: readonly Series[];
}

/** Labels of a series, and where it is read; 0 where it does not apply. */
type Series = readonly [labels: MetricLabels, read: Read];
type Read = (figures: CorrosionFigures) => number;

const FOCA = { traffic: "foca" };

/** Corrosion's, in seconds. */
const BUCKETS = [0.001, 0.005, 0.025, 0.05, 0.1, 0.2, 1, 2, 3, 4, 5, 10, 30, 60];

/** Histograms: observed where they happen, in seconds. */
export const CORROSION_HISTOGRAMS = {
  commitLag: "corro_agent_changes_commit_lag_seconds",
  queryTime: "corro_api_queries_processing_time_seconds",
  rtt: "corro_transport_rtt_v2_seconds",
} as const;

/** All but the histograms. */
export const CORROSION_METRICS: readonly CorrosionMetric[] = [
  // Changes from others, on their way to the store.
  counter(
    "corro.agent.changes.recv",
    "Column changes received, copies included; an Empty is one.",
    ({ core }) => core.stats.changesReceived + core.syncClient.stats.changesReceived,
  ),
  counter(
    "corro.agent.changes.dropped",
    "Changesets dropped because too many waited.",
    ({ inbox }) => inbox.dropped,
  ),
  gauge(
    "corro.agent.changes.in_queue",
    "Column changes that wait for the store.",
    both("waitingChanges"),
  ),
  gauge("corro.agent.changesets.in_queue", "Changesets that wait for the store.", both("waiting")),
  counter("corro.agent.changes.batch.spawned", "Batches given to the store.", both("batches")),
  counter(
    "corro.agent.changes.processing.started",
    "Changesets given to the store.",
    both("changesets"),
  ),
  gauge(
    "corro.agent.changes.processing.jobs",
    "Batches that the store works on.",
    both("inFlight"),
  ),
  counter("corro.changes.committed", "Column changes committed.", [
    [{ source: "local" }, ({ driver }) => driver.stats.localChanges],
    [{ source: "remote" }, ({ store }) => store.apply.rowsChanged],
  ]),

  // HTTP API.
  counter(
    "corro.api.connection.count",
    "Transactions asked for.",
    only({ protocol: "http" }, ({ api }) => api.server.stats.transactions),
  ),
  counter("corro.api.queries.count", "Queries asked for.", ({ api }) => api.server.stats.queries),
  gauge("corro.api.active.streams", "Answers that are being streamed.", [
    [{ source: "queries", protocol: "http" }, ({ api }) => api.queries.stats.open],
    [
      { source: "subscriptions", protocol: "http" },
      ({ api }) => api.streams.streamCount - api.streams.updatesCount,
    ],
    [{ source: "updates", protocol: "http" }, ({ api }) => api.streams.updatesCount],
  ]),

  counter("corro.sqlite.interrupt", "Queries and transactions whose time was up.", [
    [{ source: "query", reason: "timeout" }, ({ api }) => api.queries.stats.timeouts],
    [{ source: "query_endpoint", reason: "timeout" }, ({ store }) => store.timeouts],
  ]),

  // Broadcast.
  counter(
    "corro.broadcast.recv.count",
    "Broadcast changesets that were not among the latest ones.",
    only({ kind: "change" }, ({ core: { stats } }) => stats.news + stats.known - stats.knownLately),
  ),
  counter("corro.broadcast.duplicate.count", "Broadcast changesets that were known.", [
    [{ from: "bookie" }, ({ core: { stats } }) => stats.known - stats.knownLately],
    [{ from: "cache" }, ({ core: { stats } }) => stats.knownLately],
  ]),
  counter(
    "corro.broadcast.dropped",
    "Changesets given up on; sync carries them.",
    ofMethod("gossip", "dropped"),
  ),
  counter(
    "corro.broadcast.rate_limited",
    "Times the byte budget held something back.",
    ofMethod("gossip", "rateLimited"),
  ),
  gauge(
    "corro.broadcast.processing.jobs",
    "Transmissions under way.",
    ofMethod("gossip", "inFlight"),
  ),
  counter(
    "corro.compression.attempts.total",
    "Changes that were compressed on trial.",
    byTraffic("attempts"),
  ),
  counter("corro.compression.bytes.raw.total", "Bytes of these before.", byTraffic("rawBytes")),
  counter(
    "corro.compression.used.total",
    "Of these, changes that travelled compressed.",
    byTraffic("used"),
  ),
  counter(
    "corro.compression.bytes.saved",
    "Bytes that these were smaller by.",
    byTraffic("savedBytes"),
  ),
  counter(
    "corro.compression.useless",
    "Bytes of those that did not get smaller.",
    byTraffic("uselessBytes"),
  ),
  counter(
    "corro.compression.errors.total",
    "Changes that could not be compressed.",
    byTraffic("failed"),
  ),
  counter(
    "corro.decompression.bytes.extra",
    "Bytes that received changes were larger by once decompressed.",
    ({ driver: { zstd } }) => zstd.stats.broadcast.extraBytes + zstd.stats.sync.extraBytes,
  ),
  counter(
    "corro.decompression.errors.total",
    "Compressed changes that could not be read.",
    byTraffic("undecodable"),
  ),

  // Plumtree.
  gauge("corro.plumtree.eager_peers", "Peers that get changes at once.", ofTree("eagerPeers")),
  gauge("corro.plumtree.lazy_peers", "Peers that get announcements.", ofTree("lazyPeers")),
  gauge("corro.plumtree.known_peers", "Peers of the cluster.", ofTree("knownPeers")),
  gauge("corro.plumtree.payload_cache_size", "Changes kept for Grafts.", ofTree("cacheEntries")),
  gauge("corro.plumtree.seen_cache_size", "Changes remembered as received.", ofTree("seenEntries")),
  gauge(
    "corro.plumtree.lazy_queue",
    "Announcements that wait for their tick.",
    ofTree("lazyQueued"),
  ),
  counter("corro.plumtree.messages", "Plumtree messages received.", [
    [{ msg_type: "gossip" }, ofTree("gossipReceived")],
    [{ msg_type: "i_have" }, ofTree("iHavesReceived")],
    [{ msg_type: "graft" }, ofTree("graftsReceived")],
    [{ msg_type: "prune" }, ofTree("prunesReceived")],
  ]),
  counter(
    "corro.plumtree.duplicate_message",
    "Copies received.",
    ofMethod("plumtree", "duplicates"),
  ),
  counter(
    "corro.plumtree.message_missing",
    "Announced changes that nobody gave.",
    ofTree("givenUp"),
  ),
  counter(
    "corro.plumtree.payload_not_cached",
    "Grafts for what was not kept.",
    ofTree("payloadNotCached"),
  ),
  counter(
    "corro.plumtree.peer_to_eager",
    "Peers that became eager by a message.",
    ofTree("promotions"),
  ),
  counter(
    "corro.plumtree.peer_to_lazy",
    "Peers that became lazy by a message.",
    ofTree("demotions"),
  ),
  counter("corro.plumtree.prune_suppressed", "Prunes held back.", ofTree("pruneSuppressed")),
  counter(
    "corro.plumtree.rebalance.total",
    "Times that peers were chosen anew.",
    ofTree("rebalances"),
  ),
  counter(
    "corro.plumtree.send.spawn",
    "Transmissions begun.",
    ofMethod("plumtree", "transmissions"),
  ),
  counter("corro.plumtree.send.dropped", "Messages given up on.", ofMethod("plumtree", "dropped")),
  counter(
    "corro.plumtree.send.rate_limited",
    "Times the byte budget held back.",
    ofMethod("plumtree", "rateLimited"),
  ),

  // Membership.
  gauge("corro.gossip.members", "Other members that are active.", activeMembers),
  gauge(
    "corro.gossip.member.states",
    "Members with a record, down ones included.",
    ({ core }) => core.swim.records.length,
  ),
  gauge("corro.gossip.cluster_size", "Members by which SWIM sets its times.", (figures) =>
    Math.max(1, activeMembers(figures)),
  ),
  gauge(
    "corro.gossip.updates_backlog",
    "News about members that is still spread.",
    ({ core }) => core.swim.gossip.waiting,
  ),
  gauge(
    "corro.gossip.config.max_transmissions",
    "How often each such news is sent.",
    ({ core }) => core.swim.gossip.transmissionsMax,
  ),
  gauge(
    "corro.gossip.config.num_indirect_probes",
    "Members asked to probe for us.",
    ({ core }) => core.swim.gossip.indirectProbes,
  ),
  counter(
    "corro.gossip.member.added",
    "Members that came up.",
    only({ traffic: "foca" }, ({ driver }) => driver.stats.swim.memberUp),
  ),
  counter(
    "corro.gossip.member.removed",
    "Members that went down or left.",
    only({ traffic: "foca", kind: "member_down" }, ({ driver }) => driver.stats.swim.memberDown),
  ),
  counter("corro.swim.notification", "What SWIM told of members and of ourselves.", [
    [{ type: "memberup" }, ({ driver }) => driver.stats.swim.memberUp],
    [{ type: "memberdown" }, ({ driver }) => driver.stats.swim.memberDown],
    [{ type: "active" }, ({ driver }) => driver.stats.swim.connected],
    [{ type: "idle" }, ({ driver }) => driver.stats.swim.disconnected],
    [{ type: "rejoin" }, ({ driver }) => driver.stats.swim.rejoined],
  ]),

  // Sync.
  counter(
    "corro.sync.client.member",
    "Servers that said what they have.",
    only({ traffic: "sync" }, ({ core }) => core.syncClient.stats.serversCompared),
  ),
  gauge(
    "corro.sync.client.needed.v2",
    "Versions that are missing.",
    only({ traffic: "sync" }, missing),
  ),
  counter(
    "corro.sync.client.req.sent",
    "Needs asked for: a range of versions each, or part of one.",
    only({ traffic: "sync" }, ({ core }) => core.syncClient.stats.needsSent),
  ),
  counter(
    "corro.sync.client.handshake.errors",
    "Sessions that ended before the server had said what it has.",
    only(
      { traffic: "sync", kind: "handshake" },
      ({ core }) => core.syncClient.stats.handshakesFailed,
    ),
  ),
  counter(
    "corro.sync.requests.recv",
    "Needs that clients asked for.",
    only({ traffic: "sync" }, ({ core }) => core.syncServer.stats.needsReceived),
  ),
  counter(
    "corro.sync.changes.recv",
    "Column changes received by sync; an Empty is one.",
    only({ traffic: "sync" }, ({ core }) => core.syncClient.stats.changesReceived),
  ),
  counter(
    "corro.sync.changes.sent",
    "Column changes sent by sync; an Empty is one.",
    only({ traffic: "sync" }, ({ core }) => core.syncServer.stats.changesSent),
  ),
  counter(
    "corro.sync.chunk.recv.bytes",
    "Bytes of sync messages received.",
    ({ driver }) => driver.syncStats.receivedBytes,
  ),
  counter(
    "corro.sync.chunk.sent.bytes",
    "Bytes of sync messages sent.",
    ({ driver }) => driver.syncStats.sentBytes,
  ),

  // Transport.
  counter(
    "corro.peer.connection.accept.total",
    "Connections accepted.",
    ({ transport }) => transport.stats.handshakesAccepted,
  ),
  counter("corro.peer.stream.accept.total", "Streams that peers opened.", [
    [{ type: "uni" }, ({ transport }) => transport.stats.uniStreamsAccepted],
    [{ type: "bi" }, ({ transport }) => transport.stats.biStreamsAccepted],
  ]),
  counter(
    "corro.peer.stream.bytes.recv.total",
    "Bytes of messages on unidirectional streams received.",
    only({ type: "uni" }, ({ transport }) => transport.stats.uniBytesReceived),
  ),
  counter(
    "corro.peer.stream.bytes.sent.total",
    "Bytes on unidirectional streams that peers took.",
    only({ traffic: "broadcast" }, ({ transport }) => transport.stats.uniBytesSent),
  ),
  counter(
    "corro.peer.datagram.recv.total",
    "Datagrams received.",
    ({ transport }) => transport.stats.datagramsReceived,
  ),
  counter(
    "corro.peer.datagram.bytes.recv.total",
    "Bytes of datagrams received.",
    ({ transport }) => transport.stats.datagramBytesReceived,
  ),
  counter("corro.peer.datagram.sent.total", "Datagrams sent.", only(FOCA, datagramsSent)),
  counter("corro.peer.datagram.bytes.sent.total", "Bytes of these.", only(FOCA, datagramBytes)),
  gauge(
    "corro.transport.connections",
    "Connections that we made or are making.",
    ({ transport }) => transport.dialledCount,
  ),
  counter("corro.transport.tx.datagrams.v2.total", "Datagrams sent.", only(FOCA, datagramsSent)),
  counter("corro.transport.tx.bytes.v2.total", "Bytes sent, QUIC's own not counted.", [
    [{ traffic: "foca" }, datagramBytes],
    [{ traffic: "broadcast" }, ({ transport }) => transport.stats.uniBytesSent],
    [{ traffic: "sync" }, ({ driver }) => driver.syncStats.sentBytes],
  ]),

  // Database.
  gauge("corro.db.size", "Bytes of the database file.", ({ databaseBytes }) => databaseBytes),
  gauge("corro.db.wal.size", "Bytes of its write-ahead log.", ({ logBytes }) => logBytes),
  gauge("corro.db.freelist.count", "Pages that are free.", ({ store }) => store.freePages),
  gauge(
    "corro.db.gaps.sum",
    "Versions that are missing, by the state of their actor.",
    PEER_STATES.map((state) => [{ peer_state: state }, ({ gaps }) => gaps[state]]),
  ),
];

/** All of them as the slots take them. */
export const CORROSION_DECLARATIONS: readonly MetricDeclaration[] = [
  ...CORROSION_METRICS.map(({ name, type, help, series }) => ({
    name,
    type,
    help,
    labels: labelsOf(series),
  })),
  histogram(CORROSION_HISTOGRAMS.commitLag, "From a commit elsewhere to its commit here."),
  histogram(CORROSION_HISTOGRAMS.queryTime, "From a query to its columns.", {
    result: ["success", "error"],
  }),
  histogram(CORROSION_HISTOGRAMS.rtt, "Round trips to other replicas."),
];

function counter(name: string, help: string, read: Read | readonly Series[]): CorrosionMetric {
  return { name: exported(name), type: "counter", help, series: seriesOf(read) };
}

function gauge(name: string, help: string, read: Read | readonly Series[]): CorrosionMetric {
  return { name: exported(name), type: "gauge", help, series: seriesOf(read) };
}

/** As Corrosion's exporter writes a name. */
function exported(name: string): string {
  return name.replaceAll(".", "_");
}

function seriesOf(read: Read | readonly Series[]): readonly Series[] {
  return typeof read === "function" ? only({}, read) : read;
}

function only(labels: MetricLabels, read: Read): readonly Series[] {
  return [[labels, read]];
}

function histogram(name: string, help: string, labels?: Record<string, readonly string[]>) {
  const given = labels === undefined ? {} : { labels };
  return { name, help, type: "histogram", buckets: BUCKETS, ...given } as const;
}

/** Each label with its values. Ours differ in one label only, so all combinations are series. */
function labelsOf(series: readonly Series[]): Record<string, readonly string[]> {
  const names = Object.keys(series[0]?.[0] ?? {});
  return Object.fromEntries(
    names.map((name) => [name, [...new Set(series.map(([labels]) => labels[name] ?? ""))]]),
  );
}

function both(key: keyof ApplyQueueStats): Read {
  return ({ inbox, queue }) => inbox[key] + queue[key];
}

function byTraffic(key: keyof ZstdStats): readonly Series[] {
  return (["broadcast", "sync"] as const).map((traffic) => [
    { traffic },
    ({ driver }) => driver.zstd.stats[traffic][key],
  ]);
}

function ofTree(key: keyof PlumtreeStats): Read {
  return ({ broadcast }) => broadcast.plumtree?.[key] ?? 0;
}

/** Corrosion counts each method under names of its own. */
function ofMethod(
  method: "gossip" | "plumtree",
  key: Exclude<keyof BroadcastStats, "plumtree">,
): Read {
  return ({ broadcast }) => {
    const used = broadcast.plumtree === undefined ? "gossip" : "plumtree";
    return used === method ? broadcast[key] : 0;
  };
}

function activeMembers({ core }: CorrosionFigures): number {
  return core.swim.members.length;
}

function missing({ gaps }: CorrosionFigures): number {
  return PEER_STATES.reduce((sum, state) => sum + gaps[state], 0);
}

function datagramsSent({ transport }: CorrosionFigures): number {
  return transport.stats.datagramsSent;
}

function datagramBytes({ transport }: CorrosionFigures): number {
  return transport.stats.datagramBytesSent;
}
