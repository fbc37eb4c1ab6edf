/**
 * Cuts a version into changesets of bounded size (protocol reference, 3.5), by Corrosion's estimate:
 * per change the column name, a tag, the value and 24 bytes of numbers; a table name and a key only
 * when first seen in the chunk. A chunk ends with the change that reaches the limit, which is how
 * captured chunks of Corrosion end (they exceed it by that change). The seqs of the chunks tile the
 * asked range without a hole, also where rows have been overwritten since.
 */
import type {
  ActorId,
  Changeset,
  ColumnChange,
  FullChangeset,
  SeqRange,
  SqlValue,
} from "../../types.ts";

/** A version, or a seq range of it, to be cut. */
export interface ChunkRequest {
  readonly actorId: ActorId;
  readonly version: number;
  /** Ascending by seq, all inside `seqs`. */
  readonly changes: readonly ColumnChange[];
  /** What the chunks must tile; absent = 0..=`lastSeq`. */
  readonly seqs?: SeqRange;
  readonly lastSeq: number;
  readonly ts: bigint;
  /** Estimated bytes at which a chunk ends; default 8 KiB. */
  readonly chunkBytesMax?: number;
}

/**
 * Cuts into chunks in seq order; at least one, with no rows if there are none. Changes that share a
 * seq stay together.
 */
export function chunkVersion(request: ChunkRequest): FullChangeset[] {
  const { changes, lastSeq, chunkBytesMax = CHUNK_BYTES_DEFAULT } = request;
  const seqs = request.seqs ?? { start: 0, end: lastSeq };
  const chunks: FullChangeset[] = [];
  const base = { kind: "full", actorId: request.actorId, version: request.version } as const;
  let chunkStart = seqs.start;
  let first = 0;
  let chunkBytes = 0;
  let previous: ColumnChange | null = null;
  for (const [index, change] of changes.entries()) {
    if (previous !== null && chunkBytes >= chunkBytesMax && change.seq > previous.seq) {
      const chunkSeqs = { start: chunkStart, end: previous.seq };
      const chunkChanges = changes.slice(first, index);
      chunks.push({ ...base, changes: chunkChanges, seqs: chunkSeqs, lastSeq, ts: request.ts });
      chunkStart = previous.seq + 1;
      first = index;
      chunkBytes = 0;
      previous = null;
    }
    chunkBytes += estimateChangeBytes(change, previous);
    previous = change;
  }
  chunks.push({
    ...base,
    changes: changes.slice(first),
    seqs: { start: chunkStart, end: seqs.end },
    lastSeq,
    ts: request.ts,
  });
  return chunks;
}

/**
 * Estimated bytes of a change on the wire after `previous` in the same chunk (`null` = it is the
 * first). Only the previous change is compared, so a key that comes back later is counted again.
 */
export function estimateChangeBytes(change: ColumnChange, previous: ColumnChange | null): number {
  const column = change.cid.length + 1 + estimateValueBytes(change.val) + 24;
  if (previous === null || previous.table !== change.table) {
    return column + change.table.length + change.pk.length;
  }
  return isSameKey(previous.pk, change.pk) ? column : column + change.pk.length;
}

/** Room that a changeset's frame is likely to take, counts and header included; for buffers only. */
export function estimateChangesetBytes(changeset: Changeset): number {
  if (changeset.kind === "empty") return HEADER_BYTES;
  let bytes = HEADER_BYTES;
  let previous: ColumnChange | null = null;
  for (const change of changeset.changes) {
    bytes += estimateChangeBytes(change, previous) + COUNT_BYTES;
    previous = change;
  }
  return bytes;
}

function estimateValueBytes(value: SqlValue): number {
  if (value === null) return 0;
  if (typeof value === "string" || value instanceof Uint8Array) return 4 + value.length;
  return 8;
}

function isSameKey(left: Uint8Array, right: Uint8Array): boolean {
  if (left === right) return true;
  if (left.length !== right.length) return false;
  return left.every((byte, index) => byte === right[index]);
}

/** Corrosion's chunk size. */
export const CHUNK_BYTES_DEFAULT = 8192;
/** The frame around a FullV2 with no tables is 114 bytes. */
const HEADER_BYTES = 128;
/** Length of a column name, and its share of the lengths and counts of tables and keys. */
const COUNT_BYTES = 8;
