/**
 * When each peer's process was last bounced, as far as it has said so: numbers in memory that threads
 * share. The thread that hears of peers writes; the watchdog reads before it bounces, and whoever
 * waits for a fleet to calm down reads later.
 *
 * One peer counts once however often it is bounced, so that a single one that is ill holds up nobody.
 * Times are wall-clock milliseconds, because they come from other hosts.
 */
import type { FleetBounces, FleetBudget, RestartBudget } from "../types.ts";

/** Creates the memory. */
export function allocatePeerBounces(): SharedArrayBuffer {
  return new SharedArrayBuffer(PEERS_MAX * Float64Array.BYTES_PER_ELEMENT);
}

/** How a bounce at `nowMs` stands to the budget; undefined = there is none. */
export function fleetBounces(fleet: FleetBudget | null, nowMs: number): FleetBounces | undefined {
  if (fleet === null || fleet.budget.peersMax === 0) return undefined;
  const peers = new PeerBounces(fleet.bounces).count(fleet.budget, nowMs);
  return { peers, isSpent: peers > fleet.budget.peersMax };
}

/** Views of the memory; one thread at most calls `note`. */
export class PeerBounces {
  /** One cell per peer; 0 = free. */
  readonly #times: Float64Array;
  /** The writer's own. */
  readonly #cellByPeer = new Map<string, number>();

  constructor(buffer: SharedArrayBuffer) {
    this.#times = new Float64Array(buffer);
  }

  /**
   * A peer says when it was last bounced. A time to come, of a clock that is ahead, counts as
   * `nowMs`; one that is no later than what it said before changes nothing.
   */
  note(peer: string, { bouncedMs, nowMs }: { bouncedMs: number; nowMs: number }): void {
    if (!(bouncedMs > 0)) return;
    const cell = this.#cellByPeer.get(peer) ?? this.#takeCell(peer);
    this.#times[cell] = Math.max(this.#times[cell] ?? 0, Math.min(bouncedMs, nowMs));
  }

  /** Peers whose last bounce is within the budget's window. */
  count({ windowMs }: RestartBudget, nowMs: number): number {
    let peers = 0;
    for (const time of this.#times) if (time > 0 && time > nowMs - windowMs) peers += 1;
    return peers;
  }

  /** When the budget is not spent any more, if nobody is bounced meanwhile; in the past = it is not. */
  freeMs({ peersMax, windowMs }: RestartBudget): number {
    const last = this.#times.toSorted((a, b) => b - a)[peersMax] ?? 0;
    return peersMax === 0 || last === 0 ? 0 : last + windowMs;
  }

  /** A peer that has none takes a free cell, else that of the peer whose bounce is longest ago. */
  #takeCell(peer: string): number {
    const oldest = this.#times.reduce((min, time) => Math.min(min, time), Infinity);
    const cell = this.#times.indexOf(oldest);
    for (const [other, taken] of this.#cellByPeer) {
      if (taken === cell) this.#cellByPeer.delete(other);
    }
    this.#times[cell] = 0;
    this.#cellByPeer.set(peer, cell);
    return cell;
  }
}

/** More than any budget: beyond that many, one more changes nothing. */
const PEERS_MAX = 256;
