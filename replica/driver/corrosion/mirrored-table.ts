/**
 * A table of ours that is kept as a query elsewhere says: which statements make it so.
 *
 * What the table shall be and what it is are held apart by primary key; keys in which they may differ
 * are noted, and those that do are written. A write that fails leaves them noted.
 */
import type { SqlValue, Statement } from "../../types.ts";

/** A row by column. */
export type MirroredRow = Readonly<Record<string, SqlValue>>;

/** Columns of a table that routing reads, and what stands for NULL in each; null = it may be NULL. */
export interface MirroredSpec {
  readonly name: string;
  readonly key: readonly string[];
  readonly columns: Readonly<Record<string, SqlValue>>;
}

/** The tables that a query can be given for. */
export const MIRRORED: readonly MirroredSpec[] = [
  {
    name: "nodes",
    key: ["id"],
    columns: { actor_id: "", region: "", kind: "", latitude: null, longitude: null, address: "" },
  },
  { name: "apps", key: ["id"], columns: { name: "", node_id: "" } },
  { name: "hostnames", key: ["hostname"], columns: { app_id: "", node_id: "" } },
  { name: "machines", key: ["id"], columns: { app_id: "", node_id: "", region: "", state: "" } },
  {
    name: "services",
    key: ["machine_id", "name"],
    columns: { node_id: "", address: "", protocol: "", soft_limit: 0, hard_limit: 0 },
  },
  {
    name: "checks",
    key: ["machine_id", "service", "name"],
    columns: { node_id: "", status: "" },
  },
];

/** Statements, and what to say when they are carried out. */
export interface MirrorBatch {
  readonly statements: readonly Statement[];
  readonly done: () => void;
}

/** One table. */
export class MirroredTable {
  readonly spec: MirroredSpec;
  readonly #present: Map<string, MirroredRow>;
  #wanted = new Map<string, MirroredRow>();
  readonly #noted = new Set<string>();
  #columns: readonly string[] = [];

  /** `rows` are those that the table has. */
  constructor(spec: MirroredSpec, rows: Iterable<MirroredRow>) {
    this.spec = spec;
    this.#present = new Map([...rows].map((row) => [this.#keyOf(row), row]));
  }

  /** Whether something may be to be written. */
  get isBehind(): boolean {
    return this.#noted.size > 0;
  }

  /**
   * The query's rows, all of them. The answer says what is wrong with its columns; null = nothing. Then
   * nothing is taken.
   */
  whole(columns: readonly string[], rows: Iterable<readonly SqlValue[]>): string | null {
    const problem = this.#problemOf(columns);
    if (problem !== null) return problem;
    this.#columns = columns;
    this.#wanted = new Map();
    for (const cells of rows) {
      const row = this.#rowOf(cells);
      this.#wanted.set(this.#keyOf(row), row);
    }
    for (const key of this.#wanted.keys()) this.#noted.add(key);
    for (const key of this.#present.keys()) this.#noted.add(key);
    return null;
  }

  /** One row of it is another, after `whole`. */
  changed(before: readonly SqlValue[] | null, after: readonly SqlValue[] | null): void {
    if (before !== null) {
      const key = this.#keyOf(this.#rowOf(before));
      this.#wanted.delete(key);
      this.#noted.add(key);
    }
    if (after === null) return;
    const row = this.#rowOf(after);
    const key = this.#keyOf(row);
    this.#wanted.set(key, row);
    this.#noted.add(key);
  }

  /** What is to be written of so many keys. O(keys). */
  take(keysMax: number): MirrorBatch {
    const keys = [...this.#noted].slice(0, keysMax);
    const statements = keys.flatMap((key) => this.#statementFor(key) ?? []);
    const rows = keys.map((key) => [key, this.#wanted.get(key)] as const);
    const done = (): void => {
      for (const [key, row] of rows) {
        if (row === undefined) this.#present.delete(key);
        else this.#present.set(key, row);
        // What came meanwhile is still to be written.
        if (this.#wanted.get(key) === row) this.#noted.delete(key);
      }
    };
    return { statements, done };
  }

  #problemOf(columns: readonly string[]): string | null {
    const { name, key, columns: known } = this.spec;
    const missing = key.filter((column) => !columns.includes(column));
    if (missing.length > 0) return `the query for ${name} gives no column ${missing.join(", ")}`;
    const odd = columns.filter((column) => !key.includes(column) && !(column in known));
    if (odd.length === 0) return null;
    const all = [...key, ...Object.keys(known)].join(", ");
    return `the query for ${name} gives ${odd.join(", ")}; ${name} has ${all}`;
  }

  #rowOf(cells: readonly SqlValue[]): MirroredRow {
    const entries = this.#columns.map((column, at): [string, SqlValue] => [
      column,
      cells[at] ?? this.spec.columns[column] ?? null,
    ]);
    return Object.fromEntries(entries);
  }

  #keyOf(row: MirroredRow): string {
    return JSON.stringify(this.spec.key.map((column) => String(row[column] ?? "")));
  }

  #statementFor(key: string): Statement | null {
    const { name, key: keyColumns } = this.spec;
    const [present, wanted] = [this.#present.get(key), this.#wanted.get(key)];
    if (wanted === undefined) {
      if (present === undefined) return null;
      const where = keyColumns.map((column) => `${column} = ?`).join(" AND ");
      const params = keyColumns.map((column) => present[column] ?? null);
      return { sql: `DELETE FROM ${name} WHERE ${where}`, params };
    }
    const isSame =
      present !== undefined && this.#columns.every((one) => isEqual(present[one], wanted[one]));
    if (isSame) return null;
    const others = this.#columns.filter((column) => !keyColumns.includes(column));
    const set = others.map((column) => `${column} = excluded.${column}`).join(", ");
    return {
      sql:
        `INSERT INTO ${name} (${this.#columns.join(", ")})` +
        ` VALUES (${this.#columns.map(() => "?").join(", ")})` +
        ` ON CONFLICT (${keyColumns.join(", ")}) DO ${set === "" ? "NOTHING" : `UPDATE SET ${set}`}`,
      params: this.#columns.map((column) => wanted[column] ?? null),
    };
  }
}

/** Integers come as `bigint` from one side and as `number` from the other. */
function isEqual(one: SqlValue | undefined, other: SqlValue | undefined): boolean {
  const isNumber = (value: unknown): boolean =>
    typeof value === "bigint" || typeof value === "number";
  // oxlint-disable-next-line eqeqeq -- 1n == 1 is what is meant.
  return isNumber(one) && isNumber(other) ? one == other : one === other;
}
