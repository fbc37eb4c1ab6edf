/**
 * When SQLite moves its write-ahead log back into the database file.
 *
 * Left to itself SQLite does so inside the commit that makes the log long enough, and waits for the
 * disk there: 30 ms for a log of 4 MB, a quarter of a second for 40 MB, at the same moment on all
 * replicas that are told the same changes. Here the log is written to the disk first, by a thread of
 * Node's pool while commits go on. The checkpoint that follows finds little left to wait for. A short
 * log's pages are written over before they leave the caches; bulk work, whose transactions write the
 * same pages again and again, is faster with a long one.
 */
import { closeSync, fdatasync, openSync } from "node:fs";
import type Database from "better-sqlite3";
import { isStorageFailure, toStoreError } from "./errors.ts";

/** Counters of checkpoints since the start. */
export interface CheckpointStats {
  /** Also those that had to leave a part in the log, for a reader's sake. */
  readonly done: number;
  /** The disk could not take it: what is in the log stays there, and the next attempt finds it. */
  readonly failed: number;
}

/** Paces the checkpoints of one connection; `close` it before the connection. */
export class CheckpointPace {
  readonly #read: Database.Statement<[], LogState>;
  readonly #checkpoint: Database.Statement<[], LogState>;
  readonly #log: number;
  readonly stats: { done: number; failed: number } = { done: 0, failed: 0 };
  /** Since the log's length was looked at. */
  #commits = 0;
  #changes = 0;
  #isFlushing = false;
  #isClosed = false;

  constructor(database: Database.Database, path: string) {
    // The log is there from the first read on; nobody removes it while the connection is open.
    database.prepare("SELECT count(*) FROM sqlite_schema").get();
    this.#log = openSync(`${path}-wal`, "r");
    this.#read = database.prepare<[], LogState>("PRAGMA wal_checkpoint(NOOP)");
    this.#checkpoint = database.prepare<[], LogState>("PRAGMA wal_checkpoint(PASSIVE)");
    // For one who never lets the loop turn.
    database.pragma(`wal_autocheckpoint = ${PAGES_MAX}`);
  }

  /** Tells how many columns a transaction changed. */
  committed(changes: number): void {
    this.#commits += 1;
    this.#changes += changes;
    if (this.#commits < LOOK_COMMITS && this.#changes < LOOK_CHANGES) return;
    const isBulk = this.#changes / this.#commits >= BULK_CHANGES;
    this.#commits = 0;
    this.#changes = 0;
    if (this.#isFlushing || pagesOf(this.#read.get()) < (isBulk ? BULK_PAGES : PAGES)) return;
    this.#isFlushing = true;
    // What cannot be written the checkpoint finds, too.
    fdatasync(this.#log, () => this.#flushed());
  }

  /** Does nothing more; the log of the connection may then go. May be called again. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    if (!this.#isFlushing) closeSync(this.#log);
  }

  #flushed(): void {
    this.#isFlushing = false;
    if (this.#isClosed) return closeSync(this.#log);
    try {
      this.#checkpoint.get();
      this.stats.done += 1;
    } catch (thrown) {
      if (!isStorageFailure(toStoreError(thrown, "STORE_SQL"))) throw thrown;
      this.stats.failed += 1;
    }
  }
}

/** What `PRAGMA wal_checkpoint` answers. */
interface LogState {
  readonly busy: bigint;
  /** Pages in the log; -1 = there is none. */
  readonly log: bigint;
  readonly checkpointed: bigint;
}

/** Pages that are only in the log. */
function pagesOf(state: LogState | undefined): number {
  return state === undefined ? 0 : Number(state.log - state.checkpointed);
}

/** About 16 MB; with SQLite's own 1,000, checkpoints were a tenth of all work at 100 versions/s. */
const PAGES = 4_000;
/** About 40 MB; bulk merges were measured 10 to 20 % faster than with `PAGES`. */
const BULK_PAGES = 10_000;
/** Twice as many as bulk work is given. */
const PAGES_MAX = 20_000;
/** Of one transaction: more than a whole machine with its services and checks has. */
const BULK_CHANGES = 500;
/** A look costs some 5 us; so many commits of single rows write about 300 pages. */
const LOOK_COMMITS = 32;
const LOOK_CHANGES = 1_000;
