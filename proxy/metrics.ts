/**
 * Every metric of the data plane, with its help text. The replica's are in `replica/metrics.ts`, the
 * watchdog's own beside its thread. Labels have bounded values: no app, host or path is ever one.
 */
import type { MetricDeclaration } from "#base/metric-slots.ts";
import { PROXY_ERRORS } from "./errors.ts";
import type { AttemptResult } from "./types.ts";

/** Results of upstream attempts, as label values. */
export const ATTEMPT_RESULTS: readonly AttemptResult[] = [
  "answered",
  "aborted",
  "connect-failed",
  "connect-timeout",
  "reset-before-response",
  "reset-mid-response",
  "bad-response",
  "timeout",
];

/** Classes of statuses sent to clients; `none` = the client went away first. */
export const STATUS_CLASSES = ["1xx", "2xx", "3xx", "4xx", "5xx", "none"] as const;

/** Why a pick went where it went. */
export const PICK_REASONS = ["nearest", "spill", "overSoft", "lastResort", "none"] as const;

/** Bounds after OpenTelemetry's `http.server.request.duration`, with finer ones for a fast path. */
const DURATION_BUCKETS = [
  0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10,
];

/** Declared metrics of the data plane. */
export const PROXY_METRICS: readonly MetricDeclaration[] = [
  {
    name: "patina_http_requests_total",
    help: "Requests finished, by class of the status sent.",
    type: "counter",
    labels: { code_class: [...STATUS_CLASSES] },
  },
  {
    name: "patina_http_errors_total",
    help: "Requests that ended in an error of the edge's own, by its code.",
    type: "counter",
    labels: { code: Object.keys(PROXY_ERRORS) },
  },
  {
    name: "patina_http_request_duration_seconds",
    help: "First byte of the request head to the end of the answer.",
    type: "histogram",
    buckets: DURATION_BUCKETS,
  },
  {
    name: "patina_http_received_bytes_total",
    help: "Request bytes read from clients, heads included.",
    type: "counter",
  },
  {
    name: "patina_http_sent_bytes_total",
    help: "Response bytes written to clients, heads included.",
    type: "counter",
  },
  {
    name: "patina_http_connections",
    help: "Client connections that are open.",
    type: "gauge",
  },
  {
    name: "patina_http_proxy_headers_refused_total",
    help: "Connections closed for want of a PROXY protocol header.",
    type: "counter",
  },
  {
    name: "patina_data_plane_replacements_total",
    help: "Data-plane threads that ended and were replaced alone, by what ended them.",
    type: "counter",
    labels: { cause: ["crash", "stall"] },
  },
  {
    name: "patina_log_lines_dropped_total",
    help: "Lines of the access log that were lost because the disk was too slow, or refused.",
    type: "counter",
  },
  {
    name: "patina_http_queued_requests",
    help: "Requests that wait because every machine is at its hard limit.",
    type: "gauge",
  },
  {
    name: "patina_http_connections_refused_total",
    help: "Client connections closed as they arrived, by the limit that was reached.",
    type: "counter",
    labels: { limit: ["client", "all"] },
  },
  {
    name: "patina_tls_handshakes_total",
    help: "TLS handshakes of clients, by how they went.",
    type: "counter",
    labels: { kind: ["full", "resumed", "failed"] },
  },
  {
    name: "patina_tls_certificate_expiry_seconds",
    help: "Unix time at which the first certificate of the HTTPS listener expires; 0 = none.",
    type: "gauge",
    combine: "max",
  },
  {
    name: "patina_tls_reloads_failed_total",
    help: "Changed certificates that could not be taken over.",
    type: "counter",
  },
  {
    name: "patina_http_refusals_total",
    help: "Heads and bodies refused as no valid HTTP, by the side they came from.",
    type: "counter",
    labels: { side: ["client", "upstream"] },
  },
  {
    name: "patina_upstream_attempts_total",
    help: "Attempts on machines, by how they ended.",
    type: "counter",
    labels: { result: [...ATTEMPT_RESULTS] },
  },
  {
    name: "patina_retries_total",
    help: "Attempts after the first of a request.",
    type: "counter",
  },
  {
    name: "patina_route_picks_total",
    help: "Last picks of finished requests, by reason.",
    type: "counter",
    labels: { reason: [...PICK_REASONS] },
  },
  {
    name: "patina_route_machines",
    help: "Machines in the routing table, routable or not.",
    type: "gauge",
    combine: "max",
  },
  {
    name: "patina_route_rows_applied_total",
    help: "Rows of the change stream applied to routing tables.",
    type: "counter",
  },
  {
    name: "patina_route_resets_total",
    help: "Times a routing table's change stream started over.",
    type: "counter",
  },
  {
    name: "patina_route_uncounted_services",
    help: "Services whose requests in flight are not counted, for want of a slot: no limit holds.",
    type: "gauge",
    combine: "max",
  },
  {
    name: "patina_route_stale",
    help: "1 from a start until the replica has caught up: the routing table is the last known one.",
    type: "gauge",
    combine: "max",
  },
  {
    name: "patina_quarantine_holds",
    help: "Changes and origins that are kept out of the routing table because they stalled it.",
    type: "gauge",
    labels: { kind: ["change", "origin"] },
  },
  {
    name: "patina_quarantine_frozen",
    help: "1 while the edge serves from its last known table alone.",
    type: "gauge",
  },
  {
    name: "patina_quarantine_denied_machines",
    help: "Machines and hostnames that take no traffic by changes that the table does not apply.",
    type: "gauge",
    combine: "max",
  },
  {
    name: "patina_canary_changes_total",
    help: "Changes of a shape that the routing table had never applied, by this edge's part in it.",
    type: "counter",
    labels: { role: ["first", "waited"] },
  },
  {
    name: "patina_canary_waiting_changes",
    help: "Changes of unseen shape that wait for two other edges to apply them.",
    type: "gauge",
    combine: "max",
  },
  {
    name: "patina_quarantine_notices_total",
    help: "Notices of changes that stalled an edge: sent by this one, taken of others, taken back by them, or dropped.",
    type: "counter",
    labels: { result: ["sent", "taken", "retracted", "forged", "expired", "otherBuild"] },
  },
  {
    name: "patina_table_saves_total",
    help: "Files of the routing table written for the next start, by how that went.",
    type: "counter",
    labels: { result: ["done", "failed"] },
  },
  {
    name: "patina_route_watermark",
    help: "Position in the change stream up to which the routing table is.",
    type: "gauge",
    combine: "max",
  },
];
