/** What `/readyz` says of a process, and why: readiness outwards, by what the main thread learns. */
import type { Freeze } from "../routing/core/quarantine.ts";
import type { ReadyState } from "../watchdog/types.ts";
import type { FirstTable } from "./first-table.ts";

/** The last word counts, unless nothing can be written, or the process drains. */
export class Readiness {
  readonly #tell: (state: ReadyState) => void;
  #state: ReadyState = { isReady: false, reason: "starting" };
  /** Why nothing can be written, when that lasts. */
  #storeFault: string | null = null;
  #isDraining = false;

  constructor(tell: (state: ReadyState) => void) {
    this.#tell = tell;
  }

  /** Requests are answered; `details` stand in the body. */
  ready(reason: string, details: ReadyState["details"] = {}): void {
    this.#state = { isReady: true, reason, details };
    this.#update();
  }

  /** What is said of a freeze is over. */
  thawed(): void {
    if (this.#state.details?.["table"] !== "frozen") return;
    this.ready("the table is made current", { table: "stale" });
  }

  /** Requests go on being answered while the store cannot write; null = it can again. */
  storeFault(reason: string | null): void {
    this.#storeFault = reason;
    this.#update();
  }

  /** Nothing changes that any more. */
  draining(): void {
    this.#isDraining = true;
    this.#tell({ isReady: false, reason: "draining" });
  }

  #update(): void {
    if (this.#isDraining) return;
    const fault = this.#storeFault;
    this.#tell(fault === null ? this.#state : { ...this.#state, isReady: false, reason: fault });
  }
}

/** Details of a table that may be older than what could be known. */
export function staleDetails(first: FirstTable, freeze: Freeze | null): ReadyState["details"] {
  const { source } = first;
  const saved = source === "file" ? { savedTime: new Date(first.savedMs).toISOString() } : {};
  return { table: "stale", source, ...saved, ...(freeze === null ? {} : frozenDetails(freeze)) };
}

/** Details of a table that takes nothing but what goes down. */
export function frozenDetails({ stallId, sinceMs, peers }: Freeze): ReadyState["details"] {
  return { table: "frozen", frozen: { stallId, peers, since: new Date(sinceMs).toISOString() } };
}
