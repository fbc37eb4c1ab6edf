/**
 * Brings own commits to the disk before anybody is told what depends on them.
 *
 * Under `synchronous = NORMAL` a power loss takes the last commits. Others must not know meanwhile that
 * an earlier version is empty because one of those overwrote it: they would lack its values, which are
 * back here after the loss. So a sync answer waits for the log to be on the disk if anything of our own
 * was committed since it last was. That is at most one wait per commit, and none while nobody asks.
 *
 * The waiting is done by a thread of Node's pool: writes and merges go on.
 */
import { closeSync, fdatasync, openSync } from "node:fs";
import { toFileError } from "./errors.ts";

/** How a log is synced. */
export interface LogSyncOptions {
  /** Each commit is synced by itself: nothing is left to do. */
  readonly isOff: boolean;
  /** Default: Node's. */
  readonly sync?: (file: number, done: (error: Error | null) => void) => void;
}

/** Syncs the log of one connection; `close` it before the connection. */
export class LogSync {
  readonly #path: string;
  readonly #log: number;
  readonly #options: LogSyncOptions;
  /** Syncs since the start. */
  syncs = 0;
  /** Own commits so far, and how many of them are on the disk for good. */
  #commits = 0;
  #synced = 0;
  #isSyncing = false;
  #isClosed = false;
  #waiting: Waiting[] = [];

  /** The log of the database at `path` must be there: see `CheckpointPace`. */
  constructor(path: string, options: LogSyncOptions) {
    this.#path = `${path}-wal`;
    this.#log = openSync(this.#path, "r");
    this.#options = options;
  }

  /** A transaction of our own was committed. */
  committed(): void {
    if (!this.#options.isOff) this.#commits += 1;
  }

  /** Calls `done` when every own commit so far is on the disk, at once if they are; or why they are not. */
  whenSynced(done: (error: Error | null) => void): void {
    if (this.#synced === this.#commits) return done(null);
    this.#waiting.push({ commits: this.#commits, done });
    this.#sync();
  }

  /** Syncs nothing more, answers nobody. May be called again. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#waiting = [];
    if (!this.#isSyncing) closeSync(this.#log);
  }

  #sync(): void {
    if (this.#isSyncing) return;
    this.#isSyncing = true;
    this.syncs += 1;
    const commits = this.#commits;
    const sync = this.#options.sync ?? fdatasync;
    sync(this.#log, (error) => {
      this.#isSyncing = false;
      if (this.#isClosed) return closeSync(this.#log);
      if (error === null) this.#synced = commits;
      const failure = error === null ? null : toFileError(error, this.#path, "STORE_FULL");
      const answered = this.#waiting.filter((waiting) => waiting.commits <= commits);
      this.#waiting = this.#waiting.filter((waiting) => waiting.commits > commits);
      for (const { done } of answered) done(failure);
      if (this.#waiting.length > 0) this.#sync();
    });
  }
}

interface Waiting {
  readonly commits: number;
  readonly done: (error: Error | null) => void;
}
