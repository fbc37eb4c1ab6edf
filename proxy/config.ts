/**
 * The config file as a whole: every section with its defaults, and what an edge needs beyond a
 * replica: `[proxy]`, `[watchdog]`, `[alerts]`, `[telemetry]`, `[log]`, and `[fault]` for faults on purpose.
 */
import { z } from "zod";
import { LEVELS } from "#base/logger.ts";
import {
  adminSection,
  apiSection,
  checkpointsSection,
  consulSection,
  dbSection,
  gossipSection,
  openApiSection,
  perfSection,
  replicaSection,
  type GossipConfig,
} from "../replica/config.ts";
import { hostPort, milliseconds, path, wholeNumber } from "../replica/config-fields.ts";
import { network } from "./listeners/address-list.ts";

/** `[proxy.tls]`: the HTTPS listener. */
const tlsSection = z.strictObject({
  /** Address of the HTTPS listener; absent = none. */
  addr: hostPort.optional(),
  /** Certificates with their keys; the first serves clients that ask for no known name. */
  certificates: z.array(z.strictObject({ cert_file: path, key_file: path })).default([]),
  /** Oldest version spoken. Default 1.2. */
  min_version: z.enum(["1.2", "1.3"]).default("1.2"),
  /** Plain requests are sent on to HTTPS. Default false. */
  redirect_http: z.boolean().default(false),
  /** Port of HTTPS as clients see it, for redirects. Default 443. */
  public_port: z.int().min(1, "1 to 65535").max(65_535, "1 to 65535").default(443),
  /** Strict-Transport-Security on HTTPS responses; 0 = none. */
  hsts_max_age_secs: wholeNumber.default(0),
});

/** `[proxy]`: the HTTP data plane. */
export const proxySection = z.strictObject({
  /** Address of the HTTP listener. Default `0.0.0.0:8080`. */
  http: hostPort.default("0.0.0.0:8080"),
  /** Data-plane threads, the main thread included; each has its own table and socket. */
  threads: z.int().min(1, "at least 1").max(64, "at most 64").default(1),
  /** Name in Via headers, by which loops are seen. Default `patina-` and the node's id. */
  via: z
    .string()
    .regex(/^[A-Za-z0-9._-]+$/, "letters, digits, dots, dashes")
    .optional(),
  /** Peers whose X-Forwarded-*, Forwarded and X-Request-Id are kept. Default: none. */
  trusted_proxies: z.array(network).default([]),
  /** Peers whose connections begin with a PROXY protocol header, v1 or v2. Default: none. */
  proxy_protocol_from: z.array(network).default([]),
  /** Write Forwarded (RFC 7239) beside X-Forwarded-*. Default false. */
  forwarded_header: z.boolean().default(false),
  /** `start` a trace where a request has none, or only `pass` what is there. Default `pass`. */
  traceparent: z.enum(["pass", "start"]).default("pass"),
  /** One TCP connect to a machine. Default 1,000. */
  connect_timeout_ms: milliseconds.default(1_000),
  /** Request sent whole to response head. Default 60,000. */
  response_timeout_ms: milliseconds.default(60_000),
  /** Idle client connection. Default 75,000. */
  idle_timeout_ms: milliseconds.default(75_000),
  /** Head of a request, first byte to last. Default 10,000. */
  head_timeout_ms: milliseconds.default(10_000),
  /** All connect attempts of one request together. Default 5,000. */
  connect_total_timeout_ms: milliseconds.default(5_000),
  /** Nothing of a body moves in its direction. Default 60,000. */
  body_timeout_ms: milliseconds.default(60_000),
  /** A tunnel (WebSocket and the like) without a byte. Default 600,000. */
  tunnel_idle_timeout_ms: milliseconds.default(600_000),
  /** An idle pooled connection to a machine. Default 50,000. */
  upstream_idle_timeout_ms: milliseconds.default(50_000),
  /** Head of a request or response, bytes. Default 32,768. */
  head_bytes_max: z
    .int()
    .min(1_024, "at least 1024")
    .max(1_048_576, "at most 1 MiB")
    .default(32_768),
  /** Header lines of one head. Default 100. */
  header_lines_max: z.int().min(10, "at least 10").max(1_000, "at most 1000").default(100),
  /** Request target, bytes. Default 8,192. */
  target_bytes_max: z.int().min(64, "at least 64").max(65_536, "at most 65536").default(8_192),
  /** Request body, bytes; 0 = any. Default 1 GiB. */
  body_bytes_max: wholeNumber.default(1_073_741_824),
  /** Slowest request body, bytes per second, over half a minute; 0 = any. Default 240. */
  body_bytes_per_second_min: wholeNumber.default(240),
  /** Slowest client that a response waits for, bytes per second, over half a minute; 0 = any. */
  response_bytes_per_second_min: wholeNumber.default(240),
  /** Client connections, in all. Default 20,000. */
  connections_max: z.int().min(1, "at least 1").default(20_000),
  /** Connections of one client address, in all; 0 = any. Default 2,000. */
  connections_per_client_max: wholeNumber.default(2_000),
  /** Requests of one client connection. Default 100,000. */
  requests_per_connection_max: z.int().min(1, "at least 1").default(100_000),
  /** Longest drain at a stop. Default 30,000. */
  drain_timeout_ms: milliseconds.default(30_000),
  /** Of these, time in which connections are still accepted and kept. Default 1,000. */
  drain_wait_ms: wholeNumber.max(86_400_000, "at most a day").default(1_000),
  /** Upstream attempts of one request. Default 4. */
  attempts_max: z.int().min(1, "at least 1").max(20, "at most 20").default(4),
  /** HTTPS. */
  tls: prefaulted(tlsSection),
  /** Machines that speak HTTPS. */
  upstream_tls: prefaulted(
    z.strictObject({
      /** Authority that their certificates must come from. Default: the system's. */
      ca_file: path.optional(),
      /** Name that their certificates must have. Default: the address that was dialled. */
      server_name: z.string().min(1, "a name").optional(),
    }),
  ),
  /** Connections to one machine's service per data-plane thread. Default 10,000. */
  upstream_connections_max: z.int().min(1, "at least 1").default(10_000),
  /** Of these, idle ones that are kept. Default 128. */
  upstream_idle_connections_max: wholeNumber.default(128),
  /** Requests that wait for a machine below its hard limit, in all. Default 1,000. */
  queued_max: wholeNumber.default(1_000),
  /** Longest such wait. Default 5,000. */
  queue_timeout_ms: milliseconds.default(5_000),
  /**
   * Request bodies of idempotent methods up to this size are kept to be sent again; 0 = none. Default
   * 16,384.
   */
  kept_body_bytes_max: wholeNumber.max(1_048_576, "at most 1 MiB").default(16_384),
  /** Such bodies at one time, in all. Default 1,000. */
  kept_bodies_max: wholeNumber.default(1_000),
  /** Repeats of requests that a machine may have acted on, as a share. Default 0.2. */
  retry_share: z.number().min(0, "0 to 1").max(1, "0 to 1").default(0.2),
  /** Such repeats per second that there are anyway. Default 10. */
  retries_per_second: wholeNumber.default(10),
  /** Time between two files of the routing table, from which the next start serves. Default 10,000. */
  table_save_ms: milliseconds.default(1_000),
  /** File for the access log, one JSON line per request; absent = none. */
  access_log: z.string().min(1, "a path").optional(),
  /** `json`, or `common`: the Common Log Format. Default `json`. */
  access_log_format: z.enum(["json", "common"]).default("json"),
});

/** `[watchdog]`: milliseconds a loop may be silent, by phase; then the process is bounced. */
export const watchdogSection = z.strictObject({
  /** Serving. Default 1,000. */
  steady_ms: milliseconds.default(1_000),
  /** Applying changes to the routing table. Default 2,000. */
  apply_ms: milliseconds.default(2_000),
  /** Starting. Default 15,000. */
  boot_ms: milliseconds.default(15_000),
  /** Upper end of the random delay before an accusation. Default 200. */
  jitter_ms: wholeNumber.default(200),
  /** From the end of a data-plane thread until another accepts in its place. Default 1,000. */
  replace_ms: milliseconds.default(1_000),
  /** Silence of the whole process after which the supervisor kills it. Default 10,000. */
  silence_ms: milliseconds.default(10_000),
  /** How long a change that stalled the routing table is kept out of it. Default 3,600,000. */
  quarantine_ms: milliseconds.default(3_600_000),
  /**
   * How long a change of a shape that the table has never applied waits for two other edges to try
   * it; 0 = it does not. Default: thrice the longer of `steady_ms` and `apply_ms`, and 1,000.
   */
  canary_ms: wholeNumber.max(86_400_000, "at most a day").optional(),
  /**
   * How long a change that is not applied yet waits because it stalled one other edge; of two or more
   * until their notices expire; 0 = edges neither warn nor heed. Default 60,000.
   */
  notice_ms: wholeNumber.max(86_400_000, "at most a day").default(60_000),
  /**
   * The fleet's restart budget: edges bounced within `fleet_window_ms` beyond which one more comes up
   * frozen, with its last known table alone; 0 = none does. Default 5.
   */
  fleet_bounces_max: wholeNumber.max(200, "at most 200").default(5),
  /** See `fleet_bounces_max`. Default 60,000. */
  fleet_window_ms: milliseconds.default(60_000),
  /** Allows the faults that end an edge: all of `[fault]` but emulated round trips. Default false. */
  allow_fault_injection: z.boolean().default(false),
  /** Folder for evidence and run-time files. Default: beside the database. */
  state_folder: path.optional(),
});

/** `[alerts]`: what a person must hear of, as lines in the log and posts to a webhook. */
export const alertsSection = z.strictObject({
  /** URL that alerts are posted to as JSON; credentials in it are sent as basic authorization. */
  webhook: z.url({ protocol: /^https?$/, error: "an http or https URL" }).optional(),
  /** One post. Default 5,000. */
  timeout_ms: milliseconds.default(5_000),
  /** Attempts to post one alert. Default 8. */
  attempts_max: z.int().min(1, "at least 1").max(100, "at most 100").default(8),
  /** Before the second attempt, about; doubled for each further one. Default 1,000. */
  retry_first_ms: milliseconds.default(1_000),
  /** Longest time between two attempts. Default 60,000. */
  retry_max_ms: milliseconds.default(60_000),
  /** Alerts that wait for the webhook at most. Default 16. */
  queued_max: z.int().min(1, "at least 1").max(1_000, "at most 1000").default(16),
  /** The same kind about the same subject is one alert for this long. Default 3,600,000. */
  repeat_ms: milliseconds.default(3_600_000),
});

/** `[fault]`: injected faults, refused unless `enabled = true`. For demos and tests. */
export const faultSection = z.strictObject({
  enabled: z.boolean().default(false),
  /** Emulated round trip in ms to the hosts at these gossip addresses. */
  udp_rtt_ms: z.record(hostPort, wholeNumber).default({}),
  /** Emulated round trip in ms to machines at these `host:port` addresses. */
  tcp_rtt_ms: z.record(hostPort, wholeNumber).default({}),
  /** Applying a row that has this value blocks the loop for ever; see `watchdog.allow_fault_injection`. */
  stall_row: z
    .strictObject({
      table: z.string().min(1, "a table"),
      column: z.string().min(1, "a column"),
      value: z.string(),
      /** Where and how: see docs/faults.md. */
      at: z.enum(["apply", "rebuild", "throw", "deadlock", "slow", "memory"]).default("apply"),
    })
    .optional(),
  /** Path of a request that blocks the data plane's loop for ever. */
  stall_path: z.string().startsWith("/", "a path from /").optional(),
  /** Path of a request after which the data plane's loop turns for ever without getting anywhere. */
  livelock_path: z.string().startsWith("/", "a path from /").optional(),
  /** Path of a request that ends the data plane's thread with an exception. */
  crash_path: z.string().startsWith("/", "a path from /").optional(),
  /** The loop that these paths concern (`main`, `data-plane-1`); absent = any data plane's. */
  loop: z.string().min(1, "the name of a loop").optional(),
});

/** Sections of the file but `[api]`. */
const sections = {
  db: prefaulted(dbSection),
  gossip: prefaulted(gossipSection),
  admin: prefaulted(adminSection),
  perf: prefaulted(perfSection),
  replica: prefaulted(replicaSection),
  checkpoints: prefaulted(checkpointsSection),
  consul: prefaulted(consulSection),
  proxy: prefaulted(proxySection),
  watchdog: prefaulted(watchdogSection),
  alerts: prefaulted(alertsSection),
  telemetry: prefaulted(
    z.strictObject({
      prometheus: prefaulted(
        z.strictObject({
          /** Metrics, /healthz and /readyz. A non-loopback address is the operator's choice. */
          addr: hostPort.default("127.0.0.1:9090"),
        }),
      ),
    }),
  ),
  log: prefaulted(
    z.strictObject({ level: z.enum(LEVELS as [string, ...string[]]).default("info") }),
  ),
  fault: prefaulted(faultSection),
};

/** Everything that the config file of an edge may hold. */
export const configFile = z
  .strictObject({ ...sections, api: prefaulted(apiSection) })
  .superRefine(checkWhole);

/** The same for a replica alone. */
export const agentConfigFile = z
  .strictObject({ ...sections, api: prefaulted(openApiSection) })
  .superRefine(checkWhole);

/** A config file with all defaults filled in. */
export type PatinaConfig = z.infer<typeof configFile>;

interface WholeConfig {
  readonly replica: z.infer<typeof replicaSection>;
  readonly gossip: GossipConfig;
  readonly proxy: z.infer<typeof proxySection>;
  readonly fault: z.infer<typeof faultSection>;
  readonly watchdog: z.infer<typeof watchdogSection>;
}

/** Rules between keys. */
function checkWhole(
  { gossip, replica, proxy, fault, watchdog }: WholeConfig,
  context: z.RefinementCtx,
): void {
  if (replica.engine === "corrosion" && replica.corrosion === undefined) {
    context.addIssue({
      code: "custom",
      path: ["replica", "corrosion"],
      input: undefined,
      message: "api and sql of the Corrosion that is the engine",
    });
  }
  if (replica.engine === "patina" && !gossip.plaintext && gossip.tls === undefined) {
    context.addIssue({
      code: "custom",
      path: ["gossip", "tls"],
      input: undefined,
      message: "certificates, which patina tls makes; or gossip.plaintext = true",
    });
  }
  const { tls } = proxy;
  if (tls.addr !== undefined && tls.certificates.length === 0) {
    context.addIssue({
      code: "custom",
      path: ["proxy", "tls", "certificates"],
      input: undefined,
      message: "at least one certificate for proxy.tls.addr",
    });
  }
  if (tls.addr === undefined && (tls.certificates.length > 0 || tls.redirect_http)) {
    context.addIssue({
      code: "custom",
      path: ["proxy", "tls", "addr"],
      input: undefined,
      message: "the address to serve HTTPS on",
    });
  }
  const { enabled, ...faults } = fault;
  for (const key of ["stall_row", "stall_path", "livelock_path", "crash_path"] as const) {
    if (faults[key] === undefined || watchdog.allow_fault_injection) continue;
    context.addIssue({
      code: "custom",
      path: ["fault", key],
      input: faults[key],
      message: "refused unless watchdog.allow_fault_injection = true: it stalls or ends the edge",
    });
  }
  const asked =
    faults.stall_row !== undefined ||
    faults.stall_path !== undefined ||
    faults.livelock_path !== undefined ||
    faults.crash_path !== undefined ||
    hasKeys(faults.udp_rtt_ms, faults.tcp_rtt_ms);
  if (asked && !enabled) {
    context.addIssue({
      code: "custom",
      path: ["fault", "enabled"],
      input: false,
      message: "true, because faults are injected below",
    });
  }
}

/** A section that may be left out: then its own defaults count, and its own rules are checked. */
function prefaulted<Schema extends z.ZodType>(schema: Schema): z.ZodPrefault<Schema> {
  return schema.prefault({} as z.input<Schema>);
}

function hasKeys(...records: readonly object[]): boolean {
  return records.some((record) => Object.keys(record).length > 0);
}
