/**
 * Changes for tables and columns that the schema here does not have yet.
 *
 * While a cluster's schema is brought up to date, replicas on the old and on the new one live side by
 * side. A version that names something unknown is merged as far as it is known; the rest is kept here,
 * in the database file, served to whoever asks for the version, and merged when the schema arrives. So
 * the version counts as known and nobody is asked for it again.
 *
 * A change that another one here has overtaken (a greater causal length of the row; of one column a
 * greater column version) is dropped, as the clock tables would: a column that is written again and
 * again takes the room of one change. What finds no room all the same is left out, and the version is
 * remembered as cut short: it is not served, and it is asked for again when the schema has changed.
 */
import type Database from "better-sqlite3";
import { actorIdFromBytes } from "../../core/wire/actor-id.ts";
import type { ActorId, ColumnChange, SqlValue, VersionRange } from "../../types.ts";
import { actorBytes } from "./ledger.ts";

/** A version of which something is kept. */
export interface KeptVersion {
  readonly actorId: ActorId;
  readonly version: number;
  readonly lastSeq: number;
  readonly ts: bigint;
}

/** What is kept. */
export interface KeptAsideStats {
  /** Changes that wait for their table or column. */
  readonly changes: number;
  /** What they take, roughly. */
  readonly bytes: number;
  /** Versions that are here without some of their changes, for want of room. */
  readonly versionsCut: number;
}

/** Room for changes that are kept. */
export interface KeptAsideLimits {
  readonly changesMax: number;
  readonly bytesMax: number;
}

/** Reads and writes what is kept. All writes happen inside a transaction of the caller's. */
export class KeptAside {
  readonly #limits: KeptAsideLimits;
  readonly #statements: Statements;
  #changes = 0;
  #bytes = 0;
  #versionsCut = 0;

  constructor(database: Database.Database, limits: KeptAsideLimits = KEPT_LIMITS) {
    this.#limits = limits;
    database.exec(TABLES);
    this.#statements = prepareStatements(database);
    this.reload();
  }

  /** Counts anew: at start, and after ROLLBACK. O(what is kept). */
  reload(): void {
    const kept = this.#statements.count.get();
    this.#changes = Number(kept?.changes ?? 0n);
    this.#bytes = Number(kept?.bytes ?? 0n);
    this.#versionsCut = Number(this.#statements.countCut.get() ?? 0n);
  }

  /** Gauges. O(1). */
  get stats(): KeptAsideStats {
    return { changes: this.#changes, bytes: this.#bytes, versionsCut: this.#versionsCut };
  }

  /** Keeps changes of one version, or remembers that it was cut short. */
  keep(version: KeptVersion, changes: readonly ColumnChange[]): void {
    const { actorId, lastSeq, ts } = version;
    const place = [actorBytes(actorId), BigInt(version.version)];
    const end = [BigInt(lastSeq), BigInt.asIntN(64, ts)];
    let isCut = false;
    for (const change of changes) {
      const { table, pk, cid, val } = change;
      const [cl, colVersion] = [BigInt(change.cl), BigInt(change.colVersion)];
      this.#remove(this.#statements.removeOvertaken.all(table, pk, cl, cl, cid, colVersion));
      if (this.#statements.isOvertaken.get(table, pk, cl, cl, cid, colVersion) !== undefined)
        continue;
      const bytes = bytesOf(change);
      const hasRoom =
        this.#changes < this.#limits.changesMax && this.#bytes + bytes <= this.#limits.bytesMax;
      if (!hasRoom) {
        isCut = true;
        continue;
      }
      const numbers = [colVersion, BigInt(change.seq), cl, ...end, BigInt(bytes)];
      const { changes: added } = this.#statements.insert.run(
        ...place,
        table,
        pk,
        cid,
        val,
        ...numbers,
      );
      if (added === 0) continue;
      this.#changes += 1;
      this.#bytes += bytes;
    }
    if (isCut) this.#versionsCut += this.#statements.insertCut.run(...place).changes;
  }

  /** A change of a row was merged: what is kept of lives of that row before is of no use. */
  overtake(change: ColumnChange): void {
    if (this.#changes === 0 || change.cl < 2) return;
    this.#remove(this.#statements.removeEarlier.all(change.table, change.pk, BigInt(change.cl)));
  }

  /** Versions have arrived whole once more, or nothing is left of them. */
  mend(actorId: ActorId, versions: VersionRange): void {
    if (this.#versionsCut === 0) return;
    const place = [actorBytes(actorId), BigInt(versions.start), BigInt(versions.end)];
    this.#versionsCut -= this.#statements.removeCut.run(...place).changes;
  }

  /** Whether a version is here without some of its changes. */
  isCut(actorId: ActorId, version: number): boolean {
    if (this.#versionsCut === 0) return false;
    return this.#statements.isCut.get(actorBytes(actorId), BigInt(version)) !== undefined;
  }

  /** Versions of an actor in a range that were cut short, ascending. */
  cutWithin(actorId: ActorId, range: VersionRange): number[] {
    if (this.#versionsCut === 0) return [];
    const place = [actorBytes(actorId), BigInt(range.start), BigInt(range.end)] as const;
    return this.#statements.cutWithin.all(...place).map(Number);
  }

  /** Every version that was cut short. */
  allCut(): { readonly actorId: ActorId; readonly version: number }[] {
    if (this.#versionsCut === 0) return [];
    return this.#statements.allCut.all().map(toPlace);
  }

  /** What is kept of one version, ascending by seq. */
  read(actorId: ActorId, version: number): ColumnChange[] {
    if (this.#changes === 0) return [];
    return this.#statements.read.all(actorBytes(actorId), BigInt(version)).map(toChange);
  }

  /** Versions of an actor in a range of which something is kept, newest first. */
  versionsIn(actorId: ActorId, range: VersionRange): KeptVersion[] {
    if (this.#changes === 0) return [];
    const place = [actorBytes(actorId), BigInt(range.start), BigInt(range.end)] as const;
    return this.#statements.versionsIn.all(...place).map(toVersion);
  }

  /** Tables and columns of which changes are kept. O(what is kept). */
  subjects(): { readonly table: string; readonly cid: string }[] {
    return this.#changes === 0 ? [] : this.#statements.subjects.all();
  }

  /** Takes out the changes of one table's column, by version. */
  take(
    subjects: readonly { readonly table: string; readonly cid: string }[],
  ): [KeptVersion, ColumnChange[]][] {
    const byVersion = new Map<string, [KeptVersion, ColumnChange[]]>();
    for (const { table, cid } of subjects) {
      for (const row of this.#statements.takeSubject.all(table, cid)) {
        this.#remove([row.bytes]);
        const version = toVersion(row);
        const name = `${version.actorId} ${version.version}`;
        const taken = byVersion.get(name) ?? [version, []];
        byVersion.set(name, taken);
        taken[1].push(toChange(row));
      }
    }
    return [...byVersion.values()];
  }

  #remove(bytes: readonly bigint[]): void {
    this.#changes -= bytes.length;
    for (const one of bytes) this.#bytes -= Number(one);
  }
}

function toPlace(row: PlaceRow): { actorId: ActorId; version: number } {
  return { actorId: actorIdFromBytes(row.site_id), version: Number(row.version) };
}

function toVersion(row: VersionRow): KeptVersion {
  return { ...toPlace(row), lastSeq: Number(row.last_seq), ts: BigInt.asUintN(64, row.ts) };
}

function toChange(row: ChangeRow): ColumnChange {
  return {
    table: row.table,
    pk: new Uint8Array(row.pk),
    cid: row.cid,
    val: row.val instanceof Uint8Array ? new Uint8Array(row.val) : row.val,
    colVersion: Number(row.col_version),
    seq: Number(row.seq),
    cl: Number(row.cl),
  };
}

function bytesOf(change: ColumnChange): number {
  const { table, pk, cid, val } = change;
  const value = typeof val === "string" || val instanceof Uint8Array ? val.length : 0;
  // The key is in the index once more.
  return 2 * (table.length + pk.length) + cid.length + value + ROW_BYTES;
}

/**
 * A hundred thousand rows of one column, or some thousands of a new table: enough for the hours of a
 * roll-out, and merged in about two seconds when the schema arrives.
 */
const KEPT_LIMITS: KeptAsideLimits = { changesMax: 100_000, bytesMax: 64 * 1024 * 1024 };
/** What the numbers of a row take, and SQLite's own. */
const ROW_BYTES = 80;

const TABLES = `
CREATE TABLE IF NOT EXISTS __patina_kept_changes (
  site_id BLOB NOT NULL,
  version INTEGER NOT NULL,
  "table" TEXT NOT NULL,
  pk BLOB NOT NULL,
  cid TEXT NOT NULL,
  val ANY,
  col_version INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  cl INTEGER NOT NULL,
  last_seq INTEGER NOT NULL,
  ts INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  PRIMARY KEY (site_id, version, seq, "table", pk, cid)
) WITHOUT ROWID, STRICT;
CREATE INDEX IF NOT EXISTS __patina_kept_changes_row ON __patina_kept_changes ("table", pk, cl);
CREATE TABLE IF NOT EXISTS __patina_cut_versions (
  site_id BLOB NOT NULL,
  version INTEGER NOT NULL,
  PRIMARY KEY (site_id, version)
) WITHOUT ROWID, STRICT;
`;

interface PlaceRow {
  readonly site_id: Uint8Array;
  readonly version: bigint;
}

interface VersionRow extends PlaceRow {
  readonly last_seq: bigint;
  readonly ts: bigint;
}

interface ChangeRow {
  readonly table: string;
  readonly pk: Uint8Array;
  readonly cid: string;
  readonly val: SqlValue;
  readonly col_version: bigint;
  readonly seq: bigint;
  readonly cl: bigint;
}

type Statements = ReturnType<typeof prepareStatements>;
type RowPlace = [string, Uint8Array, bigint, bigint, string, bigint];

function prepareStatements(database: Database.Database) {
  const kept = "__patina_kept_changes";
  const version = "site_id = ? AND version = ?";
  const within = "site_id = ? AND version BETWEEN ? AND ?";
  const change = '"table", pk, cid, val, col_version, seq, cl';
  const row = '"table" = ? AND pk = ?';
  return {
    count: database.prepare<[], { changes: bigint; bytes: bigint | null }>(
      `SELECT count(*) AS changes, sum(bytes) AS bytes FROM ${kept}`,
    ),
    countCut: database.prepare<[], bigint>("SELECT count(*) FROM __patina_cut_versions").pluck(),
    insert: database.prepare(
      `INSERT OR IGNORE INTO ${kept} (site_id, version, ${change}, last_seq, ts, bytes)` +
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    ),
    removeOvertaken: database
      .prepare<RowPlace, bigint>(
        `DELETE FROM ${kept} WHERE ${row}` +
          " AND (cl < ? OR (cl = ? AND cid = ? AND col_version < ?)) RETURNING bytes",
      )
      .pluck(),
    isOvertaken: database.prepare<RowPlace>(
      `SELECT 1 FROM ${kept} WHERE ${row}` +
        " AND (cl > ? OR (cl = ? AND cid = ? AND col_version > ?)) LIMIT 1",
    ),
    removeEarlier: database
      .prepare<[string, Uint8Array, bigint], bigint>(
        `DELETE FROM ${kept} WHERE ${row} AND cl < ? RETURNING bytes`,
      )
      .pluck(),
    read: database.prepare<[Uint8Array, bigint], ChangeRow>(
      `SELECT ${change} FROM ${kept} WHERE ${version} ORDER BY seq`,
    ),
    versionsIn: database.prepare<[Uint8Array, bigint, bigint], VersionRow>(
      `SELECT site_id, version, max(last_seq) AS last_seq, max(ts) AS ts FROM ${kept}` +
        ` WHERE ${within} GROUP BY site_id, version ORDER BY version DESC`,
    ),
    subjects: database.prepare<[], { table: string; cid: string }>(
      `SELECT DISTINCT "table", cid FROM ${kept}`,
    ),
    takeSubject: database.prepare<[string, string], ChangeRow & VersionRow & { bytes: bigint }>(
      `DELETE FROM ${kept} WHERE "table" = ? AND cid = ?` +
        ` RETURNING site_id, version, ${change}, last_seq, ts, bytes`,
    ),
    insertCut: database.prepare("INSERT OR IGNORE INTO __patina_cut_versions VALUES (?, ?)"),
    removeCut: database.prepare(`DELETE FROM __patina_cut_versions WHERE ${within}`),
    isCut: database.prepare(`SELECT 1 FROM __patina_cut_versions WHERE ${version}`),
    cutWithin: database
      .prepare<[Uint8Array, bigint, bigint], bigint>(
        `SELECT version FROM __patina_cut_versions WHERE ${within} ORDER BY version`,
      )
      .pluck(),
    allCut: database.prepare<[], PlaceRow>("SELECT site_id, version FROM __patina_cut_versions"),
  };
}
