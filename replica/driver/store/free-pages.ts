/**
 * Gives pages that deletes have left empty back to the file system, a few at a time.
 *
 * Some free pages are of use: the next rows go there. When they are more than a fourth of the file,
 * as after an app with many machines is gone, the file is shortened by slices between other work,
 * down to an eighth; each slice is a transaction of some milliseconds.
 */
import type Database from "better-sqlite3";
import { isStorageFailure, toStoreError } from "./errors.ts";

/** Watches one connection's file; `close` it before the connection. */
export class FreePages {
  readonly #database: Database.Database;
  readonly #free: Database.Statement<[], bigint>;
  readonly #all: Database.Statement<[], bigint>;
  #changes = LOOK_CHANGES;
  #timer: NodeJS.Timeout | undefined;
  #isClosed = false;

  constructor(database: Database.Database) {
    this.#database = database;
    this.#free = database.prepare<[], bigint>("PRAGMA freelist_count").pluck();
    this.#all = database.prepare<[], bigint>("PRAGMA page_count").pluck();
  }

  /** Tells how many columns a transaction changed; the first one has the file looked at. */
  committed(changes: number): void {
    this.#changes += Math.max(1, changes);
    if (this.#changes < LOOK_CHANGES || this.#timer !== undefined) return;
    this.#changes = 0;
    if (this.#freeShare() > SHARE_MAX) this.#schedule();
  }

  /** Does nothing more. May be called again. */
  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#timer);
  }

  /** 0 for a file that is small anyway. */
  #freeShare(): number {
    const free = Number(this.#free.get() ?? 0n);
    return free < PAGES_MIN ? 0 : free / Number(this.#all.get() ?? 1n);
  }

  #schedule(): void {
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      if (this.#isClosed) return;
      if (!this.#database.inTransaction && !this.#shorten()) return;
      if (this.#freeShare() > SHARE_KEPT) this.#schedule();
    }, PAUSE_MS).unref();
  }

  /** Whether it is worth going on; a disk that cannot take it is found by the next commit, too. */
  #shorten(): boolean {
    try {
      this.#database.exec(`PRAGMA incremental_vacuum(${SLICE_PAGES})`);
      return true;
    } catch (thrown) {
      if (!isStorageFailure(toStoreError(thrown, "STORE_SQL"))) throw thrown;
      return false;
    }
  }
}

/** Of the file: below it the pages are soon used again. */
const SHARE_MAX = 0.25;
const SHARE_KEPT = 0.125;
/** 4 MiB are not worth the work. */
const PAGES_MIN = 1_000;
/** Some 2 ms. */
const SLICE_PAGES = 128;
/** A million free pages take two minutes; others have the thread for most of it. */
const PAUSE_MS = 15;
/** As often as the log is looked at. */
const LOOK_CHANGES = 1_000;
