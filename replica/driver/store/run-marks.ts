/**
 * Tells, when a database is opened, whether versions of our own may be gone that others have seen.
 *
 * A commit under `synchronous = NORMAL` outlives the process, not a power loss, and a file put back
 * from a copy is older than what was sent. Whoever then goes on counting gives a version out twice,
 * and replicas that hold the first one never ask for the second. So every run leaves two marks, both
 * brought to the disk before anything else is written: one in the database, one in a side file
 * (`<path>.run`), which a copy of the database does not carry along.
 *
 * | Found at the next start | Own versions |
 * |---|---|
 * | no mark, and nothing of our own | sure: a new database |
 * | another actor id was just taken | sure: it has given nothing out |
 * | a mark is missing, or they are of different runs | in doubt: another file, or an old copy |
 * | the side file says closed, the database says open | in doubt: a copy made during that run |
 * | both of one run, closed in good order | sure |
 * | open, but every commit was synced (FULL) | sure |
 * | open, the machine has been up since | sure: the process was killed |
 * | open, the machine has started since, or it cannot be told | in doubt |
 *
 * That a database holds nothing of our own says nothing: its first versions may be what was lost.
 *
 * Not found out: a copy taken during a run and put back, side file and all, after that very run was
 * killed, before the machine restarts.
 */
import { randomUUID } from "node:crypto";
import { closeSync, fsyncSync, openSync, readFileSync, renameSync, writeSync } from "node:fs";
import { dirname } from "node:path";
import type Database from "better-sqlite3";
import { toFileError } from "./errors.ts";

/** How durable a commit is: `normal` outlives the process, `full` a power loss too. */
export type Synchronous = "normal" | "full";

/** What the marks of a run are made of. */
export interface RunOptions {
  /** Path of the database. */
  readonly path: string;
  readonly synchronous: Synchronous;
  /** Differs after every start of the machine; null = cannot be told. */
  readonly bootId: string | null;
}

/** What a database has of its actor: no version, some, or an actor id that was just taken. */
export type OwnHistory = "none" | "some" | "renewed";

/** The mark in the database. */
interface Mark {
  readonly run: string;
  readonly bootId: string | null;
  readonly synchronous: Synchronous;
  readonly isClosed: boolean;
}

/** The side file. */
interface SideMark {
  readonly isClosed: boolean;
  /** The run under way; while it begins, the one before it too. */
  readonly runs: readonly string[];
}

/** Marks the beginning of a run; ends it with `close`, before the database is closed. */
export class Run {
  /** Whether versions of our own may be gone. Kept over restarts until `settle`. */
  readonly isInDoubt: boolean;
  readonly #database: Database.Database;
  readonly #options: RunOptions;
  readonly #mark: Mark;

  /** Throws `STORE_FULL`. */
  constructor(database: Database.Database, options: RunOptions, own: OwnHistory) {
    const { path, bootId, synchronous } = options;
    this.#database = database;
    this.#options = options;
    const before = readMark(database);
    const side = readSide(path);
    const isNew = own === "renewed" || (own === "none" && before === null);
    this.isInDoubt =
      !isNew && (readState(database, DOUBT) !== null || isDoubtful({ before, side, bootId }));
    this.#mark = { run: randomUUID(), bootId, synchronous, isClosed: false };
    const { run } = this.#mark;
    writeSide(path, { isClosed: false, runs: before === null ? [run] : [run, before.run] });
    this.#save(this.#mark, () => {
      if (this.isInDoubt) writeState(database, DOUBT, "yes");
    });
    writeSide(path, { isClosed: false, runs: [run] });
  }

  /** Inside a transaction: own versions are complete as far as anybody can tell. */
  settle(): void {
    this.#database.prepare("DELETE FROM __patina_state WHERE key = ?").run(DOUBT);
  }

  /** Marks the end. */
  close(): void {
    const { path } = this.#options;
    this.#save({ ...this.#mark, isClosed: true }, () => undefined);
    writeSide(path, { isClosed: true, runs: [this.#mark.run] });
  }

  /** Commits with a sync, whatever the setting. */
  #save(mark: Mark, also: () => void): void {
    const database = this.#database;
    database.pragma("synchronous = FULL");
    try {
      database.transaction(() => {
        writeState(database, RUN, JSON.stringify(mark));
        also();
      })();
    } finally {
      database.pragma(`synchronous = ${this.#options.synchronous.toUpperCase()}`);
    }
  }
}

/** The id of the machine's present start; null where the system has none. */
export function readBootId(): string | null {
  try {
    return readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
  } catch (error) {
    // Only Linux has it; any other failure means the same: it cannot be told.
    if (error instanceof Error) return null;
    throw error;
  }
}

function isDoubtful(found: {
  readonly before: Mark | null;
  readonly side: SideMark | null;
  readonly bootId: string | null;
}): boolean {
  const { before, side, bootId } = found;
  if (before === null || side === null || !side.runs.includes(before.run)) return true;
  if (before.isClosed) return false;
  if (side.isClosed) return true;
  if (before.synchronous === "full") return false;
  return bootId === null || before.bootId !== bootId;
}

function readMark(database: Database.Database): Mark | null {
  const text = readState(database, RUN);
  if (text === null) return null;
  try {
    return JSON.parse(text) as Mark;
  } catch (error) {
    // Somebody wrote into our table: as good as no mark.
    if (error instanceof SyntaxError) return null;
    throw error;
  }
}

function readState(database: Database.Database, key: string): string | null {
  const statement = database.prepare("SELECT value FROM __patina_state WHERE key = ?").pluck();
  const value = statement.get(key);
  return typeof value === "string" ? value : null;
}

function writeState(database: Database.Database, key: string, value: string): void {
  database
    .prepare("INSERT OR REPLACE INTO __patina_state (key, value) VALUES (?, ?)")
    .run(key, value);
}

function sidePath(path: string): string {
  return `${path}.run`;
}

function readSide(path: string): SideMark | null {
  let text: string;
  try {
    text = readFileSync(sidePath(path), "utf8");
  } catch (error) {
    // Absent or unreadable: either way it does not vouch for the database.
    if (error instanceof Error) return null;
    throw error;
  }
  const [state, ...runs] = text.trim().split(" ");
  return { isClosed: state === "closed", runs };
}

/** Replaces the side file whole, and brings it to the disk. Throws `STORE_FULL`. */
function writeSide(path: string, mark: SideMark): void {
  const target = sidePath(path);
  try {
    replaceFile(target, `${mark.isClosed ? "closed" : "open"} ${mark.runs.join(" ")}\n`);
  } catch (error) {
    throw toFileError(error, target, "STORE_FULL");
  }
}

function replaceFile(target: string, text: string): void {
  const part = `${target}.part`;
  const file = openSync(part, "w");
  try {
    writeSync(file, text);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  renameSync(part, target);
  const folder = openSync(dirname(target), "r");
  try {
    fsyncSync(folder);
  } finally {
    closeSync(folder);
  }
}

/** Keys in `__patina_state`. */
const RUN = "run";
const DOUBT = "own_versions_in_doubt";
