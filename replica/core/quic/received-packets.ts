/**
 * Which packets of one number space have arrived, and when that must be told (RFC 9000, section
 * 13.2).
 *
 * Numbers are kept as ranges from the top down. There is room for so many; what falls off the lower
 * end counts as received, so that a number is never taken twice. Once the peer has acknowledged one
 * of our acknowledgements, what that told needs no room either.
 *
 * An acknowledgement is due at once in the handshake, for every second packet that asks for one, and
 * for one that arrives out of order; else after the delay that was announced to the peer at most. One
 * packet a second is acknowledged at once, too: a peer can take the delay out of a measurement only
 * once it has measured the path without it, and where it never does, it takes us to be 20 ms away.
 */

/** When to acknowledge. */
export interface AckPolicy {
  /** How long a single packet may wait, in ms; 0 = not at all. */
  readonly delayMs: number;
  /** So many packets that ask for it are acknowledged at once. */
  readonly packetsMax: number;
}

/** The receiving side of one space. */
export class ReceivedPackets {
  /** When an acknowledgement must be sent; `Infinity` = none is owed. */
  ackDueMs = Number.POSITIVE_INFINITY;
  /** Smallest, largest, smallest, largest, ... from the top down. A live view. */
  readonly ranges: number[] = [];
  readonly #policy: AckPolicy;
  /** Numbers below count as received. */
  #floor = 0;
  #largestAtMs = 0;
  /** Packets that ask for an acknowledgement, since the last one. */
  #owed = 0;
  /** When the last one was acknowledged that need not have been. */
  #promptMs = Number.NEGATIVE_INFINITY;

  constructor(policy: AckPolicy) {
    this.#policy = policy;
  }

  /** The largest number; -1 = none has arrived. */
  get largest(): number {
    return this.ranges[1] ?? this.#floor - 1;
  }

  /** Whether a number has arrived before, or is so old that it counts as that. */
  has(number: number): boolean {
    if (number < this.#floor) return true;
    for (let at = 0; at < this.ranges.length; at += 2) {
      if (number > (this.ranges[at + 1] ?? 0)) return false;
      if (number >= (this.ranges[at] ?? 0)) return true;
    }
    return false;
  }

  /** Takes a number that `has` denies. */
  add(number: number, packet: { isAckEliciting: boolean; nowMs: number }): void {
    const isNext = this.ranges.length > 0 && number === this.largest + 1;
    const isInOrder = isNext || (this.ranges.length === 0 && number === this.#floor);
    if (number > this.largest) this.#largestAtMs = packet.nowMs;
    if (isNext) this.ranges[1] = number;
    else this.#insert(number);
    if (!packet.isAckEliciting) return;
    this.#owed += 1;
    const isPrompt = packet.nowMs - this.#promptMs >= PROMPT_PERIOD_MS;
    if (isPrompt) this.#promptMs = packet.nowMs;
    const isDue = isPrompt || !isInOrder || this.#owed >= this.#policy.packetsMax;
    const dueMs = isDue ? packet.nowMs : packet.nowMs + this.#policy.delayMs;
    this.ackDueMs = Math.min(this.ackDueMs, dueMs);
  }

  /** The peer asked for an acknowledgement without delay. */
  hurry(nowMs: number): void {
    if (this.#owed > 0) this.ackDueMs = Math.min(this.ackDueMs, nowMs);
  }

  /** Whether there is something that an acknowledgement would tell for the first time. */
  get owesAck(): boolean {
    return this.#owed > 0;
  }

  /** How long the largest has waited for its acknowledgement, in ms. */
  delayMs(nowMs: number): number {
    return Math.max(0, nowMs - this.#largestAtMs);
  }

  /** An acknowledgement of all ranges was sent. */
  acknowledged(): void {
    this.#owed = 0;
    this.ackDueMs = Number.POSITIVE_INFINITY;
  }

  /** The peer knows that we have everything up to `largest` that we said we have. */
  forget(largest: number): void {
    let keep = this.ranges.length;
    while (keep > 2 && (this.ranges[keep - 1] ?? 0) <= largest) keep -= 2;
    this.#cut(keep);
  }

  #insert(number: number): void {
    const { ranges } = this;
    let at = 0;
    while (at < ranges.length && (ranges[at] ?? 0) > number + 1) at += 2;
    // The range at `at` is the first that touches the number from above, or lies below it.
    const touchesAbove = at < ranges.length && ranges[at] === number + 1;
    const below = touchesAbove ? at + 2 : at;
    const touchesBelow = below < ranges.length && ranges[below + 1] === number - 1;
    if (touchesAbove && touchesBelow) {
      ranges[at] = ranges[below] ?? 0;
      ranges.splice(below, 2);
    } else if (touchesAbove) ranges[at] = number;
    else if (touchesBelow) ranges[below + 1] = number;
    else ranges.splice(at, 0, number, number);
    if (ranges.length > RANGES_MAX * 2) this.#cut(RANGES_MAX * 2);
  }

  #cut(length: number): void {
    if (length >= this.ranges.length) return;
    this.#floor = (this.ranges[length + 1] ?? 0) + 1;
    this.ranges.length = length;
  }
}

/** Nodes of Corrosion sample round-trip times so often (protocol reference, section 1.6). */
const PROMPT_PERIOD_MS = 1_000;
/** Arbitrary; more than heavy loss makes within a round trip, and half of a small packet to tell. */
const RANGES_MAX = 64;
