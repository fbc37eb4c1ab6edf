/**
 * A hybrid logical clock that issues NTP64 stamps which never repeat or go back, and stays close to
 * the wall clock.
 *
 * NTP64 is a 64-bit fixed-point time: `unix seconds << 32 | fraction`. The low 4 bits are a logical
 * counter, so that 15 stamps fit into one reading of the clock. The rules are those of uhlc 0.9 as
 * Corrosion uses it (protocol reference, section 2.10). It reads no clock: the wall time is an
 * argument, and may go back without harm.
 */
import { assert } from "#base/errors.ts";
import { failure, type Result, success } from "#base/machine.ts";

/** A remote stamp too far ahead of the wall clock to be followed. The clock is as it was. */
export interface ClockSkew {
  readonly kind: "clockSkew";
  /** How far the remote stamp is ahead of the wall clock, milliseconds. */
  readonly aheadMs: number;
}

/** One replica's clock. All stamps it issues and all it hears of go through the same instance. */
export class Hlc {
  /** The greatest stamp issued or accepted; 0 before the first. */
  #last: bigint;

  /** `last` is a stamp from before a restart; the next one will be greater. */
  constructor(last = 0n) {
    this.#last = last;
  }

  /** The greatest stamp issued or accepted so far. */
  get last(): bigint {
    return this.#last;
  }

  /** Issues a stamp greater than every earlier one. `nowNtp64` is the wall clock. */
  stamp(nowNtp64: bigint): bigint {
    const now = nowNtp64 & TIME_MASK;
    this.#last = now > (this.#last & TIME_MASK) ? now : this.#last + 1n;
    return this.#last;
  }

  /**
   * Takes note of a stamp of another replica, so that later ones of ours are greater. A stamp more
   * than 300 ms ahead of the wall clock is refused without effect: one replica with a wrong clock
   * must not drag the whole cluster along. What carried the stamp is still to be applied.
   */
  merge(remote: bigint, nowNtp64: bigint): Result<bigint, ClockSkew> {
    const now = nowNtp64 & TIME_MASK;
    if (remote > now + SKEW_MAX_NTP64) {
      return failure({ kind: "clockSkew", aheadMs: ntp64ToMs(remote - now) });
    }
    if (now >= remote && now >= this.#last) this.#last = now;
    else this.#last = (remote > this.#last ? remote : this.#last) + 1n;
    return success(this.#last);
  }
}

/** Converts wall-clock milliseconds since 1970 (fractions allowed) to NTP64, rounding down. */
export function unixMsToNtp64(unixMs: number): bigint {
  assert(unixMs >= 0 && unixMs < UNIX_MS_END, "a wall clock between 1970 and 2106");
  const seconds = Math.floor(unixMs / 1_000);
  const nanos = Math.floor((unixMs - seconds * 1_000) * 1_000_000);
  return (BigInt(seconds) << 32n) | ((BigInt(nanos) << 32n) / NANOS_PER_SECOND);
}

/** Converts NTP64 to milliseconds since 1970 with a fraction; good to about a microsecond. */
export function ntp64ToUnixMs(stamp: bigint): number {
  return ntp64ToMs(stamp);
}

/** The nanosecond part of an NTP64 stamp, 0 to 999,999,999; several stamps share one nanosecond. */
export function ntp64SubsecondNanos(stamp: bigint): bigint {
  return ((stamp & FRACTION_MASK) * NANOS_PER_SECOND) >> 32n;
}

function ntp64ToMs(span: bigint): number {
  return Number(span >> 32n) * 1_000 + (Number(span & FRACTION_MASK) * 1_000) / 4_294_967_296;
}

const NANOS_PER_SECOND = 1_000_000_000n;
const FRACTION_MASK = 0xffff_ffffn;
/** Clears the 4 bits of the logical counter. */
const TIME_MASK = 0xffff_ffff_ffff_fff0n;
/** 300 ms, Corrosion's limit. */
const SKEW_MAX_NTP64 = (300n << 32n) / 1_000n;
/** NTP64 has 32 bits of seconds. */
const UNIX_MS_END = 4_294_967_296 * 1_000;
