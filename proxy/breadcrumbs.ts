/**
 * What breadcrumbs of the data plane mean: written on the hot path as a kind, a number and bytes,
 * and given their meaning here when the watchdog writes evidence.
 */
import type { LoopBeat } from "../watchdog/core/loop-beat.ts";
import type { BreadcrumbRecord } from "../watchdog/types.ts";
import type { RowChange } from "../replica/types.ts";
import type { TurnBytes } from "./types.ts";

/** A row of the change stream is being applied to the routing table. */
export const ROW_BREADCRUMB = 1;
/** A request's head is being handled. */
export const REQUEST_BREADCRUMB = 2;

/** Notes the row that is about to be applied. */
export function noteRow(beat: LoopBeat, change: RowChange): void {
  const app = change.row?.["app_id"];
  const parts = [change.actorId, change.table, change.key.map(String).join(","), app ?? ""];
  beat.breadcrumb(ROW_BREADCRUMB, change.version, parts.join("\n"));
}

/** Notes the request whose turn begins: the first bytes of its head. */
export function noteRequest(beat: LoopBeat, turn: TurnBytes): void {
  beat.breadcrumb(REQUEST_BREADCRUMB, 0, turn.bytes.subarray(turn.start, turn.end));
}

/** See `BreadcrumbDecoder`. A change is named by actor, version, table and key. */
export function decodeBreadcrumb(record: BreadcrumbRecord): unknown {
  const text = new TextDecoder().decode(record.bytes);
  switch (record.kind) {
    case ROW_BREADCRUMB: {
      const [actor, table, key, app] = text.split("\n");
      return { what: "row", actor, version: record.value, table, key, ...(app ? { app } : {}) };
    }
    case REQUEST_BREADCRUMB:
      return { what: "request", line: text.split("\r\n", 1)[0] ?? "", headBytes: text.length };
    default:
      return { what: "unknown", kind: record.kind, value: record.value };
  }
}
