/**
 * How much may be under way: NewReno as in RFC 9002, section 7 and appendix B, and the pacing of
 * section 7.7.
 *
 *     slow start ──loss──► recovery (one round trip) ──► congestion avoidance ──loss──► recovery
 *
 * In slow start the window grows by what is acknowledged, later by one packet per window. A loss
 * halves it once per round trip; when everything was lost for long, it begins anew. A window that
 * was not used up does not grow.
 */

/** The window of one path, in whole bytes: amounts of data are cut to it. */
export class Congestion {
  windowBytes: number;
  /** Of packets sent and neither acknowledged nor given up. */
  bytesInFlight = 0;
  #thresholdBytes = Number.POSITIVE_INFINITY;
  /** Losses of packets sent before are the same event. */
  #recoveryStartMs = Number.NEGATIVE_INFINITY;
  readonly #packetBytes: number;

  /** `packetBytes`: the largest UDP payload that is sent. */
  constructor(packetBytes: number) {
    this.#packetBytes = packetBytes;
    this.windowBytes = Math.min(10 * packetBytes, Math.max(2 * packetBytes, 14_720));
  }

  /** Bytes that may be sent beside those under way. */
  get freeBytes(): number {
    return Math.max(0, this.windowBytes - this.bytesInFlight);
  }

  /** Whether no loss has ended the first growth yet. */
  get isInSlowStart(): boolean {
    return this.windowBytes < this.#thresholdBytes;
  }

  /** A packet that counts was sent. */
  sent(bytes: number): void {
    this.bytesInFlight += bytes;
  }

  /** A packet was acknowledged. `wasLimited`: the window was what kept more from being sent. */
  acked(packet: { bytes: number; sentMs: number }, wasLimited: boolean): void {
    this.bytesInFlight -= packet.bytes;
    if (!wasLimited || packet.sentMs <= this.#recoveryStartMs) return;
    if (this.isInSlowStart) this.windowBytes += packet.bytes;
    else this.windowBytes += Math.ceil((this.#packetBytes * packet.bytes) / this.windowBytes);
    this.windowBytes = Math.min(this.windowBytes, WINDOW_BYTES_MAX);
  }

  /** A packet will not be acknowledged because its keys are gone; says nothing about the path. */
  discarded(bytes: number): void {
    this.bytesInFlight -= bytes;
  }

  /** Packets were lost, the last of them sent at `sentMs`. */
  lost(loss: { bytes: number; sentMs: number; nowMs: number }): void {
    this.bytesInFlight -= loss.bytes;
    this.congested(loss.sentMs, loss.nowMs);
  }

  /** The path is full: a packet sent at `sentMs` was lost, or marked on its way. */
  congested(sentMs: number, nowMs: number): void {
    if (sentMs <= this.#recoveryStartMs) return;
    this.#recoveryStartMs = nowMs;
    this.windowBytes = Math.max(this.windowBytes >> 1, 2 * this.#packetBytes);
    this.#thresholdBytes = this.windowBytes;
  }

  /** Nothing came through for longer than some probe timeouts: what was known of the path is void. */
  collapsed(): void {
    this.windowBytes = 2 * this.#packetBytes;
    this.#recoveryStartMs = Number.NEGATIVE_INFINITY;
  }
}

/** Spreads a window over a round trip, apart from short bursts. */
export class Pacer {
  #budgetBytes: number;
  #refilledMs = 0;
  readonly #burstBytes: number;

  constructor(packetBytes: number) {
    this.#burstBytes = BURST_PACKETS * packetBytes;
    this.#budgetBytes = this.#burstBytes;
  }

  /** When the next packet may leave: `nowMs`, or later. */
  readyMs(path: { windowBytes: number; smoothedMs: number; nowMs: number }): number {
    const bytesPerMs = (PACING_GAIN * path.windowBytes) / Math.max(path.smoothedMs, 0.01);
    // Timers are a millisecond or two late: what is due until then leaves together.
    const burstBytes = Math.max(this.#burstBytes, bytesPerMs * TIMER_MS);
    const passedMs = Math.max(0, path.nowMs - this.#refilledMs);
    this.#budgetBytes = Math.min(burstBytes, this.#budgetBytes + passedMs * bytesPerMs);
    this.#refilledMs = path.nowMs;
    return this.#budgetBytes >= 0 ? path.nowMs : path.nowMs - this.#budgetBytes / bytesPerMs;
  }

  /** A packet left. */
  sent(bytes: number): void {
    this.#budgetBytes -= bytes;
  }
}

/** Bounds what a path without loss, such as loopback, makes us keep for repetition. */
const WINDOW_BYTES_MAX = 16 * 1024 * 1024;
/** RFC 9002, section 7.7: a little faster than the window, so that the window is what limits. */
const PACING_GAIN = 1.25;
/** RFC 9002, section 7.7: bursts of no more than the initial window. */
const BURST_PACKETS = 10;
const TIMER_MS = 2;
