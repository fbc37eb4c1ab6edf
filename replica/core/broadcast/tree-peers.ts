/**
 * A Plumtree replica's peers: who is eager, who is lazy, and what each has been worth.
 *
 * A peer is eager if the overlay chose it (`overlay.ts`), if it asked for it with a Graft, or if it
 * brought a message first; and not if it asked to be left out with a Prune since. Lazy peers are
 * random others, and the neighbours in the order of actor ids, who stay whatever happens: the ring
 * that they make keeps the announcements of a cluster in one piece.
 */
import type { Prng } from "#base/prng.ts";
import type { ActorId, Address } from "../../types.ts";
import {
  chooseByBands,
  chooseByElders,
  eagerSize,
  hashOf,
  lockedNeighbours,
  type OverlayPeer,
} from "./overlay.ts";
import type { PlumtreeConfig } from "./plumtree-types.ts";
import type { BroadcastMember } from "./types.ts";

/** Another replica. Mutable; only this file and `plumtree.ts` change it. */
export interface TreePeer extends OverlayPeer {
  address: Address;
  ring: number | null;
  rttMs: number | null;
  /** The overlay wants it eager. */
  isChosen: boolean;
  /** It sent a Graft, or brought something first. */
  isTaken: boolean;
  /** It sent a Prune since. */
  hasPruned: boolean;
  isLazy: boolean;
  isLocked: boolean;
  /** When we last sent it a Prune or a Graft. */
  prunedMs: number;
  graftedMs: number;
  /** Messages that came by it first, and again; both halved now and then. */
  firsts: number;
  copies: number;
}

/** The peers of one replica. */
export class TreePeers {
  readonly #config: PlumtreeConfig;
  readonly #self: OverlayPeer;
  readonly #prng: Prng;
  readonly #peerById = new Map<ActorId, TreePeer>();
  readonly #peerByAddress = new Map<Address, TreePeer>();
  /** In the order of actor ids. */
  #sorted: TreePeer[] = [];
  #eager: TreePeer[] = [];
  #lazy: TreePeer[] = [];
  #rebuildAtMs = Number.POSITIVE_INFINITY;
  #rebuiltMs = Number.NEGATIVE_INFINITY;
  rebuilds = 0;
  /** Times that a peer became eager, or lazy, because of a message. */
  promotions = 0;
  demotions = 0;
  /** Messages that came, and copies of them; both halved now and then, as those of each peer are. */
  #firsts = 0;
  #copies = 0;
  /** An elder takes copies on behalf of those who get what it passes on. */
  #replicasBehind = 1;

  constructor(config: PlumtreeConfig, options: { readonly actorId: ActorId; readonly prng: Prng }) {
    this.#config = config;
    this.#prng = options.prng;
    const { actorId } = options;
    this.#self = { actorId, ring: 0, rttMs: 0, hash: hashOf(actorId) };
  }

  get size(): number {
    return this.#peerById.size;
  }

  get eager(): readonly TreePeer[] {
    return this.#eager;
  }

  get lazy(): readonly TreePeer[] {
    return this.#lazy;
  }

  get(actorId: ActorId): TreePeer | undefined {
    return this.#peerById.get(actorId);
  }

  at(address: Address): TreePeer | undefined {
    return this.#peerByAddress.get(address);
  }

  /** Addresses of all peers. */
  get addresses(): { has(address: Address): boolean } {
    return this.#peerByAddress;
  }

  /** When `rebuild` is next due; `Infinity` = never. */
  get rebuildAtMs(): number {
    return this.#rebuildAtMs;
  }

  /** Takes the members of this cluster but for ourselves. */
  setMembers(members: readonly BroadcastMember[], nowMs: number): void {
    const ids = new Set(members.map(({ actorId }) => actorId));
    let hasChanged = false;
    for (const [actorId, peer] of this.#peerById) {
      if (ids.has(actorId)) continue;
      this.#peerById.delete(actorId);
      if (this.#peerByAddress.get(peer.address) === peer) this.#peerByAddress.delete(peer.address);
      hasChanged = true;
    }
    let hasMoved = false;
    for (const { actorId, address, ring, rttMs = null } of members) {
      const known = this.#peerById.get(actorId);
      if (known === undefined) {
        const peer = createPeer({ actorId, address, ring, rttMs });
        this.#peerById.set(actorId, peer);
        this.#peerByAddress.set(address, peer);
        hasChanged = true;
        continue;
      }
      if (known.address !== address) {
        if (this.#peerByAddress.get(known.address) === known) {
          this.#peerByAddress.delete(known.address);
        }
        known.address = address;
        this.#peerByAddress.set(address, known);
      }
      hasMoved ||= known.ring !== ring;
      known.ring = ring;
      known.rttMs = rttMs;
    }
    if (hasChanged) {
      this.#sorted = [...this.#peerById.values()].toSorted(byActorId);
      this.#list();
      this.#rebuildBy(Math.max(nowMs, this.#rebuiltMs + REBUILD_GAP_MS));
    } else if (hasMoved) {
      this.#rebuildBy(Math.max(nowMs, this.#rebuiltMs + RING_GAP_MS));
    }
  }

  /** Chooses again, if it is time to. */
  rebuildIfDue(nowMs: number): void {
    if (nowMs < this.#rebuildAtMs) return;
    this.#rebuiltMs = nowMs;
    this.#rebuildAtMs = nowMs + this.#config.maintenanceMs;
    this.rebuilds += 1;
    this.#lock();
    if (this.#config.overlay === "elders") this.#chooseElders(nowMs);
    else this.#chooseBands();
    this.#list();
    this.#chooseLazy();
    this.#list();
  }

  /** The peer wants our messages: it sent a Graft. */
  promote(peer: TreePeer): void {
    if (peer.isTaken && !peer.hasPruned) return;
    this.promotions += 1;
    peer.isTaken = true;
    peer.hasPruned = false;
    this.#list();
  }

  /** The peer brought something first: it is near to where messages come from. */
  adopt(peer: TreePeer): void {
    if (!peer.isTaken && !peer.hasPruned && !peer.isChosen) this.promote(peer);
  }

  /** The peer does not want our messages: it sent a Prune, or we sent it one. */
  demote(peer: TreePeer): void {
    this.demotions += 1;
    peer.hasPruned = true;
    peer.isTaken = false;
    peer.isLazy = true;
    this.#list();
  }

  /** Counts a message that came by a peer. */
  countFirst(peer: TreePeer): void {
    peer.firsts += 1;
    this.#firsts += 1;
    if (this.#firsts < SAMPLE_MAX) return;
    this.#firsts /= 2;
    this.#copies /= 2;
  }

  /**
   * Whether copies are more than are good for something, and this peer is one of those whose copies
   * are good for least. A yes counts on its copies not coming any more.
   */
  isSurplus(peer: TreePeer): boolean {
    const { duplicatesPerReplica, sampleMin } = this.#config;
    const heard = peer.firsts + peer.copies;
    if (heard < sampleMin) return false;
    if (this.#copies <= duplicatesPerReplica * this.#replicasBehind * this.#firsts) return false;
    const share = this.#firsts / (this.#firsts + this.#copies);
    if (peer.firsts >= share * heard) return false;
    this.#copies = Math.max(0, this.#copies - peer.copies);
    peer.firsts = 0;
    peer.copies = 0;
    return true;
  }

  /** Counts a copy of a message that was there. */
  countCopy(peer: TreePeer): void {
    peer.copies += 1;
    this.#copies += 1;
    if (peer.firsts + peer.copies < SAMPLE_MAX) return;
    peer.firsts /= 2;
    peer.copies /= 2;
  }

  #rebuildBy(atMs: number): void {
    this.#rebuildAtMs = Math.min(this.#rebuildAtMs, atMs);
  }

  #lock(): void {
    for (const peer of this.#sorted) peer.isLocked = false;
    for (const actorId of lockedNeighbours(this.#sorted, this.#self.actorId)) {
      const peer = this.#peerById.get(actorId);
      if (peer !== undefined) peer.isLocked = true;
    }
  }

  #chooseElders(nowMs: number): void {
    const { graftGraceMs, sampleMin } = this.#config;
    for (const peer of this.#sorted) {
      peer.isChosen = false;
      // Who asked or brought something keeps its link only while that is of use to us or young.
      const heard = peer.firsts + peer.copies;
      const isUseful = heard > 0 && peer.firsts >= USEFUL_SHARE * heard;
      const isYoung = heard < sampleMin || nowMs < peer.graftedMs + graftGraceMs;
      if (peer.isTaken && !isUseful && !isYoung) peer.isTaken = false;
    }
    const { peers, replicasBehind } = chooseByElders(this.#sorted, {
      ...this.#config,
      self: this.#self,
    });
    for (const peer of peers) peer.isChosen = true;
    this.#replicasBehind = replicasBehind;
  }

  /** Those chosen stay; who pruned us counts as one of them, or its place would be filled anew. */
  #chooseBands(): void {
    const isEagerAnyway = (peer: TreePeer): boolean => this.#isEager(peer);
    const taken = this.#sorted.filter((peer) => isEagerAnyway(peer) || peer.hasPruned);
    const eager = taken.filter(isEagerAnyway).length;
    const lacking = eagerSize(this.size) - taken.length;
    const count = Math.max(lacking, EAGER_MIN - eager);
    if (count <= 0) return;
    const open = this.#sorted.filter((peer) => !isEagerAnyway(peer) && !peer.hasPruned);
    for (const peer of chooseByBands(open, { taken, count, prng: this.#prng })) {
      peer.isChosen = true;
    }
  }

  /** Fills up to 1.5 times the eager size, and cuts what is beyond twice of it. */
  #chooseLazy(): void {
    const size = eagerSize(this.size);
    const surplus = this.#lazy.filter((peer) => !peer.isLocked);
    const over = surplus.length - 2 * size;
    if (over > 0) for (const peer of this.#prng.sample(surplus, over)) peer.isLazy = false;
    const count = Math.ceil(1.5 * size) - surplus.length;
    if (count <= 0) return;
    const open = this.#sorted.filter(
      (peer) => !this.#isEager(peer) && !peer.isLazy && !peer.isLocked,
    );
    for (const peer of chooseByBands(open, { taken: surplus, count, prng: this.#prng })) {
      peer.isLazy = true;
    }
  }

  /** Makes the lists of what stands in the peers. O(peers). */
  #list(): void {
    this.#eager = this.#sorted.filter((peer) => this.#isEager(peer));
    this.#lazy = this.#sorted.filter(
      (peer) => (peer.isLazy || peer.isLocked) && !this.#isEager(peer),
    );
  }

  #isEager(peer: TreePeer): boolean {
    if (peer.isLocked && this.#config.lockedNeighbours === "eager") return true;
    return isEager(peer);
  }
}

function isEager(peer: TreePeer): boolean {
  return peer.isTaken || (peer.isChosen && !peer.hasPruned);
}

function createPeer(
  member: Pick<BroadcastMember, "actorId" | "address" | "ring" | "rttMs">,
): TreePeer {
  return {
    actorId: member.actorId,
    hash: hashOf(member.actorId),
    address: member.address,
    ring: member.ring,
    rttMs: member.rttMs ?? null,
    isChosen: false,
    isTaken: false,
    hasPruned: false,
    isLazy: false,
    isLocked: false,
    prunedMs: Number.NEGATIVE_INFINITY,
    graftedMs: Number.NEGATIVE_INFINITY,
    firsts: 0,
    copies: 0,
  };
}

function byActorId(one: TreePeer, other: TreePeer): number {
  return one.actorId < other.actorId ? -1 : 1;
}

/** Joins come in bursts: the overlay is not made anew for each. */
const REBUILD_GAP_MS = 100;
/** Rings of a replica that joins are measured one by one. */
const RING_GAP_MS = 1000;
/** A cluster of any size keeps so many links, whoever pruned them. */
const EAGER_MIN = 3;
/** Of what a peer brings, so much must be first for a link that it asked for to last. */
const USEFUL_SHARE = 0.02;
/** What a peer was worth counts over about so many messages. */
const SAMPLE_MAX = 1024;
