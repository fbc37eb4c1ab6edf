/**
 * What a checkpoint says of itself, and the bytes that stand in front of the compressed database.
 *
 * A checkpoint is one file that stock `zstd -d` turns into the SQLite file: the manifest is in a
 * skippable frame, which every zstd reader passes over.
 *
 * | Bytes | What |
 * |---|---|
 * | 4 | 0x184D2A50, little-endian: a skippable frame |
 * | 4 | bytes of the frame that follow, little-endian |
 * | 8 | `PATINACP` |
 * | 4 | format, little-endian |
 * | 32 | SHA-256 of the JSON |
 * | rest | the manifest as JSON, padded with blanks |
 *
 * Behind the frame: one zstd frame. Its length and SHA-256 are in the manifest, and those of what
 * it holds, so nothing of a checkpoint is taken on trust. Sums are known last and stand first:
 * `encodeHeader` pads to a length that is given, so that the header can be written twice.
 */
import { createHash } from "node:crypto";
import { z } from "zod";
import { checkpointError } from "./errors.ts";

const part = z.strictObject({
  bytes: z.int().min(0),
  /** Hexadecimal. */
  sha256: z.string().regex(/^[0-9a-f]{64}$/),
});

const actorId = z.string().regex(/^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);

const manifest = z.object({
  /** Of the cluster that the rows are of. */
  clusterId: z.int().min(0).max(0xffff),
  /** ISO 8601, UTC. */
  taken: z.iso.datetime(),
  /** The replica that it was taken from; null = a database that had no actor id. */
  actor: actorId.nullable(),
  /** SHA-256 of the statements that make the tables and indexes. */
  schemaHash: z.string().regex(/^[0-9a-f]{64}$/),
  /** Greatest version known of each actor. */
  heads: z.record(actorId, z.int().min(0)),
  /** The SQLite file. */
  database: part,
  /** The same, compressed. */
  compressed: part,
});

/** What a checkpoint says of itself. */
export type Manifest = z.infer<typeof manifest>;

/** Size and sum of a stretch of bytes. */
export type PartSum = z.infer<typeof part>;

/** The header as bytes, at least `bytesMin` long. */
export function encodeHeader(value: Manifest, bytesMin = 0): Buffer {
  const text = JSON.stringify(value);
  const room = Math.max(bytesMin - HEADER_BYTES, Buffer.byteLength(text));
  const json = Buffer.alloc(room, " ");
  json.write(text);
  const header = Buffer.alloc(HEADER_BYTES + room);
  header.writeUInt32LE(SKIPPABLE, 0);
  header.writeUInt32LE(header.length - FRAME_START, 4);
  header.write(TAG, FRAME_START, "latin1");
  header.writeUInt32LE(FORMAT, 16);
  createHash("sha256").update(json).digest().copy(header, 20);
  json.copy(header, HEADER_BYTES);
  return header;
}

/**
 * Bytes of the whole header, from its first `HEADER_BYTES`; `name` is told in errors. Throws
 * `CHECKPOINT_DAMAGED` when these are of anything else, `CHECKPOINT_FORMAT` when too new.
 */
export function headerLength(bytes: Buffer, name: string): number {
  const isOurs =
    bytes.length >= HEADER_BYTES &&
    bytes.readUInt32LE(0) === SKIPPABLE &&
    bytes.toString("latin1", FRAME_START, 16) === TAG;
  if (!isOurs) throw damaged(name, "is no checkpoint, or its beginning is lost");
  const format = bytes.readUInt32LE(16);
  if (format > FORMAT) {
    throw checkpointError(
      "CHECKPOINT_FORMAT",
      `${name} is of format ${format}, and this Patina reads formats up to ${FORMAT}: use the` +
        " Patina that wrote it, or a newer one",
    );
  }
  const length = bytes.readUInt32LE(4) + FRAME_START;
  if (length < HEADER_BYTES || length > MANIFEST_BYTES_MAX) {
    throw damaged(name, `says that its manifest has ${length} bytes`);
  }
  return length;
}

/** The manifest in a whole header. Throws `CHECKPOINT_DAMAGED`. */
export function decodeHeader(header: Buffer, name: string): Manifest {
  const json = header.subarray(HEADER_BYTES);
  const sum = createHash("sha256").update(json).digest();
  if (!sum.equals(header.subarray(20, HEADER_BYTES))) {
    throw damaged(name, "has a manifest whose checksum differs");
  }
  const parsed = manifest.safeParse(JSON.parse(json.toString()));
  if (parsed.success) return parsed.data;
  throw damaged(name, `has a manifest that breaks its rules: ${z.prettifyError(parsed.error)}`);
}

/** An error about a checkpoint that cannot be used. */
export function damaged(name: string, what: string, cause?: unknown): Error {
  return checkpointError("CHECKPOINT_DAMAGED", `${name} ${what}`, cause);
}

/** In front of the JSON. */
export const HEADER_BYTES = 52;
const FRAME_START = 8;
const SKIPPABLE = 0x18_4d_2a_50;
const TAG = "PATINACP";
/**
 * 1: one zstd frame of a SQLite file. A greater number = older readers must not try.
 */
const FORMAT = 1;
/** Heads of 200,000 actors. */
const MANIFEST_BYTES_MAX = 16 * 1024 * 1024;
