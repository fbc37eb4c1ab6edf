/**
 * What a SWIM machine is told, and what it is made of.
 */
import type { Prng } from "#base/prng.ts";
import type { Address } from "../../types.ts";
import type { Actor } from "./actor.ts";
import type { SwimConfig } from "./config.ts";
import type { MemberUpdate, SwimPacket } from "./packet.ts";

/** What a SWIM machine is told. */
export type SwimInput =
  /** Begins to announce. `bootstrap` are resolved addresses as their replicas advertise them. */
  | { readonly kind: "start"; readonly bootstrap: readonly Address[] }
  /** One decoded packet and the size it had on the wire. */
  | { readonly kind: "received"; readonly packet: SwimPacket; readonly packetBytes: number }
  | { readonly kind: "tick" }
  /** The bootstrap addresses resolve differently; additional ones are announced to at once. */
  | { readonly kind: "bootstrap"; readonly addresses: readonly Address[] }
  /** Members saved before a restart; suspects among them are left out. Before `start`. */
  | { readonly kind: "restore"; readonly members: readonly MemberUpdate[] }
  /** Takes a newer identity now. */
  | { readonly kind: "rejoin" }
  /** Moves to another cluster id, under a newer identity. */
  | { readonly kind: "changeCluster"; readonly clusterId: number }
  /** Tells some members that we go, then falls silent for good. */
  | { readonly kind: "leave" };

/** What a SWIM machine is made of. */
export interface SwimOptions {
  /** Our first identity. Its stamp comes from the clock, and is newer than that of the last run. */
  readonly self: Actor;
  readonly config: SwimConfig;
  readonly prng: Prng;
  /** Draws an NTP64 stamp for a new identity; `nowMs` is the machine's monotonic time. */
  readonly stampTs: (nowMs: number) => bigint;
}
