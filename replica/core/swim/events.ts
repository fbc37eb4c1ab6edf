/**
 * What a SWIM machine reports about the members and about itself, for the transport, the log and
 * whoever chooses peers.
 */
import type { Actor } from "./actor.ts";

/** Why a newer identity was taken. */
export type RenewalReason =
  | "declaredDown"
  | "incarnationsExhausted"
  | "requested"
  | "restored"
  | "clusterChanged";

/** What happened to a member or to ourselves. */
export type SwimEvent =
  | { readonly kind: "memberUp"; readonly actor: Actor }
  | { readonly kind: "memberDown"; readonly actor: Actor }
  | { readonly kind: "memberSuspect"; readonly actor: Actor; readonly incarnation: number }
  /** A suspicion was refuted. */
  | { readonly kind: "memberAlive"; readonly actor: Actor; readonly incarnation: number }
  /**
   * A known replica is known under another identity: it restarted, rejoined or moved. Connections
   * made to `before` are to be closed. Comes before `memberUp` or `memberDown` of `after`; where
   * neither follows, the replica was active before and still is.
   */
  | { readonly kind: "renamed"; readonly before: Actor; readonly after: Actor }
  /** We took a newer identity. */
  | {
      readonly kind: "identityRenewed";
      readonly before: Actor;
      readonly after: Actor;
      readonly reason: RenewalReason;
    }
  /** We were suspected and answered with this incarnation. */
  | { readonly kind: "refuted"; readonly incarnation: number }
  /** A newer identity with our actor id exists: our clock went back, or two replicas share it. */
  | { readonly kind: "identityConflict"; readonly other: Actor }
  /** The first active member is known. */
  | { readonly kind: "connected" }
  /** The last active member is gone. */
  | { readonly kind: "disconnected" }
  | { readonly kind: "left" };
