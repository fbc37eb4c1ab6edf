/**
 * Timing and limits of SWIM: what each number is for, and two presets.
 *
 * What depends on the size of the cluster is computed from the number of active members each time
 * it is used, so nothing is out of date after a change.
 */

/** A round that repeats, to a number of random members each time. */
export interface RoundConfig {
  readonly periodMs: number;
  readonly members: number;
}

/** When to announce to the bootstrap addresses. */
export interface AnnouncerConfig {
  /** Delay after the first announcement; doubles each round up to `maxDelayMs`. */
  readonly firstDelayMs: number;
  readonly maxDelayMs: number;
  /** Rounds that back off before the steady pace begins. */
  readonly backoffRounds: number;
  /** Pace after that, for ever: it is what joins two halves that know nothing of each other. */
  readonly steadyDelayMs: number;
  /**
   * Share by which a backed-off delay varies up or down, so that a fleet does not start in step.
   */
  readonly jitter: number;
  /** Addresses announced to per round. */
  readonly targetsMax: number;
}

/** Everything that can be set about SWIM. All replicas of a cluster should have the same timing. */
export interface SwimConfig {
  /** One member is probed per period. */
  readonly probePeriodMs: number;
  /** How long a direct ack may take before others are asked to probe; below `probePeriodMs`. */
  readonly probeRttMs: number;
  /** Members asked to probe indirectly; also the number of members that urgent gossip goes to. */
  readonly indirectProbes: number;
  /** Probe periods that a suspect has to refute in a cluster of up to ten. */
  readonly suspicionPeriods: number;
  /**
   * Greatest score of our own lateness; probes and suspicions take up to this + 1 times as long.
   * 0 = never longer.
   */
  readonly awarenessMax: number;
  /** How long a down identity is remembered, so that stale news of it cannot bring it back. */
  readonly forgetDownAfterMs: number;
  /** Gossip of queued updates; silent while there is none. */
  readonly gossip: RoundConfig;
  /**
   * Each replica sends each update this often, times log10(members + 1). An update sent k times by
   * each of n replicas misses about n·e^-k of them, which then learn it by other ways, later.
   */
  readonly transmissionsFactor: number;
  /** Announcements to active members, which answer with members we may have missed. */
  readonly announceToActive: RoundConfig;
  /** Announcements to down members, which heal a partition. */
  readonly announceToDown: RoundConfig;
  readonly announcer: AnnouncerConfig;
  /** After a start with saved members: when to take a new identity; `null` = never. */
  readonly rejoinAfterRestoreMs: { readonly min: number; readonly max: number } | null;
  /** Greatest packet sent, bytes. */
  readonly sendBytesMax: number;
  /** Greatest packet accepted, bytes. */
  readonly receiveBytesMax: number;
  /** Greatest number of members remembered, down ones included; bounds memory, not clusters. */
  readonly membersMax: number;
}

/**
 * Limits that come from the wire: at an MTU of 1200 a QUIC datagram carries 1162 bytes under TLS,
 * and 1178 is what Corrosion accepts and may send.
 */
const PACKET_LIMITS = { sendBytesMax: 1_150, receiveBytesMax: 1_178 } as const;

/** Of the paper and of memberlist: at most eight times as long. */
const AWARENESS_MAX = 7;

/** Arbitrary; far above any cluster that SWIM with one probe per period can serve. */
const MEMBERS_MAX = 10_000;

/** Corrosion's timing (foca's WAN preset; protocol reference, sections 2.7 and 2.8). */
export const wanPreset: SwimConfig = {
  probePeriodMs: 5_000,
  probeRttMs: 3_000,
  indirectProbes: 3,
  suspicionPeriods: 6,
  awarenessMax: AWARENESS_MAX,
  forgetDownAfterMs: 48 * 3_600_000,
  gossip: { periodMs: 500, members: 4 },
  transmissionsFactor: 4,
  announceToActive: { periodMs: 60_000, members: 2 },
  announceToDown: { periodMs: 125_000, members: 3 },
  announcer: {
    firstDelayMs: 5_000,
    maxDelayMs: 120_000,
    backoffRounds: 10,
    steadyDelayMs: 300_000,
    jitter: 0.3,
    targetsMax: 10,
  },
  rejoinAfterRestoreMs: { min: 25_000, max: 40_000 },
  ...PACKET_LIMITS,
  membersMax: MEMBERS_MAX,
};

/**
 * Five times faster than `wanPreset`, for one site, for loopback and for the demo with its emulated
 * round trips.
 *
 * A probe to a peer not yet connected costs three round trips (both sides dial first), and emulated
 * ones reach 0.3 s: hence a period of 1 s, and no less. The direct ack of a connected peer has
 * 400 ms, so that even the longest emulated path needs no help. A crash among ten is known to all
 * after about 7 s: up to 2 s until a probe has failed, 5 s of suspicion. Five periods, for a stall
 * of a second or two of a busy test machine must not cost an identity. Gossip at 100 ms keeps
 * Corrosion's ratio of gossip rounds to suspicion time, so a refutation has the same odds of being
 * heard.
 */
export const lanPreset: SwimConfig = {
  probePeriodMs: 1_000,
  probeRttMs: 400,
  indirectProbes: 3,
  suspicionPeriods: 5,
  awarenessMax: AWARENESS_MAX,
  forgetDownAfterMs: 48 * 3_600_000,
  gossip: { periodMs: 100, members: 4 },
  // 11 transmissions among 30; with Corrosion's 5 one update in five would miss a replica.
  transmissionsFactor: 8,
  announceToActive: { periodMs: 12_000, members: 2 },
  announceToDown: { periodMs: 15_000, members: 3 },
  announcer: {
    firstDelayMs: 500,
    maxDelayMs: 10_000,
    backoffRounds: 10,
    steadyDelayMs: 30_000,
    jitter: 0.3,
    targetsMax: 10,
  },
  // A start draws a newer stamp anyway; a second identity within a minute would only close
  // connections that have just been made.
  rejoinAfterRestoreMs: null,
  ...PACKET_LIMITS,
  membersMax: MEMBERS_MAX,
};

/** How often one update is sent before it is dropped from the queue, in a cluster of `members`. */
export function maxTransmissions(config: SwimConfig, members: number): number {
  const count = Math.floor(config.transmissionsFactor * Math.log10(Math.max(1, members) + 1));
  return Math.min(255, Math.max(1, count));
}

/** How long a suspect has to refute in a cluster of `members` others, milliseconds. */
export function suspectToDownMs(config: SwimConfig, members: number): number {
  const scale = Math.max(1, Math.log10(Math.max(1, members)));
  return scale * config.suspicionPeriods * config.probePeriodMs;
}
