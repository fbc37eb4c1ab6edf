/**
 * One subscribed query: its result as kept in its file, brought up to date with the database, and
 * the readers who hear what changed.
 *
 * When rows change, the result's rows that they take part in are read again, those and no others
 * where the plan allows it, else all; the difference to what is kept becomes changes. Reading all
 * costs what the query costs, and about 5 us a row. It is done at once where there was little to do
 * of late, and else a fifth of the time at most (`RefreshPace`): a query that takes 40 ms to read is
 * up to 200 ms late under a steady stream of changes, which are then told together.
 *
 * All of one moment is committed to the file first and told to readers then, so a change id is never
 * used for two changes, whenever the process ends.
 */
import { storeError } from "../store/errors.ts";
import type { SqlDeadline } from "../store/sql-deadline.ts";
import type { SqlValue } from "../../types.ts";
import { parseKey, printKey, type PlanRow, type QueryPlan } from "./query-plan.ts";
import type { Reader } from "./reader.ts";
import { RefreshPace } from "./refresh-pace.ts";
import { seaHashHex } from "#base/sea-hash.ts";
import type { SubscriptionFile } from "./subscription-file.ts";
import type { ResumePoint, SubscriptionLimits, SubscriptionView } from "./subscription-messages.ts";
import type { ChangedRow } from "./table-watch.ts";

/** A subscription that runs. */
export class Subscription {
  readonly id: string;
  readonly sql: string;
  readonly hash: string;
  readonly readers = new Set<Reader>();
  /** Since when there is no reader, on the monotonic clock. */
  idleSinceMs: number;
  plan: QueryPlan;
  readonly #file: SubscriptionFile;
  readonly #limits: SubscriptionLimits;
  readonly #clock: () => number;
  readonly #deadline: SqlDeadline;
  /** Whether everything must be read again, as soon as the pace allows. */
  #isStale = false;
  readonly #pace = new RefreshPace();
  /** When everything was read last. */
  #readMs = -Infinity;
  readonly #cost = new CostAverage();
  #lines: string[] = [];
  /** Whether the first result is there: what differs from it is a change. */
  #isFilled: boolean;

  constructor(parts: {
    readonly file: SubscriptionFile;
    readonly plan: QueryPlan;
    readonly limits: SubscriptionLimits;
    /** The monotonic clock. */
    readonly clock: () => number;
    /** Of the connection that the plan reads on. */
    readonly deadline: SqlDeadline;
    /** The file has a result of an earlier run. */
    readonly isRestored: boolean;
  }) {
    const { id, sql } = parts.file.record;
    this.id = id;
    this.sql = sql;
    this.hash = seaHashHex(sql);
    this.plan = parts.plan;
    this.#file = parts.file;
    this.#limits = parts.limits;
    this.#clock = parts.clock;
    this.#deadline = parts.deadline;
    this.idleSinceMs = parts.clock();
    this.#isFilled = parts.isRestored;
  }

  /** When it wants to be refreshed though nothing changes; Infinity = never. */
  get dueMs(): number {
    return this.#isStale ? this.#readableMs : Infinity;
  }

  /** What is shown of it to those who run the replica. */
  get view(): SubscriptionView {
    const { id, hash, sql, plan } = this;
    return {
      id,
      hash,
      sql,
      folder: this.#file.folder,
      lastChangeId: this.#file.lastChangeId,
      readers: this.readers.size,
      msPerSecond: this.#cost.msPerSecond(this.#clock()),
      statements: [...plan.tables].map((table) => ({ table, sql: plan.refreshSql(table) })),
    };
  }

  /** Reads the first result, which is no change. In a read transaction. */
  fill(): void {
    this.#update(() => this.#compareAll());
    this.#isFilled = true;
  }

  /** Asks for everything to be read again. */
  markStale(): void {
    this.#isStale = true;
  }

  /** Whether a refresh for these changes may read everything, which takes longer. */
  isReadWhole(changed: ReadonlyMap<string, readonly ChangedRow[]>): boolean {
    if (this.#isStale) return true;
    const tables = this.#touched(changed);
    const rows = tables.reduce((sum, table) => sum + (changed.get(table)?.length ?? 0), 0);
    return rows > PARTIAL_ROWS_MAX || tables.some((one) => this.plan.scopeOf(one) === "all");
  }

  /**
   * Takes in what changed and tells the readers. In a read transaction that sees exactly that.
   * Throws what SQLite throws, and `STORE_TIMEOUT`; the subscription is then of no use any more.
   */
  refresh(changed: ReadonlyMap<string, readonly ChangedRow[]>): void {
    const tables = this.#touched(changed);
    if (tables.length === 0 && !this.#isStale) return;
    this.#isStale = this.isReadWhole(changed);
    const startMs = this.#clock();
    if (this.#isStale) {
      if (startMs < this.#readableMs) return;
      this.#update(() => this.#compareAll());
      this.#isStale = false;
      this.#readMs = this.#clock();
      this.#pace.note(startMs, this.#readMs);
    } else {
      this.#update(() => {
        for (const table of tables) {
          const keys = (changed.get(table) ?? []).map(({ key }) => key);
          const items = this.plan.itemsOf(table);
          if (this.plan.scopeOf(table) === "own") this.#compareSome(items, keys);
          else this.#compareMatched(items, keys);
        }
      });
    }
    this.#tell();
    this.#cost.note(startMs, this.#clock());
  }

  /** Adds a reader and gives it what it asks for, without gap to what follows. */
  attach(reader: Reader, { from, skipRows }: ResumePoint): void {
    const { lastChangeId, firstChangeId, record } = this.#file;
    this.readers.add(reader);
    if (from !== null && from > 0) {
      if (from + 1 < firstChangeId) {
        const text = `subscription already deleted older changes, min change id: ${firstChangeId}`;
        return reader.fail(text);
      }
      return reader.offer(toText(this.#file.changesAfter(from)));
    }
    if (skipRows) return;
    const columns = `${JSON.stringify({ columns: record.columns })}\n`;
    const eoq = `{"eoq":{"time":0.0,"change_id":${lastChangeId}}}\n`;
    const rows = this.#file.shortText(SHORT_ROWS);
    if (rows !== null) return reader.offer(columns + rows + eoq);
    reader.offer(columns);
    reader.readFrom(chain(this.#file.rowTexts(TEXT_SIZE), eoq));
  }

  /** Ends all readers, with an error or without, and closes the file. */
  close(error: string | null): void {
    this.#endReaders(error);
    this.#file.close();
  }

  /** The same, and nothing is kept. */
  destroy(error: string | null): void {
    this.#endReaders(error);
    this.#file.destroy();
  }

  /** From when on everything may be read; without a reader nobody is kept waiting. */
  get #readableMs(): number {
    if (this.readers.size > 0) return this.#pace.dueMs;
    return Math.max(this.#pace.dueMs, this.#readMs + UNREAD_MS);
  }

  #touched(changed: ReadonlyMap<string, readonly ChangedRow[]>): string[] {
    return [...this.plan.tables].filter((table) => changed.has(table));
  }

  #endReaders(error: string | null): void {
    for (const reader of this.readers) {
      if (error === null) reader.end();
      else reader.fail(error);
    }
  }

  #update(work: () => void): void {
    const file = this.#file;
    this.#lines = [];
    file.begin();
    try {
      work();
      file.trim(this.#limits.retainedChanges);
      file.commit();
    } catch (thrown) {
      file.rollback();
      throw thrown;
    }
  }

  #tell(): void {
    const text = toText(this.#lines);
    this.#lines = [];
    for (const reader of this.readers) reader.offer(text);
  }

  /** Takes in the null side of outer joins: through the rows that the changed ones matched. */
  #compareMatched(items: readonly number[], keys: readonly (readonly SqlValue[])[]): void {
    const first = new Set<string>();
    for (const item of items) {
      for (const key of keys) {
        for (const one of this.#file.firstKeysWith(item, printKey(key))) first.add(one);
      }
    }
    for (const row of this.plan.rowsOf(items, keys)) first.add(row.keys[0] ?? "");
    if (first.size > PARTIAL_ROWS_MAX) return this.#compareAll();
    this.#compareSome([0], [...first].map(parseKey));
  }

  #compareSome(items: readonly number[], keys: readonly (readonly SqlValue[])[]): void {
    const kept = new Map<string, number>();
    for (const item of items) {
      for (const key of keys) {
        const rows = this.#file.rowsWithKey(item, printKey(key));
        for (const row of rows) kept.set(row.identity, row.rowId);
      }
    }
    // A row met twice, by two keys, is unchanged the second time.
    for (const row of this.plan.rowsOf(items, keys)) {
      const identity = identityOf(row);
      kept.delete(identity);
      this.#compare(identity, row);
    }
    for (const identity of kept.keys()) {
      const row = this.#file.find(identity);
      if (row !== undefined) this.#remove(row.rowId, row.cells);
    }
  }

  #compareAll(): void {
    this.#deadline.limit("the query", this.#limits.queryMsMax, () => this.#readAll());
  }

  #readAll(): void {
    const seen = new Set<number>();
    const countByCells = new Map<string, number>();
    for (const row of this.plan.rows()) {
      let identity = identityOf(row);
      if (row.keys.length === 0) {
        const count = (countByCells.get(row.cells) ?? 0) + 1;
        countByCells.set(row.cells, count);
        identity = count === 1 ? identity : `${identity} ${count}`;
      }
      seen.add(this.#compare(identity, row));
      if (seen.size > ROWS_MAX) {
        throw storeError("STORE_SQL", `the query has more than ${ROWS_MAX} rows`);
      }
    }
    for (const { rowId, cells } of this.#file.rowsBeside(seen)) this.#remove(rowId, cells);
  }

  /** Takes in a row of the result; its id. */
  #compare(identity: string, row: PlanRow): number {
    const kept = this.#file.find(identity);
    if (kept?.cells === row.cells) return kept.rowId;
    const rowId = this.#file.put({ identity, keys: row.keys, cells: row.cells });
    const kind = kept === undefined ? "insert" : "update";
    if (this.#isFilled) this.#lines.push(this.#file.addChange(kind, rowId, row.cells));
    return rowId;
  }

  #remove(rowId: number, cells: string): void {
    this.#file.remove(rowId);
    this.#lines.push(this.#file.addChange("delete", rowId, cells));
  }
}

/** Time spent per second, over about the last minute. */
class CostAverage {
  /** Milliseconds spent, those of long ago counting less. */
  #spentMs = 0;
  #atMs = 0;

  note(startMs: number, endMs: number): void {
    this.#spentMs = this.#decayed(endMs) + (endMs - startMs);
    this.#atMs = endMs;
  }

  msPerSecond(nowMs: number): number {
    return (this.#decayed(nowMs) * 1000) / COST_PERIOD_MS;
  }

  #decayed(nowMs: number): number {
    return this.#spentMs * Math.exp((this.#atMs - nowMs) / COST_PERIOD_MS);
  }
}

function identityOf({ keys, cells }: PlanRow): string {
  if (keys.length === 0) return cells;
  return keys.length === 1 ? (keys[0] ?? "") : keys.join(" ");
}

function toText(lines: readonly string[]): string {
  return lines.length === 0 ? "" : `${lines.join("\n")}\n`;
}

function* chain(texts: Iterable<string>, last: string): Generator<string> {
  yield* texts;
  yield last;
}

/** Between two readings for nobody: what changed is then there for whoever resumes. */
const UNREAD_MS = 1_000;
/** Beyond, reading everything is about as fast as looking up so many keys. */
const PARTIAL_ROWS_MAX = 2_000;
/** Long enough for an average, short enough to see what is dear at present. */
const COST_PERIOD_MS = 60_000;
/** About 100 MB of file, and 30 MB of memory while everything is read. */
const ROWS_MAX = 1_000_000;
/** Sent in one text, without a connection of their own. */
const SHORT_ROWS = 500;
const TEXT_SIZE = 64 * 1024;
