/**
 * SWIM packets as values: what one replica says to another about itself and about the members.
 */
import type { Actor } from "./actor.ts";

/** Member states. `left` is announced as `down` by the leaver itself. */
export type MemberState = "alive" | "suspect" | "down";

/** What is claimed about one identity; the subject raises its incarnation to refute. */
export interface MemberUpdate {
  readonly actor: Actor;
  /** 0 to 65,535. */
  readonly incarnation: number;
  readonly state: MemberState;
}

/** What a packet asks or answers; `probe` is the number of a probe, 0 to 255. */
export type SwimMessage =
  | { readonly kind: "ping"; readonly probe: number }
  | { readonly kind: "ack"; readonly probe: number }
  /** Asks to probe `subject` on the sender's behalf. */
  | { readonly kind: "pingReq"; readonly subject: Actor; readonly probe: number }
  /** The ping that follows; `subject` is the prober it is for. */
  | { readonly kind: "indirectPing"; readonly subject: Actor; readonly probe: number }
  /** Its answer; `subject` is the prober to forward it to. */
  | { readonly kind: "indirectAck"; readonly subject: Actor; readonly probe: number }
  /** The answer as it reaches the prober; `subject` is the probed replica. */
  | { readonly kind: "forwardedAck"; readonly subject: Actor; readonly probe: number }
  /** Asks to be let in; answered by `feed`. */
  | { readonly kind: "announce" }
  /** A random part of the active members. */
  | { readonly kind: "feed" }
  | { readonly kind: "gossip" }
  /** Custom broadcasts; known to the format, used by nobody. */
  | { readonly kind: "broadcast" }
  /** Tells a replica that its identity counts as down, so that it takes another. */
  | { readonly kind: "turnUndead" };

/** One packet; one QUIC datagram. */
export interface SwimPacket {
  readonly source: Actor;
  /** The sender's own incarnation: every packet says that its sender is alive at least in that. */
  readonly sourceIncarnation: number;
  /** Must be the receiver's current identity, or for `announce` a life of the same replica. */
  readonly target: Actor;
  readonly message: SwimMessage;
  /** Piggy-backed updates; `null` = the packet ends after its message, without a count. */
  readonly members: readonly MemberUpdate[] | null;
}
