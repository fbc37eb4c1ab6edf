/**
 * Plumtree messages as bytes (protocol reference, 3.8). A replica that does not broadcast by Plumtree
 * reads the changes out of Gossip; the rest is decoded so that it can be counted and shown.
 *
 *   message  0 Gossip  round(4) sender(16) id body
 *            1 IHave   sender(16) count(4) { id round(4) }
 *            2 Graft   sender(16) send(1) count(4) { id round(4) }
 *            3 Prune   sender(16) option(1) [id]
 *   id       actorId(16) 0 Full version(8) seqs(8 8) lastSeq(8) | 1 Empty start(8) end(8)
 *   body     0 Change | 1 CompressedChange
 */
import { assert } from "#base/errors.ts";
import type { ByteReader } from "#base/byte-reader.ts";
import type { ByteWriter } from "#base/byte-writer.ts";
import type { ActorId } from "../../types.ts";
import { actorIdToBytes, readActorId } from "./actor-id.ts";
import { readChange, readRange, readVersionRange, writeChange } from "./changeset-codec.ts";
import type { BroadcastBody, ChangeDigest, ChangeId, PlumtreeMessage } from "./types.ts";

/** Reads a message; what it returns counts only if the reader has not failed. */
export function readPlumtree(reader: ByteReader): PlumtreeMessage {
  const version = reader.u32le();
  if (version !== 0) reader.fail("unknown-tag");
  const tag = reader.u32le();
  switch (tag) {
    case 0: {
      const round = reader.u32le();
      const sender = readActorId(reader);
      const id = readChangeId(reader);
      return { kind: "gossip", round, sender, id, body: readBroadcastBody(reader) };
    }
    case 1: {
      const sender = readActorId(reader);
      return { kind: "iHave", sender, digests: readDigests(reader) };
    }
    case 2: {
      const sender = readActorId(reader);
      const wantsPayloads = readBool(reader);
      return { kind: "graft", sender, wantsPayloads, requests: readDigests(reader) };
    }
    case 3: {
      const sender = readActorId(reader);
      const triggeredBy = readBool(reader) ? readChangeId(reader) : null;
      return { kind: "prune", sender, triggeredBy };
    }
    default:
      reader.fail("unknown-tag");
      return { kind: "iHave", sender: "", digests: [] };
  }
}

/** Writes a message. The body of a Gossip holds one changeset. */
export function writePlumtree(writer: ByteWriter, message: PlumtreeMessage): void {
  if (message.kind !== "gossip") writer.u32le(0);
  switch (message.kind) {
    case "gossip":
      writeGossipHeader(writer, message);
      writeBroadcastBody(writer, message.body);
      return;
    case "iHave":
      writer.u32le(1);
      writeActorId(writer, message.sender);
      writeDigests(writer, message.digests);
      return;
    case "graft":
      writer.u32le(2);
      writeActorId(writer, message.sender);
      writer.u8(message.wantsPayloads ? 1 : 0);
      writeDigests(writer, message.requests);
      return;
    case "prune":
      writer.u32le(3);
      writeActorId(writer, message.sender);
      writer.u8(message.triggeredBy === null ? 0 : 1);
      if (message.triggeredBy !== null) writeChangeId(writer, message.triggeredBy);
  }
}

/** Writes what stands before the body of a Gossip. */
export function writeGossipHeader(
  writer: ByteWriter,
  gossip: { readonly round: number; readonly sender: ActorId; readonly id: ChangeId },
): void {
  writer.u32le(0);
  writer.u32le(0);
  writer.u32le(gossip.round);
  writeActorId(writer, gossip.sender);
  writeChangeId(writer, gossip.id);
}

/** Reads the `BroadcastV1` that a plain broadcast and a Gossip message share. */
export function readBroadcastBody(reader: ByteReader): BroadcastBody {
  const tag = reader.u32le();
  if (tag === 0) return { kind: "change", changesets: readChange(reader) };
  if (tag !== 1) reader.fail("unknown-tag");
  return { kind: "compressedChange", compressed: reader.view(reader.u32le()) };
}

/** Writes a `BroadcastV1`; a change must hold exactly one changeset. */
export function writeBroadcastBody(writer: ByteWriter, body: BroadcastBody): void {
  if (body.kind === "change") {
    const changeset = body.changesets[0];
    assert(changeset !== undefined && body.changesets.length === 1, "one changeset per broadcast");
    writer.u32le(0);
    writeChange(writer, changeset);
    return;
  }
  writer.u32le(1);
  writer.u32le(body.compressed.length);
  writer.raw(body.compressed);
}

/** Reads a byte that must be 0 or 1. */
export function readBool(reader: ByteReader): boolean {
  const byte = reader.u8();
  if (byte > 1) reader.fail("unknown-tag");
  return byte === 1;
}

/** Writes the 16 bytes of an actor id. */
export function writeActorId(writer: ByteWriter, actorId: ActorId): void {
  const bytes = actorIdToBytes(actorId);
  assert(bytes !== null, "an actor id is a UUID");
  writer.raw(bytes);
}

function readChangeId(reader: ByteReader): ChangeId {
  const actorId = readActorId(reader);
  const tag = reader.u32le();
  if (tag === 1) return { kind: "empty", actorId, versions: readVersionRange(reader) };
  if (tag !== 0) reader.fail("unknown-tag");
  const version = reader.u53le();
  const seqs = readRange(reader);
  return { kind: "full", actorId, version, seqs, lastSeq: reader.u53le() };
}

function writeChangeId(writer: ByteWriter, id: ChangeId): void {
  writeActorId(writer, id.actorId);
  if (id.kind === "empty") {
    writer.u32le(1);
    writer.u53le(id.versions.start);
    writer.u53le(id.versions.end);
    return;
  }
  writer.u32le(0);
  writer.u53le(id.version);
  writer.u53le(id.seqs.start);
  writer.u53le(id.seqs.end);
  writer.u53le(id.lastSeq);
}

function readDigests(reader: ByteReader): ChangeDigest[] {
  const digests: ChangeDigest[] = [];
  const count = reader.countU32le(DIGEST_BYTES_MIN);
  for (let index = 0; index < count && reader.failure === null; index += 1) {
    const id = readChangeId(reader);
    digests.push({ id, round: reader.u32le() });
  }
  return digests;
}

function writeDigests(writer: ByteWriter, digests: readonly ChangeDigest[]): void {
  writer.u32le(digests.length);
  for (const { id, round } of digests) {
    writeChangeId(writer, id);
    writer.u32le(round);
  }
}

/** Actor id (16), tag (4), a range of versions (16), round (4). */
const DIGEST_BYTES_MIN = 40;
