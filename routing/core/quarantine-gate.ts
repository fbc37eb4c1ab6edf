/**
 * What of the change stream reaches one routing table while changes or origins are held back.
 *
 * A held change is replaced by the row as it was; where that is not known, by the row in use; where
 * there is none, the row is absent. What takes something out of service is never replaced: it
 * counts through the deny-set, without the table's code. A newer version of a held row is let
 * through, and ends the hold when the table has taken it.
 *
 * A frozen table gets nothing at all (`countDown`): only what goes down counts, and ends when the
 * row that denies it says otherwise.
 */
import type { RowChange } from "../types.ts";
import { DenySet, isDown, rowId } from "./deny-set.ts";
import { NO_QUARANTINE, type Hold, type QuarantineState } from "./quarantine.ts";

/** What a gate works on. */
export interface QuarantineGateOptions {
  /** The table's own. */
  readonly denied: DenySet;
  /** The row in use. */
  readonly rowInUse: (change: RowChange) => RowChange["row"];
  /** Every row in use. */
  readonly rowsInUse: () => Iterable<Pick<RowChange, "table" | "key">>;
}

/** Decides row by row. */
export class QuarantineGate {
  readonly #options: QuarantineGateOptions;
  readonly #holdByRow = new Map<string, Hold>();
  readonly #origins = new Set<string>();
  /** Holds whose row has come in a newer version. */
  readonly #superseded: string[] = [];
  /** What is denied according to the rows since `began`; null between streams. */
  #fresh: DenySet | null = null;
  /** Rows that have come since `began`, while the table is frozen. */
  readonly #come = new Set<string>();
  #isFrozen = false;

  constructor(options: QuarantineGateOptions) {
    this.#options = options;
    this.set(NO_QUARANTINE);
  }

  /** Whether the table is to get nothing. */
  get isFrozen(): boolean {
    return this.#isFrozen;
  }

  /** Whether anything is held. */
  get isActive(): boolean {
    return this.#holdByRow.size > 0 || this.#origins.size > 0;
  }

  /**
   * Takes over what is held. What is held no more reaches the table when its rows come again: the
   * owner has the stream start over.
   */
  set(state: QuarantineState): void {
    this.#holdByRow.clear();
    this.#origins.clear();
    this.#isFrozen = state.frozen !== null;
    for (const hold of state.holds) {
      this.#holdByRow.set(`${hold.change.table} ${hold.change.key}`, hold);
      if (hold.isDown) this.#deny(nameToRow(hold));
    }
    for (const { actorId } of state.origins) this.#origins.add(actorId);
  }

  /** What the table is given instead; null = nothing. */
  admit(change: RowChange): RowChange | null {
    if (!this.isActive) return this.#pass(change);
    const id = rowId(change);
    const hold = this.#holdByRow.get(id);
    if (hold !== undefined && isHeld(hold, change)) {
      if (isDown(change)) return this.#deny(change);
      const { previous = this.#options.rowInUse(change) } = hold;
      return { ...change, row: previous };
    }
    if (this.#origins.has(change.actorId)) {
      if (isDown(change)) return this.#deny(change);
      this.#options.denied.allow(change);
      return { ...change, row: this.#options.rowInUse(change) };
    }
    if (hold !== undefined) {
      this.#holdByRow.delete(id);
      this.#superseded.push(hold.id);
    }
    return this.#pass(change);
  }

  /** The same for a row of the first table, which may not know whose it is. */
  admitFirst(change: RowChange, isFromFile: boolean): RowChange | null {
    const hold = this.#holdByRow.get(rowId(change));
    // The file holds rows in use only: the one before, unless it is the file's own that stalled.
    if (hold === undefined || (isFromFile && hold.change.version > 0)) return change;
    const { isDown: wasDown, previous = null } = hold;
    return wasDown || previous === null ? null : { ...change, row: previous };
  }

  /** Takes a change that the frozen table does not get; whether it takes something out of service. */
  countDown(change: RowChange): boolean {
    if (this.#fresh !== null) this.#come.add(rowId(change));
    if (!isDown(change)) {
      this.#pass(change);
      return false;
    }
    this.#deny(change);
    return true;
  }

  /** The stream starts over: whatever is down comes again, but what is deleted does not. */
  began(): void {
    this.#fresh = new DenySet();
    this.#come.clear();
    for (const hold of this.#holdByRow.values()) if (hold.isDown) this.#fresh.deny(nameToRow(hold));
  }

  /** All rows have come. */
  caughtUp(): void {
    if (this.#fresh === null) return;
    if (this.#isFrozen) this.#denyDeleted();
    this.#options.denied.replaceWith(this.#fresh);
    this.#fresh = null;
    this.#come.clear();
  }

  /** Takes out the holds whose newer version the table has taken. */
  drainSuperseded(): string[] {
    return this.#superseded.splice(0);
  }

  /** A frozen table has rows that are no more: a stream of all rows says nothing of them. */
  #denyDeleted(): void {
    for (const { table, key } of this.#options.rowsInUse()) {
      const isGone = isDown({ table, row: null }) && !this.#come.has(rowId({ table, key }));
      if (isGone) this.#fresh?.deny({ table, key });
    }
  }

  #pass(change: RowChange): RowChange {
    this.#options.denied.allow(change);
    this.#fresh?.allow(change);
    return change;
  }

  #deny(change: Pick<RowChange, "table" | "key">): null {
    this.#options.denied.deny(change);
    this.#fresh?.deny(change);
    return null;
  }
}

/** A hold whose version is not known holds every version until it is released or expires. */
function isHeld({ change: held }: Hold, change: RowChange): boolean {
  if (held.version === 0 || held.actorId === "") return true;
  return held.actorId === change.actorId && change.version <= held.version;
}

/** Keys that matter to the deny-set have no commas in their first parts: ids and names. */
function nameToRow({ change }: Hold): Pick<RowChange, "table" | "key"> {
  return { table: change.table, key: change.key.split(",") };
}
