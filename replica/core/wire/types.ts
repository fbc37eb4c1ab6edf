/** The messages that replicas exchange on QUIC streams, as values (protocol reference, 3 and 4). */
import type { Result } from "#base/machine.ts";
import type {
  ActorId,
  Changeset,
  FullChangeset,
  SeqRange,
  SyncNeed,
  VersionRange,
} from "../../types.ts";

/**
 * Why bytes were refused: a stable kebab-case word out of a small fixed set (`truncated`,
 * `unknown-tag`, `number-too-large`, ...), fit for a metric label.
 */
export type DecodeReason = string;

/** What a decoder answers: hostile bytes are a counted value. */
export type Decoded<Value> = Result<Value, DecodeReason>;

/**
 * What one frame of a unidirectional stream holds. `changesets` is one changeset, but for the legacy
 * EmptySet, which becomes one `empty` changeset per range.
 */
export type UniPayload =
  | {
      readonly kind: "change";
      readonly changesets: readonly Changeset[];
      readonly clusterId: number;
    }
  /** Still compressed (zstd): decompress, then `decodeChange`. */
  | {
      readonly kind: "compressedChange";
      readonly compressed: Uint8Array;
      readonly clusterId: number;
    }
  | {
      readonly kind: "plumtree";
      readonly message: PlumtreeMessage;
      readonly clusterId: number;
    };

/** The change inside a Plumtree Gossip message. */
export type BroadcastBody =
  | { readonly kind: "change"; readonly changesets: readonly Changeset[] }
  | { readonly kind: "compressedChange"; readonly compressed: Uint8Array };

/** Messages of Corrosion's Plumtree broadcast (protocol reference, 3.8). */
export type PlumtreeMessage =
  | {
      readonly kind: "gossip";
      /** Hops from the origin. */
      readonly round: number;
      readonly sender: ActorId;
      readonly id: ChangeId;
      readonly body: BroadcastBody;
    }
  | { readonly kind: "iHave"; readonly sender: ActorId; readonly digests: readonly ChangeDigest[] }
  | {
      readonly kind: "graft";
      readonly sender: ActorId;
      /** Whether the asked payloads are wanted, or only the link. */
      readonly wantsPayloads: boolean;
      readonly requests: readonly ChangeDigest[];
    }
  | { readonly kind: "prune"; readonly sender: ActorId; readonly triggeredBy: ChangeId | null };

/** Names one broadcast changeset. */
export type ChangeId =
  | {
      readonly kind: "full";
      readonly actorId: ActorId;
      readonly version: number;
      readonly seqs: SeqRange;
      readonly lastSeq: number;
    }
  | { readonly kind: "empty"; readonly actorId: ActorId; readonly versions: VersionRange };

/** A changeset's name and the hop count at which its announcer saw it. */
export interface ChangeDigest {
  readonly id: ChangeId;
  readonly round: number;
}

/** First frame of a bidirectional stream: a peer asks for a sync session. */
export interface SyncStart {
  readonly actorId: ActorId;
  /** W3C trace context, passed through; `null` = none. */
  readonly traceparent: string | null;
  readonly tracestate: string | null;
  readonly clusterId: number;
  /** The client takes CompressedChangeset answers. */
  readonly supportsCompression: boolean;
}

/** What a replica knows and lacks, per actor (protocol reference, 4.1 and 4.3). */
export interface SyncState {
  readonly actorId: ActorId;
  /** Greatest version known, own included. */
  readonly heads: ReadonlyMap<ActorId, number>;
  /** Gaps below the head. */
  readonly need: ReadonlyMap<ActorId, readonly VersionRange[]>;
  /** Missing seqs of versions that have arrived in part. */
  readonly partialNeed: ReadonlyMap<ActorId, ReadonlyMap<number, readonly SeqRange[]>>;
  readonly lastClearedTs: bigint | null;
}

/** Why a server turns a session down. */
export type SyncRejection = "maxConcurrencyReached" | "differentCluster";

/** What a client asks of one actor's history. */
export interface SyncRequest {
  readonly actorId: ActorId;
  readonly needs: readonly SyncNeed[];
}

/** A frame of a sync session other than a changeset. */
export type SyncControl =
  | { readonly kind: "state"; readonly state: SyncState }
  /** NTP64 reading of the sender's hybrid logical clock. */
  | { readonly kind: "clock"; readonly ts: bigint }
  | { readonly kind: "rejection"; readonly reason: SyncRejection }
  | { readonly kind: "request"; readonly requests: readonly SyncRequest[] };

/** A change that was asked for. */
export type SyncAnswer =
  /** One changeset, but for the legacy EmptySet (one `empty` per range). */
  | { readonly kind: "changesets"; readonly changesets: readonly Changeset[] }
  /** A changeset with something in it that nothing here can hold: text that is no UTF-8, for one. */
  | ({ readonly kind: "unreadable"; readonly reason: DecodeReason } & Pick<
      FullChangeset,
      "actorId" | "version" | "seqs" | "lastSeq"
    >);

/** Any frame of a sync session after its SyncStart. */
export type SyncMessage =
  | SyncControl
  | SyncAnswer
  /** Still compressed (zstd): decompress, then `decodeChange`. */
  | { readonly kind: "compressedChangeset"; readonly compressed: Uint8Array };
