/**
 * What the admin socket shows of a replica, in Corrosion's field names (serde's forms: ranges as
 * `{start, end}`, stamps and versions as numbers or, beyond 2^53, as text).
 */
import type { Bookkeeping } from "../../core/bookkeeping/bookkeeping.ts";
import { missingSeqs } from "../../core/bookkeeping/bookkeeping.ts";
import type { Broadcaster } from "../../core/broadcast/types.ts";
import type { RingTable } from "../../core/ring-table.ts";
import type { Actor } from "../../core/swim/actor.ts";
import type { Member } from "../../core/swim/member-list.ts";
import type { ActorId } from "../../types.ts";
import type { SubscriptionView } from "../subscriptions/subscription-messages.ts";
import { adminError } from "./errors.ts";

/** An active member as `cluster members` prints it; `rtts` holds the least one measured, in ms. */
export function memberView(member: Member, rings: RingTable): unknown {
  const { actor } = member;
  const rttMs = rings.rttMs(actor.addr);
  return {
    id: actor.id,
    state: {
      addr: actor.addr,
      ts: actor.ts,
      ring: rings.ring(actor.addr),
      cluster_id: actor.clusterId,
      member_id: actor.memberId,
    },
    rtts: rttMs === null ? [] : [rttMs],
  };
}

/** What SWIM holds of one replica, down ones included, as `cluster membership-states` prints it. */
export function membershipStateView(member: Member): unknown {
  const { actor, incarnation, state } = member;
  const name = state.charAt(0).toUpperCase() + state.slice(1);
  return { id: actorView(actor), incarnation, state: name };
}

/** A subscription as `subs list` prints it. */
export function listedSubscription(view: SubscriptionView): unknown {
  const { id, hash, sql, readers, msPerSecond } = view;
  return { id, hash, sql: oneLine(sql), ms_per_sec_cost: msPerSecond, readers };
}

/** A subscription as `subs info` prints it. */
export function subscriptionView(view: SubscriptionView): unknown {
  const { id, hash, folder, lastChangeId, sql, readers, msPerSecond, statements } = view;
  return {
    id,
    hash,
    path: folder,
    last_change_id: lastChangeId,
    original_query: oneLine(sql),
    statements: statements.map((one) => ({ [one.table]: one.sql })),
    ms_per_sec_cost: msPerSecond,
    readers,
  };
}

/** Peers and counters of the broadcast tree, as `plumtree stats` prints them. */
export function treeView(broadcast: Broadcaster): unknown {
  const { links, stats } = broadcast;
  if (links === null || stats.plumtree === undefined) {
    throw adminError("ADMIN_REFUSED", "this replica broadcasts by the method gossip");
  }
  const { plumtree } = stats;
  return {
    eager_peers: links.eager,
    lazy_peers: links.lazy,
    known_peers: plumtree.knownPeers,
    payload_cache_size: plumtree.cacheEntries,
    message_missing: plumtree.missing,
    gossip_sent: plumtree.gossipSent,
    ihave_sent: plumtree.iHavesSent,
    graft_sent: plumtree.graftsSent,
    prune_sent: plumtree.prunesSent,
    duplicate_message: stats.duplicates,
    payload_not_cached: plumtree.payloadNotCached,
    prune_suppressed: plumtree.pruneSuppressed,
  };
}

/** What this replica would tell a sync peer about itself, as `sync generate` prints it. */
export function syncStateView(books: Bookkeeping, self: ActorId): unknown {
  const { actorId, heads, need, partialNeed, lastClearedTs } = books.syncState(self);
  return {
    actor_id: actorId,
    heads: Object.fromEntries(heads),
    need: Object.fromEntries(need),
    partial_need: Object.fromEntries(
      [...partialNeed].map(([id, byVersion]) => [id, Object.fromEntries(byVersion)]),
    ),
    last_cleared_ts: lastClearedTs,
  };
}

/** What is known of one version, as `actor version` prints it. */
export function versionView(
  books: Bookkeeping,
  place: { readonly actorId: ActorId; readonly version: number },
): unknown {
  const { actorId, version } = place;
  const partial = books.partial(actorId, version);
  if (partial !== undefined) {
    const { seqs, lastSeq, ts } = partial;
    return { partial: { seqs, last_seq: lastSeq, ts, missing: missingSeqs(partial) } };
  }
  const isKnown = version > 0 && books.contains(actorId, { start: version, end: version });
  if (!isKnown) return null;
  return { current: { version } };
}

function actorView(actor: Actor): unknown {
  const { id, addr, ts, clusterId, memberId } = actor;
  return { id, addr, ts, cluster_id: clusterId, member_id: memberId };
}

function oneLine(sql: string): string {
  return sql
    .split("\n")
    .map((line) => line.trim())
    .join(" ");
}
