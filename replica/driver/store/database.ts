/**
 * Opens the store's database: lock, cr-sqlite, settings, identity and internal tables.
 *
 * The lock is an exclusive SQLite transaction on an empty side file (`<path>.lock`), held as long
 * as the store is open. The kernel drops it when the process ends in whatever way, by SIGKILL too,
 * so there is no stale lock to judge by process ids; and unlike a bare lock of the kernel it also
 * keeps two threads of one process apart, because SQLite accounts for its locks per process.
 */
import { randomUUID } from "node:crypto";
import { existsSync } from "node:fs";
import Database from "better-sqlite3";
import { errorText } from "#base/errors.ts";
import { unixMsToNtp64 } from "../../core/hlc.ts";
import { actorIdFromBytes, actorIdToBytes } from "../../core/wire/actor-id.ts";
import type { ActorId } from "../../types.ts";
import { sqliteCode, storeError, toFileError } from "./errors.ts";
import { renewIfRequested } from "./renew-identity.ts";
import { readBootId, Run, type Synchronous } from "./run-marks.ts";
import { SqlDeadline } from "./sql-deadline.ts";

/** Where the database is and who owns it. */
export interface DatabaseOptions {
  /** Path of the database file; its folder exists. */
  readonly path: string;
  /** Path of the cr-sqlite extension. */
  readonly extensionPath: string;
  /** Path of the extension for SQL deadlines. */
  readonly deadlinePath: string;
  /** Identity for a database that is created; must match one that exists. Default: random. */
  readonly actorId?: ActorId;
  /** Default `normal`: what is committed outlives the process, not a power loss. */
  readonly synchronous?: Synchronous;
  /** Differs after every start of the machine; null = cannot be told. Default: the system's. */
  readonly bootId?: string | null;
}

/** An open database and its identity. */
export interface OpenDatabase {
  readonly database: Database.Database;
  readonly actorId: ActorId;
  /** Differs for every database file ever created; a restored copy must be given a new one. */
  readonly databaseId: string;
  /** Says whether own versions may be gone. */
  readonly run: Run;
  readonly deadline: SqlDeadline;
  /** Closes the database and gives up the lock. */
  close(): void;
}

/**
 * Opens or creates. Throws `STORE_LOCKED`, `STORE_EXTENSION`, `STORE_IDENTITY`, `STORE_CORRUPT` or
 * `STORE_FULL`; nothing stays open then.
 */
export function openDatabase(options: DatabaseOptions): OpenDatabase {
  const lock = lockStore(options.path);
  let database: Database.Database | null = null;
  try {
    database = connect(options.path);
    const renewedId = renewIfRequested(database, unixMsToNtp64(Date.now()));
    const actorId = settleIdentity(database, renewedId === null ? options.actorId : undefined);
    loadCrsqlite(database, options.extensionPath);
    const deadline = new SqlDeadline(database, options.deadlinePath);
    configure(database);
    const { path, synchronous = "normal", bootId = readBootId() } = options;
    const had = hasOwnVersions(database, actorId) ? "some" : "none";
    const own = renewedId === null ? had : "renewed";
    const run = new Run(database, { path, synchronous, bootId }, own);
    const databaseId = settleDatabaseId(database, run.isInDoubt);
    const opened = database;
    const close = (): void => {
      if (opened.open) closeRun(run);
      closeAll(opened, lock);
    };
    return { database: opened, actorId, databaseId, run, deadline, close };
  } catch (thrown) {
    database?.close();
    lock.close();
    throw toFileError(thrown, options.path, "STORE_CORRUPT");
  }
}

/**
 * The actor id of a database, which is made if it is not there: for what must be made out to the
 * actor before its first start. The replica may run. Throws as `openDatabase` does, but `STORE_LOCKED`.
 */
export function initActor(options: DatabaseOptions): ActorId {
  if (existsSync(options.path)) {
    const database = new Database(options.path, { readonly: true, timeout: BUSY_TIMEOUT_MS });
    try {
      const present = readActorId(database);
      if (present !== null) return present;
    } catch (thrown) {
      throw toFileError(thrown, options.path, "STORE_CORRUPT");
    } finally {
      database.close();
    }
  }
  const opened = openDatabase(options);
  opened.close();
  return opened.actorId;
}

/** Takes the owner's lock until it is closed. Throws `STORE_LOCKED`; O(1), creates the side file. */
export function lockStore(path: string): Database.Database {
  const lockPath = `${path}.lock`;
  let lock: Database.Database | null = null;
  try {
    lock = new Database(lockPath, { timeout: 0 });
    lock.exec("BEGIN EXCLUSIVE");
    return lock;
  } catch (thrown) {
    lock?.close();
    if (!sqliteCode(thrown).startsWith("SQLITE_BUSY"))
      throw toFileError(thrown, lockPath, "STORE_FULL");
    const message = `the database ${path} is owned by another running process (lock: ${lockPath})`;
    throw storeError("STORE_LOCKED", message, { cause: thrown, details: { path } });
  }
}

function connect(path: string): Database.Database {
  const database = new Database(path, { timeout: BUSY_TIMEOUT_MS });
  try {
    database.defaultSafeIntegers(true);
    database.pragma("auto_vacuum = INCREMENTAL");
    database.pragma("journal_mode = WAL");
    database.pragma("synchronous = NORMAL");
    database.pragma(`journal_size_limit = ${LOG_BYTES_MAX}`);
    database.pragma("recursive_triggers = ON");
    database.pragma(`cache_size = -${CACHE_KIB}`);
    database.pragma("temp_store = MEMORY");
    return database;
  } catch (thrown) {
    database.close();
    throw thrown;
  }
}

/**
 * Reads the site id, or creates its table before cr-sqlite does, which would take a random one. The
 * extension reads the site id once, when it is loaded.
 */
function settleIdentity(database: Database.Database, configured: ActorId | undefined): ActorId {
  const present = readActorId(database);
  if (present !== null) {
    if (configured === undefined || configured === present) return present;
    throw storeError(
      "STORE_IDENTITY",
      `this database belongs to actor ${present}, not to ${configured}`,
      {
        details: { present, configured },
      },
    );
  }
  const actorId = configured ?? randomUUID();
  const bytes = actorIdToBytes(actorId);
  if (bytes === null) throw storeError("STORE_IDENTITY", `${actorId} is not a UUID`);
  database.transaction(() => {
    database.exec(
      "CREATE TABLE crsql_site_id (site_id BLOB NOT NULL, ordinal INTEGER PRIMARY KEY);" +
        "CREATE UNIQUE INDEX crsql_site_id_site_id ON crsql_site_id (site_id);",
    );
    database.prepare("INSERT INTO crsql_site_id (site_id, ordinal) VALUES (?, 0)").run(bytes);
  })();
  return actorIdFromBytes(bytes);
}

function readActorId(database: Database.Database): ActorId | null {
  const table = database.prepare("SELECT 1 FROM sqlite_master WHERE name = 'crsql_site_id'").get();
  if (table === undefined) return null;
  const statement = database.prepare("SELECT site_id FROM crsql_site_id WHERE ordinal = 0").pluck();
  const bytes = statement.get();
  return bytes instanceof Uint8Array && bytes.length === 16 ? actorIdFromBytes(bytes) : null;
}

function loadCrsqlite(database: Database.Database, path: string): void {
  if (!existsSync(path)) {
    throw storeError("STORE_EXTENSION", `the cr-sqlite extension ${path} does not exist`);
  }
  try {
    database.loadExtension(path);
  } catch (thrown) {
    // It sets up tables of its own, and does not tell a full disk from any other failure.
    assertRoom(database);
    const message = `the cr-sqlite extension ${path} cannot be loaded: ${errorText(thrown)}`;
    throw storeError("STORE_EXTENSION", message, { cause: thrown });
  }
}

/** Throws SQLite's own error where the disk has no room for a few pages; leaves nothing behind. */
export function assertRoom(database: Database.Database): void {
  // With next to no cache, pages go to the log before the commit that never comes.
  database.pragma("cache_size = 8");
  database.exec("BEGIN");
  try {
    database.exec("CREATE TABLE __patina_room (filler)");
    database.exec(`INSERT INTO __patina_room VALUES (zeroblob(${ROOM_BYTES}))`);
  } finally {
    if (database.inTransaction) database.exec("ROLLBACK");
    database.pragma(`cache_size = -${CACHE_KIB}`);
  }
}

function configure(database: Database.Database): void {
  // Kept in the file. Without it, equal values written by two actors are lost for some readers.
  database.prepare("SELECT crsql_config_set('merge-equal-values', 1)").get();
  database.exec(INTERNAL_TABLES);
}

/**
 * Where commits may be gone, the next ones get their local numbers: it is another history, and every
 * reader of the change stream starts over.
 */
function settleDatabaseId(database: Database.Database, isInDoubt: boolean): string {
  const insert = database.prepare(
    `INSERT OR ${isInDoubt ? "REPLACE" : "IGNORE"} INTO __patina_state (key, value)` +
      " VALUES ('database_id', ?)",
  );
  insert.run(randomUUID());
  const row = database
    .prepare("SELECT value FROM __patina_state WHERE key = 'database_id'")
    .pluck()
    .get();
  return String(row);
}

function hasOwnVersions(database: Database.Database, actorId: ActorId): boolean {
  const bytes = actorIdToBytes(actorId);
  const statement = database.prepare("SELECT 1 FROM __patina_heads WHERE actor_id = ?");
  return statement.get(bytes) !== undefined;
}

/** A disk that is full must not keep the file open: without its mark the run counts as killed. */
function closeRun(run: Run): void {
  try {
    run.close();
  } catch (error) {
    if (!(error instanceof Error)) throw error;
  }
}

function closeAll(database: Database.Database, lock: Database.Database): void {
  if (database.open) {
    // Lets the extension free its statements, without which the connection stays half open.
    database.prepare("SELECT crsql_finalize()").get();
    database.close();
  }
  if (lock.open) lock.close();
}

/** How long to wait for a foreign writer (the file is an ordinary SQLite file). */
const BUSY_TIMEOUT_MS = 5000;
/** Merges into small databases were as fast with 16 MiB as with 64; into larger ones perhaps not. */
const CACHE_KIB = 24_576;
/**
 * A log that a slow reader made longer (a checkpoint, a backup) is cut back to this when it begins
 * anew. Bulk work fills some 40 MB between checkpoints: that much is not cut and made again.
 */
const LOG_BYTES_MAX = 64 * 1024 * 1024;
/** Arbitrary; more than cr-sqlite's first tables take. */
const ROOM_BYTES = 262_144;

/**
 * `__patina_versions`: one row per version of which anything is stored. `local` is cr-sqlite's
 * db_version in this database; `actor` the ordinal in crsql_site_id. `ts` is an NTP64 stamp as a
 * signed 64-bit integer.
 */
const INTERNAL_TABLES = `
CREATE TABLE IF NOT EXISTS __patina_state (key TEXT NOT NULL PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS __patina_versions (
  local INTEGER PRIMARY KEY,
  actor INTEGER NOT NULL,
  version INTEGER NOT NULL,
  last_seq INTEGER NOT NULL,
  ts INTEGER NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS __patina_versions_actor ON __patina_versions (actor, version);
CREATE TABLE IF NOT EXISTS __patina_heads (
  actor_id BLOB NOT NULL PRIMARY KEY,
  head INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS __corro_bookkeeping_gaps (
  actor_id BLOB NOT NULL,
  start INTEGER NOT NULL,
  "end" INTEGER NOT NULL,
  PRIMARY KEY (actor_id, start)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS __corro_seq_bookkeeping (
  site_id BLOB NOT NULL,
  db_version INTEGER NOT NULL,
  start_seq INTEGER NOT NULL,
  end_seq INTEGER NOT NULL,
  last_seq INTEGER NOT NULL,
  ts INTEGER NOT NULL,
  PRIMARY KEY (site_id, db_version, start_seq)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS __corro_buffered_changes (
  "table" TEXT NOT NULL,
  pk BLOB NOT NULL,
  cid TEXT NOT NULL,
  val ANY,
  col_version INTEGER NOT NULL,
  db_version INTEGER NOT NULL,
  site_id BLOB NOT NULL,
  seq INTEGER NOT NULL,
  cl INTEGER NOT NULL,
  PRIMARY KEY (site_id, db_version, seq, "table", pk, cid)
) WITHOUT ROWID, STRICT;
CREATE TABLE IF NOT EXISTS __corro_members (
  actor_id BLOB NOT NULL PRIMARY KEY,
  address TEXT NOT NULL,
  foca_state TEXT NOT NULL,
  rtt_min INTEGER,
  updated_at INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
`;
