/**
 * How far we trust our own judgement of others (Lifeguard, Dadgar et al. 2017, section 4.1: local
 * health multiplier).
 *
 * A replica that is itself late misses acks of members that are well. It can tell: probes fail of
 * members whom nobody else suspects, it finds itself suspected, its own timers come late. Each such
 * sign raises the score, each probe that succeeds in time lowers it, and the times that a verdict
 * on others takes are multiplied by score + 1. At 0 they are the configured ones.
 *
 * Deviation from the paper: there are no nacks, because Corrosion's wire has none. In their place a
 * failed probe counts only where nobody else suspected the target before.
 */

/** The score of one replica; 0 = well. */
export class Awareness {
  readonly #scoreMax: number;
  #score = 0;

  /** `scoreMax` = 0 keeps the score at 0: every time is the configured one, whatever happens. */
  constructor(scoreMax: number) {
    this.#scoreMax = scoreMax;
  }

  /** 0 to the configured greatest. */
  get score(): number {
    return this.#score;
  }

  /** Something says that we are late ourselves. */
  worsen(): void {
    this.#score = Math.min(this.#scoreMax, this.#score + 1);
  }

  /** A probe was answered in time. */
  improve(): void {
    this.#score = Math.max(0, this.#score - 1);
  }

  /** A time that a verdict on others takes, as long as our state asks for. */
  stretch(durationMs: number): number {
    return durationMs * (this.#score + 1);
  }
}
