/** Settings of sync, both sides, with the presets for wide-area and local clusters. */
import type { ActorId } from "../../types.ts";

/** Who we are in sync sessions. */
export interface SyncIdentity {
  readonly actorId: ActorId;
  readonly clusterId: number;
}

/** Settings of the side that asks. */
export interface SyncClientConfig {
  /** Pause after a round that brought something, and first pause of the back-off. */
  readonly backoffMinMs: number;
  /** Longest pause: each round that brings nothing doubles it up to here. */
  readonly backoffMaxMs: number;
  /** From a hint, or from a round that left needs behind, to the next round. */
  readonly hintDelayMs: number;
  /** Least number of servers in one round, if there are so many members. */
  readonly serversMin: number;
  readonly serversMax: number;
  /** To open a stream, dialling included. */
  readonly openTimeoutMs: number;
  /** From the stream's opening to the server's state and clock. */
  readonly handshakeTimeoutMs: number;
  /** Silence after which what is open is written off for this round. */
  readonly quietMs: number;
  /** Silence after our FIN that ends a session. */
  readonly stallMs: number;
  readonly sessionMaxMs: number;
  readonly needsPerTurn: number;
  /** Most versions in one need. */
  readonly pieceVersionsMax: number;
  /** Asked and not answered, over all sessions; the window starts at `openVersionsStart`. */
  readonly openVersionsMax: number;
  readonly openVersionsStart: number;
  /** Column changes received and not applied above which nothing is asked; at twice, no reading. */
  readonly pendingChangesMax: number;
  /** Changesets in one `apply`. */
  readonly applyBatchMax: number;
  /** Column changes in one `apply`, unless one changeset alone has more. */
  readonly applyChangesMax: number;
  /** `apply`s without an answer. */
  readonly applyInFlightMax: number;
}

/** Settings of the side that answers. */
export interface SyncServerConfig {
  /** Sessions served at once; more are rejected. */
  readonly sessionsMax: number;
  /** Streams that have not said who they are; more are aborted. */
  readonly handshakesMax: number;
  readonly startTimeoutMs: number;
  readonly clockTimeoutMs: number;
  /** Neither requests nor reads nor sends under way. */
  readonly idleMs: number;
  /** As `idleMs`, when another client needs the place. */
  readonly idleGivesWayMs: number;
  /** A frame not taken by the stream. */
  readonly sendTimeoutMs: number;
  readonly sessionMaxMs: number;
  /** Versions in one read of the store. */
  readonly readVersionsMax: number;
  /** Reads without an answer, per session. */
  readonly readsMax: number;
  /** Frames handed out and not taken by the stream, above which nothing is read. */
  readonly unsentMax: number;
  /** Needs waiting, per session; a client that asks more is aborted. */
  readonly needsMax: number;
  readonly chunkBytesMax: number;
  readonly chunkBytesMin: number;
  /** A send that takes longer halves the chunk size. */
  readonly slowSendMs: number;
  /** Of the uplink's bytes, what all that sync sends may take: above 0 to 1. */
  readonly uplinkShare: number;
}

/**
 * For clusters over wide-area links; periods and limits are Corrosion's where it has one.
 *
 * Pieces are wider than Corrosion's 11 versions: ten needs of 100 fill a batch of the store with
 * one turn, whereas 110 versions a turn would bound a session to 110 versions per round trip and turn.
 * Servers of either kind take any width. 100 also keeps an Empty answer far below 1000 versions.
 */
export const SYNC_CLIENT_WAN: SyncClientConfig = {
  backoffMinMs: 1_000,
  backoffMaxMs: 15_000,
  hintDelayMs: 250,
  serversMin: 3,
  serversMax: 10,
  openTimeoutMs: 5_000,
  handshakeTimeoutMs: 5_000,
  quietMs: 5_000,
  stallMs: 30_000,
  sessionMaxMs: 300_000,
  needsPerTurn: 10,
  pieceVersionsMax: 100,
  // Two batches in the store and two on their way.
  openVersionsMax: 4_000,
  openVersionsStart: 1_000,
  // Two batches in the store and half a one on its way; some MB.
  pendingChangesMax: 25_000,
  applyBatchMax: 1_000,
  applyChangesMax: 10_000,
  // The second is in the store's queue while the answer to the first travels.
  applyInFlightMax: 2,
};

/** For clusters on one site or one machine: the same, with shorter pauses. */
export const SYNC_CLIENT_LAN: SyncClientConfig = {
  ...SYNC_CLIENT_WAN,
  backoffMinMs: 250,
  backoffMaxMs: 10_000,
  hintDelayMs: 50,
  openTimeoutMs: 2_000,
  handshakeTimeoutMs: 2_000,
  quietMs: 2_000,
  stallMs: 10_000,
};

/** Limits of a server; Corrosion's where it has one. */
export const SYNC_SERVER_DEFAULTS: SyncServerConfig = {
  sessionsMax: 3,
  handshakesMax: 32,
  startTimeoutMs: 5_000,
  clockTimeoutMs: 2_000,
  idleMs: 60_000,
  // A client that has not asked for so long has gone without a word, or its store is behind.
  idleGivesWayMs: 5_000,
  sendTimeoutMs: 5_000,
  sessionMaxMs: 330_000,
  // Less than 10 ms of the store at 60 us a version, so that writes do not wait long.
  readVersionsMax: 100,
  readsMax: 2,
  // 8 MB of full chunks at worst.
  unsentMax: 1_000,
  // A Corrosion client that is a million versions behind asks 90,000 pieces.
  needsMax: 131_072,
  chunkBytesMax: 8_192,
  chunkBytesMin: 1_024,
  slowSendMs: 500,
  // Broadcasts always find a quarter, and catching up is bound by the store that takes it.
  uplinkShare: 0.75,
};
