/**
 * What breadcrumbs of the data plane mean: written on the hot path as a kind, a number and bytes,
 * and given their meaning here when the watchdog writes evidence.
 */
import type { LoopBeat } from "../watchdog/core/loop-beat.ts";
import type { BreadcrumbRecord } from "../watchdog/types.ts";
import type { RowChange, Watermark } from "../replica/types.ts";
import { isDown, keyText } from "../routing/core/deny-set.ts";
import type { ImageRow } from "../routing/types.ts";
import type { TurnBytes } from "./types.ts";

/** A row of the change stream is being applied to the routing table. */
export const ROW_BREADCRUMB = 1;
/** Candidates are being made of more than one row. */
export const BATCH_BREADCRUMB = 3;
/** A request's head is being handled. */
export const REQUEST_BREADCRUMB = 2;

/**
 * Notes the row that is about to be applied, and the one in use: after a stall it takes its place
 * again. An image that does not fit is cut, and then there is none.
 */
export function noteRow(beat: LoopBeat, change: RowChange, previous: ImageRow | null): void {
  const { actorId, table, key, row } = change;
  const app = String(row?.["app_id"] ?? previous?.["app_id"] ?? "");
  const parts = [actorId, table, keyText(key), app.replaceAll("\n", " ")];
  parts.push(isDown(change) ? "down" : "", JSON.stringify(previous));
  beat.breadcrumb(ROW_BREADCRUMB, change.version, parts.join("\n"));
}

/** Notes that candidates are about to be made of these rows; one row is named by itself. */
export function noteBatch(beat: LoopBeat, rows: readonly RowChange[], watermark: Watermark): void {
  const named = rows.slice(0, 4).map(({ actorId, version }) => `${version} of ${actorId}`);
  const text = [String(rows.length), ...new Set(named)].join("\n");
  if (rows.length > 1) beat.breadcrumb(BATCH_BREADCRUMB, watermark.dbVersion, text);
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
      const [actor, table, key, app, down, ...image] = text.split("\n");
      const version = record.value;
      const named = { what: "row", actor, version, table, key, ...(app ? { app } : {}) };
      const fate = down === "down" ? { isDown: true } : {};
      return { ...named, ...fate, ...decodeImage(image.join("\n")) };
    }
    case BATCH_BREADCRUMB: {
      const [rows, ...first] = text.split("\n");
      return { what: "batch", rows: Number(rows), until: record.value, first };
    }
    case REQUEST_BREADCRUMB:
      return { what: "request", line: text.split("\r\n", 1)[0] ?? "", headBytes: text.length };
    default:
      return { what: "unknown", kind: record.kind, value: record.value };
  }
}

function decodeImage(text: string): { readonly previous?: unknown } {
  try {
    return { previous: JSON.parse(text) as unknown };
  } catch {
    // Cut for want of room.
    return {};
  }
}
