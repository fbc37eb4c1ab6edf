/**
 * Limits that hold for the whole process, however many data-plane threads it has: connections in
 * all and by client, requests that wait for a machine, request bodies that are kept, and repeats.
 * Connections to machines are counted elsewhere; here is who was refused one.
 *
 * Layout: counters `[connections | waiting requests | kept bodies | budget of repeats | refused
 * connections to machines | clients x CLIENT_CELLS]`.
 */
import { SaltedHash, type Salt } from "#base/salted-hash.ts";
import { SharedCounts, SharedLimit, type SharedCountsPlan } from "#base/shared-counts.ts";
import { CLIENT_CELLS, ClientCounts } from "./client-counts.ts";

/** What a thread needs to count with the others. */
export interface ProcessLimitsPlan extends SharedCountsPlan {
  readonly salt: Salt;
}

/** The limits by the config. */
export interface ProcessMaxima {
  readonly connections: number;
  /** 0 = any number. */
  readonly connectionsPerClient: number;
  readonly waiting: number;
  readonly keptBodies: number;
}

/** The limits as one thread sees them. */
export class ProcessLimits {
  readonly connections: SharedLimit;
  readonly clients: ClientCounts;
  /** Requests that wait for a machine below its hard limit. */
  readonly waiting: SharedLimit;
  /** Request bodies that are kept to be sent again. */
  readonly keptBodies: SharedLimit;
  /** For the budget of repeats. What a thread has spent stays spent when it ends. */
  readonly retryCell: Int32Array;
  readonly #counts: SharedCounts;

  constructor(plan: ProcessLimitsPlan, max: ProcessMaxima) {
    const counts = new SharedCounts(plan);
    this.#counts = counts;
    this.retryCell = new Int32Array(plan.counts, RETRIES * Int32Array.BYTES_PER_ELEMENT, 1);
    this.connections = new SharedLimit(counts, { at: CONNECTIONS, max: max.connections });
    this.waiting = new SharedLimit(counts, { at: WAITING, max: max.waiting });
    this.keptBodies = new SharedLimit(counts, { at: KEPT_BODIES, max: max.keptBodies });
    this.clients = new ClientCounts({
      counts,
      at: CLIENTS,
      hash: new SaltedHash(plan.salt),
      max: max.connectionsPerClient,
    });
  }

  /** Another number after each `upstreamRefused` of any thread. */
  get upstreamRefusals(): number {
    return this.#counts.count(REFUSED_UPSTREAMS);
  }

  /** A machine has as many connections as it may, and one more was wanted. */
  upstreamRefused(): void {
    this.#counts.add(REFUSED_UPSTREAMS);
  }

  /** Memory for a process; the plan of the thread that ends with it. */
  static allocate(salt: Salt): ProcessLimitsPlan {
    return { counts: SharedCounts.allocate(CLIENTS + CLIENT_CELLS), share: null, salt };
  }
}

const CONNECTIONS = 0;
const WAITING = 1;
const KEPT_BODIES = 2;
const RETRIES = 3;
const REFUSED_UPSTREAMS = 4;
const CLIENTS = 5;
