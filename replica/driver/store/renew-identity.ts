/**
 * Gives a database another actor id and makes all rows of the former one rows of the new one: the
 * way out when versions of our own are gone and nobody can say how many there were.
 *
 * The former actor stays as one like the others: its versions are known here as far as they were,
 * and others keep theirs. Its rows are published again, whole and tombstones with them, as the new
 * actor's first versions, with the column versions that they have: whoever holds something newer of
 * the lost versions keeps it, so nothing that was acknowledged is undone.
 *
 * The new actor id is the greater one. Of two equal values with equal column versions the greater
 * site id wins everywhere, so the rows end up under the new actor at every replica, and the former
 * actor's versions are Empty at every one of them. With the lesser id it would depend on what came
 * first, and a row could be Empty at each of two replicas that a third one asks.
 *
 * The extension reads its site id once, when it is loaded: only before that may this be done.
 */
import { randomUUID } from "node:crypto";
import type Database from "better-sqlite3";
import { actorIdFromBytes } from "../../core/wire/actor-id.ts";
import type { ActorId } from "../../types.ts";
import { actorBytes } from "./ledger.ts";
import { quoteName } from "./sql-text.ts";

/** Asks for a new actor id at the next start. Inside a transaction or not. */
export function requestRenewal(database: Database.Database): void {
  database
    .prepare("INSERT OR REPLACE INTO __patina_state (key, value) VALUES (?, 'yes')")
    .run(REQUESTED);
}

/**
 * Carries out a requested renewal, if there is one; returns the new actor id then, else null. Before
 * the extension is loaded. `ts` is the NTP64 stamp of the versions that are made.
 */
export function renewIfRequested(database: Database.Database, ts: bigint): ActorId | null {
  const hasState = database
    .prepare("SELECT 1 FROM sqlite_master WHERE name = '__patina_state'")
    .get();
  if (hasState === undefined) return null;
  const requested = database.prepare("SELECT 1 FROM __patina_state WHERE key = ?").get(REQUESTED);
  if (requested === undefined) return null;
  return database.transaction(() => renew(database, ts)).immediate();
}

function renew(database: Database.Database, ts: bigint): ActorId {
  const former = database
    .prepare<[], Uint8Array>("SELECT site_id FROM crsql_site_id WHERE ordinal = 0")
    .pluck()
    .get();
  const actorId = drawGreater(former === undefined ? "" : actorIdFromBytes(former));
  giveFormerAnOrdinal(database);
  database
    .prepare("INSERT INTO crsql_site_id (site_id, ordinal) VALUES (?, 0)")
    .run(actorBytes(actorId));
  const head = republish(database, ts);
  if (head > 0n) {
    database
      .prepare("INSERT INTO __patina_heads (actor_id, head) VALUES (?, ?)")
      .run(actorBytes(actorId), head);
  }
  // Another identity is another history: readers of the change stream start over.
  database
    .prepare("DELETE FROM __patina_state WHERE key IN (?, 'own_versions_in_doubt', 'database_id')")
    .run(REQUESTED);
  return actorId;
}

/** The clock rows stay at ordinal 0: they are the new actor's. */
function giveFormerAnOrdinal(database: Database.Database): void {
  const greatest = database
    .prepare<[], bigint>("SELECT max(ordinal) FROM crsql_site_id")
    .pluck()
    .get();
  const ordinal = (greatest ?? 0n) + 1n;
  database.prepare("UPDATE crsql_site_id SET ordinal = ? WHERE ordinal = 0").run(ordinal);
  database.prepare("UPDATE __patina_versions SET actor = ? WHERE actor = 0").run(ordinal);
}

/** Puts all clock rows of ordinal 0 under versions from 1 up; returns how many these are. */
function republish(database: Database.Database, ts: bigint): bigint {
  const record = database.prepare(
    "INSERT INTO __patina_versions (local, actor, version, last_seq, ts) VALUES (?, 0, ?, ?, ?)",
  );
  const clocks = clockTables(database);
  let local = greatestLocal(database, clocks);
  let version = 0n;
  for (const clock of clocks) {
    const name = quoteName(clock);
    const keys = database
      .prepare<[], bigint>(`SELECT DISTINCT key FROM ${name} WHERE site_id = 0 ORDER BY key`)
      .pluck()
      .all();
    const columns = database
      .prepare<[bigint], string>(
        `SELECT col_name FROM ${name} WHERE key = ? AND site_id = 0 ORDER BY col_name <> '-1', seq`,
      )
      .pluck();
    const move = database.prepare(
      `UPDATE ${name} SET db_version = ?, seq = ? WHERE key = ? AND col_name = ?`,
    );
    for (let at = 0; at < keys.length; at += ROWS_PER_VERSION) {
      local += 1n;
      version += 1n;
      let seq = 0n;
      for (const key of keys.slice(at, at + ROWS_PER_VERSION)) {
        for (const column of columns.all(key)) {
          move.run(local, seq, key, column);
          seq += 1n;
        }
      }
      record.run(local, version, seq - 1n, BigInt.asIntN(64, ts));
    }
  }
  return version;
}

function clockTables(database: Database.Database): string[] {
  return database
    .prepare<[], string>(
      "SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB '*__crsql_clock'",
    )
    .pluck()
    .all();
}

function greatestLocal(database: Database.Database, clocks: readonly string[]): bigint {
  const sources = ["SELECT max(local) AS n FROM __patina_versions"];
  for (const clock of clocks) sources.push(`SELECT max(db_version) FROM ${quoteName(clock)}`);
  const greatest = database
    .prepare<[], bigint | null>(`SELECT max(n) FROM (${sources.join(" UNION ALL ")})`)
    .pluck()
    .get();
  return greatest ?? 0n;
}

function drawGreater(former: ActorId): ActorId {
  let drawn = randomUUID();
  for (let tries = 0; tries < TRIES_MAX && drawn <= former; tries += 1) {
    const other = randomUUID();
    if (other > drawn) drawn = other;
  }
  return drawn;
}

/** Key in `__patina_state`. */
const REQUESTED = "renewal_requested";
/** About as many rows as a bulk write has; a version is held in memory whole. */
const ROWS_PER_VERSION = 1_000;
/** An actor id that one in a million exceeds is one in a million; then the greatest drawn is taken. */
const TRIES_MAX = 1_000_000;
