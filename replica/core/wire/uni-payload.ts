/**
 * The frames of unidirectional streams (protocol reference, 3.2): broadcast changes, plain or inside
 * Plumtree messages. Frames are given and taken without their length prefix (`frame-splitter.ts`).
 *
 *   UniPayload  0 V1 { 0 Broadcast body | 1 Plumtree message } clusterId(2, may be absent at the end)
 */
import { failure, success } from "#base/machine.ts";
import { ByteReader } from "#base/byte-reader.ts";
import { ByteWriter } from "#base/byte-writer.ts";
import type { Changeset } from "../../types.ts";
import { estimateChangesetBytes } from "./chunker.ts";
import { writeChange } from "./changeset-codec.ts";
import {
  readBroadcastBody,
  readPlumtree,
  writeBroadcastBody,
  writePlumtree,
} from "./plumtree-codec.ts";
import type { Decoded, UniPayload } from "./types.ts";

/** Decodes one frame. Keys, blobs and compressed bytes of the answer are views of `bytes`. */
export function decodeUniPayload(bytes: Uint8Array): Decoded<UniPayload> {
  const reader = new ByteReader(bytes);
  const payload = readUniPayload(reader);
  return reader.failure === null ? success(payload) : failure(reader.failure);
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
