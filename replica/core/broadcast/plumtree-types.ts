/** What the Plumtree machine can be told, and what it counts. */

/** Settings of the method `plumtree`; see `PLUMTREE_DEFAULTS`. */
export interface PlumtreeConfig {
  /**
   * How eager peers are chosen. `bands`: at random, in shares of near, mid and far, as Corrosion
   * does. `elders`: by the order of actor ids among the near ones (`overlay.ts`), so that replicas
   * of one place agree on a tree without a word.
   */
  readonly overlay: "bands" | "elders";
  /** Whether the two neighbours in the order of actor ids are eager, or lazy and never let go. */
  readonly lockedNeighbours: "eager" | "lazy";
  /** `elders`: most replicas of one place that are linked to each other, each to all. */
  readonly eldersMax: number;
  /** `elders`: replicas of the same place below each one. */
  readonly childrenMax: number;
  /** `elders`: links from one place to each other place, on average. */
  readonly farLinksPerPlace: number;
  /** `elders`: most such links of one replica. */
  readonly farLinksMax: number;
  /** Whether who brought a message first becomes an eager peer. */
  readonly adoptsSenders: boolean;
  /** Copies of one message beyond which the last sender is asked to stop. */
  readonly pruneThreshold: number;
  /**
   * Copies per message and replica up to which nobody is asked to stop. 0 = whoever exceeds
   * `pruneThreshold` is always asked, as Corrosion does.
   */
  readonly duplicatesPerReplica: number;
  /** Messages that must have come by a peer before it is judged. */
  readonly sampleMin: number;
  /** Least time between two Prunes to one peer. */
  readonly pruneThrottleMs: number;
  /** No Prune to a peer for so long after a Graft to it. */
  readonly graftGraceMs: number;
  /** Wait from an announcement to the first Graft; the second waits half as long. */
  readonly graftAfterMs: number;
  /** Announcers asked for one message. */
  readonly graftTriesMax: number;
  /** Messages sent in one stream in answer to a Graft. */
  readonly graftChunk: number;
  /** What is not urgent waits so long for company on a stream to one peer that is busy. */
  readonly coalesceMs: number;
  /** Announcements wait so long for company. */
  readonly lazyTickMs: number;
  /** Hops by which an announced path must be shorter for its link to be taken; 0 = never. */
  readonly optimizationThreshold: number;
  /** How often peers are chosen again. */
  readonly maintenanceMs: number;
  /** Messages kept for Grafts. */
  readonly cacheMax: number;
  /** Bytes of these. */
  readonly cacheBytesMax: number;
}

/** Counters and sizes beside those of every method. */
export interface PlumtreeStats {
  readonly eagerPeers: number;
  readonly lazyPeers: number;
  readonly knownPeers: number;
  readonly cacheEntries: number;
  /** Changesets remembered as already received. */
  readonly seenEntries: number;
  /** Announcements that wait for their tick. */
  readonly lazyQueued: number;
  readonly missing: number;
  /** Missing messages that no announcer gave. */
  readonly givenUp: number;
  readonly gossipReceived: number;
  readonly iHavesReceived: number;
  /** Peers that became eager, or lazy, by what was sent or received. */
  readonly promotions: number;
  readonly demotions: number;
  readonly gossipSent: number;
  readonly iHavesSent: number;
  readonly graftsSent: number;
  readonly prunesSent: number;
  readonly graftsReceived: number;
  readonly prunesReceived: number;
  readonly pruneSuppressed: number;
  readonly payloadNotCached: number;
  /** Messages of replicas that are no members. */
  readonly strangers: number;
  readonly rebalances: number;
}

/** Corrosion's choices (protocol reference, 3.8). */
export const PLUMTREE_CORROSION: PlumtreeConfig = {
  overlay: "bands",
  lockedNeighbours: "eager",
  eldersMax: 0,
  childrenMax: 0,
  farLinksPerPlace: 0,
  farLinksMax: 0,
  adoptsSenders: false,
  pruneThreshold: 5,
  duplicatesPerReplica: 0,
  sampleMin: 0,
  pruneThrottleMs: 1000,
  graftGraceMs: 180_000,
  graftAfterMs: 150,
  graftTriesMax: 2,
  graftChunk: 10,
  coalesceMs: 0,
  lazyTickMs: 150,
  optimizationThreshold: 0,
  maintenanceMs: 60_000,
  cacheMax: 20_000,
  cacheBytesMax: 64 * 1024 * 1024,
};

/** Ours: the same messages, other peers. What each choice gave stands in docs/performance.md. */
export const PLUMTREE_DEFAULTS: PlumtreeConfig = {
  ...PLUMTREE_CORROSION,
  overlay: "elders",
  lockedNeighbours: "lazy",
  eldersMax: 8,
  childrenMax: 16,
  farLinksPerPlace: 3,
  farLinksMax: 16,
  adoptsSenders: true,
  pruneThreshold: 1,
  duplicatesPerReplica: 1,
  // Less than with the method gossip: a change waits at every hop, and there are more of them.
  coalesceMs: 3,
  sampleMin: 32,
  // Who is asked to stop was of little use over many messages, so there is nothing to flap.
  graftGraceMs: 5000,
  graftTriesMax: 4,
};
