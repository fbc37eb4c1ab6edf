/**
 * What two replicas say to each other on a sync stream, as structured values.
 *
 * One bidirectional stream per session, opened by the client, the side that wants data:
 *
 *     client                        server
 *     start, clock          ->
 *                           <-      rejection, or: state, clock
 *     request*              ->
 *     FIN                   ->
 *                           <-      changeset*
 *                           <-      FIN
 *
 * Each value is one frame on the wire (protocol reference, sections 4.1 and 4.2). Bytes are the
 * business of the wire codec: `start` is a BiPayload, everything else a SyncMessage; a
 * CompressedChangeset and a plain one both arrive here as `changeset`; `Empty` needs, which
 * receivers ignore, are dropped by the decoder.
 */
import type { ActorId, Changeset, SeqRange, SyncNeed, VersionRange } from "../../types.ts";

/** Which versions one replica knows, told to whoever asks it. */
export interface SyncState {
  readonly actorId: ActorId;
  /** Greatest version known per actor, the replica's own included. */
  readonly heads: ReadonlyMap<ActorId, number>;
  /** Gaps per actor: ascending, not adjacent, at or below the head. Absent = none. */
  readonly need: ReadonlyMap<ActorId, readonly VersionRange[]>;
  /** Missing seqs per actor and partial version. */
  readonly partialNeed: ReadonlyMap<ActorId, ReadonlyMap<number, readonly SeqRange[]>>;
}

/** Why a server takes no session: too many already, or the client is of another cluster. */
export type SyncRejection = "maxConcurrencyReached" | "differentCluster";

/** What is asked of one actor's versions. */
export interface SyncRequest {
  readonly actorId: ActorId;
  readonly needs: readonly SyncNeed[];
}

/** One frame of a sync session. */
export type SyncMessage =
  /** First of the client; `supportsCompression` allows the server to send CompressedChangeset. */
  | {
      readonly kind: "start";
      readonly actorId: ActorId;
      readonly clusterId: number;
      readonly supportsCompression: boolean;
    }
  /** Hybrid clock of the sender, NTP64. */
  | { readonly kind: "clock"; readonly ts: bigint }
  | { readonly kind: "state"; readonly state: SyncState }
  | { readonly kind: "rejection"; readonly reason: SyncRejection }
  | { readonly kind: "request"; readonly requests: readonly SyncRequest[] }
  | { readonly kind: "changeset"; readonly changeset: Changeset };
