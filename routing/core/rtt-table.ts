/**
 * How far away each worker host is: the least round-trip time measured lately, or a guess from
 * distance until there is a measurement.
 *
 * Samples come from QUIC paths and from TCP connects. A sample can be late (a busy loop, a delayed
 * ack) but never early, so the minimum of the last ones is the truth about the path. The window
 * keeps a changed path from being remembered as short for ever (protocol reference, section 1.6:
 * 20 samples).
 */
import type { Coordinates, Standpoint } from "../types.ts";

/** What is known of one host's distance. */
export interface Distance {
  /** Milliseconds. */
  readonly rttMs: number;
  readonly isMeasured: boolean;
}

/** A host as far as distance goes. */
export interface HostPlace {
  readonly region: string;
  readonly coordinates?: Coordinates;
}

/** Least measured round-trip time per host. */
export class RttTable {
  readonly #standpoint: Standpoint;
  readonly #windowByHost = new Map<string, number[]>();
  /** The value the order of candidates was last made with. */
  readonly #settledByHost = new Map<string, number>();

  constructor(standpoint: Standpoint) {
    this.#standpoint = standpoint;
  }

  /**
   * Takes one sample. Returns whether the host's distance changed enough to put candidates in a
   * new order: by a tenth and by more than 0.2 ms, so that noise on a short path reorders nothing.
   */
  sample(hostId: string, rttMs: number): boolean {
    if (!Number.isFinite(rttMs) || rttMs < 0) return false;
    const window = this.#windowByHost.get(hostId) ?? [];
    window.push(rttMs);
    if (window.length > WINDOW) window.shift();
    this.#windowByHost.set(hostId, window);
    const least = Math.min(...window);
    const settled = this.#settledByHost.get(hostId);
    if (settled !== undefined && !isNotable(settled, least)) return false;
    this.#settledByHost.set(hostId, least);
    return true;
  }

  /** Forgets a host whose row is gone. */
  forget(hostId: string): void {
    this.#windowByHost.delete(hostId);
    this.#settledByHost.delete(hostId);
  }

  /** Forgets every host that is not known any more. */
  keepOnly(isKnown: (hostId: string) => boolean): void {
    for (const hostId of this.#windowByHost.keys()) if (!isKnown(hostId)) this.forget(hostId);
  }

  /** The measured distance of a host, or the guess for its place. */
  distance(hostId: string, place: HostPlace): Distance {
    const settled = this.#settledByHost.get(hostId);
    if (settled !== undefined) return { rttMs: settled, isMeasured: true };
    return { rttMs: guessRttMs(this.#standpoint, place), isMeasured: false };
  }
}

/**
 * A guess of the round trip: 4 ms + 1 ms per 75 km where both places are known (the model of
 * Corrosion's own simulation); else 5 ms inside a region and 200 ms to any other.
 */
export function guessRttMs(from: Standpoint, to: HostPlace): number {
  if (from.coordinates && to.coordinates) {
    return 4 + distanceKm(from.coordinates, to.coordinates) / 75;
  }
  return from.region !== "" && from.region === to.region ? 5 : 200;
}

/** Great-circle distance (haversine, mean radius 6,371 km). */
export function distanceKm(from: Coordinates, to: Coordinates): number {
  const radians = Math.PI / 180;
  const sinLat = Math.sin(((to.latitude - from.latitude) * radians) / 2);
  const sinLon = Math.sin(((to.longitude - from.longitude) * radians) / 2);
  const cosines = Math.cos(from.latitude * radians) * Math.cos(to.latitude * radians);
  const chord = sinLat * sinLat + cosines * sinLon * sinLon;
  return 2 * 6371 * Math.asin(Math.min(1, Math.sqrt(chord)));
}

function isNotable(before: number, after: number): boolean {
  const difference = Math.abs(after - before);
  return difference > 0.2 && difference > before / 10;
}

const WINDOW = 20;
