/**
 * Counters of one SWIM machine, for metrics and tests. They only grow.
 */

/** Why a received packet was not taken. */
export type PacketRefusal =
  /** Above the receive limit. */
  | "tooLarge"
  /** It says it comes from ourselves, or from nobody. */
  | "badSource"
  /** Addressed to another identity, often to an earlier one of ours. */
  | "notForUs"
  /** From an identity that counts as down here, or is older than the one known. */
  | "fromDown"
  /** We have left. */
  | "afterLeaving";

/** What happened so far. */
export interface SwimStats {
  packetsReceived: number;
  packetsSent: number;
  packetsRefused: Record<PacketRefusal, number>;
  /** Probes by verdict; `failed` ones begin a suspicion, if there was none yet. */
  probesAcked: number;
  probesAckedIndirectly: number;
  probesFailed: number;
  /** Suspicions about ourselves that we answered with a higher incarnation. */
  refutations: number;
  /** Identities taken after the first. */
  renewals: number;
  /** Another identity with our actor id was heard of that is newer than ours. */
  identityConflicts: number;
  /** News about unknown replicas dropped because the member list was full. */
  membersRefused: number;
  /** Times the machine found that it had not been run for long, and judged nobody by it. */
  oversleeps: number;
  /** Bootstrap addresses that were no addresses. */
  badAddresses: number;
}

/** Counters at zero. */
export function createSwimStats(): SwimStats {
  return {
    packetsReceived: 0,
    packetsSent: 0,
    packetsRefused: { tooLarge: 0, badSource: 0, notForUs: 0, fromDown: 0, afterLeaving: 0 },
    probesAcked: 0,
    probesAckedIndirectly: 0,
    probesFailed: 0,
    refutations: 0,
    renewals: 0,
    identityConflicts: 0,
    membersRefused: 0,
    oversleeps: 0,
    badAddresses: 0,
  };
}
