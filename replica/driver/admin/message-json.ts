/**
 * Messages as JSON for people: the field names of the captured vectors (`tests/vectors/`), 64-bit
 * stamps and INTEGER values as text, keys and blobs as hexadecimal. Compressed changes are shown
 * decompressed. Nothing here is on the way of a real message.
 */
import { success, type Result } from "#base/machine.ts";
import type { Actor } from "../../core/swim/actor.ts";
import { decodePacket } from "../../core/swim/codec.ts";
import type { SwimMessage, SwimPacket } from "../../core/swim/packet.ts";
import { decodeChange } from "../../core/wire/changeset-codec.ts";
import {
  decodeSyncMessage,
  decodeSyncStart,
  encodeSyncStart,
} from "../../core/wire/sync-messages.ts";
import type {
  BroadcastBody,
  ChangeDigest,
  ChangeId,
  PlumtreeMessage,
  SyncMessage,
  SyncStart,
  SyncState,
} from "../../core/wire/types.ts";
import { decodeUniPayload } from "../../core/wire/uni-payload.ts";
import type { Changeset, ColumnChange, SqlValue, SyncNeed, VersionRange } from "../../types.ts";
import { decompress } from "../compression/zstd.ts";

/** Which decoder: a QUIC datagram, a frame of a unidirectional stream, one of a sync session. */
export type MessageKind = "swim" | "broadcast" | "sync";

/** Decodes one message (a frame without its length); the error is why it is none. */
export function messageToJson(kind: MessageKind, bytes: Uint8Array): Result<unknown, string> {
  if (kind === "swim") {
    const packet = decodePacket(bytes);
    if (packet.ok) return success(packetView(packet.value));
    return { ok: false, error: `${packet.error.kind}: ${packet.error.reason}` };
  }
  if (kind === "sync") return syncView(bytes);
  const payload = decodeUniPayload(bytes);
  if (!payload.ok) return payload;
  const { clusterId } = payload.value;
  return success(
    payload.value.kind === "plumtree"
      ? { plumtree: plumtreeView(payload.value.message), clusterId }
      : { broadcast: bodyView(payload.value), clusterId },
  );
}

function packetView(packet: SwimPacket): unknown {
  const { source, sourceIncarnation, target, message, members } = packet;
  return {
    source: actorView(source),
    sourceIncarnation,
    target: actorView(target),
    ...swimMessageView(message),
    ...(members === null
      ? {}
      : {
          members: members.map(({ actor, incarnation, state }) => ({
            actor: actorView(actor),
            incarnation,
            state: capitalised(state),
          })),
        }),
  };
}

function swimMessageView(message: SwimMessage): object {
  return {
    message: capitalised(message.kind),
    ...("subject" in message ? { about: actorView(message.subject) } : {}),
    ...("probe" in message ? { probe: message.probe } : {}),
  };
}

function actorView({ id, addr, ts, clusterId, memberId }: Actor): unknown {
  return { id, addr, ts: String(ts), clusterId, memberId };
}

function bodyView(body: BroadcastBody): unknown {
  if (body.kind === "change") return changeView(body.changesets);
  return compressedView("CompressedChange", body.compressed);
}

function compressedView(kind: string, compressed: Uint8Array): unknown {
  const view = { kind, compressedBytes: compressed.length };
  const bytes = decompress(compressed);
  if (!bytes.ok) return { ...view, error: bytes.error };
  const change = decodeChange(bytes.value);
  return change.ok
    ? { ...view, change: changeView(change.value) }
    : { ...view, error: change.error };
}

/** One changeset; the ranges of the older EmptySet come as several. */
function changeView(changesets: readonly Changeset[]): unknown {
  const [first] = changesets;
  const views = changesets.map(changesetView);
  return {
    kind: "Change",
    actorId: first?.actorId ?? null,
    changeset: views.length === 1 ? views[0] : views,
  };
}

function changesetView(changeset: Changeset): unknown {
  if (changeset.kind === "empty") {
    const { versions, ts } = changeset;
    return { kind: "Empty", versions: pair(versions), ts: ts === null ? null : String(ts) };
  }
  const { actorId, version, changes, lastSeq, seqs, ts } = changeset;
  return {
    kind: "FullV2",
    actorId,
    version,
    tables: tablesView(changes),
    lastSeq,
    seqs: pair(seqs),
    ts: String(ts),
  };
}

interface RowView {
  readonly pk: string;
  readonly columns: unknown[];
}

/** Grouped by table and row in order of first appearance, as they are on the wire. */
function tablesView(changes: readonly ColumnChange[]): unknown {
  const tables = new Map<string, Map<string, RowView>>();
  for (const { table, pk, cid, val, colVersion, seq, cl } of changes) {
    const rows = tables.get(table) ?? new Map<string, RowView>();
    tables.set(table, rows);
    const key = hex(pk);
    const row = rows.get(key) ?? { pk: key, columns: [] };
    rows.set(key, row);
    row.columns.push({ cid, val: valueView(val), colVersion, seq, cl });
  }
  return [...tables].map(([table, rows]) => ({ table, rows: [...rows.values()] }));
}

function valueView(value: SqlValue): unknown {
  if (value === null) return null;
  if (typeof value === "bigint") return { int: String(value) };
  if (typeof value === "number") return { real: value };
  return typeof value === "string" ? { text: value } : { blob: hex(value) };
}

function plumtreeView(message: PlumtreeMessage): unknown {
  const { sender } = message;
  switch (message.kind) {
    case "gossip": {
      const { round, id, body } = message;
      return { kind: "Gossip", round, sender, id: idView(id), broadcast: bodyView(body) };
    }
    case "iHave":
      return { kind: "IHave", sender, digests: message.digests.map(digestView) };
    case "graft": {
      const { wantsPayloads, requests } = message;
      return { kind: "Graft", sender, wantsPayloads, requests: requests.map(digestView) };
    }
    case "prune": {
      const { triggeredBy } = message;
      return { kind: "Prune", sender, triggeredBy: triggeredBy && idView(triggeredBy) };
    }
  }
}

function digestView({ id, round }: ChangeDigest): unknown {
  return { id: idView(id), round };
}

function idView(id: ChangeId): unknown {
  const { actorId } = id;
  if (id.kind === "empty") return { actorId, kind: "Empty", versions: pair(id.versions) };
  const { version, seqs, lastSeq } = id;
  return { actorId, kind: "Full", version, seqs: pair(seqs), lastSeq };
}

/**
 * A session's first frame is of another type than the rest, and nothing in it says so: bytes that
 * are exactly a start are one, what is no message may be a start that ends early.
 */
function syncView(bytes: Uint8Array): Result<unknown, string> {
  const start = decodeSyncStart(bytes);
  if (start.ok && hex(encodeSyncStart(start.value)) === hex(bytes)) {
    return success(startView(start.value));
  }
  const message = decodeSyncMessage(bytes);
  if (message.ok) return success(syncMessageView(message.value));
  return start.ok ? success(startView(start.value)) : message;
}

function startView(start: SyncStart): unknown {
  const { actorId, traceparent, tracestate, clusterId, supportsCompression } = start;
  return { SyncStart: { actorId, traceparent, tracestate }, clusterId, supportsCompression };
}

function syncMessageView(message: SyncMessage): unknown {
  switch (message.kind) {
    case "state":
      return { State: stateView(message.state) };
    case "clock":
      return { Clock: String(message.ts) };
    case "rejection":
      return { Rejection: capitalised(message.reason) };
    case "request":
      return {
        Request: message.requests.map(({ actorId, needs }) => [actorId, needs.map(needView)]),
      };
    case "changesets": {
      const { kind: _kind, ...change } = changeView(message.changesets) as { kind: string };
      return { Changeset: change };
    }
    case "unreadable": {
      const { actorId, version, seqs, lastSeq, reason } = message;
      return { Changeset: { actorId, version, seqs: pair(seqs), lastSeq, unreadable: reason } };
    }
    case "compressedChangeset":
      return { CompressedChangeset: compressedView("CompressedChangeset", message.compressed) };
  }
}

function stateView({ actorId, heads, need, partialNeed, lastClearedTs }: SyncState): unknown {
  return {
    actorId,
    heads: Object.fromEntries(heads),
    need: Object.fromEntries([...need].map(([id, ranges]) => [id, ranges.map(pair)])),
    partialNeed: Object.fromEntries(
      [...partialNeed].map(([id, byVersion]) => [
        id,
        Object.fromEntries([...byVersion].map(([version, seqs]) => [version, seqs.map(pair)])),
      ]),
    ),
    lastClearedTs: lastClearedTs === null ? null : String(lastClearedTs),
  };
}

function needView(need: SyncNeed): unknown {
  if (need.kind === "full") return { kind: "Full", versions: pair(need.versions) };
  return { kind: "Partial", version: need.version, seqs: need.seqs.map(pair) };
}

function pair({ start, end }: VersionRange): [number, number] {
  return [start, end];
}

function capitalised(name: string): string {
  return name.charAt(0).toUpperCase() + name.slice(1);
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("hex");
}
