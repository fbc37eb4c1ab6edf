/**
 * Which idle upstream connection is used next, and which are let go.
 *
 * Last in, first out per upstream: the most recently used one is the least likely to be stale, and
 * what the traffic does not need ages at the bottom and is let go. Knows no sockets.
 */

/** What the pool reads of a connection. */
export interface Poolable {
  readonly upstream: { readonly key: string; readonly machineId: string };
  /** When it became idle, coarse monotonic milliseconds; set by `put`. */
  idleSinceMs: number;
}

/** Idle connections by upstream key. */
export class IdlePool<Connection extends Poolable> {
  readonly #idleMs: number;
  readonly #perUpstreamMax: number;
  readonly #stackByKey = new Map<string, Connection[]>();
  #count = 0;

  /** `idleMs`: age at which an idle connection is let go. */
  constructor(limits: { readonly idleMs: number; readonly perUpstreamMax: number }) {
    this.#idleMs = limits.idleMs;
    this.#perUpstreamMax = limits.perUpstreamMax;
  }

  get count(): number {
    return this.#count;
  }

  /** Whether there is one for this key. */
  has(key: string): boolean {
    return (this.#stackByKey.get(key)?.length ?? 0) > 0;
  }

  /** The connection used last, or `null`. */
  take(key: string): Connection | null {
    const connection = this.#stackByKey.get(key)?.pop();
    if (connection === undefined) return null;
    this.#count -= 1;
    return connection;
  }

  /** Keeps a connection; false = there are enough, close it. */
  put(connection: Connection, nowMs: number): boolean {
    const key = connection.upstream.key;
    let stack = this.#stackByKey.get(key);
    if (stack === undefined) {
      stack = [];
      this.#stackByKey.set(key, stack);
    }
    if (stack.length >= this.#perUpstreamMax) return false;
    connection.idleSinceMs = nowMs;
    stack.push(connection);
    this.#count += 1;
    return true;
  }

  /** Takes out one that closed by itself; false = it was not here. */
  remove(connection: Connection): boolean {
    const stack = this.#stackByKey.get(connection.upstream.key);
    const at = stack?.indexOf(connection) ?? -1;
    if (stack === undefined || at < 0) return false;
    stack.splice(at, 1);
    this.#count -= 1;
    return true;
  }

  /** Takes out every connection of a machine; the caller closes them. Cost: number of upstreams. */
  dropMachine(machineId: string): Connection[] {
    return this.#takeWhere((connection) => connection.upstream.machineId === machineId);
  }

  /** Takes out what has been idle too long; the caller closes it. */
  expire(nowMs: number): Connection[] {
    const isOld = (connection: Connection): boolean =>
      nowMs - connection.idleSinceMs >= this.#idleMs;
    // The bottom of a stack is its oldest: nearly always one look per upstream.
    for (const stack of this.#stackByKey.values()) {
      if (stack[0] !== undefined && isOld(stack[0])) return this.#takeWhere(isOld);
    }
    return [];
  }

  /** Takes out everything. */
  clear(): Connection[] {
    return this.#takeWhere(() => true);
  }

  #takeWhere(isGone: (connection: Connection) => boolean): Connection[] {
    const taken: Connection[] = [];
    for (const [key, stack] of this.#stackByKey) {
      const kept = stack.filter((connection) => !isGone(connection));
      if (kept.length === stack.length && kept.length > 0) continue;
      taken.push(...stack.filter((connection) => isGone(connection)));
      if (kept.length === 0) this.#stackByKey.delete(key);
      else this.#stackByKey.set(key, kept);
    }
    this.#count -= taken.length;
    return taken;
  }
}
