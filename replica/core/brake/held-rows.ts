/**
 * Versions of one origin that wait to be broadcast, and which of their cells are still the newest.
 *
 * A cell is one column of one row. A later version that writes it, or that deletes or recreates the
 * row, takes it over: from then on the earlier one has one cell less, as in the origin's database. A
 * version without cells is dead: what is left of it is that it is known to be empty.
 *
 * That is told when what took its cells has left and is on a disk for good, not before. An origin that
 * loses its power loses its last versions too: others would hold the earlier one for empty, while the
 * origin has it again.
 */
import type { ColumnChange, FullChangeset, VersionRange } from "../../types.ts";

/** One version, whole: all of its chunks. */
export interface HeldVersion<Carried> {
  readonly version: number;
  readonly changesets: readonly FullChangeset[];
  /** The caller's own. */
  readonly carried: Carried;
  readonly bornMs: number;
  /** Row to column to the causal length under which the cell was written. */
  readonly cells: Map<string, Map<string, number>>;
  /** The latest version that took over a cell; 0 = none did. */
  takenBy: number;
}

/** What is left of a version without cells. */
interface DeadVersion {
  /** The latest one that took over a cell of it. */
  readonly takenBy: number;
  readonly bornMs: number;
}

/** The versions that wait, oldest first. */
export class HeldRows<Carried> {
  readonly #live = new Map<number, HeldVersion<Carried>>();
  readonly #dead = new Map<number, DeadVersion>();
  /** Row to the versions that hold cells of it. */
  readonly #holders = new Map<string, Set<HeldVersion<Carried>>>();
  #rows = 0;

  /** Versions that wait with something in them. */
  get size(): number {
    return this.#live.size;
  }

  /** Their rows; one row in two versions counts twice. */
  get rows(): number {
    return this.#rows;
  }

  /** Dead versions that have not been told of. */
  get dead(): number {
    return this.#dead.size;
  }

  /** Whether this version waits, or died here and has not been told of. */
  has(version: number): boolean {
    return this.#live.has(version) || this.#dead.has(version);
  }

  /** The one that has waited longest. */
  first(): HeldVersion<Carried> | undefined {
    for (const held of this.#live.values()) return held;
    return undefined;
  }

  /** Holds a version. Call `supersede` with its changes first. */
  add(of: Pick<HeldVersion<Carried>, "changesets" | "carried" | "bornMs">): void {
    const version = of.changesets[0]?.version ?? 0;
    const held = { ...of, version, cells: cellsOf(of.changesets), takenBy: 0 };
    this.#live.set(version, held);
    this.#rows += held.cells.size;
    for (const row of held.cells.keys()) {
      const holders = this.#holders.get(row);
      if (holders === undefined) this.#holders.set(row, new Set([held]));
      else holders.add(held);
    }
  }

  /** Takes over the cells that newer changes overwrite. Returns how many rows were let go of. */
  supersede(changesets: readonly FullChangeset[]): number {
    if (this.#live.size === 0) return 0;
    const before = this.#rows;
    for (const { changes, version } of changesets) {
      for (const change of changes) this.#overwrite(change, version);
    }
    return before - this.#rows;
  }

  /** The versions that hold a row which these changes touch, oldest first. */
  touchedBy(changesets: readonly FullChangeset[]): HeldVersion<Carried>[] {
    if (this.#live.size === 0) return [];
    const touched = new Set<HeldVersion<Carried>>();
    for (const { changes } of changesets) {
      for (const change of changes) {
        for (const held of this.#holders.get(rowKey(change)) ?? []) touched.add(held);
      }
    }
    return [...touched].sort((one, other) => one.version - other.version);
  }

  /** Lets a version go. */
  remove(held: HeldVersion<Carried>): void {
    if (!this.#live.delete(held.version)) return;
    this.#rows -= held.cells.size;
    for (const row of held.cells.keys()) this.#unhold(row, held);
  }

  /**
   * Takes out the dead versions of which nothing waits any more, as ranges: what took their cells, or
   * took them from those, has left and is kept. `isKept` says that of a version; `unkept` is the
   * latest that it did not say it of, 0 = it did of all.
   */
  takeDead(isKept: (version: number) => boolean): { ranges: VersionRange[]; unkept: number } {
    let open = this.first()?.version ?? Number.MAX_SAFE_INTEGER;
    let unkept = 0;
    const ranges: { start: number; end: number }[] = [];
    for (const [version, { takenBy }] of [...this.#dead].sort(([one], [other]) => other - one)) {
      const isOpen = takenBy >= open;
      if (isOpen || !isKept(takenBy)) {
        if (!isOpen) unkept = Math.max(unkept, takenBy);
        open = Math.min(open, version);
        continue;
      }
      this.#dead.delete(version);
      const last = ranges.at(-1);
      if (last?.start === version + 1) last.start = version;
      else ranges.push({ start: version, end: version });
    }
    return { ranges: ranges.toReversed(), unkept };
  }

  /** Forgets the dead versions that were taken in before a time: sync tells of them. */
  forgetDead(beforeMs: number): void {
    for (const [version, { bornMs }] of this.#dead) {
      if (bornMs < beforeMs) this.#dead.delete(version);
    }
  }

  #overwrite(change: ColumnChange, by: number): void {
    const row = rowKey(change);
    for (const held of this.#holders.get(row) ?? []) {
      const cells = held.cells.get(row);
      if (cells === undefined) continue;
      const before = cells.size;
      for (const [cid, cl] of cells) {
        if (change.cl > cl || (change.cl === cl && change.cid === cid)) cells.delete(cid);
      }
      if (cells.size < before) held.takenBy = Math.max(held.takenBy, by);
      if (cells.size > 0) continue;
      held.cells.delete(row);
      this.#rows -= 1;
      this.#unhold(row, held);
      if (held.cells.size === 0) this.#bury(held);
    }
  }

  #bury(held: HeldVersion<Carried>): void {
    this.#live.delete(held.version);
    const { takenBy, bornMs } = held;
    this.#dead.set(held.version, { takenBy, bornMs });
  }

  #unhold(row: string, held: HeldVersion<Carried>): void {
    const holders = this.#holders.get(row);
    holders?.delete(held);
    if (holders?.size === 0) this.#holders.delete(row);
  }
}

/** Rows that changes touch; those of one row stand together. */
export function countRows(changesets: readonly FullChangeset[]): number {
  let rows = 0;
  let last: ColumnChange | null = null;
  for (const { changes } of changesets) {
    for (const change of changes) {
      if (last === null || !isSameRow(last, change)) rows += 1;
      last = change;
    }
  }
  return rows;
}

function cellsOf(changesets: readonly FullChangeset[]): Map<string, Map<string, number>> {
  const cells = new Map<string, Map<string, number>>();
  for (const { changes } of changesets) {
    for (const change of changes) {
      const row = rowKey(change);
      const ofRow = cells.get(row);
      if (ofRow === undefined) cells.set(row, new Map([[change.cid, change.cl]]));
      else ofRow.set(change.cid, change.cl);
    }
  }
  return cells;
}

function isSameRow(one: ColumnChange, other: ColumnChange): boolean {
  if (one.table !== other.table || one.pk.length !== other.pk.length) return false;
  return one.pk.every((byte, at) => byte === other.pk[at]);
}

function rowKey({ table, pk }: ColumnChange): string {
  let key = `${table} `;
  for (const byte of pk) key += String.fromCharCode(byte);
  return key;
}
