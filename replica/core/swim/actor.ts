/**
 * Actor: the identity under which a replica is known to the cluster.
 *
 * A replica keeps its id and address over restarts and takes a new stamp each time, so an identity
 * names one life of a replica: a peer that restarted is another identity of the same id. All rules
 * of comparison are here (protocol reference, section 2.2).
 */
import { ntp64SubsecondNanos } from "../hlc.ts";
import type { ActorId, Address } from "../../types.ts";

/** One identity of a replica. */
export interface Actor {
  readonly id: ActorId;
  /** The address others dial; advertised, not necessarily bound. */
  readonly addr: Address;
  /** NTP64 stamp of when this identity was taken. */
  readonly ts: bigint;
  /** Replicas of different clusters may know each other, and exchange no state. */
  readonly clusterId: number;
  /** Replicas exchange state only where this is equal; normally `null` everywhere. */
  readonly memberId: number | null;
}

/** The id of a replica of which only the address is known. */
export const NIL_ACTOR_ID: ActorId = "00000000-0000-0000-0000-000000000000";

/** The target of an announcement to an address whose replica is not known. */
export function placeholderActor(addr: Address): Actor {
  return { id: NIL_ACTOR_ID, addr, ts: 0n, clusterId: 0, memberId: null };
}

/** Whether two actors are the same identity: all five fields, stamps to the nanosecond. */
export function isSameActor(one: Actor, other: Actor): boolean {
  return (
    one.id === other.id &&
    one.addr === other.addr &&
    one.clusterId === other.clusterId &&
    one.memberId === other.memberId &&
    compareTs(one.ts, other.ts) === 0
  );
}

/** Whether two actors are lives of one replica: equal ids, or equal addresses if one id is nil. */
export function isSameReplica(one: Actor, other: Actor): boolean {
  if (one.id === NIL_ACTOR_ID || other.id === NIL_ACTOR_ID) return one.addr === other.addr;
  return one.id === other.id;
}

/**
 * Whether what is known of a replica outlives news about another identity of it. Only a strictly
 * newer stamp does: of two identities with equal stamps the one heard last is right.
 */
export function winsConflict(known: Actor, news: Actor): boolean {
  return compareTs(known.ts, news.ts) > 0;
}

/** Whether a member is one to exchange state with: the same cluster and the same member id. */
export function isPeerOf(self: Actor, other: Actor): boolean {
  return self.clusterId === other.clusterId && self.memberId === other.memberId;
}

/** Orders stamps at the resolution of a nanosecond, which is all that Corrosion compares. */
export function compareTs(one: bigint, other: bigint): number {
  const seconds = (one >> 32n) - (other >> 32n);
  const difference =
    seconds === 0n ? ntp64SubsecondNanos(one) - ntp64SubsecondNanos(other) : seconds;
  return difference === 0n ? 0 : difference > 0n ? 1 : -1;
}
