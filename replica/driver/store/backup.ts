/**
 * Copies of a database that another replica can start from, and putting such a copy in place.
 *
 * A backup is a whole SQLite file without what belongs to the replica it was taken from: its site
 * ordinal 0 (its versions stay, under an ordinal like any other actor's), its members, its state.
 * It may be taken while the replica runs: one read transaction, no lock that a writer would feel.
 *
 * A restore gives the copy an actor id and a new database id, so that every reader of the change
 * stream starts over. It refuses while a store owns the file, and replaces it whole or not at all.
 */
import { createHash, randomUUID } from "node:crypto";
import { closeSync, existsSync, fsyncSync, openSync, renameSync, rmSync, statSync } from "node:fs";
import Database from "better-sqlite3";
import { assert, errorText, PatinaError } from "#base/errors.ts";
import { actorIdFromBytes } from "../../core/wire/actor-id.ts";
import type { ActorId } from "../../types.ts";
import { adminError } from "../admin/errors.ts";
import { initActor, lockStore, type DatabaseOptions } from "./database.ts";
import { actorBytes } from "./ledger.ts";
import { quoteName } from "./sql-text.ts";

/** Whose history the restored replica goes on with. */
export type RestoreIdentity =
  /** A fresh actor id: safe whatever has become of the replica that the backup is of. */
  | { readonly kind: "new" }
  /** The actor id of the database that is replaced. */
  | { readonly kind: "self" }
  | { readonly kind: "given"; readonly actorId: ActorId };

/** What a restore puts in place. */
export type RestoreSource =
  /** A plain SQLite file. */
  | { readonly kind: "file"; readonly path: string }
  /** Something that becomes one; `unpack` makes the file, and need not remove what is unfinished. */
  | { readonly kind: "checkpoint"; readonly unpack: (file: string) => Promise<void> };

/** Whose database a copy was made of, and what is in it. */
export interface CopyFacts {
  readonly actor: ActorId | null;
  /** As the database says; null = it leaves it to the config. */
  readonly clusterId: number | null;
  /** SHA-256 of the statements that make tables and indexes, hexadecimal. */
  readonly schemaHash: string;
  /** Greatest version known, by actor. */
  readonly heads: Readonly<Record<ActorId, number>>;
}

/**
 * Copies what is committed in the database at `source` into the new file `target`, compact and
 * without an owner. Throws `BACKUP_SOURCE`, `BACKUP_TARGET`; the file is the caller's to remove then.
 */
export function copyWithoutOwner(files: {
  readonly source: string;
  readonly target: string;
}): CopyFacts {
  const { source, target } = files;
  try {
    copyInto(source, target);
    let facts: CopyFacts | null = null;
    edit(target, (database) => {
      facts = readFacts(database);
      giveUpIdentity(database);
    });
    assert(facts !== null, "the copy was looked at");
    return facts;
  } catch (error) {
    if (error instanceof PatinaError) throw error;
    throw adminError("BACKUP_TARGET", `${target}: ${errorText(error)}`, error);
  }
}

/**
 * Writes a backup of the database at `source` to the new file `target`; the answer is its size in
 * bytes. Throws `BACKUP_SOURCE` or `BACKUP_TARGET`; nothing is left at `target` then.
 */
export function backupDatabase(files: {
  readonly source: string;
  readonly target: string;
}): number {
  const { source, target } = files;
  if (existsSync(target)) throw adminError("BACKUP_TARGET", `${target} exists already`);
  const part = `${target}.part-${process.pid}`;
  try {
    copyWithoutOwner({ source, target: part });
    renameSync(part, target);
    return statSync(target).size;
  } catch (error) {
    if (error instanceof PatinaError) throw error;
    throw adminError("BACKUP_TARGET", `${target}: ${errorText(error)}`, error);
  } finally {
    rmSync(part, { force: true });
  }
}

/**
 * Puts the backup in the place of the database at `target`, which need not exist; the answer is the
 * actor id that it has now. It stays in the cluster that the replaced database was moved to. Rejects
 * with `STORE_LOCKED` while a store owns `target`, `BACKUP_SOURCE` when the backup cannot be used,
 * `BACKUP_TARGET` when the file cannot be written; `target` is as it was then.
 */
export async function restoreDatabase(options: {
  readonly source: RestoreSource;
  readonly target: string;
  readonly identity: RestoreIdentity;
  /** The database whose place it takes later, when that is not `target`. */
  readonly insteadOf?: string;
}): Promise<ActorId> {
  const { source, target, identity, insteadOf = target } = options;
  const lock = lockStore(target);
  const part = `${target}.restore-${process.pid}`;
  try {
    const actorId = identityOf(identity, insteadOf);
    const clusterId = storedClusterId(insteadOf);
    if (source.kind === "file") copyInto(source.path, part);
    else await source.unpack(part);
    edit(part, (database) => {
      giveUpIdentity(database);
      takeIdentity(database, { actorId, clusterId });
    });
    for (const suffix of ["-wal", "-shm"]) rmSync(`${target}${suffix}`, { force: true });
    renameSync(part, target);
    return actorId;
  } catch (error) {
    if (error instanceof PatinaError) throw error;
    throw adminError("BACKUP_TARGET", `${target}: ${errorText(error)}`, error);
  } finally {
    rmSync(part, { force: true });
    lock.close();
  }
}

/**
 * Makes an empty database of another cluster id, with a new actor, where there is none; the actor id.
 * Throws as `initActor` does.
 */
export function createOfCluster(options: DatabaseOptions, clusterId: number): ActorId {
  const actorId = initActor(options);
  edit(options.path, (database) => {
    database
      .prepare("INSERT OR REPLACE INTO __patina_state (key, value) VALUES ('cluster_id', ?)")
      .run(BigInt(clusterId));
  });
  return actorId;
}

function identityOf(identity: RestoreIdentity, target: string): ActorId {
  if (identity.kind === "new") return randomUUID();
  if (identity.kind === "given") return identity.actorId;
  const database = openSource(target);
  try {
    const bytes = database.prepare(OWN_SITE).pluck().get();
    if (bytes instanceof Uint8Array && bytes.length === 16) return actorIdFromBytes(bytes);
  } finally {
    database.close();
  }
  throw adminError("BACKUP_SOURCE", `${target} has no actor id of its own; name one`);
}

/** The cluster id that a database was moved to; null = none, or no database that can be read. */
export function storedClusterId(path: string): number | null {
  if (!existsSync(path)) return null;
  let database: Database.Database | null = null;
  try {
    database = openSource(path);
    return readClusterId(database);
  } catch (error) {
    // A damaged database is what restores are for.
    if (error instanceof PatinaError || error instanceof Database.SqliteError) return null;
    throw error;
  } finally {
    database?.close();
  }
}

function readClusterId(database: Database.Database): number | null {
  const value = database
    .prepare("SELECT value FROM __patina_state WHERE key = 'cluster_id'")
    .pluck()
    .get();
  return value === undefined ? null : Number(value);
}

function readFacts(database: Database.Database): CopyFacts {
  const own = database.prepare(OWN_SITE).pluck().get();
  const isActor = own instanceof Uint8Array && own.length === 16;
  const statements = database.prepare(OWN_STATEMENTS).pluck().all().map(String);
  const heads = database
    .prepare<[], { actor_id: Uint8Array; head: bigint }>(
      "SELECT actor_id, head FROM __patina_heads",
    )
    .all()
    .map(({ actor_id, head }) => [actorIdFromBytes(actor_id), Number(head)] as const);
  return {
    actor: isActor ? actorIdFromBytes(own) : null,
    clusterId: readClusterId(database),
    schemaHash: createHash("sha256").update(statements.join("\n")).digest("hex"),
    heads: Object.fromEntries(heads),
  };
}

/** A compact copy of what is committed. */
function copyInto(source: string, target: string): void {
  const database = openSource(source);
  try {
    // A merged row may break a CHECK; that is no damage.
    database.pragma("ignore_check_constraints = ON");
    const damage = database.prepare("PRAGMA quick_check(1)").pluck().get();
    if (damage !== "ok") throw adminError("BACKUP_SOURCE", `${source}: ${String(damage)}`);
    database.prepare("VACUUM INTO ?").run(target);
  } finally {
    database.close();
  }
}

/** Opens for reading, and makes sure that it is a replica's database. */
function openSource(path: string): Database.Database {
  let database: Database.Database | null = null;
  try {
    database = new Database(path, { readonly: true, fileMustExist: true, timeout: BUSY_MS });
    const ours = database
      .prepare("SELECT count(*) FROM sqlite_master WHERE name IN (?, ?)")
      .pluck()
      .get("crsql_site_id", "__patina_versions");
    if (ours === 2) return database;
  } catch (error) {
    database?.close();
    throw adminError("BACKUP_SOURCE", `${path}: ${errorText(error)}`, error);
  }
  database.close();
  throw adminError("BACKUP_SOURCE", `${path} is no database of a replica`);
}

/** Changes a copy in one transaction and brings it to the disk as a single file. */
function edit(path: string, change: (database: Database.Database) => void): void {
  const database = new Database(path);
  try {
    database.defaultSafeIntegers(true);
    // A copy that is not finished is thrown away: nothing in it needs a way back.
    database.pragma("journal_mode = OFF");
    database.pragma("synchronous = OFF");
    database.transaction(() => change(database))();
  } finally {
    database.close();
  }
  const file = openSync(path, "r+");
  fsyncSync(file);
  closeSync(file);
}

/** The own actor becomes one like the others, and what only concerned it goes. */
function giveUpIdentity(database: Database.Database): void {
  const bytes = database.prepare<[], Uint8Array>(OWN_SITE).pluck().get();
  if (bytes !== undefined) {
    const { greatest } = database
      .prepare<[], { greatest: bigint }>("SELECT max(ordinal) AS greatest FROM crsql_site_id")
      .get() ?? { greatest: 0n };
    moveOrdinal(database, 0n, greatest + 1n);
  }
  database.exec("DELETE FROM __corro_members; DELETE FROM __patina_state;");
}

function takeIdentity(
  database: Database.Database,
  owner: { readonly actorId: ActorId; readonly clusterId: number | null },
): void {
  const { actorId, clusterId } = owner;
  const bytes = actorBytes(actorId);
  const ordinal = database
    .prepare<[Uint8Array], bigint>("SELECT ordinal FROM crsql_site_id WHERE site_id = ?")
    .pluck()
    .get(bytes);
  if (ordinal !== undefined) moveOrdinal(database, ordinal, 0n);
  else {
    database.prepare("INSERT INTO crsql_site_id (site_id, ordinal) VALUES (?, 0)").run(bytes);
  }
  database
    .prepare("INSERT INTO __patina_state (key, value) VALUES ('database_id', ?)")
    .run(randomUUID());
  if (clusterId === null) return;
  database
    .prepare("INSERT INTO __patina_state (key, value) VALUES ('cluster_id', ?)")
    .run(BigInt(clusterId));
}

function moveOrdinal(database: Database.Database, from: bigint, to: bigint): void {
  database.prepare("UPDATE crsql_site_id SET ordinal = ? WHERE ordinal = ?").run(to, from);
  database.prepare("UPDATE __patina_versions SET actor = ? WHERE actor = ?").run(to, from);
  const clocks = database
    .prepare<[], string>(
      "SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB '*__crsql_clock'",
    )
    .pluck()
    .all();
  for (const clock of clocks) {
    database.prepare(`UPDATE ${quoteName(clock)} SET site_id = ? WHERE site_id = ?`).run(to, from);
  }
}

const OWN_SITE = "SELECT site_id FROM crsql_site_id WHERE ordinal = 0";
/** Of tables and indexes that somebody's schema file made. */
const OWN_STATEMENTS =
  "SELECT sql FROM sqlite_master WHERE type IN ('table', 'index') AND sql IS NOT NULL" +
  " AND tbl_name NOT GLOB '__*' AND tbl_name NOT GLOB 'crsql*' AND tbl_name NOT GLOB '*__crsql_*'" +
  " ORDER BY type, name";
/** A checkpoint of the owner may hold the file for a moment. */
const BUSY_MS = 5_000;
