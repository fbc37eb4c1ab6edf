/**
 * The round-trip time of a path, from acknowledgements (RFC 9002, section 5). All in milliseconds.
 */

/** Estimates of one path. */
export class RttEstimator {
  /** Of the last acknowledgement. */
  latestMs = 0;
  smoothedMs = INITIAL_RTT_MS;
  variationMs = INITIAL_RTT_MS / 2;
  /** The smallest of all; `Infinity` before the first. */
  minMs = Number.POSITIVE_INFINITY;

  /** Whether an acknowledgement has come; the estimates are guesses before. */
  get hasSample(): boolean {
    return this.minMs !== Number.POSITIVE_INFINITY;
  }

  /** Takes a sample; `ackDelayMs` is what the peer says to have waited, bounded by its announcement. */
  sample(latestMs: number, ackDelayMs: number): void {
    this.latestMs = latestMs;
    if (!this.hasSample) {
      this.minMs = latestMs;
      this.smoothedMs = latestMs;
      this.variationMs = latestMs / 2;
      return;
    }
    this.minMs = Math.min(this.minMs, latestMs);
    // A delay that would make the path faster than it ever was is not believed.
    const adjusted = latestMs >= this.minMs + ackDelayMs ? latestMs - ackDelayMs : latestMs;
    this.variationMs = 0.75 * this.variationMs + 0.25 * Math.abs(this.smoothedMs - adjusted);
    this.smoothedMs = 0.875 * this.smoothedMs + 0.125 * adjusted;
  }

  /** How long to wait for an acknowledgement before a probe (section 6.2.1). */
  probeTimeoutMs(maxAckDelayMs: number): number {
    return this.smoothedMs + Math.max(4 * this.variationMs, GRANULARITY_MS) + maxAckDelayMs;
  }

  /** How much later than its successors a packet may be acknowledged (section 6.1.2). */
  get lossDelayMs(): number {
    const delayMs = (9 / 8) * Math.max(this.latestMs, this.smoothedMs);
    return Math.max(delayMs, GRANULARITY_MS);
  }
}

/** What timers can tell apart (RFC 9002, section 6.1.2). */
const GRANULARITY_MS = 1;
/** The guess before the first sample; the RFC recommends it. */
const INITIAL_RTT_MS = 333;
