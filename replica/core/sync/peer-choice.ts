/**
 * Which members a sync round asks (protocol reference, section 4.5): a random draw of twice as many
 * as wanted, of which those most worth asking are taken.
 */
import type { ActorId, Address } from "../../types.ts";
import type { Prng } from "#base/prng.ts";

/** A member that may be asked. */
export interface SyncPeer {
  readonly actorId: ActorId;
  readonly address: Address;
  /** RTT band, 0 nearest; `null` = not measured yet. */
  readonly ring: number | null;
}

/** What the choice depends on. */
export interface PeerChoice {
  readonly peers: readonly SyncPeer[];
  readonly serversMin: number;
  readonly serversMax: number;
  /** Versions of that actor which we know that we lack. */
  readonly needOf: (actorId: ActorId) => number;
  /** When it was last asked; 0 = never. */
  readonly lastSyncMs: (actorId: ActorId) => number;
  readonly prng: Prng;
}

/** Draws the servers of a round: one in a hundred members, within the limits. */
export function choosePeers(choice: PeerChoice): SyncPeer[] {
  const { peers, needOf, lastSyncMs, serversMin, serversMax } = choice;
  const hundredth = Math.floor(peers.length / 100);
  const wanted = Math.min(serversMax, Math.max(serversMin, hundredth));
  const drawn = choice.prng.sample(peers, 2 * wanted);
  drawn.sort(
    (one, other) =>
      needOf(other.actorId) - needOf(one.actorId) ||
      lastSyncMs(one.actorId) - lastSyncMs(other.actorId) ||
      (one.ring ?? UNKNOWN_RING) - (other.ring ?? UNKNOWN_RING),
  );
  return drawn.slice(0, wanted);
}

/** Behind every measured ring. */
const UNKNOWN_RING = 255;
