/**
 * Upstream connections of one data-plane thread: idle ones are used again, others are dialled.
 *
 * The policy is `core/idle-pool.ts`; this closes what the policy lets go.
 */
import type { ReadBuffers } from "../read-buffers.ts";
import type { ConnectionCounts, DelayEmulation, Upstream } from "../types.ts";
import { IdlePool } from "./core/idle-pool.ts";
import { UpstreamConnection } from "./upstream-connection.ts";
import { upstreamTlsOf, type UpstreamTls } from "./upstream-tls.ts";

/** Limits and seams of a pool. */
export interface UpstreamPoolOptions {
  readonly idleMs: number;
  /** Idle connections per upstream. */
  readonly perUpstreamMax: number;
  /** Connections per upstream, idle and in use, in all threads. */
  readonly openMax: number;
  /** What they are counted in with other threads; absent = there are none. */
  readonly counts?: ConnectionCounts | undefined;
  readonly buffers: ReadBuffers;
  /** Fault injection; `null` in production. */
  readonly delay: DelayEmulation | null;
  /** How machines that speak HTTPS are verified. Default: by the system's authorities. */
  readonly tls?: UpstreamTls | undefined;
}

/** Idle and dialled connections. */
export class UpstreamPool {
  readonly #idle: IdlePool<UpstreamConnection>;
  readonly #buffers: ReadBuffers;
  readonly #delay: DelayEmulation | null;
  #tls: UpstreamTls | undefined;
  readonly #openMax: number;
  readonly #counts: ConnectionCounts;
  readonly #openByKey = new Map<string, Open>();
  /** Of the connection that is dialled next. */
  #reservedKey: string | null = null;
  /** What was known of refusals when this thread last made room. */
  #refusalsSeen: number;
  /** Connections ever dialled and uses of idle ones: plain counters for metrics and tests. */
  readonly stats = { dialled: 0, reused: 0, expired: 0, dropped: 0 };

  constructor(options: UpstreamPoolOptions) {
    this.#buffers = options.buffers;
    this.#delay = options.delay;
    this.#openMax = options.openMax;
    this.#counts = options.counts ?? NO_OTHERS;
    this.#refusalsSeen = this.#counts.refusals;
    this.#tls = options.tls;
    this.#idle = new IdlePool({ idleMs: options.idleMs, perUpstreamMax: options.perUpstreamMax });
  }

  /** Idle connections at the moment. */
  get idleCount(): number {
    return this.#idle.count;
  }

  /**
   * Makes sure that an upstream can be used: it has an idle connection, or may get another one,
   * which is counted from here on. False = it has as many as it may. After true comes `take`, with
   * `dial` where that gave nothing, or `unreserve`.
   */
  reserve(key: string): boolean {
    if (this.#idle.has(key)) return true;
    if (!this.#count(key, this.#openMax)) {
      this.#counts.refused();
      return false;
    }
    this.#reservedKey = key;
    return true;
  }

  /** What was reserved is not needed. */
  unreserve(): void {
    if (this.#reservedKey !== null) this.#uncount(this.#reservedKey);
    this.#reservedKey = null;
  }

  /** Connections of an upstream in this thread, idle and in use. */
  openCount(key: string): number {
    return this.#openByKey.get(key)?.count ?? 0;
  }

  /** An idle connection of this upstream, or `null`: then `dial`. */
  take(upstream: Upstream): UpstreamConnection | null {
    const connection = this.#idle.take(upstream.key);
    if (connection === null) return null;
    connection.isReused = true;
    this.stats.reused += 1;
    return connection;
  }

  /** Starts a connection; its owner hears how it went. */
  dial(upstream: Upstream): UpstreamConnection {
    this.stats.dialled += 1;
    // Instead of an idle one that is not to be trusted: that much more than the limit.
    if (this.#reservedKey !== upstream.key) this.#count(upstream.key, 0);
    this.#reservedKey = null;
    return new UpstreamConnection({
      upstream,
      buffers: this.#buffers,
      delay: this.#delay,
      tls: () => (this.#tls ??= upstreamTlsOf({})),
      onIdleBroken: this.#forget,
      onGone: this.#countGone,
    });
  }

  /** Takes back a connection whose request is over and which can serve another. */
  put(connection: UpstreamConnection, nowMs: number): void {
    connection.owner = null;
    connection.isStreaming = false;
    if (!this.#idle.put(connection, nowMs)) connection.destroy();
  }

  /** Closes the idle connections of a machine that left the table; those in use finish. */
  dropMachine(machineId: string): void {
    const gone = this.#idle.dropMachine(machineId);
    this.stats.dropped += gone.length;
    for (const connection of gone) connection.destroy();
  }

  /** Closes what has been idle too long. */
  expire(nowMs: number): void {
    const gone = this.#idle.expire(nowMs);
    this.stats.expired += gone.length;
    for (const connection of gone) connection.destroy();
  }

  /** Closes all idle connections. */
  close(): void {
    for (const connection of this.#idle.clear()) connection.destroy();
  }

  /**
   * Closes an idle connection of each upstream that is at its limit, if somebody was refused one: a
   * thread that has traffic for it gets what another keeps for later. Cost: upstreams, then.
   */
  relieve(): void {
    const { refusals } = this.#counts;
    if (refusals === this.#refusalsSeen) return;
    this.#refusalsSeen = refusals;
    for (const [key, { slot }] of this.#openByKey) {
      if (this.#counts.count(slot) >= this.#openMax) this.#idle.take(key)?.destroy();
    }
  }

  /** Counts one more of an upstream; 0 = whatever its number. */
  #count(key: string, max: number): boolean {
    const open = this.#openByKey.get(key) ?? { slot: this.#counts.hold(key), count: 0 };
    const isBelow = (max === 0 || open.count < max) && this.#counts.take(open.slot, max);
    if (isBelow) {
      open.count += 1;
      this.#openByKey.set(key, open);
    } else if (open.count === 0) this.#counts.letGo(open.slot);
    return isBelow;
  }

  #uncount(key: string): void {
    const open = this.#openByKey.get(key);
    if (open === undefined) return;
    open.count -= 1;
    this.#counts.give(open.slot);
    if (open.count > 0) return;
    this.#openByKey.delete(key);
    this.#counts.letGo(open.slot);
  }

  readonly #countGone = ({ upstream: { key } }: UpstreamConnection): void => this.#uncount(key);

  readonly #forget = (connection: UpstreamConnection): void => {
    this.#idle.remove(connection);
  };
}

/** Connections of one upstream in this thread. */
interface Open {
  readonly slot: number;
  count: number;
}

const NO_OTHERS: ConnectionCounts = {
  hold: () => 0,
  letGo: () => undefined,
  take: () => true,
  give: () => undefined,
  count: () => 0,
  refusals: 0,
  refused: () => undefined,
};
