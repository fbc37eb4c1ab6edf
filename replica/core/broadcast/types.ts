/** What the broadcast machine takes, gives and can be told. */
import type { Machine } from "#base/machine.ts";
import type { ActorId, Address, Changeset } from "../../types.ts";
import type { PlumtreeMessage } from "../wire/types.ts";
import { PLUMTREE_DEFAULTS, type PlumtreeConfig, type PlumtreeStats } from "./plumtree-types.ts";

/** A way of broadcasting: `Broadcast` (method `gossip`) or `Plumtree` (method `plumtree`). */
export interface Broadcaster extends Machine<BroadcastInput, BroadcastOutput> {
  /** Whether this changeset came by broadcast before: a copy, to be dropped without another look. */
  hasSeen(changeset: Changeset): boolean;
  /** Makes the next copy of this changeset count as new; for one that could not be applied. */
  forget(changeset: Changeset): void;
  /** Counters and present sizes. */
  readonly stats: BroadcastStats;
  /** Who gets changes and who announcements; `null` = this method has no links. */
  readonly links: { readonly eager: readonly ActorId[]; readonly lazy: readonly ActorId[] } | null;
}

/** Another replica to which changes may be sent. */
export interface BroadcastMember {
  readonly actorId: ActorId;
  readonly address: Address;
  readonly clusterId: number;
  /** RTT band, 0 nearest; `null` = not measured yet. */
  readonly ring: number | null;
  /** Least round trip measured; absent or `null` = not measured yet. */
  readonly rttMs?: number | null;
}

/** One decoded change, and how it came. */
export interface BroadcastArrival {
  readonly changeset: Changeset;
  /** Its plain broadcast frame, to be passed on as it is; `null` when it came in another message. */
  readonly payload: Uint8Array | null;
  /** Its `BroadcastV1`, plain or compressed; absent or `null` = to be encoded afresh. */
  readonly body?: Uint8Array | null;
  /** The last hop, if it came inside a Plumtree Gossip message. */
  readonly gossip?: GossipOrigin | null;
}

/** What the broadcast machine is told. */
export type BroadcastInput =
  /**
   * Own transactions, after their commit. All chunks of a version come in one input. `bodies`: the
   * `BroadcastV1` of each where it was encoded already (compressed). Empty: versions of which later
   * ones left nothing while they waited for their turn.
   */
  | {
      readonly kind: "committed";
      readonly changesets: readonly Changeset[];
      readonly bodies?: EncodedBodies;
    }
  /** A changeset that a broadcast of this cluster brought. `isNews`: bookkeeping lacked it. */
  | (BroadcastArrival & { readonly kind: "received"; readonly isNews: boolean })
  /** A Plumtree control message of this cluster; the method `gossip` ignores it. */
  | { readonly kind: "plumtree"; readonly message: PlumtreeControl }
  /** This replica is about to stop. */
  | { readonly kind: "leave" }
  /** All active members; those of another cluster and this replica itself are left out here. */
  | { readonly kind: "members"; readonly members: readonly BroadcastMember[] }
  /** The replica at `address` has begun anew: what it was sent last may be lost. */
  | { readonly kind: "peerRenewed"; readonly address: Address }
  /** What became of a `send`. Due for each, once. */
  | { readonly kind: "sent"; readonly id: number; readonly ok: boolean }
  | { readonly kind: "tick" };

/** The `BroadcastV1` of each changeset, where there is one. */
export type EncodedBodies = readonly (Uint8Array | null)[];

/** The last hop of a Gossip message. */
export interface GossipOrigin {
  readonly sender: ActorId;
  readonly round: number;
}

/** A Plumtree message that carries no change. */
export type PlumtreeControl = Exclude<PlumtreeMessage, { kind: "gossip" }>;

/** What it wants done, in this order. */
export type BroadcastOutput =
  /**
   * Send these `UniPayload`s, without length prefixes, on one unidirectional stream with FIN, and
   * answer with `sent`. Urgent ones come first in a drain.
   */
  | {
      readonly kind: "send";
      readonly id: number;
      readonly target: Address;
      readonly frames: readonly Uint8Array[];
      readonly isUrgent: boolean;
    }
  /** Changesets given up on for some or all peers; sync will carry them. */
  | { readonly kind: "drop"; readonly reason: BroadcastDropReason; readonly count: number };

/**
 * `backlog-full`: too much is waiting altogether. `lane-full`: too much is waiting for one peer.
 * `peer-gone`: the peer is no longer a member.
 */
export type BroadcastDropReason = "backlog-full" | "lane-full" | "peer-gone";

/** Settings; see `BROADCAST_DEFAULTS`. */
export interface BroadcastConfig {
  /** `[gossip.broadcast] method`. */
  readonly method: "gossip" | "plumtree";
  readonly plumtree: PlumtreeConfig;
  readonly actorId: ActorId;
  readonly clusterId: number;
  /**
   * Table to the columns whose update may not wait: changes that take a machine out of service.
   * Deletes of any table's rows are urgent without being named.
   */
  readonly urgentColumns: Readonly<Record<string, readonly string[]>>;
  /** With at most this many other members, own changes go to all of them at once. */
  readonly smallClusterMembers: number;
  /** Longest time that a change waits for others to share its stream. */
  readonly coalesceMs: number;
  /** Payload bytes at which a stream is sent without further waiting. */
  readonly flushBytes: number;
  /** Payload bytes per second over all peers; also the burst. Urgent ones may borrow one second. */
  readonly budgetBytesPerSecond: number;
  /** Changesets waiting or in flight; beyond, the most-sent and then the oldest own are dropped. */
  readonly backlogEntriesMax: number;
  /** Their payload bytes. */
  readonly backlogBytesMax: number;
  /** Payload bytes waiting for one peer. */
  readonly laneBytesMax: number;
  /** Streams without an answer, over all peers. */
  readonly inFlightMax: number;
  /** Streams without an answer to one peer; urgent ones are not held back by it. */
  readonly laneInFlightMax: number;
  /** How far back a renewed peer gets what was broadcast. */
  readonly replayMs: number;
  /** Payload bytes kept for that. */
  readonly replayBytesMax: number;
  /** Changesets remembered as already received. */
  readonly seenMax: number;
}

/** Plain counters since the start. */
export interface BroadcastStats {
  readonly transmissions: number;
  readonly transmissionsFailed: number;
  readonly framesSent: number;
  readonly bytesSent: number;
  readonly urgentFramesSent: number;
  /** Received changesets passed on. */
  readonly relayed: number;
  /** Received changesets that were known, or our own. */
  readonly duplicates: number;
  /** Frames sent again to renewed peers. */
  readonly replayed: number;
  /** Times that the byte budget held something back. */
  readonly rateLimited: number;
  readonly dropped: number;
  readonly backlogEntries: number;
  readonly backlogBytes: number;
  readonly inFlight: number;
  /** Present only with the method `plumtree`. */
  readonly plumtree?: PlumtreeStats;
}

/** The settings that a cluster of Patina uses; figures after Corrosion's where it has one. */
export const BROADCAST_DEFAULTS: Omit<BroadcastConfig, "actorId" | "clusterId"> = {
  method: "gossip",
  plumtree: PLUMTREE_DEFAULTS,
  urgentColumns: { machines: ["state"], checks: ["status"] },
  // 64 streams of a kilobyte each are a millisecond of an uplink; beyond, trees are the better way.
  smallClusterMembers: 64,
  coalesceMs: 10,
  flushBytes: 64 * 1024,
  budgetBytesPerSecond: 10 * 1024 * 1024,
  backlogEntriesMax: 20_000,
  // Holds one transaction of a few hundred thousand columns; a bound, not a target.
  backlogBytesMax: 64 * 1024 * 1024,
  laneBytesMax: 32 * 1024 * 1024,
  inFlightMax: 500,
  // 16 streams of 64 KiB fill a path of 100 ms at the whole budget.
  laneInFlightMax: 16,
  replayMs: 5000,
  replayBytesMax: 8 * 1024 * 1024,
  seenMax: 40_000,
};
