/** What the threads of one process share, and what each of them gets of it. */
import { randomBytes, randomInt } from "node:crypto";
import type { LogLevelCell } from "#base/logger.ts";
import { MetricSlots } from "#base/metric-slots.ts";
import type { Salt } from "#base/salted-hash.ts";
import { SharedCounts } from "#base/shared-counts.ts";
import { REPLICA_METRICS } from "../replica/metrics.ts";
import { LoadSlots } from "../routing/core/load-slots.ts";
import { allocatePeerBounces } from "../watchdog/core/peer-bounces.ts";
import type { EffectiveConfig } from "./effective-config.ts";
import { ProcessLimits } from "./listeners/core/process-limits.ts";
import { PROXY_METRICS } from "./metrics.ts";
import type { EndCause } from "./threads/data-plane-threads.ts";
import type { DataPlaneThreadData, ThreadData } from "./threads/messages.ts";
import { FIRST_DATA_PLANE, loopNames } from "./watched-loops.ts";

/** What a data-plane thread gets of it. */
export type SharedParts = Pick<DataPlaneThreadData, "load" | "limits" | "ticketKeys">;

/** One per process, in its main thread. */
export class SharedState {
  readonly metrics: MetricSlots;
  /** What peers say of their bounces. */
  readonly bounces = allocatePeerBounces();
  readonly #effective: EffectiveConfig;
  readonly #logLevel: LogLevelCell;
  readonly #threadNames: readonly string[];
  readonly #salt: Salt = [randomInt(2 ** 32), randomInt(2 ** 32)];
  readonly #load = LoadSlots.allocate({ salt: this.#salt });
  readonly #limits = ProcessLimits.allocate(this.#salt);
  readonly #slots = new LoadSlots(this.#load);
  readonly #counts = new SharedCounts(this.#limits);
  /** A client may come back to any thread with the ticket of another. */
  readonly #ticketKeys: Uint8Array = randomBytes(TICKET_KEYS_BYTES);

  constructor(effective: EffectiveConfig, logLevel: LogLevelCell) {
    this.#effective = effective;
    this.#logLevel = logLevel;
    this.#threadNames = loopNames(effective);
    const declarations = [...PROXY_METRICS, ...REPLICA_METRICS];
    this.metrics = MetricSlots.allocate(declarations, this.#threadNames.length);
  }

  /** Names of the data-plane threads beside the main one. */
  get dataPlaneNames(): readonly string[] {
    return this.#threadNames.slice(FIRST_DATA_PLANE);
  }

  /** What the main data plane gets. */
  get ofMain(): SharedParts {
    return { load: this.#load, limits: this.#limits, ticketKeys: this.#ticketKeys };
  }

  /** What another data-plane thread gets: what it counts can be taken out again. */
  ofThread(): SharedParts {
    const limits = { ...this.#limits, ...this.#counts.planOfThread() };
    return { load: this.#slots.planOfThread(), limits, ticketKeys: this.#ticketKeys };
  }

  /** A thread is gone, and with it whatever it counted as open. */
  forget({ load, limits }: Pick<SharedParts, "load" | "limits">): void {
    this.#slots.forget(load);
    if (limits.share !== null) this.#counts.forget(limits.share);
  }

  /** What every thread gets. */
  threadData(loop: string, beat: ThreadData["beat"]): ThreadData {
    return {
      loop,
      effective: this.#effective,
      metrics: this.metrics.plan,
      bank: this.#threadNames.indexOf(loop),
      beat,
      logLevel: this.#logLevel.buffer,
    };
  }

  /** Counts a data-plane thread that was replaced. */
  planeReplaced(cause: EndCause): void {
    this.metrics.writer(0).counter("patina_data_plane_replacements_total", { cause }).add();
  }

  /** Counts a replacement of the replica's half. */
  replicaReplaced(cause: EndCause): void {
    this.metrics.writer(0).counter("patina_replica_replacements_total", { cause }).add();
  }
}

/** Name, HMAC and AES keys, as OpenSSL takes them. */
const TICKET_KEYS_BYTES = 48;
