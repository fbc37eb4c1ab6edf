/** What the section `[gossip]` says, in the words of the parts that do it; and what it leaves open. */
import { PatinaError } from "#base/errors.ts";
import { joinHostPort, splitHostPort } from "#base/host-port.ts";
import type { Logger } from "#base/logger.ts";
import type { GossipConfig, ReplicaIdentityConfig } from "../config.ts";
import type { BrakeConfig } from "../core/brake/brake.ts";
import { PLUMTREE_DEFAULTS } from "../core/broadcast/plumtree-types.ts";
import type { BroadcastConfig } from "../core/broadcast/types.ts";
import { SYNC_SERVER_DEFAULTS, type SyncServerConfig } from "../core/sync/config.ts";
import { canonicalAddress } from "../core/swim/address.ts";
import type { Address } from "../types.ts";
import { Zstd } from "./compression/zstd.ts";

/** Where others dial this replica, which is bound to `local`. Throws `TRANSPORT_BIND`. */
export function advertisedAddress({ addr, external_addr }: GossipConfig, local: Address): Address {
  const { host, port } = splitHostPort(external_addr ?? addr);
  const text = joinHostPort(host, port === 0 ? splitHostPort(local).port : port);
  const address = canonicalAddress(text);
  if (address.ok) return address.value;
  throw new PatinaError("TRANSPORT_BIND", `${text} is no IP address and port to be dialled at`);
}

/** The method of broadcasting and its settings. */
export function broadcastOf({
  broadcast,
  uplink,
}: GossipConfig): Pick<BroadcastConfig, "method" | "plumtree" | "budgetBytesPerSecond"> {
  const { method, prune_threshold, optimization_threshold, prune_throttle_secs } = broadcast;
  const plumtree = {
    ...PLUMTREE_DEFAULTS,
    pruneThreshold: prune_threshold,
    optimizationThreshold: optimization_threshold,
    pruneThrottleMs: prune_throttle_secs * 1000,
    coalesceMs: broadcast.batch_gossip ? PLUMTREE_DEFAULTS.coalesceMs : 0,
  };
  return { method, plumtree, budgetBytesPerSecond: uplink.bytes_per_second };
}

/** How answers of sync are given. */
export function syncServerOf({ uplink }: GossipConfig): SyncServerConfig {
  return { ...SYNC_SERVER_DEFAULTS, uplinkShare: uplink.sync_share };
}

/** What one origin may have broadcast. */
export function brakeOf({ brake }: ReplicaIdentityConfig): BrakeConfig {
  return {
    isEnabled: brake.enabled,
    rowsPerSecondMin: brake.rows_per_second_min,
    rowsPerSecondMax: brake.rows_per_second_max,
  };
}

/** Compression with its dictionaries read; a dictionary that cannot be is warned of. */
export function openZstd({ compression }: GossipConfig, log: Logger): Zstd {
  const { enabled, level, dict_dir, dict_file } = compression;
  const zstd = new Zstd({
    isEnabled: enabled,
    level,
    folder: dict_dir ?? null,
    file: dict_file ?? null,
  });
  for (const problem of zstd.reload().problems) log.warn?.("dictionary-unreadable", problem);
  return zstd;
}

/** Whether replicas may join that show no certificate of the cluster's authority. */
export function isOpenToStrangers({ plaintext, tls }: GossipConfig): boolean {
  return plaintext || tls?.client === undefined;
}

/** Says in the log who is let in, or believed, without a proof. */
export function warnOfStrangers(gossip: GossipConfig, log: Logger): void {
  const { plaintext, tls } = gossip;
  if (plaintext) {
    log.warn?.(
      "gossip-open",
      "gossip.plaintext: neither private nor authenticated, whoever reaches the port may read, join" +
        " and write; only for a private network",
    );
  } else if (isOpenToStrangers(gossip)) {
    log.warn?.(
      "gossip-open",
      "gossip.tls has no client section: no certificate is asked of those who dial, whoever" +
        " reaches the port may join",
    );
  }
  if (!plaintext && tls?.insecure === true) {
    log.warn?.(
      "gossip-insecure",
      "gossip.tls.insecure: CERTIFICATES ARE NOT CHECKED, whoever answers at a replica's address" +
        " is taken for it; name the authority in gossip.tls.ca_file instead",
    );
  }
}

/**
 * Columns whose updates overtake: the configured ones, and what stalls an edge, which the others must
 * know before it stalls them.
 */
export function urgentColumnsOf({
  urgent,
}: ReplicaIdentityConfig): ReplicaIdentityConfig["urgent"] {
  return { ...urgent, edge_stalls: ["notices", "bounced_at"] };
}
