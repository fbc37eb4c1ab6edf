/**
 * Our own identity: the current one, the incarnation in which it refutes, and when it must give way
 * to a newer one.
 *
 * A replica defends its identity against suspicion by raising its incarnation. Once declared down
 * it cannot, and takes the same id with a newer stamp. The stamp must exceed every one that the
 * cluster has seen with our id, also those of a life before our clock went back: others drop what
 * is older than what they know.
 */
import { type Actor, compareTs } from "./actor.ts";

/** Who we are to the cluster. */
export class Identity {
  #actor: Actor;
  #incarnation = 0;
  /** The newest identity of our id that was seen, other than the current one. */
  #other: Actor | null = null;

  constructor(actor: Actor) {
    this.#actor = actor;
  }

  /** The current identity. */
  get actor(): Actor {
    return this.#actor;
  }

  /** Sent along with every packet; 0 in a fresh identity. */
  get incarnation(): number {
    return this.#incarnation;
  }

  /**
   * Answers a suspicion about the current identity: raises the incarnation above it. `stale` when
   * it is above already; `exhausted` when there is none above, so that only a renewal helps.
   */
  refute(suspected: number): "refuted" | "stale" | "exhausted" {
    if (suspected < this.#incarnation) return "stale";
    if (suspected >= INCARNATION_MAX) return "exhausted";
    this.#incarnation = suspected + 1;
    return "refuted";
  }

  /**
   * Takes note of another identity with our id that somebody knows. `earlier` and `later` (than the
   * current one) are answered the first time; `known` after that, and for stamps so great that
   * nothing could exceed them.
   */
  note(other: Actor): "earlier" | "later" | "known" {
    if (other.ts > TS_TRUSTED_MAX) return "known";
    if (this.#other !== null && compareTs(other.ts, this.#other.ts) <= 0) return "known";
    this.#other = other;
    return compareTs(other.ts, this.#actor.ts) > 0 ? "later" : "earlier";
  }

  /** Takes a newer identity; returns the former. `stamp` is used if it is new enough. */
  renew(stamp: bigint, clusterId: number): Actor {
    const before = this.#actor;
    if (this.#other === null || compareTs(before.ts, this.#other.ts) >= 0) this.#other = before;
    const newest = this.#other.ts;
    const ts = compareTs(stamp, newest) > 0 ? stamp : newest + TS_STEP;
    this.#actor = { ...before, ts, clusterId };
    this.#incarnation = 0;
    return before;
  }
}

/** Incarnations have 16 bits on the wire. */
const INCARNATION_MAX = 65_535;
/** 3.7 ns: above the nanosecond at which stamps are compared, below any real distance. */
const TS_STEP = 16n;
/** 16 s before the end of NTP64: room for more renewals than a replica can make. */
const TS_TRUSTED_MAX = 0xffff_fff0_0000_0000n;
