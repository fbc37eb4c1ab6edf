/**
 * Merges one version's changes, each version under a local number of its own: through cr-sqlite, or,
 * rows of keys that are not known yet, directly (`row-writer.ts`).
 *
 * Rules that a plain insert into `crsql_changes` lacks, and without which replicas diverge
 * (docs/decisions/0004-version-map.md): a distinct local number per version; a lost sentinel takes
 * the clock row over when its site id is the greater; a version is mapped only if something of it
 * won; a row that was deleted and made again has nothing of the former one (`resetSql`).
 */
import type Database from "better-sqlite3";
import { unpackKey } from "../../core/wire/packed-key.ts";
import { assert } from "#base/errors.ts";
import type { ColumnChange } from "../../types.ts";
import type { ApplierContext } from "./apply.ts";
import type { CrrTable } from "./crr-tables.ts";
import { SENTINEL } from "./crr-tables.ts";
import type { VersionRecord } from "./ledger.ts";
import { actorBytes } from "./ledger.ts";
import { rowEnd, RowWriter, type RowOrigin } from "./row-writer.ts";
import { quoteName } from "./sql-text.ts";

/** Merges versions inside a transaction of the caller's: `begin`, `merge` ..., `finish`. */
export class Merger {
  readonly #context: ApplierContext;
  readonly #insert: Database.Statement;
  readonly #nextNumber: Database.Statement;
  readonly #raiseNumber: Database.Statement;
  readonly #takeSentinel = new Map<string, Database.Statement>();
  readonly #resets = new Map<string, Reset>();
  readonly #setSyncBit: Database.Statement;
  /** Of each table: gives the rows of one version another local number. */
  readonly #moveRows: readonly Database.Statement[];
  /** Null = everything goes through cr-sqlite. */
  readonly #rows: RowWriter | null;
  /** Table names in name order: a row is known by its table's index and its lookaside key. */
  readonly #indexByTable = new Map<string, number>();
  /** Since it was made. */
  rowsWrittenDirectly = 0;
  /** Least local number that the next version may take. */
  #next = 0;

  constructor(context: ApplierContext) {
    const { database } = context;
    this.#context = context;
    this.#insert = database.prepare(
      "INSERT INTO crsql_changes" +
        ' ("table", pk, cid, val, col_version, db_version, site_id, cl, seq)' +
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    );
    this.#nextNumber = database.prepare("SELECT crsql_next_db_version()").pluck();
    this.#raiseNumber = database.prepare("SELECT crsql_next_db_version(?)").pluck();
    this.#rows = context.isDirect ? new RowWriter(database, context.tables) : null;
    this.#setSyncBit = database.prepare("SELECT crsql_internal_sync_bit(?)");
    for (const table of context.tables.values()) {
      this.#indexByTable.set(table.name, this.#indexByTable.size);
      const reset = resetSql(table);
      if (reset !== null) {
        const isDue = database.prepare(reset.isDue).pluck();
        this.#resets.set(table.name, { isDue, reset: database.prepare(reset.reset) });
      }
      this.#takeSentinel.set(table.name, database.prepare(takeSentinelSql(table)).pluck());
    }
    this.#moveRows = [...context.tables.values()].map((table) =>
      database.prepare(
        `UPDATE ${quoteName(`${table.name}__crsql_clock`)} SET db_version = ?` +
          " WHERE db_version = ? AND site_id = ?",
      ),
    );
  }

  /** After BEGIN: finds where local numbers go on. */
  begin(): void {
    this.#rows?.noteCleared();
    const proposed = Number(this.#nextNumber.get());
    this.#next = Math.max(proposed, this.#context.ledger.lastLocal + 1);
  }

  /** Merges the changes of one version, all checked before; returns the number of changed rows. */
  merge(version: Omit<VersionRecord, "local">, changes: readonly ColumnChange[]): number {
    if (changes.length === 0) return 0;
    const { ledger } = this.#context;
    const ordinal = Number(ledger.ensureOrdinal(version.actorId));
    const site = actorBytes(version.actorId);
    const origin = { site, ordinal, local: this.#next };
    const rows = new Set<number>();
    const remade = new Map<number, string>();
    const ordered = bySeq(changes);
    for (let at = 0; at < ordered.length;) {
      const end = this.#rows === null ? at : rowEnd(ordered, at);
      const written = end > at ? (this.#rows?.write(ordered, { at, end }, origin) ?? null) : null;
      if (written !== null) {
        rows.add(this.#rowNumber(ordered[at]?.table ?? "", written));
        this.rowsWrittenDirectly += 1;
        at = end;
        continue;
      }
      const next = Math.max(end, at + 1);
      for (; at < next; at += 1) {
        const change = ordered[at];
        const won = change === undefined ? null : this.#mergeChange(change, origin);
        if (change === undefined || won === null) continue;
        const row = this.#rowNumber(change.table, won);
        rows.add(row);
        // Odd and above 1: it lives, and has been deleted before.
        if (change.cl > 1 && change.cl % 2 === 1) remade.set(row, change.table);
      }
    }
    if (rows.size === 0) return 0;
    for (const [row, table] of remade) this.#resetColumns(table, row);
    const before = ledger.recordVersion({ ...version, local: this.#next });
    if (before !== null) {
      // A part of it came earlier. One version has one number, and readers must see the rest.
      const numbers = [this.#next, before, ordinal].map(BigInt);
      for (const move of this.#moveRows) move.run(...numbers);
    }
    this.#next += 1;
    return rows.size;
  }

  /** Before COMMIT: tells cr-sqlite the last number, which becomes its db_version. */
  finish(): void {
    this.#rows?.finish();
    const { lastLocal } = this.#context.ledger;
    if (lastLocal > 0) this.#raiseNumber.get(BigInt(lastLocal));
  }

  /** The lookaside key of the row when the change won; null when it lost. */
  #mergeChange(change: ColumnChange, origin: MergeOrigin): number | null {
    const { table, pk, cid, val, colVersion, cl, seq } = change;
    const { local, site } = origin;
    this.#rows?.noteCleared();
    const { lastInsertRowid } = this.#insert.run(
      table,
      pk,
      cid,
      val,
      BigInt(colVersion),
      BigInt(local),
      site,
      BigInt(cl),
      BigInt(seq),
    );
    const rowid = Number(BigInt(lastInsertRowid) % KEYS_PER_TABLE);
    if (rowid > 0) return rowid;
    if (cid !== SENTINEL) return null;
    const key = unpackKey(pk);
    assert(key.ok, "a key was checked before the merge");
    const take = this.#takeSentinel.get(table);
    assert(take !== undefined, "a table was checked before the merge");
    const taken = take.get(BigInt(local), BigInt(seq), site, BigInt(cl), site, ...key.value);
    return taken === undefined ? null : Number(taken);
  }

  /** Gives the columns of a row that nobody has written since it was made again their defaults. */
  #resetColumns(table: string, row: number): void {
    const key = BigInt(row) % KEYS_PER_TABLE;
    const statements = this.#resets.get(table);
    if (statements?.isDue.get({ key }) === undefined) return;
    // Off, the table's triggers would take it for a write of ours.
    this.#setSyncBit.get(1n);
    statements.reset.run({ key });
    this.#setSyncBit.get(0n);
    this.#rows?.noteCleared();
  }

  /** A number of its own for each row of all tables. */
  #rowNumber(table: string, key: number): number {
    return (this.#indexByTable.get(table) ?? 0) * Number(KEYS_PER_TABLE) + key;
  }
}

/** Statements of one table, for the row with the lookaside key `key`. */
interface Reset {
  /** Whether any column is reset. */
  readonly isDue: Database.Statement;
  readonly reset: Database.Statement;
}

/** Whose version is merged, and under which local number. */
interface MergeOrigin extends RowOrigin {
  readonly site: Uint8Array;
}

/** Gives the sentinel of a row to the greater site id when the causal lengths tie. */
function takeSentinelSql(table: CrrTable): string {
  const clock = quoteName(`${table.name}__crsql_clock`);
  const keys = quoteName(`${table.name}__crsql_pks`);
  const match = table.keys.map((key) => `${quoteName(key.name)} = ?`).join(" AND ");
  return (
    `UPDATE ${clock} SET db_version = ?, seq = ?,` +
    " site_id = (SELECT ordinal FROM crsql_site_id WHERE site_id = ?)" +
    ` WHERE col_name = '${SENTINEL}' AND col_version = ?` +
    ` AND (SELECT s.site_id FROM crsql_site_id s WHERE s.ordinal = ${clock}.site_id) < ?` +
    ` AND key = (SELECT __crsql_key FROM ${keys} WHERE ${match}) RETURNING key`
  );
}

/**
 * Where the delete never came, because it was Empty by then, cr-sqlite sets the column versions of a
 * row that was made again to 0 and leaves the values, which are the former row's. Whoever saw the
 * delete has the defaults there. With one schema everywhere each of these columns is written by whoever
 * makes the row again; one of an older schema does not know all of them. Null = nothing but keys.
 */
function resetSql(table: CrrTable): { isDue: string; reset: string } | null {
  if (table.values.length === 0) return null;
  const clock = quoteName(`${table.name}__crsql_clock`);
  const keys = quoteName(`${table.name}__crsql_pks`);
  const zero = `SELECT 1 FROM ${clock} WHERE key = :key AND col_version = 0`;
  const columns = table.values.map(({ name, defaultSql }) => {
    const isReset = `EXISTS (${zero} AND col_name = '${name.replaceAll("'", "''")}')`;
    return `${quoteName(name)} = iif(${isReset}, (${defaultSql ?? "NULL"}), t.${quoteName(name)})`;
  });
  const match = table.keys.map((key) => `${quoteName(key.name)} = p.${quoteName(key.name)}`);
  return {
    isDue: `${zero} LIMIT 1`,
    reset:
      `UPDATE ${quoteName(table.name)} AS t SET ${columns.join(", ")} FROM ${keys} AS p` +
      ` WHERE p.__crsql_key = :key AND ${match.map((each) => `t.${each}`).join(" AND ")}`,
  };
}

/** The changes in seq order; most arrive so. */
function bySeq(changes: readonly ColumnChange[]): readonly ColumnChange[] {
  let last = -1;
  for (const { seq } of changes) {
    if (seq < last) return changes.toSorted((left, right) => left.seq - right.seq);
    last = seq;
  }
  return changes;
}

/** By which cr-sqlite tells the rows of its tables apart (`ROWID_SLAB_SIZE`). */
const KEYS_PER_TABLE = 10_000_000_000_000n;
