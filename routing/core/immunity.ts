/**
 * What edges that a change has stalled tell the others: until when a change that is not applied yet
 * has to wait.
 *
 * | notices that have not expired | the change waits                                          |
 * |-------------------------------|-----------------------------------------------------------|
 * | of one edge                   | `extendMs` from its arrival: a busy edge may err          |
 * | of two edges or more          | until only one of these notices is left, then as above    |
 *
 * Who may say so is judged before (`proxy/stall-notice.ts`). Times are monotonic milliseconds of
 * the caller.
 */
import type { ActorId } from "../../replica/types.ts";

/** One edge's word on one change. */
export interface StallNotice {
  /** Of the change, see `CanaryOptions.hashOf`. */
  readonly hash: string;
  /** The edge that it stalled. */
  readonly victim: ActorId;
  /** `-Infinity`: it takes back what it said. */
  readonly untilMs: number;
}

/** Notices by change. */
export class Immunity {
  readonly #extendMs: number;
  /** Hash -> victim -> until when. */
  readonly #untilByHash = new Map<string, Map<ActorId, number>>();

  /** `extendMs` 0 = nobody waits for anybody's word. */
  constructor(extendMs: number) {
    this.#extendMs = extendMs;
  }

  /** Whether any change has a notice. */
  get isEmpty(): boolean {
    return this.#untilByHash.size === 0;
  }

  /** Takes a notice; a later one of the same edge replaces it. */
  take({ hash, victim, untilMs }: StallNotice): void {
    if (this.#extendMs === 0) return;
    const [oldest] = this.#untilByHash.keys();
    const known = this.#untilByHash.get(hash);
    if (untilMs === -Infinity) {
      known?.delete(victim);
      if (known?.size === 0) this.#untilByHash.delete(hash);
      return;
    }
    if (known === undefined && this.#untilByHash.size >= HASHES_MAX && oldest !== undefined) {
      this.#untilByHash.delete(oldest);
    }
    const untilByVictim = known ?? new Map<ActorId, number>();
    // Two are enough for everything; a flood of them says nothing more.
    if (untilByVictim.size < VICTIMS_MAX || untilByVictim.has(victim)) {
      untilByVictim.set(victim, untilMs);
    }
    this.#untilByHash.set(hash, untilByVictim);
  }

  /** Until when a change that arrived at `seenMs` waits; `-Infinity` = there is no notice. */
  waitUntilMs(hash: string, seenMs: number): number {
    const untils = [...(this.#untilByHash.get(hash)?.values() ?? [])].toSorted((a, b) => b - a);
    const [last = -Infinity, lastButOne = -Infinity] = untils;
    return Math.max(Math.min(last, seenMs + this.#extendMs), lastButOne);
  }

  /** Edges whose notice holds at `nowMs`. */
  victimsOf(hash: string, nowMs: number): number {
    const untils = [...(this.#untilByHash.get(hash)?.values() ?? [])];
    return untils.filter((untilMs) => untilMs > nowMs).length;
  }
}

/** Changes that stall are few; a flood of notices must not be kept. */
const HASHES_MAX = 1_000;
const VICTIMS_MAX = 64;
