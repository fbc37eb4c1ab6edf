/**
 * RTT rings: how near each peer is, in bands that do not flap.
 *
 * Per address the last 20 samples are kept and the least rules. The first sample assigns a ring
 * directly; afterwards a peer moves one ring at a time, and only when its round trip is 2 ms past
 * the border (protocol reference, section 1.6).
 *
 * | ring | 0 | 1 | 2 | 3 | 4 | 5 |
 * |---|---|---|---|---|---|---|
 * | ms | 0-6 | 6-15 | 15-50 | 50-100 | 100-200 | 200 and more |
 */
import type { Address } from "../types.ts";

interface Peer {
  readonly samples: number[];
  ring: number;
}

/** Rings by address. */
export class RingTable {
  readonly #peerByAddress = new Map<Address, Peer>();

  /** Takes a round-trip sample in ms. Returns whether the ring changed. */
  sample(address: Address, rttMs: number): boolean {
    const peer = this.#peerByAddress.get(address);
    if (!peer) {
      this.#peerByAddress.set(address, { samples: [rttMs], ring: ringOf(rttMs) });
      return true;
    }
    peer.samples.push(rttMs);
    if (peer.samples.length > SAMPLES) peer.samples.shift();
    const least = Math.min(...peer.samples);
    const upper = UPPER_BOUNDS[peer.ring] ?? Infinity;
    const lower = peer.ring === 0 ? 0 : (UPPER_BOUNDS[peer.ring - 1] ?? 0);
    if (least >= upper + HYSTERESIS_MS) peer.ring++;
    else if (peer.ring > 0 && least + HYSTERESIS_MS <= lower) peer.ring--;
    else return false;
    return true;
  }

  /** The ring of a peer; null = never measured. */
  ring(address: Address): number | null {
    return this.#peerByAddress.get(address)?.ring ?? null;
  }

  /** The least recent round trip in ms; null = never measured. */
  rttMs(address: Address): number | null {
    const samples = this.#peerByAddress.get(address)?.samples;
    return samples ? Math.min(...samples) : null;
  }

  /** Forgets a peer that is gone. */
  forget(address: Address): void {
    this.#peerByAddress.delete(address);
  }
}

function ringOf(rttMs: number): number {
  const ring = UPPER_BOUNDS.findIndex((upper) => rttMs < upper);
  return ring < 0 ? UPPER_BOUNDS.length : ring;
}

/** Upper borders of rings 0 to 4, ms; ring 5 has none. */
const UPPER_BOUNDS = [6, 15, 50, 100, 200];
const HYSTERESIS_MS = 2;
const SAMPLES = 20;
