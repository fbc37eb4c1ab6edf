/**
 * Every metric of the replica, with its help text. Labels have bounded values: no peer, actor or
 * table is ever one.
 */
import type { MetricDeclaration } from "#base/metric-slots.ts";
import { CORROSION_DECLARATIONS } from "./driver/corrosion-metrics.ts";

function counter(name: string, help: string): MetricDeclaration {
  return { name, help, type: "counter" };
}

function gauge(name: string, help: string): MetricDeclaration {
  return { name, help, type: "gauge" };
}

/** Metrics under names of our own. */
export const PATINA_METRICS: readonly MetricDeclaration[] = [
  gauge("patina_swim_members", "Active members, this replica included."),
  gauge("patina_swim_awareness", "How late this replica is itself: 0 = well, at most 7."),
  counter("patina_swim_packets_received_total", "SWIM packets received."),
  counter("patina_swim_packets_sent_total", "SWIM packets sent."),
  counter("patina_swim_probes_failed_total", "Probes without any ack."),
  counter("patina_swim_refutations_total", "Suspicions of this replica that it refuted."),
  counter("patina_swim_renewals_total", "Identities taken after the first."),
  counter("patina_broadcast_frames_sent_total", "Changesets sent to peers by broadcast."),
  counter("patina_broadcast_sent_bytes_total", "Bytes of changesets sent by broadcast."),
  counter("patina_broadcast_urgent_sent_total", "Changesets sent through the urgent lane."),
  counter("patina_broadcast_news_total", "Received changesets that were news."),
  counter("patina_broadcast_duplicates_total", "Received changesets that were known."),
  counter("patina_broadcast_rate_limited_total", "Times the byte budget held broadcasts back."),
  counter("patina_broadcast_dropped_total", "Changesets given up on; sync carries them."),
  gauge(
    "patina_brake_origins",
    "Origins whose changes this replica broadcasts slower than they come.",
  ),
  gauge("patina_brake_rows", "Changed rows that wait for their turn."),
  counter("patina_brake_held_rows_total", "Changed rows that had to wait."),
  counter("patina_brake_coalesced_rows_total", "Of these, overwritten before they left."),
  counter("patina_brake_left_to_sync_rows_total", "Of these, given up: sync carries them."),
  counter("patina_uplink_swim_bytes_total", "Bytes of SWIM packets sent."),
  counter("patina_uplink_sync_bytes_total", "Bytes of sync messages sent, about."),
  counter("patina_uplink_sync_waits_total", "Times the byte budget held answers of sync back."),
  counter("patina_sync_rounds_total", "Sync rounds begun."),
  counter("patina_sync_sessions_total", "Sync sessions begun as the asking side."),
  counter("patina_sync_sessions_failed_total", "Of these, sessions that broke."),
  counter("patina_sync_versions_received_total", "Versions received by sync."),
  gauge("patina_sync_streams", "Sync streams open, both roles."),
  gauge("patina_sync_needs_versions", "Versions known of and missing here, or here in part."),
  gauge("patina_inbox_changesets", "Changesets received by broadcast and not applied yet."),
  counter("patina_changesets_refused_total", "Changesets the store refused."),
  counter("patina_changesets_unreadable_total", "Answers of sync with a value that is none."),
  gauge(
    "patina_set_aside_versions",
    "Versions that came, could not be taken and are asked seldom.",
  ),
  gauge("patina_books_origins", "Actors of whose changes anything is known."),
  counter("patina_strangers_refused_total", "Changes and heads of actors that found no place."),
  counter("patina_clock_skews_total", "Stamps over 300 ms ahead of this host's clock."),
  counter("patina_hostile_packets_total", "Packets and frames that could not be read."),
  counter("patina_quic_packets_sent_total", "UDP packets sent."),
  counter("patina_quic_packets_received_total", "UDP packets received."),
  counter("patina_quic_sent_bytes_total", "UDP payload bytes sent."),
  counter("patina_quic_received_bytes_total", "UDP payload bytes received."),
  counter("patina_quic_dials_failed_total", "Connections that could not be made."),
  counter("patina_quic_datagrams_dropped_total", "Datagrams not sent for want of a connection."),
  counter("patina_store_rows_changed_total", "Rows that merges of remote changes changed."),
  counter(
    "patina_store_slices_over_total",
    "Single versions that took longer than an apply slice.",
  ),
  gauge("patina_store_kept_aside_changes", "Changes that wait for a table or column to come."),
  gauge("patina_store_kept_aside_bytes", "What they take in the database."),
  gauge("patina_store_cut_versions", "Versions stored without changes that found no room there."),
  counter("patina_store_kept_aside_refused_total", "Of these, changes that did not fit it."),
  gauge(
    "patina_gossip_certificate_expiry_seconds",
    "Unix time at which the first of the gossip's certificates and authorities expires; 0 = none.",
  ),
  counter("patina_store_busy_total", "Requests the busy store turned away; repeated."),
  counter("patina_store_failures_total", "Requests the store failed: disk full, file damaged."),
  gauge("patina_store_writable", "0 while the disk is full or the file cannot be written."),
  counter("patina_store_checkpoints_total", "Checkpoints of the database's write-ahead log."),
  counter("patina_store_checkpoints_failed_total", "Checkpoints the disk could not take."),
  counter("patina_store_log_syncs_total", "Times that what peers are told waited for the disk."),
  gauge("patina_store_queue_requests", "Requests waiting in the store worker."),
  gauge("patina_store_db_version", "cr-sqlite's local version: position of the change stream."),
  counter("patina_store_stream_resets_total", "Change streams that had to start over."),
  counter("patina_checkpoints_taken_total", "Checkpoints taken on schedule."),
  counter("patina_checkpoints_failed_total", "Checkpoints that could not be taken or kept."),
  counter("patina_checkpoint_boots_total", "Starts from a checkpoint."),
  counter("patina_checkpoint_boots_failed_total", "Starts without one that was there."),
  gauge(
    "patina_checkpoint_newest_timestamp_seconds",
    "When the newest checkpoint in the target was taken, since 1970; 0 = not known.",
  ),
  gauge("patina_checkpoint_newest_bytes", "Size of the last checkpoint that was taken here."),
  gauge("patina_corrosion_followed_tables", "Queries of another engine that are live."),
  counter("patina_corrosion_changes_total", "Changes of rows that another engine told."),
  counter(
    "patina_corrosion_failures_total",
    "Streams and questions to another engine that failed.",
  ),
  gauge(
    "patina_api_certificate_expiry_seconds",
    "Unix time at which the certificate of the API expires; 0 = it has none.",
  ),
  counter("patina_api_requests_total", "Requests of the HTTP API."),
  counter("patina_api_refused_total", "Of these, refused: bad, unauthorised or in conflict."),
];

/** Declared metrics of the replica. */
export const REPLICA_METRICS: readonly MetricDeclaration[] = [
  ...PATINA_METRICS,
  ...CORROSION_DECLARATIONS,
];
