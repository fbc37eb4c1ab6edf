/**
 * Whether the store can keep what it is given: a full disk, a file system that went read-only, a
 * damaged file. It is said once in the log when it begins and when it ends, it stands in the status,
 * and what lasts is told to the owner, whose readiness ends. Queries go on meanwhile, and the routing
 * table; no write is acknowledged.
 */
import type { Logger } from "#base/logger.ts";
import type { StoreFault } from "./store/store.ts";

/** What a watch is made of. */
export interface StoreFaultOptions {
  readonly db: { readonly path: string };
  readonly log: Logger;
  readonly events: {
    /** Told of a fault that has lasted for `FAULT_LASTS_MS`, and (null) of its end. */
    storeFault(reason: string | null): void;
  };
}

/** A fault under way. */
interface Lasting {
  readonly reason: string;
  readonly sinceMs: number;
  /** The owner knows. */
  isTold: boolean;
}

/** Follows what the store says of itself. */
export class StoreFaultWatch {
  readonly #options: StoreFaultOptions;
  #fault: Lasting | null = null;

  constructor(options: StoreFaultOptions) {
    this.#options = options;
  }

  /** Why the store cannot keep anything, for people; null = it can. */
  get reason(): string | null {
    return this.#fault?.reason ?? null;
  }

  /** Takes the store's latest word; `nowMs` on a monotonic clock. */
  take(fault: StoreFault | null, nowMs: number): void {
    if (fault === null) return this.#end(nowMs);
    this.#fault ??= this.#begin(fault, nowMs);
    if (this.#fault.isTold || nowMs - this.#fault.sinceMs < FAULT_LASTS_MS) return;
    this.#fault.isTold = true;
    this.#options.events.storeFault(this.#fault.reason);
  }

  #begin({ code, message }: StoreFault, nowMs: number): Lasting {
    const { db, log } = this.#options;
    const wayOut =
      code === "STORE_CORRUPT"
        ? "restore it from a backup, or remove it and let the replica catch up"
        : "free space on its file system, or make it writable";
    const reason = `${db.path} cannot be written: ${message}`;
    log.error("store-cannot-write", `${reason}; no write is acknowledged: ${wayOut}`, { code });
    return { reason, sinceMs: nowMs, isTold: false };
  }

  #end(nowMs: number): void {
    if (this.#fault === null) return;
    const { sinceMs, isTold } = this.#fault;
    this.#fault = null;
    const { db, log, events } = this.#options;
    log.info?.("store-writes-again", `${db.path} can be written again`, {
      afterMs: Math.round(nowMs - sinceMs),
    });
    if (isTold) events.storeFault(null);
  }
}

/** A log that is rotated or a disk that is grown meanwhile shall not move traffic. */
const FAULT_LASTS_MS = 3_000;
