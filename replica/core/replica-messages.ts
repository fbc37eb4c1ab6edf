/** What a replica's machine is told, and what it wants done. */
import type { ActorId, Address, ApplyOutcome, Changeset, LocalCommit } from "../types.ts";
import type { BrakeEvent } from "./brake/brakes.ts";
import type {
  BroadcastArrival,
  BroadcastOutput,
  EncodedBodies,
  PlumtreeControl,
} from "./broadcast/types.ts";
import type { OwnVersionsOutput } from "./recovery/own-versions.ts";
import type { SwimEvent } from "./swim/events.ts";
import type { MemberUpdate, SwimPacket } from "./swim/packet.ts";
import type { SyncClientInput, SyncClientOutput } from "./sync/client-types.ts";
import type { SyncServerInput, SyncServerOutput } from "./sync/sync-server.ts";

/** What a replica is told. */
export type ReplicaInput =
  /** Begins: members saved before a restart, and resolved bootstrap addresses. */
  | {
      readonly kind: "start";
      readonly bootstrap: readonly Address[];
      readonly members: readonly MemberUpdate[];
    }
  | { readonly kind: "packet"; readonly packet: SwimPacket; readonly packetBytes: number }
  | (BroadcastArrival & { readonly kind: "broadcast"; readonly clusterId: number })
  | { readonly kind: "plumtree"; readonly message: PlumtreeControl; readonly clusterId: number }
  /** A transaction of our own was committed. */
  | { readonly kind: "committed"; readonly commit: LocalCommit; readonly bodies?: EncodedBodies }
  /**
   * The answer to an `apply` of the inbox: one outcome per changeset, or none at all when the store
   * could not (busy, disk full). What has no outcome counts as never received.
   */
  | {
      readonly kind: "applied";
      readonly batchId: number;
      readonly outcomes: readonly ApplyOutcome[];
    }
  /** A minimum round trip of the connection to `address`. */
  | { readonly kind: "rtt"; readonly address: Address; readonly rttMs: number }
  /** The connection to `address` was lost and is up again: what was sent last may be lost. */
  | { readonly kind: "reconnected"; readonly address: Address }
  /** What became of `sendFrames`. */
  | { readonly kind: "sent"; readonly id: number; readonly ok: boolean }
  | { readonly kind: "syncClient"; readonly input: SyncClientInput }
  | { readonly kind: "syncServer"; readonly input: SyncServerInput }
  /** Bootstrap names resolve to other addresses. */
  | { readonly kind: "bootstrap"; readonly addresses: readonly Address[] }
  | { readonly kind: "rejoin" }
  /** Moves to another cluster id, under a newer identity. */
  | { readonly kind: "changeCluster"; readonly clusterId: number }
  | { readonly kind: "leave" }
  /** The answer to `settleOwnVersions`; false when the store could not. */
  | { readonly kind: "settled"; readonly isStored: boolean }
  /** The answer to `makeDurable`; false when the disk could not. */
  | { readonly kind: "durable"; readonly isStored: boolean }
  | { readonly kind: "tick" };

/** What a replica wants done, in this order. */
export type ReplicaOutput =
  | { readonly kind: "sendPacket"; readonly target: Address; readonly packet: SwimPacket }
  /** One unidirectional stream with FIN; answer with `sent`. */
  | (Omit<Extract<BroadcastOutput, { kind: "send" }>, "kind"> & { readonly kind: "sendFrames" })
  /** Apply in order; answer with `applied`. */
  | {
      readonly kind: "apply";
      readonly batchId: number;
      readonly changesets: readonly Changeset[];
      readonly isUrgent: boolean;
    }
  | {
      readonly kind: "syncClient";
      readonly output: Exclude<SyncClientOutput, { kind: "compared" }>;
    }
  | { readonly kind: "syncServer"; readonly output: SyncServerOutput }
  /** Close the cached connection to `target`: who answered there is gone. */
  | { readonly kind: "forget"; readonly target: Address; readonly reason: string }
  | OwnVersionsOutput
  /** Bring all that was committed to the disk for good; answer with `durable`. */
  | { readonly kind: "makeDurable" }
  | (BrakeEvent & { readonly kind: "braked" })
  | { readonly kind: "notify"; readonly event: SwimEvent }
  /** A change, or a head, of an actor for which there is no place; how many have been so. */
  | { readonly kind: "strangerRefused"; readonly actorId: ActorId; readonly times: number }
  | { readonly kind: "dropped"; readonly reason: string; readonly count: number };
