/**
 * Merges one version's changes through cr-sqlite, each version under a local number of its own.
 *
 * Rules that a plain insert into `crsql_changes` lacks, and without which replicas diverge
 * (docs/decisions/0004-version-map.md): a distinct local number per version; a lost sentinel takes
 * the clock row over when its site id is the greater; a version is mapped only if something of it
 * won.
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
import { quoteName } from "./sql-text.ts";

/** Merges versions inside a transaction of the caller's: `begin`, `merge` ..., `finish`. */
export class Merger {
  readonly #context: ApplierContext;
  readonly #insert: Database.Statement;
  readonly #nextNumber: Database.Statement;
  readonly #raiseNumber: Database.Statement;
  readonly #takeSentinel = new Map<string, Database.Statement>();
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
    for (const table of context.tables.values()) {
      this.#takeSentinel.set(table.name, database.prepare(takeSentinelSql(table)));
    }
  }

  /** After BEGIN: finds where local numbers go on. */
  begin(): void {
    const proposed = Number(this.#nextNumber.get());
    this.#next = Math.max(proposed, this.#context.ledger.lastLocal + 1);
  }

  /** Merges the changes of one version, all checked before; returns the number of changed rows. */
  merge(version: Omit<VersionRecord, "local">, changes: readonly ColumnChange[]): number {
    if (changes.length === 0) return 0;
    const { ledger } = this.#context;
    ledger.ensureOrdinal(version.actorId);
    const site = actorBytes(version.actorId);
    const local = BigInt(this.#next);
    const rows = new Set<string | bigint>();
    for (const change of bySeq(changes)) {
      const won = this.#mergeChange(change, { site, local });
      if (won !== null) rows.add(won);
    }
    if (rows.size === 0) return 0;
    ledger.recordVersion({ ...version, local: this.#next });
    this.#next += 1;
    return rows.size;
  }

  /** Before COMMIT: tells cr-sqlite the last number, which becomes its db_version. */
  finish(): void {
    const { lastLocal } = this.#context.ledger;
    if (lastLocal > 0) this.#raiseNumber.get(BigInt(lastLocal));
  }

  /** Something that names the row when the change won; null when it lost. */
  #mergeChange(
    change: ColumnChange,
    version: { readonly site: Uint8Array; readonly local: bigint },
  ): string | bigint | null {
    const { table, pk, cid, val } = change;
    const cl = BigInt(change.cl);
    const seq = BigInt(change.seq);
    const colVersion = BigInt(change.colVersion);
    const { local, site } = version;
    const { lastInsertRowid } = this.#insert.run(
      table,
      pk,
      cid,
      val,
      colVersion,
      local,
      site,
      cl,
      seq,
    );
    if (BigInt(lastInsertRowid) > 0n) return BigInt(lastInsertRowid);
    if (cid !== SENTINEL) return null;
    const key = unpackKey(pk);
    assert(key.ok, "a key was checked before the merge");
    const take = this.#takeSentinel.get(table);
    assert(take !== undefined, "a table was checked before the merge");
    const { changes } = take.run(local, seq, site, cl, site, ...key.value);
    return changes > 0 ? `${table} ${key.value.join(" ")}` : null;
  }
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
    ` AND key = (SELECT __crsql_key FROM ${keys} WHERE ${match})`
  );
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
