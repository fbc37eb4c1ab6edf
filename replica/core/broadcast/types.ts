/** What the broadcast machine takes, gives and can be told. */
import type { ActorId, Address, Changeset, FullChangeset } from "../../types.ts";

/** Another replica to which changes may be sent. */
export interface BroadcastMember {
  readonly actorId: ActorId;
  readonly address: Address;
  readonly clusterId: number;
  /** RTT band, 0 nearest; `null` = not measured yet. */
  readonly ring: number | null;
}

/** What the broadcast machine is told. */
export type BroadcastInput =
  /** Own transactions, after their commit. All chunks of a version come in one input. */
  | { readonly kind: "committed"; readonly changesets: readonly FullChangeset[] }
  /**
   * A changeset that a broadcast of this cluster brought. `isNews`: bookkeeping lacked it, so it is
   * passed on. `payload` is the original `UniPayload`, passed on as it is; `null` when it came inside
   * another message, and is encoded afresh.
   */
  | {
      readonly kind: "received";
      readonly changeset: Changeset;
      readonly payload: Uint8Array | null;
      readonly isNews: boolean;
    }
  /** All active members; those of another cluster and this replica itself are left out here. */
  | { readonly kind: "members"; readonly members: readonly BroadcastMember[] }
  /** The replica at `address` has begun anew: what it was sent last may be lost. */
  | { readonly kind: "peerRenewed"; readonly address: Address }
  /** What became of a `send`. Due for each, once. */
  | { readonly kind: "sent"; readonly id: number; readonly ok: boolean }
  | { readonly kind: "tick" };

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
  readonly actorId: ActorId;
  readonly clusterId: number;
  /**
   * Table to the columns whose update may not wait: changes that take a machine out of service.
   * Deletes of any table's rows are urgent without being named.
   */
  readonly urgentColumns: Readonly<Record<string, readonly string[]>>;
  /** With at most this many other members, own and urgent changes go to all of them at once. */
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
}

/** The settings that a cluster of Patina uses; figures after Corrosion's where it has one. */
export const BROADCAST_DEFAULTS: Omit<BroadcastConfig, "actorId" | "clusterId"> = {
  urgentColumns: { machines: ["state"], checks: ["status"] },
  smallClusterMembers: 8,
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
