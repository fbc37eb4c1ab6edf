/**
 * Changesets as bytes: the `ChangeV1` of broadcasts and sync answers (protocol reference, 3.2).
 *
 *   ChangeV1   actorId(16) changeset
 *   changeset  0 Empty     start(8) end(8) ts(option, may be absent at the end of the input)
 *              1 Full      version(8) changes seqs(8 8) lastSeq(8) ts(8)
 *              2 EmptySet  ranges ts(8)                        legacy, read only
 *              3 FullV2    actorId(16) version(8) tables lastSeq(8) seqs(8 8) ts(8)
 *   tables     count(4) { name count(4) { key count(4) { cid value colVersion(8) seq(8) cl(8) } } }
 *   value      0 null | 1 i64 | 2 f64 | 3 text | 4 blob
 *
 * Little-endian; tags and counts are u32, strings and blobs have a u32 length. All four kinds are
 * read into `Changeset`; only FullV2 and Empty are written. FullV2 groups changes by table and key:
 * on the way in they are put back in seq order, on the way out grouped in order of first appearance,
 * so a message that Corrosion wrote is written again byte for byte.
 *
 * A value, name or causal length that nothing here can hold is a flaw of its changeset, not of the
 * frame: it says whose version it is, so that this one alone is done without.
 *
 * Keys and blobs of a decoded changeset are views of the input. Whether a key, table or column means
 * anything is the store's business.
 */
import { assert } from "#base/errors.ts";
import { failure, success } from "#base/machine.ts";
import { ByteReader } from "#base/byte-reader.ts";
import { ByteWriter } from "#base/byte-writer.ts";
import type {
  ActorId,
  Changeset,
  ColumnChange,
  EmptyChangeset,
  FullChangeset,
  SqlValue,
  VersionRange,
} from "../../types.ts";
import { ACTOR_ID_BYTES, actorIdToBytes, readActorId } from "./actor-id.ts";
import { estimateChangesetBytes } from "./chunker.ts";
import type { Decoded, SyncAnswer } from "./types.ts";

/** Decodes a bare `ChangeV1`, as it comes out of decompression. */
export function decodeChange(bytes: Uint8Array): Decoded<readonly Changeset[]> {
  const reader = new ByteReader(bytes);
  const changesets = readChange(reader);
  const reason = reader.failure ?? reader.flaw;
  return reason === null ? success(changesets) : failure(reason);
}

/**
 * Decodes a bare `ChangeV1` that was asked for: one with a value that nothing here can hold says at
 * least of which version it is.
 */
export function decodeAnswer(bytes: Uint8Array): Decoded<SyncAnswer> {
  const reader = new ByteReader(bytes);
  const answer = readAnswer(reader);
  return reader.failure === null ? success(answer) : failure(reader.failure);
}

/** Reads a `ChangeV1` as `decodeAnswer` does; it counts only if the reader has not failed. */
export function readAnswer(reader: ByteReader): SyncAnswer {
  const changesets = readChange(reader);
  const [first] = changesets;
  if (reader.flaw === null || first?.kind !== "full") return { kind: "changesets", changesets };
  const { actorId, version, seqs, lastSeq } = first;
  return { kind: "unreadable", actorId, version, seqs, lastSeq, reason: reader.flaw };
}

/** Encodes a bare `ChangeV1`. */
export function encodeChange(changeset: Changeset): Uint8Array {
  const writer = new ByteWriter(estimateChangesetBytes(changeset));
  writeChange(writer, changeset);
  return writer.finish();
}

/** Reads a `ChangeV1`; what it returns counts only if the reader has neither failed nor a flaw. */
export function readChange(reader: ByteReader): readonly Changeset[] {
  const actorOffset = reader.offset;
  const actorId = readActorId(reader);
  const tag = reader.u32le();
  switch (tag) {
    case TAG_EMPTY:
      return [readEmpty(reader, actorId)];
    case TAG_FULL:
      return [readFull(reader, actorId, actorOffset)];
    case TAG_EMPTY_SET:
      return readEmptySet(reader, actorId);
    case TAG_FULL_V2:
      return [readFullV2(reader, actorId, actorOffset)];
    default:
      reader.fail("unknown-tag");
      return [];
  }
}

/** Writes a `ChangeV1`: FullV2 for a full changeset, Empty for an empty one. */
export function writeChange(writer: ByteWriter, changeset: Changeset): void {
  const actorBytes = actorIdToBytes(changeset.actorId);
  assert(actorBytes !== null, "an actor id is a UUID");
  writer.raw(actorBytes);
  if (changeset.kind === "empty") {
    writer.u32le(TAG_EMPTY);
    writer.u53le(changeset.versions.start);
    writer.u53le(changeset.versions.end);
    writeOptionalTs(writer, changeset.ts);
    return;
  }
  writer.u32le(TAG_FULL_V2);
  writer.raw(actorBytes);
  writer.u53le(changeset.version);
  writeTables(writer, changeset.changes);
  writer.u53le(changeset.lastSeq);
  writer.u53le(changeset.seqs.start);
  writer.u53le(changeset.seqs.end);
  writer.u64le(changeset.ts);
}

/** Reads an inclusive range of two u64; fails unless start <= end. */
export function readRange(reader: ByteReader): { readonly start: number; readonly end: number } {
  const start = reader.u53le();
  const end = reader.u53le();
  if (end < start) reader.fail("range-backwards");
  return { start, end };
}

/** Reads a range of versions, which count from 1. */
export function readVersionRange(reader: ByteReader): VersionRange {
  const range = readRange(reader);
  if (range.start === 0) reader.fail("version-zero");
  return range;
}

/** Reads an optional u64 that may be absent, in part too, at the end of the input. */
export function readOptionalTs(reader: ByteReader): bigint | null {
  if (reader.remaining === 0) return null;
  const tag = reader.u8();
  if (tag > 1) reader.fail("unknown-tag");
  return tag === 1 && reader.remaining >= 8 ? reader.u64le() : null;
}

/** Writes the option byte and, if there is one, the stamp. */
export function writeOptionalTs(writer: ByteWriter, ts: bigint | null): void {
  writer.u8(ts === null ? 0 : 1);
  if (ts !== null) writer.u64le(ts);
}

// ---------------------------------------------------------------- reading

function readEmpty(reader: ByteReader, actorId: ActorId): EmptyChangeset {
  const versions = readVersionRange(reader);
  return { kind: "empty", actorId, versions, ts: readOptionalTs(reader) };
}

function readEmptySet(reader: ByteReader, actorId: ActorId): EmptyChangeset[] {
  const ranges: VersionRange[] = [];
  const count = reader.countU32le(16);
  if (count > EMPTY_RANGES_MAX) reader.fail("count-too-large");
  for (let index = 0; index < count && reader.failure === null; index += 1) {
    ranges.push(readVersionRange(reader));
  }
  const ts = reader.u64le();
  return ranges.map((versions) => ({ kind: "empty", actorId, versions, ts }));
}

function readFull(reader: ByteReader, actorId: ActorId, actorOffset: number): FullChangeset {
  const version = reader.u53le();
  const changes: ColumnChange[] = [];
  const count = reader.countU32le(FULL_CHANGE_BYTES_MIN);
  for (let index = 0; index < count && reader.failure === null; index += 1) {
    const table = reader.textOrFlaw(reader.u32le());
    const pk = reader.view(reader.u32le());
    const cid = reader.textOrFlaw(reader.u32le());
    const val = readValue(reader);
    const colVersion = reader.u53leOrFlaw();
    if (reader.u53le() !== version) reader.fail("version-differs");
    const seq = reader.u53le();
    requireActor(reader, actorOffset);
    changes.push({ table, pk, cid, val, colVersion, seq, cl: reader.u53leOrFlaw() });
  }
  const seqs = readRange(reader);
  const lastSeq = reader.u53le();
  const ts = reader.u64le();
  return finishFull(reader, { kind: "full", actorId, version, changes, seqs, lastSeq, ts });
}

function readFullV2(reader: ByteReader, actorId: ActorId, actorOffset: number): FullChangeset {
  requireActor(reader, actorOffset);
  const version = reader.u53le();
  const changes: ColumnChange[] = [];
  const tableCount = reader.countU32le(8);
  for (let index = 0; index < tableCount && reader.failure === null; index += 1) {
    readTable(reader, changes);
  }
  const lastSeq = reader.u53le();
  const seqs = readRange(reader);
  const ts = reader.u64le();
  return finishFull(reader, { kind: "full", actorId, version, changes, seqs, lastSeq, ts });
}

function readTable(reader: ByteReader, changes: ColumnChange[]): void {
  const table = reader.textOrFlaw(reader.u32le());
  const keyCount = reader.countU32le(8);
  for (let index = 0; index < keyCount && reader.failure === null; index += 1) {
    const pk = reader.view(reader.u32le());
    const columnCount = reader.countU32le(COLUMN_BYTES_MIN);
    for (let column = 0; column < columnCount && reader.failure === null; column += 1) {
      const cid = reader.textOrFlaw(reader.u32le());
      const val = readValue(reader);
      const colVersion = reader.u53leOrFlaw();
      const seq = reader.u53le();
      changes.push({ table, pk, cid, val, colVersion, seq, cl: reader.u53leOrFlaw() });
    }
  }
}

/** Checks what both full forms share and puts the changes in seq order. */
function finishFull(reader: ByteReader, changeset: FullChangeset): FullChangeset {
  if (reader.failure !== null) return changeset;
  if (changeset.version === 0) reader.fail("version-zero");
  const { changes, seqs } = changeset;
  let previous = 0;
  let isOrdered = true;
  for (const { seq } of changes) {
    if (seq < seqs.start || seq > seqs.end) reader.fail("seq-outside-range");
    if (seq < previous) isOrdered = false;
    previous = seq;
  }
  if (isOrdered) return changeset;
  // Stable, so a sentinel stays before a column that shares its seq.
  return { ...changeset, changes: changes.toSorted((left, right) => left.seq - right.seq) };
}

/** Reads an actor id that must equal the origin's, which starts at `actorOffset`. */
function requireActor(reader: ByteReader, actorOffset: number): void {
  const at = reader.offset;
  reader.skip(ACTOR_ID_BYTES);
  if (reader.failure !== null) return;
  for (let index = 0; index < ACTOR_ID_BYTES; index += 1) {
    if (reader.bytes[at + index] !== reader.bytes[actorOffset + index]) {
      reader.fail("actor-differs");
      return;
    }
  }
}

function readValue(reader: ByteReader): SqlValue {
  switch (reader.u8()) {
    case 0:
      return null;
    case 1:
      return reader.i64le();
    case 2:
      return readFloat(reader);
    case 3:
      return reader.textOrFlaw(reader.u32le());
    case 4:
      return reader.view(reader.u32le());
    default:
      reader.fail("unknown-tag");
      return null;
  }
}

/** SQLite would store a NaN as NULL, which is another value than the sender's. */
function readFloat(reader: ByteReader): number {
  const value = reader.f64le();
  return Number.isNaN(value) ? reader.mar("value-not-a-number") : value;
}

// ---------------------------------------------------------------- writing

function writeTables(writer: ByteWriter, changes: readonly ColumnChange[]): void {
  const tableCountAt = writer.u32le(0);
  const groups = groupByTable(changes);
  writer.patchU32le(tableCountAt, groups.size);
  for (const [table, rows] of groups) {
    writeText(writer, table);
    writer.u32le(rows.length);
    for (const row of rows) {
      const pk = row[0]?.pk ?? NO_BYTES;
      writer.u32le(pk.length);
      writer.raw(pk);
      writer.u32le(row.length);
      for (const change of row) writeColumn(writer, change);
    }
  }
}

/**
 * Table to its rows, each row the changes of one key; all in order of first appearance. Changes of
 * one row nearly always stand together, so a key is looked up only when it differs from the last.
 */
function groupByTable(changes: readonly ColumnChange[]): Map<string, ColumnChange[][]> {
  const groups = new Map<string, ColumnChange[][]>();
  const rowByKey = new Map<string, ColumnChange[]>();
  let last: ColumnChange | null = null;
  let row: ColumnChange[] = [];
  for (const change of changes) {
    if (last === null || last.table !== change.table || !areBytesEqual(last.pk, change.pk)) {
      row = rowOf(change, groups, rowByKey);
    }
    row.push(change);
    last = change;
  }
  return groups;
}

function rowOf(
  change: ColumnChange,
  groups: Map<string, ColumnChange[][]>,
  rowByKey: Map<string, ColumnChange[]>,
): ColumnChange[] {
  let key = "";
  for (const byte of change.pk) key += String.fromCharCode(byte);
  key += change.table;
  const known = rowByKey.get(`${change.pk.length}:${key}`);
  if (known !== undefined) return known;
  const row: ColumnChange[] = [];
  rowByKey.set(`${change.pk.length}:${key}`, row);
  const rows = groups.get(change.table);
  if (rows === undefined) groups.set(change.table, [row]);
  else rows.push(row);
  return row;
}

function areBytesEqual(left: Uint8Array, right: Uint8Array): boolean {
  if (left === right) return true;
  if (left.length !== right.length) return false;
  for (let index = 0; index < left.length; index += 1) {
    if (left[index] !== right[index]) return false;
  }
  return true;
}

function writeColumn(writer: ByteWriter, change: ColumnChange): void {
  writeText(writer, change.cid);
  writeValue(writer, change.val);
  writer.u53le(change.colVersion);
  writer.u53le(change.seq);
  writer.u53le(change.cl);
}

function writeValue(writer: ByteWriter, value: SqlValue): void {
  if (value === null) {
    writer.u8(0);
  } else if (typeof value === "bigint") {
    writer.u8(1);
    writer.i64le(value);
  } else if (typeof value === "number") {
    writer.u8(2);
    writer.f64le(value);
  } else if (typeof value === "string") {
    writer.u8(3);
    writeText(writer, value);
  } else {
    writer.u8(4);
    writer.u32le(value.length);
    writer.raw(value);
  }
}

/** Writes text after its u32 byte count. */
export function writeText(writer: ByteWriter, text: string): void {
  const lengthAt = writer.u32le(0);
  writer.patchU32le(lengthAt, writer.text(text));
}

/** Reads text after its u32 byte count. */
export function readText(reader: ByteReader): string {
  return reader.text(reader.u32le());
}

const TAG_EMPTY = 0;
const TAG_FULL = 1;
const TAG_EMPTY_SET = 2;
/** Of the form that is written. */
export const TAG_FULL_V2 = 3;
/** Empty cid (4), null (1), colVersion, seq and cl (8 each). */
export const COLUMN_BYTES_MIN = 29;
/** A column with an empty table (4) and key (4), db_version (8) and site id (16). */
const FULL_CHANGE_BYTES_MIN = COLUMN_BYTES_MIN + 32;
/** Legacy and never sent by current peers; far above what such a message held. */
const EMPTY_RANGES_MAX = 65_536;
const NO_BYTES = new Uint8Array(0);
