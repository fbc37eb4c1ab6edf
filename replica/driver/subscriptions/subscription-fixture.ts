/**
 * What the tests of subscriptions share: a desk over a real store in the test's own thread, and
 * readers that fold what they are told.
 */
import { join } from "node:path";
import Database from "better-sqlite3";
import { expect } from "vitest";
import { sqlDeadlinePath } from "../../../bin/setup/paths.js";
import type { Store } from "../store/store.ts";
import { StoreFolder } from "../store/store-fixture.ts";
import { Reader } from "./reader.ts";
import { SubscriptionDesk } from "./subscription-desk.ts";
import {
  DEFAULT_LIMITS,
  type ResumePoint,
  type StreamTarget,
  type SubscriptionLimits,
} from "./subscription-messages.ts";

/** A line as JSON. */
export interface Line {
  readonly columns?: readonly string[];
  readonly row?: readonly [number, readonly unknown[]];
  readonly eoq?: { readonly change_id: number };
  readonly change?: readonly [string, number, readonly unknown[], number];
  readonly notify?: readonly [string, readonly unknown[]];
  readonly error?: string;
}

/** A desk over a store, in a folder of their own. */
export class DeskFixture {
  readonly folder = new StoreFolder();
  readonly store: Store;
  readonly notices: string[] = [];
  readonly #limits: SubscriptionLimits;
  readonly #databases: Database.Database[] = [];
  desk: SubscriptionDesk;
  /** The desk's clock: it goes on by `tickMs` whenever it is read, and when something is due. */
  nowMs = 0;
  tickMs = 0.001;

  constructor(limits: Partial<SubscriptionLimits> = {}) {
    this.store = this.folder.open("s");
    this.#limits = { ...DEFAULT_LIMITS, ...limits };
    this.desk = this.#openDesk();
  }

  /** Ends the desk in order, or as if the process had been killed, and opens another. */
  restart(how: "closed" | "killed"): void {
    if (how === "closed") this.desk.close();
    this.desk = this.#openDesk();
  }

  /** Turns until nothing is left to be taken in. */
  turn(): void {
    this.desk.turn();
    while (this.desk.dueMs < Infinity) {
      this.nowMs = Math.max(this.nowMs, this.desk.dueMs);
      this.desk.turn();
    }
  }

  /** Connects a reader of a query. */
  query(sql: string, point: Partial<ResumePoint> = {}): Fold {
    return this.open({ kind: "query", sql, from: null, skipRows: false, ...point });
  }

  /** Connects a reader; with `known` one that goes on with what it knows. */
  open(target: StreamTarget, known: Fold | null = null): Fold {
    const opened = this.desk.open(target);
    const fold = known ?? new Fold(opened.queryId, opened.queryHash);
    expect([fold.queryId, fold.queryHash]).toEqual([opened.queryId, opened.queryHash]);
    const reader = new Reader({
      id: 1,
      send: (text) => fold.take(text),
      onEnd: (one) => {
        opened.leave(one);
        fold.isOver = true;
      },
      credit: Number.MAX_SAFE_INTEGER,
      waitingMax: 1,
    });
    fold.leave = () => reader.end();
    opened.start(reader);
    return fold;
  }

  /** Rows of a query at the store, as text, sorted. */
  rowsOf(sql: string): string[] {
    const statement = this.store.databaseForTests.prepare(sql).raw();
    return statement
      .all()
      .map((row) => textOf(row as unknown[]))
      .toSorted();
  }

  /** Closes everything and removes the folder. */
  remove(): void {
    this.desk.close();
    for (const database of this.#databases) database.close();
    this.folder.remove();
  }

  #openDesk(): SubscriptionDesk {
    const database = new Database(this.folder.options("s").path, { readonly: true });
    database.defaultSafeIntegers(true);
    this.#databases.push(database);
    return new SubscriptionDesk({
      database,
      deadlinePath: sqlDeadlinePath(),
      folder: join(this.folder.path, "subscriptions"),
      limits: this.#limits,
      notice: (text) => void this.notices.push(text),
      clock: () => (this.nowMs += this.tickMs),
    });
  }
}

/** What a reader knows from the lines it was sent. Each line is checked against what it knows. */
export class Fold {
  readonly queryId: string;
  readonly queryHash: string | null;
  readonly lines: Line[] = [];
  readonly cellsById = new Map<number, string>();
  lastChangeId: number | null = null;
  isOver = false;
  leave: () => void = () => undefined;

  constructor(queryId: string, queryHash: string | null) {
    this.queryId = queryId;
    this.queryHash = queryHash;
  }

  /** Cells of the rows, as text, sorted. */
  get rows(): string[] {
    return [...this.cellsById.values()].toSorted();
  }

  /** The lines since the last call. */
  news(): Line[] {
    return this.lines.splice(0);
  }

  /** Takes whole lines in. */
  take(text: string): void {
    expect(text.endsWith("\n")).toBe(true);
    for (const part of text.trimEnd().split("\n")) this.#takeLine(JSON.parse(part) as Line);
  }

  #takeLine(line: Line): void {
    this.lines.push(line);
    if (line.row) this.cellsById.set(line.row[0], JSON.stringify(line.row[1]));
    if (line.eoq) this.lastChangeId = line.eoq.change_id;
    if (!line.change) return;
    const [kind, rowId, cells, id] = line.change;
    if (this.lastChangeId !== null) expect(id).toBe(this.lastChangeId + 1);
    this.lastChangeId = id;
    const text = JSON.stringify(cells);
    const known = this.cellsById.get(rowId);
    if (kind === "insert") expect(known).toBeUndefined();
    if (kind === "update") expect(known).not.toBe(text);
    if (kind === "delete") {
      expect(known).toBe(text);
      this.cellsById.delete(rowId);
    } else {
      this.cellsById.set(rowId, text);
    }
  }
}

function textOf(row: readonly unknown[]): string {
  return JSON.stringify(row.map((value) => (typeof value === "bigint" ? Number(value) : value)));
}
