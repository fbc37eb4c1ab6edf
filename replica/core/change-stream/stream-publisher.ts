/**
 * The giving end of the change stream: what each reader is sent, and when.
 *
 * Nothing is buffered for a reader. It has a position (a local number), and what changed after it
 * is read from the tables when the reader has credit: at once for one that keeps up, later and in
 * one batch for one that lags. One that lags by more than `backlogRowsMax` rows is reset.
 *
 *     paging ──all rows sent──► replaying ──nearly there──► live ──too far behind──► paging (reset)
 *       ▲ reset                                              ▲ `from` is known and not too far back
 *
 * In `live` a batch holds every row of the versions it covers, as of its watermark. Before the
 * first `caughtUp` after a reset there is no such promise, and batches carry the watermark 0.
 *
 * Tables and channels are the caller's: cr-sqlite and message ports in the store worker, the model and
 * plain calls in simulations.
 */
import type { ChangeStreamEvent, RowChange, Watermark } from "../../types.ts";

/** What a publisher reads from; `Cursor` says where a page of all rows goes on. */
export interface StreamSource<Cursor> {
  readonly databaseId: string;
  /** The local number of the last committed version. */
  readonly position: () => number;
  /** Positions below this one cannot be replayed. */
  readonly retainedFrom: () => number;
  readonly rows: {
    /**
     * The rows changed after local number `from` up to `to`, as they are now, each once; null when
     * they are more than `rowsMax`.
     */
    changedIn(span: { from: number; to: number }, rowsMax: number): readonly RowChange[] | null;
    /** About `limit` rows of all, going on at `cursor` (null = from the start). */
    page(cursor: Cursor | null, limit: number): StreamPage<Cursor>;
  };
}

/** One page of all rows; `next` is null after the last. */
export interface StreamPage<Cursor> {
  readonly rows: readonly RowChange[];
  readonly next: Cursor | null;
}

/** Where a reader begins, and what it wants to see. */
export interface StreamStart {
  /** Null, or a position that is not known: all rows first. */
  readonly from: Watermark | null;
  /** Null = all. */
  readonly tables: readonly string[] | null;
  /** Batches that may be sent before the reader grants more. */
  readonly credit: number;
}

/** How much is read at a time. */
export interface StreamLimits {
  /** Rows of one page. */
  readonly pageRows: number;
  /** Versions replayed at a time after the pages. */
  readonly replayVersions: number;
  /** Rows of one live batch of several versions; a reader further behind is reset. */
  readonly backlogRowsMax: number;
}

/** A reader as its owner holds it. */
export interface StreamReader {
  /** The reader took batches: as many more may be sent. */
  grant(credit: number): void;
  /** Ends it; nothing is sent from here on. */
  end(): void;
}

/** Counters of a publisher since start. */
export interface PublisherStats {
  batches: number;
  rows: number;
  resets: number;
}

/** Sends changes to all readers. */
export class StreamPublisher<Cursor> {
  readonly stats: PublisherStats = { batches: 0, rows: 0, resets: 0 };
  readonly #readers = new Set<Reader<Cursor>>();
  readonly #limits: StreamLimits;
  #source: StreamSource<Cursor>;
  /** The batch read last: readers that keep up share it. */
  #shared: { from: number; to: number; rows: readonly RowChange[] } | null = null;

  constructor(source: StreamSource<Cursor>, limits: StreamLimits = STREAM_LIMITS) {
    this.#source = source;
    this.#limits = limits;
  }

  /** Number of readers. */
  get readerCount(): number {
    return this.#readers.size;
  }

  /** Takes over another source; every reader starts anew: its rows may have other columns. */
  replaceSource(source: StreamSource<Cursor>): void {
    this.#source = source;
    this.#shared = null;
    for (const reader of this.#readers) this.#reset(reader, "the schema changed");
  }

  /** Adds a reader. `send` is called from inside this and every other call, and must not call back. */
  add(start: StreamStart, send: (event: ChangeStreamEvent) => void): StreamReader {
    const { from, tables, credit } = start;
    const reader: Reader<Cursor> = {
      send,
      tables: tables === null ? null : new Set(tables),
      credit,
      position: 0,
      phase: "live",
      cursor: null,
      isCaughtUp: false,
    };
    this.#readers.add(reader);
    const refusal = this.#resumeRefusal(from);
    if (refusal === null) reader.position = from?.dbVersion ?? 0;
    else this.#reset(reader, refusal);
    this.#deliver(reader);
    return {
      grant: (more) => {
        reader.credit += more;
        if (reader.phase === "live" && this.#readers.has(reader)) this.#deliver(reader);
      },
      end: () => void this.#readers.delete(reader),
    };
  }

  /** After each commit: sends what is new to every reader that keeps up. */
  committed(): void {
    for (const reader of this.#readers) this.#deliver(reader);
    this.#shared = null;
  }

  /** Whether a reader waits for pages and may have one. */
  hasWork(): boolean {
    for (const reader of this.#readers) if (isDue(reader)) return true;
    return false;
  }

  /** Sends one page, or one piece of the replay after the pages, to each reader that is due. */
  step(): void {
    for (const reader of this.#readers) {
      if (!isDue(reader)) continue;
      if (reader.phase === "paging") this.#sendPage(reader);
      else this.#replay(reader);
    }
  }

  #resumeRefusal(from: Watermark | null): string | null {
    const { databaseId, position, retainedFrom } = this.#source;
    if (from === null) return "no position was given";
    if (from.databaseId !== databaseId) return "the position is of another database";
    if (from.dbVersion > position()) return "the position is beyond the present";
    return from.dbVersion < retainedFrom() ? "the position is older than what is retained" : null;
  }

  /** Sends a live reader everything since its position, if it has credit. */
  #deliver(reader: Reader<Cursor>): void {
    if (reader.phase !== "live" || reader.credit <= 0) return;
    const from = reader.position;
    const to = this.#source.position();
    if (from < to) {
      const rows = this.#changedIn(from, to);
      if (rows === null) {
        this.#reset(reader, `more than ${this.#limits.backlogRowsMax} rows behind`);
        return;
      }
      reader.position = to;
      this.#sendRows(reader, rows, to);
    }
    if (!reader.isCaughtUp) {
      reader.isCaughtUp = true;
      reader.send({ kind: "caughtUp", watermark: this.#watermark(to) });
    }
  }

  #changedIn(from: number, to: number): readonly RowChange[] | null {
    const shared = this.#shared;
    if (shared !== null && shared.from === from && shared.to === to) return shared.rows;
    // A single version is sent whole, however large: resetting could not make it smaller.
    const rowsMax = to - from === 1 ? ALL_ROWS : this.#limits.backlogRowsMax;
    const rows = this.#source.rows.changedIn({ from, to }, rowsMax);
    if (rows !== null) this.#shared = { from, to, rows };
    return rows;
  }

  #reset(reader: Reader<Cursor>, reason: string): void {
    this.stats.resets += 1;
    reader.phase = "paging";
    reader.cursor = null;
    reader.isCaughtUp = false;
    // What changes while the pages are read is replayed from here.
    reader.position = this.#source.position();
    reader.send({ kind: "reset", reason });
  }

  #sendPage(reader: Reader<Cursor>): void {
    const { rows, next } = this.#source.rows.page(reader.cursor, this.#limits.pageRows);
    this.#sendRows(reader, rows, 0);
    reader.cursor = next;
    if (next !== null) return;
    reader.phase = "replaying";
    this.#replay(reader);
  }

  #replay(reader: Reader<Cursor>): void {
    const { replayVersions } = this.#limits;
    const from = reader.position;
    if (this.#source.position() - from <= replayVersions) {
      reader.phase = "live";
      this.#deliver(reader);
      return;
    }
    const to = from + replayVersions;
    const rows = this.#source.rows.changedIn({ from, to }, ALL_ROWS) ?? [];
    reader.position = to;
    this.#sendRows(reader, rows, 0);
  }

  #sendRows(reader: Reader<Cursor>, all: readonly RowChange[], dbVersion: number): void {
    const { tables } = reader;
    const rows = tables === null ? all : all.filter((row) => tables.has(row.table));
    if (rows.length === 0) return;
    reader.credit -= 1;
    this.stats.batches += 1;
    this.stats.rows += rows.length;
    reader.send({ kind: "rows", rows, watermark: this.#watermark(dbVersion) });
  }

  #watermark(dbVersion: number): Watermark {
    return { databaseId: this.#source.databaseId, dbVersion };
  }
}

interface Reader<Cursor> {
  readonly send: (event: ChangeStreamEvent) => void;
  /** Null = all. */
  readonly tables: ReadonlySet<string> | null;
  /** Batches of rows that may be sent. */
  credit: number;
  /** Local number up to which everything was sent. */
  position: number;
  phase: "paging" | "replaying" | "live";
  cursor: Cursor | null;
  isCaughtUp: boolean;
}

function isDue(reader: Reader<unknown>): boolean {
  return reader.credit > 0 && reader.phase !== "live";
}

/** Of a store with a real database. */
export const STREAM_LIMITS: StreamLimits = {
  // About 5 ms of reading: less than a slice of applying.
  pageRows: 400,
  // Of the order of one slice of applying.
  replayVersions: 400,
  // About 150 ms of reading at worst, far less than all rows of a large table.
  backlogRowsMax: 10_000,
};
/** One less than the greatest number: a reader of rows asks for one more than it may give. */
const ALL_ROWS = Number.MAX_SAFE_INTEGER - 1;
