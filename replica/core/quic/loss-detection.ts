/**
 * Which of the packets sent have arrived, which are lost, and when to ask (RFC 9002, section 6).
 *
 * A packet is lost when three later ones have arrived, or a later one a while ago. When nothing
 * arrives at all, a probe is due after the probe timeout, which doubles each time. What was in a lost
 * packet is sent again in others: `acked` and `lost` hold the packets that the last call found, for
 * their owner to go through.
 *
 * Numbers without gaps make an array enough: a packet is found by its distance from the first that
 * is still of interest.
 */
import type { Congestion } from "./congestion.ts";
import type { RttEstimator } from "./rtt.ts";

/** Number spaces (RFC 9000, section 12.3). */
export const INITIAL_SPACE = 0;
/** Of packets of the handshake's second half. */
export const HANDSHAKE_SPACE = 1;
/** Of short packets. */
export const APPLICATION_SPACE = 2;

/** One packet sent. `frames` is the owner's: what it must do when the packet arrives or is lost. */
export interface SentPacket {
  readonly number: number;
  readonly space: number;
  readonly sentMs: number;
  readonly bytes: number;
  readonly isAckEliciting: boolean;
  /** Counts for the window: asks for an acknowledgement, or is padded. */
  readonly isInFlight: boolean;
  readonly frames: readonly number[];
  /** The window was in the way of sending more. */
  readonly wasLimited: boolean;
}

/** What the peer and the handshake say about timing. */
export interface TimingFacts {
  /** Announced by the peer, in ms; counts for the last space only. */
  maxAckDelayMs: number;
  /** The peer is known to be where it says it is, or to know that of us. */
  isPeerValidated: boolean;
  isConfirmed: boolean;
  hasHandshakeKeys: boolean;
  /** Silence of this long ends the connection, in ms; `Infinity` = never. */
  idleTimeoutMs: number;
}

/** Loss detection over the three spaces of a connection. */
export class LossDetection {
  /** Packets that the last call found acknowledged or lost. Cleared by the next call. */
  readonly acked: SentPacket[] = [];
  readonly lost: SentPacket[] = [];
  /** Probe timeouts since the last sign of life. */
  probeTimeouts = 0;
  /** When `onTimeout` is due. */
  deadlineMs = Number.POSITIVE_INFINITY;
  readonly #rtt: RttEstimator;
  readonly #congestion: Congestion;
  readonly #facts: TimingFacts;
  readonly #spaces = [new SentSpace(), new SentSpace(), new SentSpace()] as const;
  #firstSampleMs = Number.POSITIVE_INFINITY;

  constructor(parts: { rtt: RttEstimator; congestion: Congestion; facts: TimingFacts }) {
    this.#rtt = parts.rtt;
    this.#congestion = parts.congestion;
    this.#facts = parts.facts;
  }

  /** The number of the next packet in a space. */
  nextNumber(space: number): number {
    return this.#space(space).nextNumber;
  }

  /** The largest number acknowledged in a space; -1 = none. */
  largestAcked(space: number): number {
    return this.#space(space).largestAcked;
  }

  /** Records a packet; numbers must follow each other. */
  sent(packet: SentPacket): void {
    const space = this.#space(packet.space);
    space.push(packet);
    if (packet.isAckEliciting) {
      space.elicitingInFlight += 1;
      space.lastElicitingMs = packet.sentMs;
    }
    if (packet.isInFlight) {
      this.#congestion.sent(packet.bytes);
      this.rearm(packet.sentMs);
    }
  }

  /**
   * Takes an acknowledgement, with ranges as `FrameCursor.ackRanges` and the delay that the peer
   * claims. False: it is for packets never sent.
   */
  onAck(
    spaceId: number,
    ack: { ranges: readonly number[]; delayMs: number; nowMs: number },
  ): boolean {
    const space = this.#space(spaceId);
    const { ranges, nowMs } = ack;
    const largest = ranges[1] ?? -1;
    this.acked.length = 0;
    this.lost.length = 0;
    if (largest >= space.nextNumber) return false;
    let isEliciting = false;
    // From the bottom up: in the order in which they were sent.
    for (let at = ranges.length - 2; at >= 0; at -= 2) {
      const last = ranges[at + 1] ?? -1;
      for (let number = Math.max(ranges[at] ?? 0, space.firstNumber); number <= last; number += 1) {
        const packet = space.take(number);
        if (packet === null) continue;
        this.acked.push(packet);
        isEliciting ||= packet.isAckEliciting;
      }
    }
    space.largestAcked = Math.max(space.largestAcked, largest);
    const newest = this.acked.at(-1);
    if (newest === undefined) return true;
    if (newest.number === largest && isEliciting) {
      const { delayMs } = ack;
      this.#sampleRtt({ spaceId, latestMs: nowMs - newest.sentMs, delayMs, nowMs });
    }
    for (const packet of this.acked) {
      if (packet.isInFlight) this.#congestion.acked(packet, packet.wasLimited);
    }
    this.#detectLost(space, nowMs);
    // A client must go on probing until it knows that the server may answer (section 6.2.1).
    if (this.#facts.isPeerValidated) this.probeTimeouts = 0;
    this.rearm(nowMs);
    return true;
  }

  /** What is overdue: finds lost packets, or returns the space to probe (else -1). */
  onTimeout(nowMs: number): number {
    this.acked.length = 0;
    this.lost.length = 0;
    const lossSpace = this.#earliestLoss();
    if (lossSpace !== null) {
      this.#detectLost(lossSpace, nowMs);
      this.rearm(nowMs);
      return -1;
    }
    const probe = this.#probe(nowMs);
    this.probeTimeouts += 1;
    this.rearm(nowMs);
    return probe.space;
  }

  /** The oldest packets under way that ask for an acknowledgement, at most `count`. */
  oldest(spaceId: number, count: number): SentPacket[] {
    const found: SentPacket[] = [];
    const space = this.#space(spaceId);
    for (let number = space.firstNumber; number < space.nextNumber; number += 1) {
      const packet = space.get(number);
      if (packet === null || !packet.isAckEliciting) continue;
      found.push(packet);
      if (found.length >= count) break;
    }
    return found;
  }

  /** The keys of a space are gone, and with them everything that was under way in it. */
  discard(spaceId: number, nowMs: number): void {
    const space = this.#space(spaceId);
    for (let number = space.firstNumber; number < space.nextNumber; number += 1) {
      const packet = space.take(number);
      if (packet?.isInFlight === true) this.#congestion.discarded(packet.bytes);
    }
    space.lossMs = Number.POSITIVE_INFINITY;
    space.lastElicitingMs = Number.NEGATIVE_INFINITY;
    this.probeTimeouts = 0;
    this.rearm(nowMs);
  }

  /** Sets the deadline after facts or packets have changed. */
  rearm(nowMs: number): void {
    const lossSpace = this.#earliestLoss();
    if (lossSpace !== null) {
      this.deadlineMs = lossSpace.lossMs;
      return;
    }
    const isSilent = this.#spaces.every((space) => space.elicitingInFlight === 0);
    const mayRest = isSilent && this.#facts.isPeerValidated;
    this.deadlineMs = mayRest ? Number.POSITIVE_INFINITY : this.#probe(nowMs).atMs;
  }

  #space(id: number): SentSpace {
    return this.#spaces[id === INITIAL_SPACE ? 0 : id === HANDSHAKE_SPACE ? 1 : 2];
  }

  /**
   * What the peer announced bounds what it may claim, once it can keep to that (section 5.3). A claim
   * far beyond is of an acknowledgement that took the place of one that was lost: that time is not the
   * path's. Taken for a round trip, a few of them would put the next probe off until after the idle
   * timeout.
   */
  #sampleRtt(of: { spaceId: number; latestMs: number; delayMs: number; nowMs: number }): void {
    const { maxAckDelayMs, isConfirmed } = this.#facts;
    const claimedMs = of.spaceId === APPLICATION_SPACE ? of.delayMs : 0;
    const isBounded = isConfirmed && this.#rtt.hasSample;
    if (isBounded && claimedMs > maxAckDelayMs * LATE_ACK) return;
    if (!this.#rtt.hasSample) this.#firstSampleMs = of.nowMs;
    this.#rtt.sample(of.latestMs, isConfirmed ? Math.min(claimedMs, maxAckDelayMs) : claimedMs);
  }

  #earliestLoss(): SentSpace | null {
    let earliest: SentSpace | null = null;
    for (const space of this.#spaces) {
      if (space.lossMs === Number.POSITIVE_INFINITY) continue;
      if (earliest === null || space.lossMs < earliest.lossMs) earliest = space;
    }
    return earliest;
  }

  #probe(nowMs: number): { atMs: number; space: number } {
    const { maxAckDelayMs, hasHandshakeKeys, isConfirmed } = this.#facts;
    const doubled = 2 ** Math.min(this.probeTimeouts, PROBE_DOUBLINGS_MAX);
    const best = { atMs: Number.POSITIVE_INFINITY, space: INITIAL_SPACE };
    for (const [id, space] of this.#spaces.entries()) {
      if (space.elicitingInFlight === 0) continue;
      const isLast = id === APPLICATION_SPACE;
      // Before the handshake is confirmed the peer may be unable to read short packets.
      if (isLast && !isConfirmed) continue;
      const timeoutMs = this.#rtt.probeTimeoutMs(isLast ? maxAckDelayMs : 0);
      const atMs = space.lastElicitingMs + this.#backOff(timeoutMs, doubled);
      if (atMs < best.atMs) Object.assign(best, { atMs, space: id });
    }
    if (best.atMs === Number.POSITIVE_INFINITY) {
      best.atMs = nowMs + this.#rtt.probeTimeoutMs(0) * doubled;
      best.space = hasHandshakeKeys ? HANDSHAKE_SPACE : INITIAL_SPACE;
    }
    return best;
  }

  /**
   * The timeout after some that were in vain. Doubled without end, it would leave two or three probes
   * to keep a connection alive with, on a path that loses a third.
   */
  #backOff(timeoutMs: number, doubled: number): number {
    const { isConfirmed, idleTimeoutMs } = this.#facts;
    const mostMs = isConfirmed ? idleTimeoutMs / PROBES_IN_SILENCE : Number.POSITIVE_INFINITY;
    return Math.max(timeoutMs, Math.min(timeoutMs * doubled, mostMs));
  }

  #detectLost(space: SentSpace, nowMs: number): void {
    const { lossDelayMs } = this.#rtt;
    space.lossMs = Number.POSITIVE_INFINITY;
    let bytes = 0;
    for (let number = space.firstNumber; number <= space.largestAcked; number += 1) {
      const packet = space.get(number);
      if (packet === null) continue;
      const isOvertaken = number <= space.largestAcked - PACKET_THRESHOLD;
      // The very sum that the timer is set to: another rounding would call it due and find nothing.
      const dueMs = packet.sentMs + lossDelayMs;
      if (!isOvertaken && dueMs > nowMs) {
        space.lossMs = Math.min(space.lossMs, dueMs);
        continue;
      }
      space.take(number);
      this.lost.push(packet);
      if (packet.isInFlight) bytes += packet.bytes;
    }
    const last = this.lost.findLast((packet) => packet.isInFlight);
    if (last === undefined) return;
    this.#congestion.lost({ bytes, sentMs: last.sentMs, nowMs });
    if (this.#isPersistent()) this.#congestion.collapsed();
  }

  /** Whether all packets of a long stretch of time were lost (section 7.6). */
  #isPersistent(): boolean {
    const timeoutMs = this.#rtt.probeTimeoutMs(this.#facts.maxAckDelayMs);
    let startMs = Number.POSITIVE_INFINITY;
    let expected = -1;
    for (const packet of this.lost) {
      if (packet.number !== expected) startMs = Number.POSITIVE_INFINITY;
      expected = packet.number + 1;
      if (!packet.isAckEliciting || packet.sentMs < this.#firstSampleMs) continue;
      startMs = Math.min(startMs, packet.sentMs);
      if (packet.sentMs - startMs > timeoutMs * PERSISTENT_TIMEOUTS) return true;
    }
    return false;
  }
}

/** What was sent in one space. */
class SentSpace {
  largestAcked = -1;
  elicitingInFlight = 0;
  lastElicitingMs = Number.NEGATIVE_INFINITY;
  /** When the next packet counts as lost by time. */
  lossMs = Number.POSITIVE_INFINITY;
  /** Packets below are settled. */
  firstNumber = 0;
  #packets: (SentPacket | null)[] = [];
  /** The number of the first element. */
  #base = 0;

  get nextNumber(): number {
    return this.#base + this.#packets.length;
  }

  push(packet: SentPacket): void {
    this.#packets.push(packet);
  }

  get(number: number): SentPacket | null {
    return this.#packets[number - this.#base] ?? null;
  }

  /** Settles a packet and returns it, or null if it was settled. */
  take(number: number): SentPacket | null {
    const packet = this.get(number);
    if (packet === null) return null;
    this.#packets[number - this.#base] = null;
    if (packet.isAckEliciting) this.elicitingInFlight -= 1;
    if (number === this.firstNumber) this.#advance();
    return packet;
  }

  #advance(): void {
    const end = this.nextNumber;
    while (this.firstNumber < end && this.get(this.firstNumber) === null) this.firstNumber += 1;
    const settled = this.firstNumber - this.#base;
    if (settled < COMPACT_PACKETS || settled * 2 < this.#packets.length) return;
    this.#packets = this.#packets.slice(settled);
    this.#base += settled;
  }
}

/** RFC 9002, section 6.1.1. */
const PACKET_THRESHOLD = 3;
/** Times the announced delay: a loop that is late does not wait so long. */
const LATE_ACK = 4;
/** RFC 9002, section 7.6.1. */
const PERSISTENT_TIMEOUTS = 3;
/** Probes come at least so often, in doublings of the first timeout; the idle timeout ends it. */
const PROBE_DOUBLINGS_MAX = 6;
/**
 * Probe timeouts that fit into the silence after which a connection is given up, at the least. The
 * RFC lets the timeout grow on; two packets in a few seconds are no burden for any path.
 */
const PROBES_IN_SILENCE = 8;
/** Arbitrary; settled packets are dropped from the array this many at a time. */
const COMPACT_PACKETS = 256;
