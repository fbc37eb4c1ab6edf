/**
 * What of the change stream reaches one routing table, and when: everything at once, but for what
 * the quarantine keeps out (`quarantine-gate.ts`) and what waits for two other edges to try it
 * (`canary.ts`).
 */
import type { Logger } from "#base/logger.ts";
import type { MetricCounter, MetricGauge, MetricWriter } from "#base/metric-slots.ts";
import type { ActorId, ChangeStreamEvent, RowChange, Watermark } from "../replica/types.ts";
import { Canary, type WaitingChange } from "../routing/core/canary.ts";
import type { QuarantineState } from "../routing/core/quarantine.ts";
import { QuarantineGate } from "../routing/core/quarantine-gate.ts";
import type { SeenShapes } from "../routing/core/shapes.ts";
import type { RoutingTable } from "../routing/routing-table.ts";
import type { LoopBeat } from "../watchdog/core/loop-beat.ts";
import { readBuildId } from "./build-id.ts";
import type { PatinaConfig } from "./config.ts";
import { changeHash } from "./stall-notice.ts";
import type { TableFile } from "./table-file.ts";
import type { NoticeNews } from "./threads/messages.ts";

/** What a feed works on. */
export interface TableFeedOptions {
  readonly table: RoutingTable;
  readonly config: PatinaConfig;
  readonly metrics: MetricWriter;
  readonly beat: LoopBeat;
  readonly log: Logger;
  /** What is kept out of the table. */
  readonly quarantine: QuarantineState;
  readonly events: {
    /** Newer versions of these held rows have been applied. */
    superseded(ids: readonly string[]): void;
  };
  /** Idle connections to this machine must not be used again. */
  readonly dropMachine: (machineId: string) => void;
}

/** Feeds one table. */
export class TableFeed {
  /** See `readBuildId`. */
  readonly build = readBuildId();
  readonly #options: TableFeedOptions;
  readonly #gate: QuarantineGate;
  readonly #canary: Canary;
  readonly #figures: Readonly<
    Record<"machines" | "uncounted" | "watermark" | "denied" | "waiting", MetricGauge>
  >;
  readonly #counts: Readonly<Record<(typeof COUNTED)[number], MetricCounter>>;
  #counted = { rows: 0, resets: 0, first: 0, waited: 0 };
  #watermark: Watermark | null = null;
  /** Between `reset` and `caughtUp`: the watermark says nothing. */
  #isResetting = false;
  /** The first table had not all there is to learn from. */
  #needsAllRows = false;
  /** For the next change whose wait is over. */
  #dueTimer: NodeJS.Timeout | undefined;
  #isStopped = false;

  constructor(options: TableFeedOptions) {
    this.#options = options;
    const { table, metrics } = options;
    this.#gate = new QuarantineGate({
      denied: table.denied,
      rowInUse: (change) => table.row(change),
      rowsInUse: () => table.rows(),
    });
    this.#gate.set(options.quarantine);
    this.#canary = new Canary({
      waitMs: canaryWaitMs(options.config.watchdog),
      extendMs: options.config.watchdog.notice_ms,
      edges: () => table.edgeActors(),
      hashOf: changeHash,
    });
    this.#figures = {
      machines: metrics.gauge("patina_route_machines"),
      uncounted: metrics.gauge("patina_route_uncounted_services"),
      watermark: metrics.gauge("patina_route_watermark"),
      denied: metrics.gauge("patina_quarantine_denied_machines"),
      waiting: metrics.gauge("patina_canary_waiting_changes"),
    };
    this.#counts = {
      rows: metrics.counter("patina_route_rows_applied_total"),
      resets: metrics.counter("patina_route_resets_total"),
      first: metrics.counter("patina_canary_changes_total", { role: "first" }),
      waited: metrics.counter("patina_canary_changes_total", { role: "waited" }),
    };
  }

  /** How far the table is. */
  get watermark(): Watermark | null {
    return this.#watermark;
  }

  /** Whether the table gets nothing, see `Freeze`. */
  get isFrozen(): boolean {
    return this.#gate.isFrozen;
  }

  /** Whether the table is made anew: the watermark says nothing. */
  get isResetting(): boolean {
    return this.#isResetting;
  }

  /**
   * From where a table of the rows in use must go on; null while it is made anew, or frozen, and there
   * is no such place. Before `watermark` while changes wait.
   */
  get resumePoint(): Watermark | null {
    if (this.#isResetting || this.#gate.isFrozen || this.#watermark === null) return null;
    return this.#canary.resumeFrom(this.#watermark);
  }

  /** Differs whenever the table, or where it is, may have changed. */
  get position(): string {
    return `${this.#watermark?.dbVersion ?? 0} ${this.#options.table.stats.rowsApplied}`;
  }

  /** Shapes of rows that this table has applied. */
  get shapes(): SeenShapes {
    return this.#canary.shapes;
  }

  /** Changes of unseen shape that wait for two other edges to try them. */
  get waiting(): WaitingChange[] {
    return this.#canary.waiting(performance.now());
  }

  /**
   * Fills a new table with all rows as of `watermark`. Rows of a file are rows in use; those of the
   * database may be held.
   */
  load(
    { rows, watermark, seen }: Pick<TableFile, "rows" | "watermark" | "seen">,
    { isFromFile }: { readonly isFromFile: boolean },
  ): void {
    const { table, beat } = this.#options;
    beat.enter("load");
    if (seen?.build === this.build) this.#canary.restore(seen.shapes);
    // A file has the columns that routing reads; the shapes of whole rows come with the stream.
    else this.#needsAllRows = isFromFile;
    const admitted = rows.flatMap((row) => this.#gate.admitFirst(row, isFromFile) ?? []);
    for (const row of admitted) this.#canary.learn(row);
    table.apply({ kind: "rows", rows: admitted, watermark });
    this.#canary.applied();
    beat.done();
    this.#watermark = watermark;
    this.#report();
  }

  /**
   * Where the stream is to begin; null = with all rows. So while something is held: the first table
   * has no versions, and what was denied before this start has passed.
   */
  startFrom(self: ActorId): Watermark | null {
    this.#canary.setSelf(self);
    const needsAllRows = this.#needsAllRows && !this.#gate.isFrozen;
    return this.#gate.isActive || needsAllRows || this.#isResetting ? null : this.#watermark;
  }

  /** SWIM's word on another replica. */
  setUp(actorId: ActorId, isUp: boolean): void {
    this.#canary.setUp(actorId, isUp);
  }

  /** A change stalled another edge, or that takes its word back. */
  notice({ actorId, hash, expiresMs }: Omit<NoticeNews, "kind">): void {
    const untilMs = expiresMs === 0 ? -Infinity : performance.now() + expiresMs - Date.now();
    this.#canary.notice({ hash, victim: actorId, untilMs });
    this.#scheduleDue();
  }

  /** Has a change that waits applied at once. False when none waits under that id. */
  release(id: string): boolean {
    const isKnown = this.#canary.release(id);
    this.#scheduleDue();
    return isKnown;
  }

  /** The replica has met the others. */
  membersKnown(): void {
    this.#canary.membersKnown();
  }

  /** Takes over what is kept out of the table. */
  setQuarantine(state: QuarantineState): void {
    // A table that was frozen is nowhere in the stream.
    if (this.#gate.isFrozen && state.frozen === null) this.#watermark = null;
    this.#gate.set(state);
    this.#report();
  }

  /** Takes one event of the stream. */
  apply(event: ChangeStreamEvent): void {
    if (this.#gate.isFrozen) return this.#countDowns(event);
    const { table, beat, log, events } = this.#options;
    beat.enter("apply");
    const since = this.#isResetting ? null : this.#watermark;
    if (event.kind !== "rows") this.#isResetting = event.kind === "reset";
    if (event.kind === "reset") {
      log.info?.("change-stream-reset", event.reason);
      this.#gate.began();
      this.#canary.began();
    } else {
      this.#watermark = event.watermark;
    }
    if (event.kind === "rows") {
      table.apply({ ...event, rows: this.#admitted(event.rows, since) });
      this.#canary.applied();
    } else table.apply(event);
    if (event.kind === "caughtUp") {
      this.#gate.caughtUp();
      this.#canary.caughtUp();
    }
    const superseded = this.#gate.drainSuperseded();
    if (superseded.length > 0) events.superseded(superseded);
    this.#report();
    this.#scheduleDue();
    beat.done();
    beat.enter("steady");
  }

  /** Ends the timer: what waits is applied no more. */
  stop(): void {
    this.#isStopped = true;
    clearTimeout(this.#dueTimer);
  }

  /** No code of the table runs for an event of the stream. */
  #countDowns(event: ChangeStreamEvent): void {
    if (event.kind !== "rows") this.#isResetting = event.kind === "reset";
    if (event.kind === "reset") this.#gate.began();
    else this.#watermark = event.watermark;
    if (event.kind === "caughtUp") this.#gate.caughtUp();
    if (event.kind === "rows") {
      for (const row of event.rows) {
        if (this.#gate.countDown(row)) this.#options.dropMachine(String(row.key[0]));
      }
    }
    this.#report();
  }

  #admitted(rows: readonly RowChange[], since: Watermark | null): readonly RowChange[] {
    const { table } = this.#options;
    const nowMs = performance.now();
    return rows.flatMap((row) => {
      const admitted = this.#gated(row);
      if (admitted !== row || this.#canary.admit(row, { nowMs, since })) return admitted ?? [];
      // Also where rows are gathered anew: the one in use stays.
      return { ...row, row: table.row(row) };
    });
  }

  #gated(row: RowChange): RowChange | null {
    const { table, dropMachine } = this.#options;
    if (!this.#gate.isActive && table.denied.size === 0) return row;
    const admitted = this.#gate.admit(row);
    if (admitted === null) dropMachine(String(row.key[0]));
    return admitted;
  }

  #scheduleDue(): void {
    clearTimeout(this.#dueTimer);
    const { deadlineMs } = this.#canary;
    if (deadlineMs === Infinity || this.#isStopped) return;
    const waitMs = Math.max(0, deadlineMs - performance.now());
    this.#dueTimer = setTimeout(() => this.#applyDue(), waitMs).unref();
  }

  /** One change whose wait is over, by itself: a stall names it, and requests come in between. */
  #applyDue(): void {
    const change = this.#canary.takeDue(performance.now());
    const watermark = this.#watermark;
    if (change !== null && watermark !== null) {
      const { table, beat } = this.#options;
      beat.enter("apply");
      const rows = [this.#gated(change) ?? []].flat();
      table.apply({ kind: "rows", rows, watermark });
      this.#canary.applied();
      beat.done();
      beat.enter("steady");
      this.#report();
    }
    this.#scheduleDue();
  }

  #report(): void {
    const { table } = this.#options;
    const { rowsApplied: rows, resets } = table.stats;
    const counted = { rows, resets, ...this.#canary.stats };
    for (const name of COUNTED) this.#counts[name].add(counted[name] - this.#counted[name]);
    this.#counted = counted;
    this.#figures.denied.set(table.denied.size);
    this.#figures.waiting.set(this.#canary.waitingCount);
    this.#figures.machines.set(table.machineCount);
    this.#figures.uncounted.set(table.stats.uncounted);
    this.#figures.watermark.set(this.#watermark?.dbVersion ?? 0);
  }
}

/**
 * By then two canaries have stalled, been found out, and said so: a stall is found by the budget of
 * applying, and two budgets later where the thread is short of CPU all the time.
 */
function canaryWaitMs(watchdog: PatinaConfig["watchdog"]): number {
  const { canary_ms: configured, steady_ms, apply_ms } = watchdog;
  return configured ?? 3 * Math.max(steady_ms, apply_ms) + 1_000;
}

const COUNTED = ["rows", "resets", "first", "waited"] as const;
