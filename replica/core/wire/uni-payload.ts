/**
 * The frames of unidirectional streams (protocol reference, 3.2): broadcast changes, plain or inside
 * Plumtree messages. Frames are given and taken without their length prefix.
 *
 *   UniPayload  0 V1 { 0 Broadcast body | 1 Plumtree message } clusterId(2, may be absent at the end)
 */
import { failure, success } from "#base/machine.ts";
import { ByteReader } from "#base/byte-reader.ts";
import { ByteWriter } from "#base/byte-writer.ts";
import type { ActorId, Changeset } from "../../types.ts";
import { estimateChangesetBytes } from "./chunker.ts";
import { writeChange } from "./changeset-codec.ts";
import {
  readBroadcastBody,
  readPlumtree,
  writeBroadcastBody,
  writeGossipHeader,
  writePlumtree,
} from "./plumtree-codec.ts";
import type { ChangeId, Decoded, PlumtreeMessage, UniPayload } from "./types.ts";

/** Decodes one frame. Keys, blobs and compressed bytes of the answer are views of `bytes`. */
export function decodeUniPayload(bytes: Uint8Array): Decoded<UniPayload> {
  const reader = new ByteReader(bytes);
  const payload = readUniPayload(reader);
  const reason = reader.failure ?? reader.flaw;
  return reason === null ? success(payload) : failure(reason);
}

/**
 * Decodes one frame and says which of its bytes are the `BroadcastV1`, so that a change is passed on
 * in the bytes in which it came; null for a message without one.
 */
export function decodeUniFrame(
  bytes: Uint8Array,
): Decoded<{ readonly payload: UniPayload; readonly body: Uint8Array | null }> {
  const decoded = decodeUniPayload(bytes);
  if (!decoded.ok) return decoded;
  const payload = decoded.value;
  if (payload.kind === "plumtree" && payload.message.kind !== "gossip") {
    return success({ payload, body: null });
  }
  const start = payload.kind === "plumtree" ? gossipHeaderBytes(payload.message) : BODY_OFFSET;
  const reader = new ByteReader(bytes.subarray(start));
  readBroadcastBody(reader);
  return success({ payload, body: bytes.subarray(start, start + reader.offset) });
}

/** Encodes one frame. A change must hold exactly one changeset. */
export function encodeUniPayload(payload: UniPayload): Uint8Array {
  const writer = new ByteWriter(1024);
  writer.u32le(0);
  if (payload.kind === "plumtree") {
    writer.u32le(1);
    writePlumtree(writer, payload.message);
  } else {
    writer.u32le(0);
    writeBroadcastBody(writer, payload);
  }
  writer.u16le(payload.clusterId);
  return writer.finish();
}

/** Encodes one changeset as a broadcast frame: the hot path of `encodeUniPayload`. */
export function encodeBroadcast(changeset: Changeset, clusterId: number): Uint8Array {
  const writer = new ByteWriter(estimateChangesetBytes(changeset));
  writer.u32le(0);
  writer.u32le(0);
  writer.u32le(0);
  writeChange(writer, changeset);
  writer.u16le(clusterId);
  return writer.finish();
}

/** Encodes the `BroadcastV1` of one changeset, as plain broadcasts and Gossip messages hold it. */
export function encodeBody(changeset: Changeset): Uint8Array {
  const writer = new ByteWriter(estimateChangesetBytes(changeset));
  writer.u32le(0);
  writeChange(writer, changeset);
  return writer.finish();
}

/** Encodes the `BroadcastV1` that holds `encodeChange`'s bytes compressed. */
export function encodeCompressedBody(compressed: Uint8Array): Uint8Array {
  const writer = new ByteWriter(compressed.length + 8);
  writeBroadcastBody(writer, { kind: "compressedChange", compressed });
  return writer.finish();
}

/** The plain broadcast frame around an encoded `BroadcastV1`. */
export function frameBody(body: Uint8Array, clusterId: number): Uint8Array {
  const writer = new ByteWriter(body.length + BODY_OFFSET + 2);
  writer.u32le(0);
  writer.u32le(0);
  writer.raw(body);
  writer.u16le(clusterId);
  return writer.finish();
}

/** The Gossip frame around an encoded `BroadcastV1`. */
export function encodeGossip(gossip: {
  readonly round: number;
  readonly sender: ActorId;
  readonly id: ChangeId;
  readonly body: Uint8Array;
  readonly clusterId: number;
}): Uint8Array {
  const writer = new ByteWriter(gossip.body.length + GOSSIP_HEADER_BYTES_MAX + 2);
  writer.u32le(0);
  writer.u32le(1);
  writeGossipHeader(writer, gossip);
  writer.raw(gossip.body);
  writer.u16le(gossip.clusterId);
  return writer.finish();
}

function gossipHeaderBytes(message: PlumtreeMessage): number {
  const isEmpty = message.kind === "gossip" && message.id.kind === "empty";
  return isEmpty ? GOSSIP_HEADER_BYTES_MAX - 16 : GOSSIP_HEADER_BYTES_MAX;
}

function readUniPayload(reader: ByteReader): UniPayload {
  if (reader.u32le() !== 0) reader.fail("unknown-tag");
  const tag = reader.u32le();
  if (tag > 1) reader.fail("unknown-tag");
  if (tag === 1) {
    const message = readPlumtree(reader);
    return { kind: "plumtree", message, clusterId: readClusterId(reader) };
  }
  const body = readBroadcastBody(reader);
  return { ...body, clusterId: readClusterId(reader) };
}

/** Reads a cluster id that may be absent at the end of the input; then it is 0. */
export function readClusterId(reader: ByteReader): number {
  return reader.remaining >= 2 ? reader.u16le() : 0;
}

/** Two tags before the body of a plain broadcast. */
const BODY_OFFSET = 8;
/** Four tags, round (4), sender (16), actor (16), tag (4), version, seqs and last seq (32). */
const GOSSIP_HEADER_BYTES_MAX = 88;
