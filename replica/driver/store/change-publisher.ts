/**
 * The store worker's end of the change stream: sends committed row changes to readers, each at its
 * own pace.
 *
 * Nothing is buffered for a reader. It has a position (a local number), and what changed after it
 * is read from the tables when the reader has credit: at once for one that keeps up, later and in
 * one batch for one that lags. One that lags by more than `BACKLOG_ROWS_MAX` rows is reset.
 *
 *     paging ──all rows sent──► replaying ──nearly there──► live ──too far behind──► paging (reset)
 *       ▲ reset                                              ▲ `from` is known and not too far back
 *
 * In `live` a batch holds every row of the versions it covers, as of its watermark. Before the
 * first `caughtUp` after a reset there is no such promise, and batches carry the watermark 0.
 */
import type { MessagePort } from "node:worker_threads";
import type { ChangeStreamEvent, RowChange, Watermark } from "../../types.ts";
import { CommitWatchers } from "./commit-watchers.ts";
import type { PageCursor, RowReader } from "./row-reader.ts";
import type { StreamRequest } from "./store-messages.ts";

/** What the publisher reads from; replaced after a change of the schema. */
export interface PublisherSource {
  readonly rows: RowReader;
  readonly databaseId: string;
  /** The local number of the last committed version. */
  readonly position: () => number;
  /** Positions below this one cannot be replayed. */
  readonly retainedFrom: () => number;
}

/** Counters of the publisher since start. */
export interface PublisherStats {
  batches: number;
  rows: number;
  resets: number;
}

/** Sends changes to all readers. */
export class ChangePublisher {
  readonly stats: PublisherStats = { batches: 0, rows: 0, resets: 0 };
  /** Those that only want to know when to look. */
  readonly watchers = new CommitWatchers();
  readonly #readers = new Set<Reader>();
  #source: PublisherSource;
  /** The batch read last: readers that keep up share it. */
  #shared: { from: number; to: number; rows: readonly RowChange[] } | null = null;

  constructor(source: PublisherSource) {
    this.#source = source;
  }

  /** Number of readers. */
  get readerCount(): number {
    return this.#readers.size;
  }

  /** Takes over another source; every reader starts anew: its rows may have other columns. */
  replaceSource(source: PublisherSource): void {
    this.#source = source;
    this.#shared = null;
    for (const reader of this.#readers) this.#reset(reader, "the schema changed");
    this.watchers.committed(source.position());
  }

  /** Adds a reader; `onWork` is called whenever `step` has something to do. */
  subscribe(port: MessagePort, request: StreamRequest, onWork: () => void): void {
    const reader: Reader = {
      port,
      tables: request.tables === null ? null : new Set(request.tables),
      credit: request.credit,
      position: 0,
      phase: "live",
      cursor: null,
      isCaughtUp: false,
    };
    this.#readers.add(reader);
    port.on("message", (credit: number) => {
      reader.credit += credit;
      if (reader.phase === "live") this.#deliver(reader);
      onWork();
    });
    port.on("close", () => this.#readers.delete(reader));
    const refusal = this.#resumeRefusal(request.from);
    if (refusal === null) reader.position = request.from?.dbVersion ?? 0;
    else this.#reset(reader, refusal);
    this.#deliver(reader);
    onWork();
  }

  /** After each commit: sends what is new to every reader that keeps up. */
  committed(): void {
    for (const reader of this.#readers) this.#deliver(reader);
    this.#shared = null;
    this.watchers.committed(this.#source.position());
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

  /** Ends every reader. */
  close(): void {
    for (const reader of this.#readers) reader.port.close();
    this.#readers.clear();
    this.watchers.close();
  }

  #resumeRefusal(from: Watermark | null): string | null {
    const { databaseId, position, retainedFrom } = this.#source;
    if (from === null) return "no position was given";
    if (from.databaseId !== databaseId) return "the position is of another database";
    if (from.dbVersion > position()) return "the position is beyond the present";
    return from.dbVersion < retainedFrom() ? "the position is older than what is retained" : null;
  }

  /** Sends a live reader everything since its position, if it has credit. */
  #deliver(reader: Reader): void {
    if (reader.phase !== "live" || reader.credit <= 0) return;
    const from = reader.position;
    const to = this.#source.position();
    if (from < to) {
      const rows = this.#changedIn(from, to);
      if (rows === null) {
        this.#reset(reader, `more than ${BACKLOG_ROWS_MAX} rows behind`);
        return;
      }
      reader.position = to;
      this.#sendRows(reader, rows, to);
    }
    if (!reader.isCaughtUp) {
      reader.isCaughtUp = true;
      send(reader, { kind: "caughtUp", watermark: this.#watermark(to) });
    }
  }

  #changedIn(from: number, to: number): readonly RowChange[] | null {
    const shared = this.#shared;
    if (shared !== null && shared.from === from && shared.to === to) return shared.rows;
    // A single version is sent whole, however large: resetting could not make it smaller.
    const rowsMax = to - from === 1 ? Number.MAX_SAFE_INTEGER - 1 : BACKLOG_ROWS_MAX;
    const rows = this.#source.rows.changedIn({ from, to }, rowsMax);
    if (rows !== null) this.#shared = { from, to, rows };
    return rows;
  }

  #reset(reader: Reader, reason: string): void {
    this.stats.resets += 1;
    reader.phase = "paging";
    reader.cursor = null;
    reader.isCaughtUp = false;
    // What changes while the pages are read is replayed from here.
    reader.position = this.#source.position();
    send(reader, { kind: "reset", reason });
  }

  #sendPage(reader: Reader): void {
    const { rows, next } = this.#source.rows.page(reader.cursor, PAGE_ROWS);
    this.#sendRows(reader, rows, 0);
    reader.cursor = next;
    if (next !== null) return;
    reader.phase = "replaying";
    this.#replay(reader);
  }

  #replay(reader: Reader): void {
    const from = reader.position;
    const now = this.#source.position();
    if (now - from <= REPLAY_VERSIONS) {
      reader.phase = "live";
      this.#deliver(reader);
      return;
    }
    const to = from + REPLAY_VERSIONS;
    const rows = this.#source.rows.changedIn({ from, to }, Number.MAX_SAFE_INTEGER - 1) ?? [];
    reader.position = to;
    this.#sendRows(reader, rows, 0);
  }

  #sendRows(reader: Reader, all: readonly RowChange[], dbVersion: number): void {
    const { tables } = reader;
    const rows = tables === null ? all : all.filter((row) => tables.has(row.table));
    if (rows.length === 0) return;
    reader.credit -= 1;
    this.stats.batches += 1;
    this.stats.rows += rows.length;
    send(reader, { kind: "rows", rows, watermark: this.#watermark(dbVersion) });
  }

  #watermark(dbVersion: number): Watermark {
    return { databaseId: this.#source.databaseId, dbVersion };
  }
}

interface Reader {
  readonly port: MessagePort;
  /** Null = all. */
  readonly tables: ReadonlySet<string> | null;
  /** Batches of rows that may be sent. */
  credit: number;
  /** Local number up to which everything was sent. */
  position: number;
  phase: "paging" | "replaying" | "live";
  cursor: PageCursor | null;
  isCaughtUp: boolean;
}

function isDue(reader: Reader): boolean {
  return reader.credit > 0 && reader.phase !== "live";
}

function send(reader: Reader, event: ChangeStreamEvent): void {
  reader.port.postMessage(event);
}

/** About 5 ms of reading: less than a slice of applying. */
const PAGE_ROWS = 400;
/** Versions replayed at a time after the pages; of the order of one slice of applying. */
const REPLAY_VERSIONS = 400;
/** Of one live batch: about 150 ms of reading at worst, far less than all rows of a large table. */
export const BACKLOG_ROWS_MAX = 10_000;
