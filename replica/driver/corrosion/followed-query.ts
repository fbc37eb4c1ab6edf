/**
 * One query of a Corrosion API as its client sees it: the rows of the first answer, then the changes of a
 * subscription, each by the id of a row.
 *
 * Changes are numbered without holes. One that is not the next says that something was missed (or that
 * the other side has another history): the query must be asked anew, whole.
 */
import type { SqlValue } from "../../types.ts";

/** A line of an answer, parsed; integers are `bigint`. */
export type QueryLine =
  | { readonly columns: readonly string[] }
  | { readonly row: readonly [rowId: bigint, cells: readonly SqlValue[]] }
  | { readonly eoq: { readonly change_id?: bigint | null } }
  | {
      readonly change: readonly [
        kind: "insert" | "update" | "delete",
        rowId: bigint,
        cells: readonly SqlValue[],
        changeId: bigint,
      ];
    }
  | { readonly error: string };

/** What a line came to. */
export type Taken =
  | { readonly kind: "nothing" }
  /** All rows are there. */
  | { readonly kind: "whole" }
  /** A row was another one before; null = was or is not there. */
  | {
      readonly kind: "changed";
      readonly before: readonly SqlValue[] | null;
      readonly after: readonly SqlValue[] | null;
    }
  /** The answer cannot be gone on with. */
  | { readonly kind: "broken"; readonly reason: string };

/** Rows of a query. */
export class FollowedQuery {
  #columns: readonly string[] = [];
  #rows = new Map<bigint, readonly SqlValue[]>();
  #changeId: bigint | null = null;

  /** Names of the columns; empty before the first answer. */
  get columns(): readonly string[] {
    return this.#columns;
  }

  /** The rows, in no order. */
  get rows(): Iterable<readonly SqlValue[]> {
    return this.#rows.values();
  }

  /** The change up to which the rows are; null = not whole, or not subscribed to. */
  get changeId(): bigint | null {
    return this.#changeId;
  }

  /** Takes one line of an answer. */
  take(line: QueryLine): Taken {
    if ("columns" in line) {
      this.#columns = line.columns;
      this.#rows = new Map();
      this.#changeId = null;
      return NOTHING;
    }
    if ("row" in line) {
      this.#rows.set(line.row[0], line.row[1]);
      return NOTHING;
    }
    if ("eoq" in line) {
      this.#changeId = line.eoq.change_id ?? null;
      return { kind: "whole" };
    }
    if ("change" in line) return this.#onChange(line.change);
    const reason = "error" in line ? line.error : "a line of no known kind";
    return { kind: "broken", reason };
  }

  #onChange([kind, rowId, cells, changeId]: Extract<
    QueryLine,
    { change: unknown }
  >["change"]): Taken {
    const expected = (this.#changeId ?? 0n) + 1n;
    if (changeId !== expected) {
      return { kind: "broken", reason: `change ${changeId} in place of ${expected}` };
    }
    this.#changeId = changeId;
    const before = this.#rows.get(rowId) ?? null;
    const after = kind === "delete" ? null : cells;
    if (after === null) this.#rows.delete(rowId);
    else this.#rows.set(rowId, after);
    return { kind: "changed", before, after };
  }
}

const NOTHING: Taken = { kind: "nothing" };
