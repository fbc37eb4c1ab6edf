/**
 * The frames of sync sessions (protocol reference, 4.1), without their length prefix.
 *
 *   BiPayload    0 V1 { 0 SyncStart actorId(16) traceparent(option) tracestate(option) }
 *                clusterId(2) supportsCompression(1)        all after actorId may be absent at the end
 *   SyncMessage  0 V1 { 0 State | 1 Changeset | 2 Clock(8) | 3 Rejection(4) | 4 Request
 *                     | 5 CompressedChangeset }
 *   State        actorId(16) heads: map actor -> version(8); need: map actor -> ranges;
 *                partialNeed: map actor -> map version(8) -> ranges; lastClearedTs(option, may be absent)
 *   Request      count(4) { actorId(16) count(4) { 0 Full range | 1 Partial version(8) ranges
 *                                                | 2 Empty ts(option) } }
 */
import { failure, success } from "#base/machine.ts";
import { ByteReader } from "#base/byte-reader.ts";
import { ByteWriter } from "#base/byte-writer.ts";
import type { ActorId, Changeset, SyncNeed } from "../../types.ts";
import { readActorId } from "./actor-id.ts";
import {
  readAnswer,
  readOptionalTs,
  readRange,
  readText,
  readVersionRange,
  writeChange,
  writeOptionalTs,
  writeText,
} from "./changeset-codec.ts";
import { EncodedChangeset, keepAnswer, wireBytes } from "./encoded-changeset.ts";
import { readBool, writeActorId } from "./plumtree-codec.ts";
import type {
  Decoded,
  SyncControl,
  SyncMessage,
  SyncRequest,
  SyncStart,
  SyncState,
} from "./types.ts";
import { readClusterId } from "./uni-payload.ts";

/** Decodes the first frame of a bidirectional stream. */
export function decodeSyncStart(bytes: Uint8Array): Decoded<SyncStart> {
  const reader = new ByteReader(bytes);
  if (reader.u32le() !== 0) reader.fail("unknown-tag");
  if (reader.u32le() !== 0) reader.fail("unknown-tag");
  const actorId = readActorId(reader);
  const traceparent = readOptionalText(reader);
  const tracestate = readOptionalText(reader);
  const clusterId = readClusterId(reader);
  const supportsCompression = reader.remaining > 0 && readBool(reader);
  if (reader.failure !== null) return failure(reader.failure);
  return success({ actorId, traceparent, tracestate, clusterId, supportsCompression });
}

/** Encodes the first frame of a bidirectional stream. */
export function encodeSyncStart(start: SyncStart): Uint8Array {
  const writer = new ByteWriter(64);
  writer.u32le(0);
  writer.u32le(0);
  writeActorId(writer, start.actorId);
  writeOptionalText(writer, start.traceparent);
  writeOptionalText(writer, start.tracestate);
  writer.u16le(start.clusterId);
  writer.u8(start.supportsCompression ? 1 : 0);
  return writer.finish();
}

/**
 * Decodes any later frame of a session. Keys and blobs of the answer are views of `bytes`. With
 * `keepsAnswers` an answer is kept in its bytes; see `keepAnswer`.
 */
export function decodeSyncMessage(bytes: Uint8Array, keepsAnswers = false): Decoded<SyncMessage> {
  const reader = new ByteReader(bytes);
  if (reader.u32le() !== 0) reader.fail("unknown-tag");
  const tag = reader.u32le();
  if (keepsAnswers && tag === TAG_CHANGESET && reader.failure === null) {
    return keepAnswer(bytes.subarray(reader.offset));
  }
  const message = readMessage(reader, tag);
  return reader.failure === null ? success(message) : failure(reader.failure);
}

/** Encodes a frame that is not a changeset. */
export function encodeSyncMessage(message: SyncControl): Uint8Array {
  const writer = new ByteWriter(256);
  writer.u32le(0);
  switch (message.kind) {
    case "state":
      writer.u32le(TAG_STATE);
      writeState(writer, message.state);
      break;
    case "clock":
      writer.u32le(TAG_CLOCK);
      writer.u64le(message.ts);
      break;
    case "rejection":
      writer.u32le(TAG_REJECTION);
      writer.u32le(message.reason === "maxConcurrencyReached" ? 0 : 1);
      break;
    case "request":
      writer.u32le(TAG_REQUEST);
      writeRequests(writer, message.requests);
  }
  return writer.finish();
}

/** Encodes a changeset as the answer to a request. */
export function encodeSyncChangeset(changeset: Changeset): Uint8Array {
  const writer = new ByteWriter(wireBytes(changeset));
  writer.u32le(0);
  writer.u32le(TAG_CHANGESET);
  if (changeset instanceof EncodedChangeset) writer.raw(changeset.bytes);
  else writeChange(writer, changeset);
  return writer.finish();
}

/** Encodes an answer frame around `encodeChange`'s bytes compressed. */
export function encodeSyncCompressed(compressed: Uint8Array): Uint8Array {
  const writer = new ByteWriter(compressed.length + 16);
  writer.u32le(0);
  writer.u32le(TAG_COMPRESSED_CHANGESET);
  writer.u32le(compressed.length);
  writer.raw(compressed);
  return writer.finish();
}

function readMessage(reader: ByteReader, tag: number): SyncMessage {
  switch (tag) {
    case TAG_STATE:
      return { kind: "state", state: readState(reader) };
    case TAG_CHANGESET:
      return readAnswer(reader);
    case TAG_CLOCK:
      return { kind: "clock", ts: reader.u64le() };
    case TAG_REJECTION: {
      const reason = reader.u32le();
      if (reason > 1) reader.fail("unknown-tag");
      return { kind: "rejection", reason: REJECTIONS[reason] ?? "maxConcurrencyReached" };
    }
    case TAG_REQUEST:
      return { kind: "request", requests: readRequests(reader) };
    case TAG_COMPRESSED_CHANGESET:
      return { kind: "compressedChangeset", compressed: reader.view(reader.u32le()) };
    default:
      reader.fail("unknown-tag");
      return { kind: "clock", ts: 0n };
  }
}

// ---------------------------------------------------------------- state

function readState(reader: ByteReader): SyncState {
  const actorId = readActorId(reader);
  const heads = readMap(reader, 8, (entry) => entry.u53le());
  const need = readMap(reader, 4, (entry) => readList(entry, 16, readVersionRange));
  const partialNeed = readMap(reader, 4, readPartials);
  return { actorId, heads, need, partialNeed, lastClearedTs: readOptionalTs(reader) };
}

function writeState(writer: ByteWriter, state: SyncState): void {
  writeActorId(writer, state.actorId);
  writer.u32le(state.heads.size);
  for (const [actorId, head] of state.heads) {
    writeActorId(writer, actorId);
    writer.u53le(head);
  }
  writer.u32le(state.need.size);
  for (const [actorId, ranges] of state.need) {
    writeActorId(writer, actorId);
    writeRanges(writer, ranges);
  }
  writer.u32le(state.partialNeed.size);
  for (const [actorId, partials] of state.partialNeed) {
    writeActorId(writer, actorId);
    writer.u32le(partials.size);
    for (const [version, seqs] of partials) {
      writer.u53le(version);
      writeRanges(writer, seqs);
    }
  }
  writeOptionalTs(writer, state.lastClearedTs);
}

/** Version to missing seqs. */
function readPartials(reader: ByteReader): Map<number, readonly Range[]> {
  const partials = new Map<number, readonly Range[]>();
  const count = reader.countU32le(12);
  for (let index = 0; index < count && reader.failure === null; index += 1) {
    const version = reader.u53le();
    if (version === 0) reader.fail("version-zero");
    partials.set(version, readList(reader, 16, readRange));
  }
  return partials;
}

/** Reads a map keyed by actor; `valueBytesMin` is the least size of a value. */
function readMap<Value>(
  reader: ByteReader,
  valueBytesMin: number,
  readValue: (reader: ByteReader) => Value,
): Map<ActorId, Value> {
  const values = new Map<ActorId, Value>();
  const count = reader.countU32le(16 + valueBytesMin);
  for (let index = 0; index < count && reader.failure === null; index += 1) {
    const actorId = readActorId(reader);
    values.set(actorId, readValue(reader));
  }
  return values;
}

function readList<Item>(
  reader: ByteReader,
  itemBytesMin: number,
  readItem: (reader: ByteReader) => Item,
): Item[] {
  const items: Item[] = [];
  const count = reader.countU32le(itemBytesMin);
  for (let index = 0; index < count && reader.failure === null; index += 1) {
    items.push(readItem(reader));
  }
  return items;
}

function writeRanges(writer: ByteWriter, ranges: readonly Range[]): void {
  writer.u32le(ranges.length);
  for (const { start, end } of ranges) {
    writer.u53le(start);
    writer.u53le(end);
  }
}

// ---------------------------------------------------------------- requests

function readRequests(reader: ByteReader): SyncRequest[] {
  return readList(reader, 20, (entry) => {
    const actorId = readActorId(entry);
    const needs = readList(entry, 5, readNeed).filter((need) => need !== null);
    return { actorId, needs };
  });
}

/** One need; `null` for the legacy kind that servers ignore. */
function readNeed(reader: ByteReader): SyncNeed | null {
  const tag = reader.u32le();
  switch (tag) {
    case 0:
      return { kind: "full", versions: readVersionRange(reader) };
    case 1: {
      const version = reader.u53le();
      if (version === 0) reader.fail("version-zero");
      return { kind: "partial", version, seqs: readList(reader, 16, readRange) };
    }
    case 2:
      if (readBool(reader)) reader.u64le();
      return null;
    default:
      reader.fail("unknown-tag");
      return null;
  }
}

function writeRequests(writer: ByteWriter, requests: readonly SyncRequest[]): void {
  writer.u32le(requests.length);
  for (const { actorId, needs } of requests) {
    writeActorId(writer, actorId);
    writer.u32le(needs.length);
    for (const need of needs) writeNeed(writer, need);
  }
}

function writeNeed(writer: ByteWriter, need: SyncNeed): void {
  if (need.kind === "full") {
    writer.u32le(0);
    writer.u53le(need.versions.start);
    writer.u53le(need.versions.end);
    return;
  }
  writer.u32le(1);
  writer.u53le(need.version);
  writeRanges(writer, need.seqs);
}

// ---------------------------------------------------------------- options

function readOptionalText(reader: ByteReader): string | null {
  if (reader.remaining === 0) return null;
  return readBool(reader) ? readText(reader) : null;
}

function writeOptionalText(writer: ByteWriter, text: string | null): void {
  writer.u8(text === null ? 0 : 1);
  if (text !== null) writeText(writer, text);
}

interface Range {
  readonly start: number;
  readonly end: number;
}

const TAG_STATE = 0;
const TAG_CHANGESET = 1;
const TAG_CLOCK = 2;
const TAG_REJECTION = 3;
const TAG_REQUEST = 4;
const TAG_COMPRESSED_CHANGESET = 5;
const REJECTIONS = ["maxConcurrencyReached", "differentCluster"] as const;
