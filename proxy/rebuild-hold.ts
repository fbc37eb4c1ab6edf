/**
 * Keeps a routing table as it is while a replica is rebuilt: the rows of the new generation are gathered
 * beside the ones in use, and take their place only when they are as many machines and hostnames, or when
 * the operator says that no more will come.
 *
 * A marker beside the database says that a rebuild is under way; it is looked at while rows are held
 * back, and removed when the first table of the process has changed over.
 */
import { existsSync, rmSync } from "node:fs";
import type { Logger } from "#base/logger.ts";
import type { ChangeStreamEvent, Watermark } from "../replica/types.ts";

/** Where the marker of a rebuild is. */
export function rebuildMarkerOf(databasePath: string): string {
  return `${databasePath}.rebuilding`;
}

/** What a hold needs. */
export interface RebuildHoldOptions {
  readonly databasePath: string;
  /** Of the table in use. */
  readonly inUse: () => { readonly machines: number; readonly hostnames: number };
  /** Has the table take what was gathered. */
  readonly changeOver: (event: ChangeStreamEvent) => void;
  readonly log: Logger;
}

/** One per data plane. */
export class RebuildHold {
  readonly #options: RebuildHoldOptions;
  readonly #marker: string;
  readonly #gathered = { machines: new Set<unknown>(), hostnames: new Set<unknown>() };
  #isOn = false;
  /** Held back; the latest position since. */
  #caughtUp: Watermark | null = null;
  #timer: NodeJS.Timeout | null = null;

  constructor(options: RebuildHoldOptions) {
    this.#options = options;
    this.#marker = rebuildMarkerOf(options.databasePath);
  }

  /** Whether rows are held back. */
  get isOn(): boolean {
    return this.#isOn;
  }

  /** Events that the table may have now, in place of one of the stream. */
  take(event: ChangeStreamEvent): readonly ChangeStreamEvent[] {
    if (event.kind === "reset") this.#begin();
    if (!this.#isOn) return [event];
    if (event.kind === "rows") {
      for (const { table, key, row } of event.rows) {
        if (table !== "machines" && table !== "hostnames") continue;
        if (row === null) this.#gathered[table].delete(key[0]);
        else this.#gathered[table].add(key[0]);
      }
      if (this.#caughtUp === null) return [event];
      this.#caughtUp = event.watermark;
      return [event, ...this.#end()];
    }
    if (event.kind === "caughtUp") {
      this.#caughtUp = event.watermark;
      return this.#end();
    }
    return [event];
  }

  /** Ends the look-out for the operator's word. */
  stop(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
  }

  /** Rows start over: whether that is because of a rebuild. */
  #begin(): void {
    this.stop();
    this.#clear();
    this.#caughtUp = null;
    this.#isOn = existsSync(this.#marker) && this.#options.inUse().machines > 0;
    if (!this.#isOn) return;
    this.#options.log.info?.("rebuild-held", "requests go by the table from before the rebuild");
    this.#timer = setInterval(() => this.#look(), LOOK_MS);
    this.#timer.unref();
  }

  #look(): void {
    if (this.#caughtUp === null || existsSync(this.#marker)) return;
    for (const event of this.#changeOver(this.#caughtUp)) this.#options.changeOver(event);
  }

  /** The change over, if there is as much as before. */
  #end(): readonly ChangeStreamEvent[] {
    const { machines, hostnames } = this.#options.inUse();
    if (this.#caughtUp === null) return [];
    if (this.#gathered.machines.size < machines || this.#gathered.hostnames.size < hostnames)
      return [];
    return this.#changeOver(this.#caughtUp);
  }

  #changeOver(watermark: Watermark): readonly ChangeStreamEvent[] {
    this.stop();
    this.#isOn = false;
    rmSync(this.#marker, { force: true });
    const machines = this.#gathered.machines.size;
    this.#clear();
    this.#options.log.info?.("rebuild-done", "the routing table is that of the new generation", {
      machines,
    });
    return [{ kind: "caughtUp", watermark }];
  }

  #clear(): void {
    this.#gathered.machines.clear();
    this.#gathered.hostnames.clear();
  }
}

/** An operator who says that it is over can wait for it. */
const LOOK_MS = 500;
