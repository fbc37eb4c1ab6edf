/**
 * The replica's sections of the config file, named as Corrosion names them where they mean the
 * same: `[db]`, `[gossip]`, `[api]`, `[perf]`, and Patina's own `[replica]` and
 * `[checkpoints]`.
 */
import { z } from "zod";
import { isLoopbackHost, splitHostPort } from "#base/host-port.ts";
import { hostPort, ipPort, nameOrNothing, path, wholeNumber } from "./config-fields.ts";

/** `[db]`: where state lives. */
export const dbSection = z.strictObject({
  /** The SQLite file. Default `./patina.db`. */
  path: path.default("./patina.db"),
  /** What a commit outlives: `normal` a crash of the process, `full` a power loss, for a sync each. */
  synchronous: z.enum(["normal", "full"]).default("normal"),
  /** Folders or files of further schema; Patina's own tables are always there. */
  schema_paths: z.array(path).default([]),
  /** Folder of the kept subscriptions. Default: `subscriptions` beside the SQLite file. */
  subscriptions_path: path.optional(),
});

/** `[gossip]`: how replicas reach each other. */
export const gossipSection = z.strictObject({
  /** UDP address to bind; port 0 = any. */
  addr: ipPort.default("[::]:8787"),
  /** Address under which others dial us. When `addr` is a wildcard: one of this machine's. */
  external_addr: ipPort.refine((text) => !text.endsWith(":0"), "a port from 1").optional(),
  /** Addresses of replicas to join through; the own one is skipped. */
  bootstrap: z.array(hostPort).default([]),
  /** Separates clusters on one network; 0 to 65535. */
  cluster_id: wholeNumber.max(65_535, "at most 65535").default(0),
  /** Timing of membership: `wan` as Corrosion's, `lan` for one site or one machine. */
  preset: z.enum(["wan", "lan"]).default("wan"),
  /** Largest UDP payload sent; 1200 fits every path, loopback takes more. */
  max_mtu: z.int().min(1200, "1200 or more").max(16_000, "at most 16000").default(1350),
  /** A silent connection is closed after this many seconds. */
  idle_timeout_secs: z.int().min(1, "at least 1").max(600, "at most 600").default(30),
  /** How changes are pushed to others; the short form is `broadcast = "plumtree"`. */
  broadcast: z
    .strictObject({
      /** `gossip`: to all or at random. `plumtree`: along trees, fewer copies in large clusters. */
      method: z.enum(["gossip", "plumtree"]).default("gossip"),
      /** Copies of one message from which on its senders may be asked to stop. */
      prune_threshold: wholeNumber.default(1),
      /** Hops by which an announced path must be shorter to be taken; 0 = never. */
      optimization_threshold: wholeNumber.default(0),
      /** Least time between two requests to stop to one replica. */
      prune_throttle_secs: z.number().min(0, "0 or more").default(1),
      /** Whether frames to one replica wait 3 ms for company. */
      batch_gossip: z.boolean().default(true),
    })
    .prefault({}),
  /** Bytes of messages that leave this replica, to all peers together. */
  uplink: z
    .strictObject({
      /** Broadcast, sync and SWIM; urgent changes may borrow one second of it, SWIM never waits. */
      bytes_per_second: z.int().min(65_536, "at least 65536").default(10_485_760),
      /** Part that sync may take. */
      sync_share: z.number().min(0.05, "0.05 to 1").max(1, "0.05 to 1").default(0.75),
    })
    .prefault({}),
  /** zstd in what is pushed and in answers of repair. What comes in is always understood. */
  compression: z
    .strictObject({
      enabled: z.boolean().default(false),
      level: z.int().min(1, "1 to 22").max(22, "1 to 22").default(3),
      /** Folder of trained dictionaries for what comes in. */
      dict_dir: path.optional(),
      /** Trained dictionary for what goes out. */
      dict_file: path.optional(),
    })
    .prefault({}),
  /** Neither private nor authenticated, as Corrosion's; replicas with `tls` are strangers then. */
  plaintext: z.boolean().default(false),
  /** TLS between replicas, unless `plaintext`; `patina tls` makes the files. */
  tls: z
    .strictObject({
      /** Certificate chain and key that this replica shows when it is dialled. */
      cert_file: path,
      key_file: path,
      /** Authority that certificates of others must come from. */
      ca_file: path.optional(),
      /** Whoever answers is taken for the replica that was dialled. */
      insecure: z.boolean().default(false),
      /**
       * Certificates must name the actor who shows them, as those of `patina tls ... generate --actor`
       * do: no replica can speak as another.
       */
      verify_actor: z.boolean().default(false),
      /** Shown when this replica dials. Whoever dials it must show one too; absent = none is. */
      client: z.strictObject({ cert_file: path, key_file: path }).optional(),
    })
    .refine((tls) => tls.ca_file !== undefined || (tls.insecure && !tls.client), {
      path: ["ca_file"],
      message: "an authority's certificate; or insecure = true and no client",
    })
    .refine((tls) => !tls.verify_actor || (tls.ca_file && tls.client && !tls.insecure), {
      path: ["verify_actor"],
      message: "true only with ca_file and client, and without insecure: else nothing is proved",
    })
    .optional(),
});

/** `[api]` as a replica alone takes it: whether strangers can reach it is the operator's choice. */
export const openApiSection = z.strictObject({
  /** TCP address, or a list of them. */
  addr: z
    .union([hostPort, z.array(hostPort).min(1, "at least one address")], {
      error: "host:port, with an IPv6 host in brackets; or a list of these",
    })
    .default("127.0.0.1:8081"),
  /** Requests that ask for an endpoint of another name are refused. */
  endpoint_name: z.string().min(1, "a name").optional(),
  /** HTTPS in place of HTTP. */
  tls: z
    .strictObject({
      cert_file: path,
      key_file: path,
      /** Authority by which `patina`'s own commands know it. Default: the system's. */
      ca_file: path.optional(),
    })
    .optional(),
  authz: z.strictObject({ "bearer-token": z.string().min(1, "a token") }).optional(),
});

/** `[api]`: the HTTP API of the replica. An address that is not loopback needs a bearer token. */
export const apiSection = openApiSection.refine((api) => unguardedAddresses(api).length === 0, {
  path: ["addr"],
  message: "a loopback address, or any address together with [api.authz] bearer-token",
});

/** `[admin]`: the Unix socket on which the host's operator asks and tells the replica things. */
export const adminSection = z.strictObject({
  /** Path of the socket. Default `admin.sock` in the state folder. */
  path: path.optional(),
});

/** `[perf]`: pace of repair and patience, in seconds as Corrosion has it. */
export const perfSection = z
  .strictObject({
    min_sync_backoff: z.number().positive("more than 0").default(1),
    max_sync_backoff: z.number().positive("more than 0").default(15),
    /** Changes that wait this long for the store are an alert. */
    apply_limit_secs: z.number().positive("more than 0").default(30),
  })
  .refine((perf) => perf.min_sync_backoff <= perf.max_sync_backoff, {
    path: ["max_sync_backoff"],
    message: "at least min_sync_backoff",
  });

const sqlText = z.string().regex(/^\s*(?:select|with)\b/i, "a SELECT");

/** `[replica]`: who this replica is. */
export const replicaSection = z.strictObject({
  /** Id of this host's row in `nodes`: owner of the rows written here. Empty = the host's name. */
  node: nameOrNothing.default(""),
  /**
   * Whether this host has a row in `nodes`. Default: yes, but not in a plaintext cluster without a
   * `node`: that may be one of Corrosion's, whose nodes do not have the table.
   */
  publish_node: z.boolean().optional(),
  /** Region code of this host. */
  region: nameOrNothing.default(""),
  /** Where it stands, in degrees; only used until distances are measured. */
  latitude: z.number().min(-90).max(90).optional(),
  longitude: z.number().min(-180).max(180).optional(),
  /** Actors whose changes are known, beyond which only those of members are taken. */
  actors_max: z.int().min(1_000, "at least 1000").max(1_000_000, "at most 1000000").default(20_000),
  /** Columns whose updates overtake everything queued, by table. */
  urgent: z
    .record(z.string(), z.array(z.string()))
    .default({ machines: ["state"], checks: ["status"] }),
  /** `corrosion`: rows come from an existing Corrosion's API, and this replica joins nobody. */
  engine: z.enum(["patina", "corrosion"]).default("patina"),
  /** That Corrosion, and which of its rows are what. */
  corrosion: z
    .strictObject({
      /** Its HTTP API. */
      api: z.url({ protocol: /^https?$/, error: "an http or https URL" }),
      token: z.string().min(1, "a token").optional(),
      /** Between two questions where it does not subscribe to a query. */
      poll_secs: z.number().min(0.1, "0.1 or more").max(3_600, "at most 3600").default(5),
      /** Per table a query over the tables there, whose columns are named as they are here. */
      sql: z.strictObject({
        machines: sqlText,
        services: sqlText,
        hostnames: sqlText,
        checks: sqlText.optional(),
        apps: sqlText.optional(),
        nodes: sqlText.optional(),
      }),
    })
    .optional(),
  /**
   * Changed rows a second that one replica may have broadcast. What is beyond waits, and of each row
   * only the newest value leaves. The limit is four times its mean of ten minutes, within the bounds.
   */
  brake: z
    .strictObject({
      enabled: z.boolean().default(true),
      rows_per_second_min: z.number().min(0.1, "0.1 or more").default(50),
      rows_per_second_max: z.number().min(0.1, "0.1 or more").default(200),
    })
    .refine((brake) => brake.rows_per_second_min <= brake.rows_per_second_max, {
      path: ["rows_per_second_min"],
      message: "at most rows_per_second_max",
    })
    .prefault({}),
});

/** `[checkpoints]`: copies of the database from which a replica can start. */
export const checkpointsSection = z.strictObject({
  /** A folder, or `s3://bucket/prefix`. */
  target: path.optional(),
  /** A checkpoint is taken when the newest there is so old; 0 = none is taken. */
  every_secs: wholeNumber.max(1_209_600, "at most 1209600, two weeks").default(3_600),
  /** So many of this cluster are kept there. */
  keep: z.int().min(1, "at least 1").default(24),
  /** A replica without a database starts from the newest one there. */
  boot: z.boolean().default(true),
  /** After so long it starts empty. */
  boot_timeout_secs: z.int().min(1, "at least 1").max(3_600, "at most 3600").default(300),
  /** A store that is silent for so long is given up. */
  timeout_secs: z.int().min(1, "at least 1").max(3_600, "at most 3600").default(30),
  /** An S3-compatible store; what is absent comes from `AWS_*`, profiles or the machine's role. */
  s3: z
    .strictObject({
      /** Where it is; absent = AWS. */
      endpoint: z.url({ protocol: /^https?$/, error: "an http or https URL" }).optional(),
      /** Default: `AWS_REGION`, else `us-east-1`. */
      region: z.string().min(1, "a region").optional(),
      access_key_id: z.string().min(1, "a key's id").optional(),
      secret_access_key: z.string().min(1, "a key").optional(),
      session_token: z.string().min(1, "a token").optional(),
      /** The bucket is in the path, not in the host's name. Default: whenever there is an endpoint. */
      path_style: z.boolean().optional(),
    })
    .refine((s3) => (s3.access_key_id === undefined) === (s3.secret_access_key === undefined), {
      path: ["secret_access_key"],
      message: "together with access_key_id, or neither",
    })
    .prefault({}),
});

/** `[consul]`: the agent that `patina consul sync` follows. */
export const consulSection = z.strictObject({
  client: z
    .strictObject({
      /** Of the local agent's HTTP API. */
      address: hostPort.default("127.0.0.1:8501"),
      /** HTTPS, with a certificate of our own. */
      tls: z.strictObject({ ca_file: path, cert_file: path, key_file: path }).optional(),
    })
    .prefault({}),
  /** For an agent with access control. */
  token: z.string().min(1, "a token").optional(),
  /** Between two rounds. */
  pull_secs: z.number().min(0.1, "0.1 or more").max(3_600, "at most 3600").default(1),
  /** Where its metrics are served; absent = nowhere. */
  metrics_addr: hostPort.optional(),
});

/** Parsed sections. */
export type ConsulConfig = z.infer<typeof consulSection>;
export type DbConfig = z.infer<typeof dbSection>;
export type GossipConfig = z.infer<typeof gossipSection>;
export type ApiConfig = z.infer<typeof openApiSection>;
export type PerfConfig = z.infer<typeof perfSection>;
export type CheckpointsConfig = z.infer<typeof checkpointsSection>;
export type CorrosionConfig = NonNullable<ReplicaIdentityConfig["corrosion"]>;
export type ReplicaIdentityConfig = z.infer<typeof replicaSection>;

/** Where the API is served. */
export function apiAddresses({ addr }: Pick<ApiConfig, "addr">): readonly string[] {
  return typeof addr === "string" ? [addr] : addr;
}

/** Of these, where whoever reaches the port may read and write. */
export function unguardedAddresses(api: ApiConfig): readonly string[] {
  if (api.authz !== undefined) return [];
  return apiAddresses(api).filter((addr) => !isLoopbackHost(splitHostPort(addr).host));
}
