/**
 * Which peers a replica sends to: the overlay on which Plumtree's trees grow.
 *
 * `bands` is Corrosion's choice (protocol reference, 3.8): eager and lazy peers at random, half of
 * them near (rings 0 and 1), three tenths mid (2 and 3), a fifth far. Any such graph works, and any
 * message crosses it with as many copies as a replica has eager links.
 *
 * `elders` makes use of what all replicas of a place know without asking: who is in ring 0, and the
 * order of actor ids. The first few of a place in that order are its elders. They are linked to each
 * other; everybody else has one parent in the level above, chosen by a hash of both ids so that it
 * changes only when that parent goes; and the elders share the links to other places: whoever is
 * equally far away stands in one place, and the first there in the order of actor ids are its elders.
 * A message so takes two hops up at most, one across, two down.
 *
 *                 elder --- elder ========== elder --- elder
 *                /  |         |                |         |  \
 *           child child     child            child    child child
 *
 * Views that differ for a while cost a Graft or some copies, nothing else: the lazy peers are chosen
 * at random by either rule, and announcements to them find whoever was left out. Links are few and go
 * one way: when several die at once it may be that, until they are known to be dead, nobody alive has
 * a link to some replica. What it misses meanwhile comes by sync, for which it asks by itself.
 */
import type { Prng } from "#base/prng.ts";
import type { ActorId } from "../../types.ts";

/** What the choice needs of a peer. */
export interface OverlayPeer {
  readonly actorId: ActorId;
  /** RTT band, 0 nearest; `null` = not measured, counts as far. */
  readonly ring: number | null;
  /** Least round trip measured; `null` = not measured. */
  readonly rttMs: number | null;
  /** `hashOf(actorId)`. */
  readonly hash: number;
}

/** Eager peers of a cluster with `peers` other members (Corrosion's rule). */
export function eagerSize(peers: number): number {
  return Math.max(3, Math.round(3 * Math.log10(peers + 1)));
}

/** Predecessor and successor in the cyclic order of actor ids; `sorted` is in that order. */
export function lockedNeighbours(sorted: readonly OverlayPeer[], self: ActorId): ActorId[] {
  if (sorted.length === 0) return [];
  const after = rankOf(sorted, self);
  const successor = sorted[after % sorted.length];
  const predecessor = sorted[(after + sorted.length - 1) % sorted.length];
  return [...new Set([predecessor, successor].flatMap((peer) => (peer ? [peer.actorId] : [])))];
}

/**
 * Chooses `count` of `candidates` in shares of 50, 30 and 20 % near, mid and far; what a band lacks
 * the others make up for. `taken` are the ones chosen before, which count towards the shares.
 */
export function chooseByBands<Peer extends OverlayPeer>(
  candidates: readonly Peer[],
  options: { readonly taken: readonly Peer[]; readonly count: number; readonly prng: Prng },
): Peer[] {
  const { taken, count, prng } = options;
  const chosen: Peer[] = [];
  const total = taken.length + count;
  for (const [band, share] of BAND_SHARES.entries()) {
    const have = taken.filter((peer) => bandOf(peer) === band).length;
    const lacking = Math.round(total * share) - have;
    const open = candidates.filter((peer) => bandOf(peer) === band);
    const room = Math.min(lacking, count - chosen.length);
    if (room > 0) chosen.push(...prng.sample(open, room));
  }
  if (chosen.length < count) {
    const has = new Set(chosen);
    const rest = candidates.filter((peer) => !has.has(peer));
    chosen.push(...prng.sample(rest, count - chosen.length));
  }
  return chosen;
}

/** How many elders a place has, and what they share. */
export interface ElderOptions {
  readonly self: OverlayPeer;
  readonly eldersMax: number;
  readonly childrenMax: number;
  readonly farLinksPerPlace: number;
  readonly farLinksMax: number;
}

/**
 * The peers of the tree of elders, and how many replicas of its place a replica stands for;
 * `sorted` are all others in the order of actor ids.
 */
export function chooseByElders<Peer extends OverlayPeer>(
  sorted: readonly Peer[],
  options: ElderOptions,
): { readonly peers: readonly Peer[]; readonly replicasBehind: number } {
  const { self, eldersMax, childrenMax } = options;
  const near = sorted.filter((peer) => peer.ring === 0);
  const rank = rankOf(near, self.actorId);
  const place: (Peer | null)[] = [...near.slice(0, rank), null, ...near.slice(rank)];
  const elders = Math.min(eldersMax, Math.ceil(place.length / (childrenMax + 1)));
  // Bounds of the level above ours, of ours, and of the one below.
  let above = { start: 0, end: 0 };
  let level = { start: 0, end: elders };
  while (rank >= level.end) {
    above = level;
    level = { start: level.end, end: level.end + (level.end - level.start) * childrenMax };
  }
  const below = { start: level.end, end: level.end + (level.end - level.start) * childrenMax };
  const peersIn = (range: { start: number; end: number }): Peer[] =>
    place.slice(range.start, range.end).filter((peer) => peer !== null);
  const mates = peersIn(level);
  const children = peersIn(below).filter((peer) => parentOf(peer, [self, ...mates]) === self);
  if (rank >= elders) {
    return { peers: [parentOf(self, peersIn(above)), ...children], replicasBehind: 1 };
  }
  const placeSize = place.length;
  const far = chooseFar(sorted, { ...options, rank, elders, placeSize });
  return { peers: [...mates, ...children, ...far], replicasBehind: placeSize / elders };
}

/** An elder's share of the links to other places. */
function chooseFar<Peer extends OverlayPeer>(
  sorted: readonly Peer[],
  of: ElderOptions & { readonly rank: number; readonly elders: number; readonly placeSize: number },
): Peer[] {
  const far = sorted.filter((peer) => peer.ring !== 0);
  const places = placesOf(far);
  const wanted: Peer[] = [];
  // First one link to each place, then a second one to each, and so on.
  for (let link = 0; link < of.farLinksPerPlace; link += 1) {
    for (const place of places) {
      const peer = place[link];
      if (peer !== undefined) wanted.push(peer);
    }
  }
  const linksMax = Math.max(FAR_LINKS_MIN, Math.floor(of.placeSize * FAR_LINKS_PER_REPLICA));
  const shared = spread(wanted, { count: linksMax, salt: of.self.hash, isSame: of.elders > 1 });
  return shared.filter((_, at) => at % of.elders === of.rank).slice(0, of.farLinksMax);
}

/**
 * Far peers by place, each in the order of actor ids, so that its elders come first. Who is equally
 * far from here stands in one place as far as we can tell; who was not measured yet, alone.
 */
function placesOf<Peer extends OverlayPeer>(far: readonly Peer[]): Peer[][] {
  const measured = far.filter((peer) => peer.rttMs !== null);
  const byDistance = measured.toSorted((one, other) => (one.rttMs ?? 0) - (other.rttMs ?? 0));
  const places: Peer[][] = [];
  let startMs = Number.NEGATIVE_INFINITY;
  for (const peer of byDistance) {
    const rttMs = peer.rttMs ?? 0;
    if (rttMs > startMs + Math.max(PLACE_WIDTH_MS, startMs * PLACE_WIDTH_SHARE)) {
      places.push([]);
      startMs = rttMs;
    }
    places.at(-1)?.push(peer);
  }
  for (const place of places) place.sort((one, other) => (one.actorId < other.actorId ? -1 : 1));
  for (const peer of far) if (peer.rttMs === null) places.push([peer]);
  return places;
}

/** The first `count` of the items; if there are more, others for each salt. */
function spread<Peer extends OverlayPeer>(
  peers: readonly Peer[],
  of: { readonly count: number; readonly salt: number; readonly isSame: boolean },
): readonly Peer[] {
  if (peers.length <= of.count) return peers;
  // Elders of one place share one list, and none of them may leave the others' part of it out.
  const salt = of.isSame ? 0 : of.salt;
  const weight = (peer: Peer): number => mix(salt, peer.hash);
  return peers.toSorted((one, other) => weight(other) - weight(one)).slice(0, of.count);
}

/** The one of the level above with the greatest hash together with the child (rendezvous hashing). */
function parentOf<Peer extends OverlayPeer>(child: OverlayPeer, level: readonly Peer[]): Peer {
  let best = level[0] as Peer;
  let bestWeight = -1;
  for (const peer of level) {
    const weight = mix(child.hash, peer.hash);
    if (weight <= bestWeight) continue;
    best = peer;
    bestWeight = weight;
  }
  return best;
}

/** Where `actorId` stands or would stand. */
function rankOf(sorted: readonly OverlayPeer[], actorId: ActorId): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((sorted[middle]?.actorId ?? "") < actorId) low = middle + 1;
    else high = middle;
  }
  return low;
}

function bandOf({ ring }: OverlayPeer): number {
  if (ring === null) return 2;
  return Math.min(2, ring >> 1);
}

/** 32 bits of an actor id (FNV-1a). */
export function hashOf(actorId: ActorId): number {
  let hash = 0x81_1c_9d_c5;
  for (let at = 0; at < actorId.length; at += 1) {
    hash = Math.imul(hash ^ actorId.charCodeAt(at), 0x01_00_01_93);
  }
  return hash >>> 0;
}

/** Mixes two hashes (the finaliser of MurmurHash3); the order matters. */
function mix(one: number, other: number): number {
  let hash = Math.imul(one, 31) ^ other;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85_eb_ca_6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2_b2_ae_35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

/** Near, mid and far. */
const BAND_SHARES = [0.5, 0.3, 0.2];
/** A replica that is alone in its place has so many links all the same. */
const FAR_LINKS_MIN = 3;
/** Links to other places are what makes copies: a place may spend so many per replica. */
const FAR_LINKS_PER_REPLICA = 0.5;
/** Round trips to one place differ by so much from each other. */
const PLACE_WIDTH_MS = 2;
const PLACE_WIDTH_SHARE = 0.03;
