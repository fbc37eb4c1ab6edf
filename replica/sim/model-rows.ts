/**
 * Rows with cr-sqlite's merge rules, small enough to be believed: greater causal length wins; in
 * one life of a row, greater column version; then greater value; then greater actor id, which
 * changes no value but decides whose version the column counts to (protocol reference, 5.3).
 *
 * Each live entry (a column, or the row's sentinel) belongs to the version that wrote it last. A
 * version whose entries all belong to others is empty, here as in the database.
 *
 * For the change stream there is a local number per version that left anything, and a log of which
 * rows it touched.
 */
import { assert } from "#base/errors.ts";
import type { StreamPage } from "../core/change-stream/stream-publisher.ts";
import type { ActorId, ColumnChange, RowChange, SqlValue } from "../types.ts";

/** Who wrote an entry. */
export interface Writer {
  readonly actorId: ActorId;
  readonly version: number;
}

/** A row as a query sees it. */
export interface ModelRow {
  /** Table and packed key, as text. */
  readonly id: string;
  /** Columns by name; null = deleted. */
  readonly columns: ReadonlyMap<string, { readonly val: SqlValue }> | null;
}

/** All rows of one replica. */
export class ModelRows {
  readonly #rows = new Map<string, Row>();
  /** In the order of first sight. */
  readonly #list: Row[] = [];
  #revision = 0;
  /** Rows touched since the last local number was given out. */
  readonly #touched = new Set<Row>();
  /** Which rows each local number touched, ascending. */
  readonly #log: LogEntry[] = [];
  #position = 0;
  /** Entries by the version that owns them. */
  readonly #owned = new Map<string, Set<Entry>>();

  /** Merges one change; returns whether anything of it was taken. */
  merge(change: ColumnChange, writer: Writer): boolean {
    const key = rowKey(change);
    let row = this.#rows.get(key);
    if (row === undefined) {
      const { table, pk } = change;
      row = { id: key, table, pk, cl: 0, sentinel: null, columns: new Map(), revision: 0 };
      this.#rows.set(key, row);
      this.#list.push(row);
    }
    if (change.cl < row.cl) return false;
    if (change.cl > row.cl) this.#startLife(row, change.cl);
    const isTaken =
      change.cid === SENTINEL
        ? this.#mergeSentinel(row, change, writer)
        : this.#mergeColumn(row, change, writer);
    if (!isTaken) return false;
    this.#revision += 1;
    row.revision = this.#revision;
    this.#touched.add(row);
    return true;
  }

  /** After the changes of a version: gives it a local number, if it left anything. */
  endVersion(writer: Writer): void {
    if (this.#touched.size === 0) return;
    this.#position += 1;
    for (const row of this.#touched) this.#log.push({ local: this.#position, row, writer });
    this.#touched.clear();
  }

  /** The last local number. */
  get position(): number {
    return this.#position;
  }

  /** Grows with every change of anything. */
  get revision(): number {
    return this.#revision;
  }

  /** Number of rows that are not deleted. O(rows). */
  get liveCount(): number {
    let count = 0;
    for (const { cl } of this.#list) count += cl % 2;
    return count;
  }

  /** Rows of which anything changed after a revision, deleted ones too. O(rows). */
  touchedAfter(revision: number): ModelRow[] {
    const touched: ModelRow[] = [];
    for (const row of this.#list) if (row.revision > revision) touched.push(toModelRow(row));
    return touched;
  }

  /** One row, if it was ever seen. */
  row(id: string): ModelRow | undefined {
    const row = this.#rows.get(id);
    return row === undefined ? undefined : toModelRow(row);
  }

  /** See `StreamSource`; keys are packed ones. O(what changed after `from`). */
  changedIn(span: { from: number; to: number }, rowsMax: number): RowChange[] | null {
    const found = new Map<Row, RowChange>();
    for (let at = this.#log.length - 1; at >= 0; at -= 1) {
      const { local, row, writer } = this.#log[at] as LogEntry;
      if (local <= span.from) break;
      if (local > span.to || found.has(row)) continue;
      found.set(row, toRowChange(row, writer));
      if (found.size > rowsMax) return null;
    }
    return [...found.values()].reverse();
  }

  /** See `StreamSource`; the cursor counts rows in the order of first sight. */
  page(cursor: number | null, limit: number): StreamPage<number> {
    const start = cursor ?? 0;
    const end = start + limit;
    const live = this.#list.slice(start, end).filter(({ cl }) => cl % 2 === 1);
    const rows = live.map((row) => toRowChange(row, this.#lastWriter(row)));
    return { rows, next: end < this.#list.length ? end : null };
  }

  /** What is left of a version, ascending by seq. */
  changesOf(writer: Writer): ColumnChange[] {
    const entries = [...(this.#owned.get(ownerKey(writer)) ?? [])];
    entries.sort((one, other) => one.seq - other.seq || (one.cid < other.cid ? -1 : 1));
    return entries.map(({ row, cid, val, colVersion, seq }) => ({
      table: row.table,
      pk: row.pk,
      cid,
      val,
      colVersion,
      seq,
      cl: row.cl,
    }));
  }

  /** Causal length of a row; 0 = never seen. */
  causalLength(table: string, pk: Uint8Array): number {
    return this.#rows.get(rowKey({ table, pk }))?.cl ?? 0;
  }

  /** Version of a column in the row's present life; 0 = never set in it. */
  columnVersion(at: { table: string; pk: Uint8Array; cid: string }): number {
    return this.#rows.get(rowKey(at))?.columns.get(at.cid)?.colVersion ?? 0;
  }

  /** Value of a column in the row's present life; undefined = never set in it. */
  columnValue(at: { table: string; pk: Uint8Array; cid: string }): SqlValue | undefined {
    return this.#rows.get(rowKey(at))?.columns.get(at.cid)?.val;
  }

  /** The rows that are not deleted. */
  live(): { table: string; pk: Uint8Array; columns: Map<string, SqlValue> }[] {
    return [...this.#rows.values()]
      .filter(({ cl }) => cl % 2 === 1)
      .map(({ table, pk, columns }) => {
        const values = [...columns].map(([cid, { val }]) => [cid, val] as const);
        return { table, pk, columns: new Map(values) };
      });
  }

  /** Everything that replicas must agree on, as sorted text. */
  digest(): string {
    const lines: string[] = [];
    for (const [key, row] of this.#rows) {
      if (row.cl === 0) continue;
      const columns = [...row.columns].map(([cid, entry]) => {
        return `${cid}@${entry.colVersion}=${valueText(entry.val)}`;
      });
      lines.push(`${key} cl=${row.cl} ${columns.sort().join(" ")}`);
    }
    return lines.sort().join("\n");
  }

  #lastWriter(row: Row): Writer {
    const entry = this.#log.findLast((each) => each.row === row);
    assert(entry !== undefined, "a row that lives was written");
    return entry.writer;
  }

  #startLife(row: Row, cl: number): void {
    if (row.sentinel !== null) this.#disown(row.sentinel);
    for (const entry of row.columns.values()) this.#disown(entry);
    row.cl = cl;
    row.sentinel = null;
    row.columns.clear();
  }

  #mergeSentinel(row: Row, change: ColumnChange, writer: Writer): boolean {
    const present = row.sentinel;
    if (present !== null && !isNewer(writer, present.writer)) return false;
    if (present !== null) this.#disown(present);
    row.sentinel = this.#own(row, change, writer);
    return true;
  }

  #mergeColumn(row: Row, change: ColumnChange, writer: Writer): boolean {
    const present = row.columns.get(change.cid);
    if (present !== undefined) {
      const order =
        change.colVersion - present.colVersion || compareValues(change.val, present.val);
      if (order < 0 || (order === 0 && !isNewer(writer, present.writer))) return false;
      this.#disown(present);
    }
    row.columns.set(change.cid, this.#own(row, change, writer));
    return true;
  }

  #own(row: Row, change: ColumnChange, writer: Writer): Entry {
    const { cid, val, colVersion, seq } = change;
    const entry = { row, cid, val, colVersion, seq, writer };
    const key = ownerKey(writer);
    const entries = this.#owned.get(key) ?? new Set();
    this.#owned.set(key, entries.add(entry));
    return entry;
  }

  #disown(entry: Entry): void {
    const key = ownerKey(entry.writer);
    const entries = this.#owned.get(key);
    entries?.delete(entry);
    if (entries?.size === 0) this.#owned.delete(key);
  }
}

/** Name of the change that creates or deletes a row. */
export const SENTINEL = "-1";

interface Row {
  readonly id: string;
  readonly table: string;
  readonly pk: Uint8Array;
  cl: number;
  sentinel: Entry | null;
  readonly columns: Map<string, Entry>;
  revision: number;
}

interface LogEntry {
  readonly local: number;
  readonly row: Row;
  readonly writer: Writer;
}

interface Entry {
  readonly row: Row;
  readonly cid: string;
  readonly val: SqlValue;
  readonly colVersion: number;
  readonly seq: number;
  readonly writer: Writer;
}

/** Order among writers of equal content: any total order makes replicas agree. */
function isNewer(one: Writer, other: Writer): boolean {
  if (one.actorId !== other.actorId) return one.actorId > other.actorId;
  return one.version > other.version;
}

/** SQLite's order between types, then the natural one. The model writes text and integers only. */
function compareValues(one: SqlValue, other: SqlValue): number {
  const rank = typeRank(one) - typeRank(other);
  if (rank !== 0 || one === null || other === null) return rank;
  return one < other ? -1 : one > other ? 1 : 0;
}

function typeRank(value: SqlValue): number {
  if (value === null) return 0;
  if (typeof value === "bigint" || typeof value === "number") return 1;
  return typeof value === "string" ? 2 : 3;
}

function toModelRow({ id, cl, columns }: Row): ModelRow {
  return { id, columns: cl % 2 === 1 ? columns : null };
}

function toRowChange(row: Row, { actorId, version }: Writer): RowChange {
  const { table, pk, cl, columns } = row;
  const values: Record<string, SqlValue> = {};
  for (const [cid, { val }] of columns) values[cid] = val;
  return { table, key: [pk], row: cl % 2 === 1 ? values : null, actorId, version };
}

function valueText(value: SqlValue): string {
  return `${typeof value}:${String(value)}`;
}

/** Text that tells rows apart. */
export function rowKey(of: { table: string; pk: Uint8Array }): string {
  return `${of.table} ${of.pk.join(".")}`;
}

function ownerKey(writer: Writer): string {
  return `${writer.actorId} ${writer.version}`;
}
