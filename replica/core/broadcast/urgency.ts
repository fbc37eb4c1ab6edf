/**
 * Which changes may not wait: those that can take a machine out of service.
 *
 * An edge may learn late of a machine that came up; one that went down must not get requests. So the
 * delete of any row is urgent, and so is an update of the configured columns. The first write of such
 * a column is not (`colVersion` 1: the row is new, or back from a delete), or loading a thousand
 * machines would leave nothing for the urgent lane to overtake.
 */
import type { ColumnChange } from "../../types.ts";

/** Whether one of the changes is urgent, which makes its whole transaction urgent. */
export function hasUrgentChange(
  changes: readonly ColumnChange[],
  urgentColumns: Readonly<Record<string, readonly string[]>>,
): boolean {
  for (const { table, cid, cl, colVersion } of changes) {
    if (cid === SENTINEL) {
      if (cl % 2 === 0) return true;
    } else if (colVersion > 1 && Object.hasOwn(urgentColumns, table)) {
      if (urgentColumns[table]?.includes(cid) === true) return true;
    }
  }
  return false;
}

/** Column name of a row's create and delete; an even causal length is a delete. */
const SENTINEL = "-1";
