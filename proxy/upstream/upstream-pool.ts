/**
 * Upstream connections of one data-plane thread: idle ones are used again, others are dialled.
 *
 * The policy is `core/idle-pool.ts`; this closes what the policy lets go.
 */
import type { ReadBuffers } from "../read-buffers.ts";
import type { DelayEmulation, Upstream } from "../types.ts";
import { IdlePool } from "./core/idle-pool.ts";
import { UpstreamConnection } from "./upstream-connection.ts";
import { upstreamTlsOf, type UpstreamTls } from "./upstream-tls.ts";

/** Limits and seams of a pool. */
export interface UpstreamPoolOptions {
  readonly idleMs: number;
  /** Idle connections per upstream. */
  readonly perUpstreamMax: number;
  /** Connections per upstream, idle and in use. */
  readonly openMax: number;
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
  readonly #openByKey = new Map<string, number>();
  /** Upstreams with as many connections as they may have. */
  readonly #fullKeys = new Set<string>();
  /** Connections ever dialled and uses of idle ones: plain counters for metrics and tests. */
  readonly stats = { dialled: 0, reused: 0, expired: 0, dropped: 0 };

  constructor(options: UpstreamPoolOptions) {
    this.#buffers = options.buffers;
    this.#delay = options.delay;
    this.#openMax = options.openMax;
    this.#tls = options.tls;
    this.#idle = new IdlePool({ idleMs: options.idleMs, perUpstreamMax: options.perUpstreamMax });
  }

  /** Idle connections at the moment. */
  get idleCount(): number {
    return this.#idle.count;
  }

  /** Whether an upstream has no idle connection and may get no other. */
  isFull(key: string): boolean {
    return this.#fullKeys.size > 0 && this.#fullKeys.has(key) && !this.#idle.has(key);
  }

  /** Connections of an upstream, idle and in use. */
  openCount(key: string): number {
    return this.#openByKey.get(key) ?? 0;
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
    const open = this.openCount(upstream.key) + 1;
    this.#openByKey.set(upstream.key, open);
    if (open >= this.#openMax) this.#fullKeys.add(upstream.key);
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

  readonly #countGone = ({ upstream: { key } }: UpstreamConnection): void => {
    const open = this.openCount(key) - 1;
    if (open > 0) this.#openByKey.set(key, open);
    else this.#openByKey.delete(key);
    if (open < this.#openMax) this.#fullKeys.delete(key);
  };

  readonly #forget = (connection: UpstreamConnection): void => {
    this.#idle.remove(connection);
  };
}
