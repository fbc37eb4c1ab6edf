/** What simulated replicas are made of, and who hears of what they do. */
import type { Prng } from "#base/prng.ts";
import type { BrakeConfig } from "../core/brake/brake.ts";
import type { BroadcastConfig } from "../core/broadcast/types.ts";
import type { SwimPacket } from "../core/swim/packet.ts";
import type { SessionMessage } from "../core/sync/messages.ts";
import type { ActorId, Address, ApplyOutcome, LocalCommit } from "../types.ts";
import type { EventQueue } from "./event-queue.ts";
import type { FrameDecoder } from "./sim-codec.ts";
import type { SimNetwork } from "./sim-network.ts";
import type { Trace } from "./trace.ts";

/** Who a replica is, and the world it lives in. */
export interface SimReplicaOptions {
  readonly actorId: ActorId;
  readonly address: Address;
  readonly bootstrap: readonly Address[];
  readonly queue: EventQueue;
  readonly network: SimNetwork<SwimPacket, SessionMessage>;
  readonly trace: Trace;
  readonly prng: Prng;
  /** The reader's own: what it does changes nothing else. */
  readonly readerPrng: Prng;
  readonly traits: SimReplicaTraits;
  /** Shared by the replicas of a world. */
  readonly frames: FrameDecoder;
  /** How far the wall clock is ahead of the world's. */
  readonly skewMs: number;
  readonly observer: SimReplicaObserver;
}

/** How a replica works. */
export interface SimReplicaTraits {
  /** Greatest virtual time of one store operation. */
  readonly storeMs: number;
  /** And of each changeset applied or read, on top of that. */
  readonly changesetMs: number;
  /** Greatest width of a sync need. */
  readonly pieceVersions: number;
  /** Column changes waiting for the store above which a sync client asks for no more. */
  readonly pendingChangesMax: number;
  /** Send messages through their bytes. */
  readonly isEncoding: boolean;
  /** Chunk size of own transactions. */
  readonly chunkBytes: number;
  /** How changes are broadcast, where it is not the default. */
  readonly broadcast: Partial<Pick<BroadcastConfig, "method" | "budgetBytesPerSecond">>;
  /** What one origin may have broadcast. */
  readonly brake: BrakeConfig;
}

/** Who hears what comes to a replica's disk. */
export interface SimReplicaObserver {
  readonly onCommit: (commit: LocalCommit) => void;
  readonly onApplied: (outcomes: readonly ApplyOutcome[]) => void;
  /** Own versions go on above `head`, after a doubt. */
  readonly onSettled: (head: number) => void;
  /** It is another actor from now on, and has published anew what was its own as `former`. */
  readonly onRenewed: (former: ActorId, commit: LocalCommit | null) => void;
}
