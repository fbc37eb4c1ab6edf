/**
 * Pushes changesets to other replicas along trees that the messages themselves shape (Plumtree:
 * Leitão, Pereira, Rodrigues, "Epidemic Broadcast Trees", 2007; protocol reference, 3.8).
 *
 *   own, or received for the first time ──► Gossip at once to the eager peers (round + 1)
 *                                      └──► IHave to the lazy ones, at the next tick of 150 ms
 *   received again, too often          ──► Prune to the sender: it stops, and only announces
 *   IHave of something unknown ─150 ms─► Graft to an announcer ─75 ms─► to another ──► sync's turn
 *   Graft received                     ──► its sender is eager, and gets what it asks for
 *   Prune received                     ──► its sender is lazy
 *
 * What goes into the tree is passed on in the bytes in which it came, compressed or not. A plain
 * broadcast of a replica with the method `gossip` counts as a Gossip of round 1 from its origin.
 * Urgent changes overtake all else in every queue (`frame-lanes.ts`); who is eager is decided in
 * `tree-peers.ts`.
 *
 * Differences to Corrosion, none of them on the wire. A peer is pruned only if
 * copies are more than a set rate and few of its messages came first by it, because a link that is
 * late for one origin may be the best one for another. The
 * locked neighbours are announced to rather than sent to. With `PLUMTREE_CORROSION` these are as there.
 */
import type { Prng } from "#base/prng.ts";
import type { ActorId, Address, Changeset } from "../../types.ts";
import type { ChangeDigest, ChangeId, PlumtreeMessage } from "../wire/types.ts";
import { encodeBody, encodeGossip, encodeUniPayload } from "../wire/uni-payload.ts";
import { FrameLanes, type FramePriority } from "./frame-lanes.ts";
import { LazyQueue } from "./lazy-queue.ts";
import type { PlumtreeStats } from "./plumtree-types.ts";
import type { TokenBucket } from "./token-bucket.ts";
import { changeKey, SeenCache } from "./seen-cache.ts";
import {
  MessageCache,
  MissingTable,
  type MissingMessage,
  type TreeMessage,
} from "./tree-messages.ts";
import { TreePeers, type TreePeer } from "./tree-peers.ts";
import type {
  BroadcastConfig,
  Broadcaster,
  BroadcastInput,
  BroadcastOutput,
  BroadcastStats,
  PlumtreeControl,
} from "./types.ts";
import { hasUrgentChange } from "./urgency.ts";
import { UrgentVersions } from "./urgent-versions.ts";

/** What the machine asks of its owner. */
export interface PlumtreeOptions {
  readonly prng: Prng;
  /** Whether bookkeeping has this already, by whatever way: then nobody is asked for it. */
  readonly isKnown: (id: ChangeId) => boolean;
  readonly bucket?: TokenBucket;
}

/** The Plumtree machine of one replica. */
export class Plumtree implements Broadcaster {
  readonly #config: BroadcastConfig;
  readonly #options: PlumtreeOptions;
  readonly #peers: TreePeers;
  readonly #lanes: FrameLanes;
  readonly #seen: SeenCache;
  readonly #cache: MessageCache;
  readonly #missing: MissingTable;
  readonly #urgentVersions: UrgentVersions;
  readonly #lazyQueue: LazyQueue;
  readonly #counters = {
    relayed: 0,
    duplicates: 0,
    replayed: 0,
    gossipSent: 0,
    iHavesSent: 0,
    graftsSent: 0,
    prunesSent: 0,
    graftsReceived: 0,
    prunesReceived: 0,
    pruneSuppressed: 0,
    payloadNotCached: 0,
    gossipReceived: 0,
    iHavesReceived: 0,
    givenUp: 0,
    strangers: 0,
  };

  constructor(config: BroadcastConfig, options: PlumtreeOptions) {
    const { plumtree, actorId } = config;
    this.#config = config;
    this.#options = options;
    this.#peers = new TreePeers(plumtree, { actorId, prng: options.prng });
    this.#lanes = new FrameLanes({ ...config, coalesceMs: plumtree.coalesceMs }, options.bucket);
    this.#seen = new SeenCache(config.seenMax);
    const { cacheMax: entriesMax, cacheBytesMax: bytesMax } = plumtree;
    this.#cache = new MessageCache({ entriesMax, bytesMax });
    this.#lazyQueue = new LazyQueue({ tickMs: plumtree.lazyTickMs, entriesMax });
    this.#missing = new MissingTable(entriesMax);
    this.#urgentVersions = new UrgentVersions(config.urgentColumns);
  }

  handle(input: BroadcastInput, nowMs: number): void {
    this.#peers.rebuildIfDue(nowMs);
    switch (input.kind) {
      case "committed":
        this.#onCommitted(input, nowMs);
        break;
      case "received":
        this.#onReceived(input, nowMs);
        break;
      case "plumtree":
        this.#onControl(input.message, nowMs);
        break;
      case "members":
        this.#onMembers(input.members, nowMs);
        break;
      case "peerRenewed":
        this.#onPeerRenewed(input.address, nowMs);
        break;
      case "sent":
        this.#onSent(input.id, input.ok, nowMs);
        break;
      case "leave":
        for (const peer of this.#peers.eager) this.#prune(peer, null);
        break;
      case "tick":
        this.#lanes.expire(nowMs);
    }
    if (nowMs >= this.#lazyQueue.dueMs) this.#announce();
    this.#askForMissing(nowMs);
    this.#lanes.flush(nowMs);
  }

  drain(): BroadcastOutput[] {
    return this.#lanes.drain();
  }

  deadlineMs(): number {
    return Math.min(
      this.#lazyQueue.dueMs,
      this.#missing.deadlineMs(),
      this.#peers.rebuildAtMs,
      this.#lanes.deadlineMs(),
    );
  }

  hasSeen(changeset: Changeset): boolean {
    return this.#seen.has(changeset);
  }

  forget(changeset: Changeset): void {
    this.#seen.delete(changeset);
    this.#cache.delete(changeKey(changeset));
  }

  get stats(): BroadcastStats & { readonly plumtree: PlumtreeStats } {
    const { relayed, duplicates, replayed, ...counters } = this.#counters;
    return {
      ...this.#lanes.stats,
      relayed,
      duplicates,
      replayed,
      backlogEntries: this.#lanes.entries,
      backlogBytes: this.#lanes.bytes,
      inFlight: this.#lanes.inFlight,
      plumtree: {
        ...counters,
        eagerPeers: this.#peers.eager.length,
        lazyPeers: this.#peers.lazy.length,
        knownPeers: this.#peers.size,
        cacheEntries: this.#cache.size,
        seenEntries: this.#seen.size,
        lazyQueued: this.#lazyQueue.size,
        promotions: this.#peers.promotions,
        demotions: this.#peers.demotions,
        missing: this.#missing.size,
        rebalances: this.#peers.rebuilds,
      },
    };
  }

  /** Eager and lazy peers, for whoever looks in. */
  get links(): { readonly eager: readonly ActorId[]; readonly lazy: readonly ActorId[] } {
    return {
      eager: this.#peers.eager.map(({ actorId }) => actorId),
      lazy: this.#peers.lazy.map(({ actorId }) => actorId),
    };
  }

  // -------------------------------------------------------------- changes

  #onCommitted({ changesets, bodies }: CommittedInput, nowMs: number): void {
    const urgentVersions = new Set<number>();
    for (const changeset of changesets) {
      if (changeset.kind === "empty") continue;
      const { version, changes } = changeset;
      if (hasUrgentChange(changes, this.#config.urgentColumns)) urgentVersions.add(version);
    }
    for (const [at, changeset] of changesets.entries()) {
      this.#seen.add(changeset);
      const isUrgent = changeset.kind === "full" && urgentVersions.has(changeset.version);
      const body = bodies?.[at] ?? encodeBody(changeset);
      const message = this.#remember(changeset, { round: 0, body, isUrgent, nowMs });
      this.#push(message, { round: 0, priority: isUrgent ? 0 : 1, except: null });
      this.#lazyQueue.add({ message, except: null, isToAll: false }, nowMs);
    }
  }

  #onReceived(input: ReceivedInput, nowMs: number): void {
    const { changeset, isNews } = input;
    if (input.gossip) this.#counters.gossipReceived += 1;
    if (changeset.actorId === this.#config.actorId) {
      this.#counters.duplicates += 1;
      return;
    }
    // A plain broadcast comes from its origin, or from somebody who does not say who it is.
    const { sender, round } = input.gossip ?? { sender: changeset.actorId, round: 1 };
    const link = input.gossip ? this.#peers.get(sender) : undefined;
    if (input.gossip && link === undefined) this.#counters.strangers += 1;
    const key = changeKey(changeset);
    if (!this.#seen.add(changeset)) {
      this.#counters.duplicates += 1;
      if (link !== undefined) this.#onCopy(link, { message: this.#cache.get(key), nowMs });
      return;
    }
    this.#missing.delete(key);
    if (link !== undefined) {
      this.#peers.countFirst(link);
      if (this.#config.plumtree.adoptsSenders) this.#peers.adopt(link);
    }
    const isUrgent = changeset.kind === "full" && this.#urgentVersions.judge(changeset) !== "no";
    const body = input.body ?? encodeBody(changeset);
    const message = this.#remember(changeset, { round, body, isUrgent, nowMs });
    if (isNews) {
      this.#counters.relayed += 1;
      this.#push(message, { round: round + 1, priority: isUrgent ? 0 : 2, except: sender });
    }
    // What sync had brought before may be old: who is eager is told of it, and asks if need be.
    this.#lazyQueue.add({ message, except: sender, isToAll: !isNews }, nowMs);
  }

  #onCopy(
    link: TreePeer,
    { message, nowMs }: { readonly message: TreeMessage | undefined; readonly nowMs: number },
  ): void {
    this.#peers.countCopy(link);
    if (message === undefined) return;
    message.copies += 1;
    const { plumtree } = this.#config;
    if (message.copies <= plumtree.pruneThreshold) return;
    if (!this.#mayPrune(link, nowMs)) {
      this.#counters.pruneSuppressed += 1;
      return;
    }
    link.prunedMs = nowMs;
    this.#prune(link, message.id);
    this.#peers.demote(link);
  }

  #mayPrune(link: TreePeer, nowMs: number): boolean {
    const { plumtree } = this.#config;
    if (link.isLocked && plumtree.lockedNeighbours === "eager") return false;
    if (nowMs < link.prunedMs + plumtree.pruneThrottleMs) return false;
    if (nowMs < link.graftedMs + plumtree.graftGraceMs) return false;
    return plumtree.duplicatesPerReplica === 0 || this.#peers.isSurplus(link);
  }

  #remember(
    changeset: Changeset,
    of: Pick<TreeMessage, "round" | "body" | "isUrgent"> & { readonly nowMs: number },
  ): TreeMessage {
    const { round, body, isUrgent, nowMs: bornMs } = of;
    const id = changeIdOf(changeset);
    const message = { key: changeKey(id), id, round, body, isUrgent, bornMs, copies: 0 };
    this.#cache.add(message);
    return message;
  }

  /** Sends a message to the eager peers. */
  #push(
    message: TreeMessage,
    of: { readonly round: number; priority: FramePriority; except: ActorId | null },
  ): void {
    let frame: Uint8Array | null = null;
    for (const peer of this.#peers.eager) {
      if (peer.actorId === of.except || peer.actorId === message.id.actorId) continue;
      frame ??= this.#gossip(message, of.round);
      this.#sendGossip(peer.address, { message, frame, priority: of.priority });
    }
  }

  #gossip({ id, body }: TreeMessage, round: number): Uint8Array {
    const { actorId: sender, clusterId } = this.#config;
    return encodeGossip({ round, sender, id, body, clusterId });
  }

  #sendGossip(
    target: Address,
    of: { message: TreeMessage; frame: Uint8Array; priority: FramePriority },
  ): void {
    const { id, round } = of.message;
    this.#counters.gossipSent += 1;
    const { frame, priority } = of;
    this.#lanes.push(target, { frame, priority, digest: { id, round } });
  }

  // -------------------------------------------------------------- announcements

  #announce(): void {
    const { actorId: sender } = this.#config;
    for (const { peers, digests } of this.#lazyQueue.take(this.#peers.lazy, this.#peers.eager)) {
      for (const some of chunksOf(digests, IHAVE_DIGESTS_MAX)) {
        const frame = this.#encode({ kind: "iHave", sender, digests: some });
        for (const { address } of peers) {
          this.#counters.iHavesSent += 1;
          this.#lanes.push(address, { frame, priority: 1, digest: null });
        }
      }
    }
  }

  #onIHave(link: TreePeer, digests: readonly ChangeDigest[], nowMs: number): void {
    const { graftAfterMs } = this.#config.plumtree;
    for (const { id, round } of digests) {
      if (id.actorId === this.#config.actorId) continue;
      if (this.#seen.has(id)) {
        this.#optimise(link, { id, round });
        continue;
      }
      const key = changeKey(id);
      const announcer = { sender: link.actorId, round };
      const missing = this.#missing.get(key);
      if (missing === undefined) {
        if (this.#options.isKnown(id)) continue;
        this.#missing.add(key, id, { announcer, dueMs: nowMs + graftAfterMs });
      } else if (missing.announcers.length < ANNOUNCERS_MAX) {
        missing.announcers.push(announcer);
      }
    }
  }

  /** Takes a link by which a message would have come in far fewer hops. */
  #optimise(link: TreePeer, { id, round }: ChangeDigest): void {
    const { optimizationThreshold } = this.#config.plumtree;
    if (optimizationThreshold === 0) return;
    const message = this.#cache.get(changeKey(id));
    if (message === undefined || message.round - (round + 1) < optimizationThreshold) return;
    const { actorId: sender } = this.#config;
    this.#sendControl(link, { kind: "graft", sender, wantsPayloads: false, requests: [] });
    this.#counters.graftsSent += 1;
  }

  #askForMissing(nowMs: number): void {
    const due = this.#missing.takeDue(nowMs);
    if (due.length === 0) return;
    const requestsByPeer = new Map<TreePeer, ChangeDigest[]>();
    for (const missing of due) {
      const isKnown = this.#options.isKnown(missing.id);
      const asked = isKnown ? null : this.#nextAnnouncer(missing);
      if (asked === null) {
        if (!isKnown) this.#counters.givenUp += 1;
        this.#missing.delete(missing.key);
        continue;
      }
      const requests = requestsByPeer.get(asked.peer) ?? [];
      requests.push({ id: missing.id, round: asked.round });
      requestsByPeer.set(asked.peer, requests);
      this.#missing.retry(missing, nowMs + this.#config.plumtree.graftAfterMs / 2);
    }
    const { actorId: sender } = this.#config;
    for (const [peer, all] of requestsByPeer) {
      peer.graftedMs = nowMs;
      this.#peers.promote(peer);
      for (const requests of chunksOf(all, IHAVE_DIGESTS_MAX)) {
        this.#sendControl(peer, { kind: "graft", sender, wantsPayloads: true, requests });
        this.#counters.graftsSent += 1;
      }
    }
  }

  /** Who is asked next; null when enough were. */
  #nextAnnouncer(missing: MissingMessage): { peer: TreePeer; round: number } | null {
    if (missing.tries >= this.#config.plumtree.graftTriesMax) return null;
    for (;;) {
      const announcer = missing.announcers.shift();
      if (announcer === undefined) return null;
      const peer = this.#peers.get(announcer.sender);
      if (peer !== undefined) return { peer, round: announcer.round };
    }
  }

  // -------------------------------------------------------------- peers

  #onControl(message: PlumtreeControl, nowMs: number): void {
    const link = this.#peers.get(message.sender);
    if (link === undefined) {
      this.#counters.strangers += 1;
      return;
    }
    switch (message.kind) {
      case "iHave":
        this.#counters.iHavesReceived += 1;
        return this.#onIHave(link, message.digests, nowMs);
      case "graft":
        this.#counters.graftsReceived += 1;
        this.#peers.promote(link);
        if (message.wantsPayloads) this.#answerGraft(link, message.requests);
        return;
      case "prune":
        this.#counters.prunesReceived += 1;
        if (link.isLocked && this.#config.plumtree.lockedNeighbours === "eager") return;
        this.#peers.demote(link);
    }
  }

  #answerGraft(link: TreePeer, requests: readonly ChangeDigest[]): void {
    for (const { id } of requests.slice(0, IHAVE_DIGESTS_MAX)) {
      const message = this.#cache.get(changeKey(id));
      if (message === undefined) {
        this.#counters.payloadNotCached += 1;
        continue;
      }
      const frame = this.#gossip(message, message.round);
      const priority = message.isUrgent ? 0 : 1;
      this.#sendGossip(link.address, { message, frame, priority });
    }
  }

  #onMembers(
    members: Extract<BroadcastInput, { kind: "members" }>["members"],
    nowMs: number,
  ): void {
    const { actorId, clusterId } = this.#config;
    const others = members.filter(
      (member) => member.clusterId === clusterId && member.actorId !== actorId,
    );
    this.#peers.setMembers(others, nowMs);
    this.#peers.rebuildIfDue(nowMs);
    this.#lanes.retain(this.#peers.addresses);
  }

  /** What it was sent last may be lost: it is told of it, and asks for what it lacks. */
  #onPeerRenewed(address: Address, nowMs: number): void {
    const peer = this.#peers.at(address);
    if (peer === undefined) return;
    const isLinked = this.#peers.eager.includes(peer) || this.#peers.lazy.includes(peer);
    if (!isLinked) return;
    for (const message of this.#cache.since(nowMs - this.#config.replayMs)) {
      this.#counters.replayed += 1;
      this.#lazyQueue.add({ message, except: null, isToAll: false, only: peer.actorId }, nowMs);
    }
  }

  /** What did not get through is announced to that peer instead. */
  #onSent(id: number, ok: boolean, nowMs: number): void {
    const failed = this.#lanes.finish(id, ok);
    const peer = failed === null ? undefined : this.#peers.at(failed.target);
    if (failed === null || peer === undefined) return;
    for (const { digest } of failed.frames) {
      const message = digest === null ? undefined : this.#cache.get(changeKey(digest.id));
      if (message === undefined) continue;
      this.#lazyQueue.add({ message, except: null, isToAll: false, only: peer.actorId }, nowMs);
    }
  }

  #prune(peer: TreePeer, triggeredBy: ChangeId | null): void {
    const { actorId: sender } = this.#config;
    this.#sendControl(peer, { kind: "prune", sender, triggeredBy });
    this.#counters.prunesSent += 1;
  }

  #sendControl(peer: TreePeer, message: PlumtreeControl): void {
    this.#lanes.push(peer.address, { frame: this.#encode(message), priority: 1, digest: null });
  }

  #encode(message: PlumtreeMessage): Uint8Array {
    const { clusterId } = this.#config;
    return encodeUniPayload({ kind: "plumtree", message, clusterId });
  }
}

function changeIdOf(changeset: Changeset): ChangeId {
  const { actorId } = changeset;
  if (changeset.kind === "empty") return { kind: "empty", actorId, versions: changeset.versions };
  const { version, seqs, lastSeq } = changeset;
  return { kind: "full", actorId, version, seqs, lastSeq };
}

type CommittedInput = Extract<BroadcastInput, { kind: "committed" }>;
type ReceivedInput = Extract<BroadcastInput, { kind: "received" }>;

function chunksOf<Item>(items: readonly Item[], size: number): Item[][] {
  const chunks: Item[][] = [];
  for (let at = 0; at < items.length; at += size) chunks.push(items.slice(at, at + size));
  return chunks;
}

/** Digests in one frame, of 72 bytes each: below 64 KiB. */
const IHAVE_DIGESTS_MAX = 500;
/** Announcers remembered of one message; two are asked at most. */
const ANNOUNCERS_MAX = 8;
