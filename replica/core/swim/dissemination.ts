/**
 * The queue of updates that ride on packets (SWIM, section
 * 4.1: infection-style dissemination).
 *
 * There is one update per replica, the latest; it is sent a limited number of times, which grows
 * with the logarithm of the cluster, and then dropped. Fresh updates go first, so that a burst of
 * old ones cannot hold back a new one; among equally fresh ones the largest goes first, because it
 * is the hardest to place.
 */
import type { ActorId } from "../../types.ts";
import { memberBytes } from "./codec.ts";
import type { MemberUpdate } from "./packet.ts";

interface QueuedUpdate {
  readonly update: MemberUpdate;
  readonly bytes: number;
  /** Transmissions left. */
  remaining: number;
}

/** The updates still to be spread; at most one per replica, so bounded by the member list. */
export class DisseminationQueue {
  readonly #queuedById = new Map<ActorId, QueuedUpdate>();

  /** Number of updates waiting. */
  get size(): number {
    return this.#queuedById.size;
  }

  /** Whether an update about a replica is waiting. */
  has(id: ActorId): boolean {
    return this.#queuedById.has(id);
  }

  /** Queues an update, in place of an earlier one about any identity of the same replica. */
  add(update: MemberUpdate, transmissions: number): void {
    const { id } = update.actor;
    this.#queuedById.delete(id);
    this.#queuedById.set(id, { update, bytes: memberBytes(update), remaining: transmissions });
  }

  /**
   * Takes updates for one packet: as many as fit into `roomBytes`, each of which has one
   * transmission less afterwards. What does not fit stays as it is. `exceptId` is left out. O(n log
   * n).
   */
  take(roomBytes: number, exceptId: ActorId | null = null): MemberUpdate[] {
    if (this.#queuedById.size === 0) return [];
    const taken: MemberUpdate[] = [];
    let room = roomBytes;
    const queue = [...this.#queuedById.values()].sort(
      (one, other) => other.remaining - one.remaining || other.bytes - one.bytes,
    );
    for (const queued of queue) {
      const { id } = queued.update.actor;
      if (room < MEMBER_BYTES_MIN) break;
      if (queued.bytes > room || id === exceptId) continue;
      room -= queued.bytes;
      taken.push(queued.update);
      queued.remaining -= 1;
      if (queued.remaining <= 0) this.#queuedById.delete(id);
    }
    return taken;
  }
}

/** Size of the smallest member: IPv4, every number in one byte. */
const MEMBER_BYTES_MIN = 28;
