/**
 * Primary keys as cr-sqlite packs them (`crsql_pack_columns`; protocol reference, 3.4).
 *
 *   key     count(1) column...
 *   column  (n << 3 | type)(1) then: 1 integer: n bytes big-endian, the value as unsigned 64 bits in
 *           as few bytes as hold it (0 has none); 2 float: 8 bytes big-endian; 3 text, 4 blob: length
 *           in n big-endian bytes, then the bytes; 5 null
 *
 * cr-sqlite aborts the whole process on an empty key or an integer of nine bytes, and accepts
 * trailing bytes, zero columns and NULLs that no table can hold. So `unpackKey` refuses all of these,
 * and anything that `packKey` would have written differently: two spellings of one key would be two
 * keys in the clock tables. Every key from a peer passes here before it reaches the store.
 */
import { assert } from "#base/errors.ts";
import { failure, success } from "#base/machine.ts";
import { ByteReader } from "#base/byte-reader.ts";
import { ByteWriter } from "#base/byte-writer.ts";
import type { SqlValue } from "../../types.ts";
import type { Decoded } from "./types.ts";

/** Packs 1 to 255 key values; `null` is refused as a bug, for no table has nullable keys. */
export function packKey(values: readonly SqlValue[]): Uint8Array {
  assert(values.length > 0 && values.length <= 255, "a key has 1 to 255 columns");
  const writer = new ByteWriter(64);
  writer.u8(values.length);
  for (const value of values) packValue(writer, value);
  return writer.finish();
}

/** The key's values, never NULL; or why it must not reach cr-sqlite. Blobs are views of `packed`. */
export function unpackKey(packed: Uint8Array): Decoded<readonly SqlValue[]> {
  const reader = new ByteReader(packed);
  const count = reader.u8();
  if (reader.failure !== null) return failure("key-empty");
  if (count === 0) return failure("key-without-columns");
  const values: SqlValue[] = [];
  for (let index = 0; index < count && reader.failure === null; index += 1) {
    values.push(unpackValue(reader));
  }
  if (reader.remaining > 0) reader.fail("key-trailing-bytes");
  return reader.failure === null ? success(values) : failure(reader.failure);
}

function packValue(writer: ByteWriter, value: SqlValue): void {
  assert(value !== null, "a key holds no NULL");
  if (typeof value === "bigint") {
    const unsigned = BigInt.asUintN(64, value);
    packUnsigned(writer, TYPE_INTEGER, unsigned);
  } else if (typeof value === "number") {
    writer.u8(TYPE_FLOAT);
    writer.f64be(value);
  } else if (typeof value === "string") {
    const bytes = ENCODER.encode(value);
    packUnsigned(writer, TYPE_TEXT, BigInt(bytes.length));
    writer.raw(bytes);
  } else {
    packUnsigned(writer, TYPE_BLOB, BigInt(value.length));
    writer.raw(value);
  }
}

/** Writes the head byte and the number in as few big-endian bytes as hold it. */
function packUnsigned(writer: ByteWriter, type: number, value: bigint): void {
  let byteCount = 0;
  while (value >> BigInt(8 * byteCount) > 0n) byteCount += 1;
  writer.u8((byteCount << 3) | type);
  for (let index = byteCount - 1; index >= 0; index -= 1) {
    writer.u8(Number((value >> BigInt(8 * index)) & 0xffn));
  }
}

function unpackValue(reader: ByteReader): SqlValue {
  const head = reader.u8();
  const byteCount = head >> 3;
  switch (head & 7) {
    case TYPE_INTEGER:
      if (byteCount > 8) return refuse(reader, "key-integer-too-long");
      return BigInt.asIntN(64, unpackUnsigned(reader, byteCount));
    case TYPE_FLOAT:
      if (byteCount !== 0) return refuse(reader, "key-not-canonical");
      return unpackFloat(reader);
    case TYPE_TEXT:
      return reader.text(unpackLength(reader, byteCount));
    case TYPE_BLOB:
      return reader.view(unpackLength(reader, byteCount));
    case TYPE_NULL:
      return refuse(reader, "key-null");
    default:
      return refuse(reader, "unknown-tag");
  }
}

function unpackUnsigned(reader: ByteReader, byteCount: number): bigint {
  let value = 0n;
  for (let index = 0; index < byteCount; index += 1) {
    const byte = reader.u8();
    if (index === 0 && byte === 0) reader.fail("key-not-canonical");
    value = (value << 8n) | BigInt(byte);
  }
  return value;
}

/** A float that SQLite can hold: it turns NaN into NULL, which no key is. */
function unpackFloat(reader: ByteReader): number {
  const value = reader.f64be();
  return Number.isNaN(value) ? reader.fail("key-null") : value;
}

/** A length in at most 4 bytes: no key is longer than a frame. */
function unpackLength(reader: ByteReader, byteCount: number): number {
  if (byteCount > 4) return reader.fail("key-length-too-long");
  let length = 0;
  for (let index = 0; index < byteCount; index += 1) {
    const byte = reader.u8();
    if (index === 0 && byte === 0) reader.fail("key-not-canonical");
    length = length * 256 + byte;
  }
  return length;
}

function refuse(reader: ByteReader, reason: string): null {
  reader.fail(reason);
  return null;
}

const TYPE_INTEGER = 1;
const TYPE_FLOAT = 2;
const TYPE_TEXT = 3;
const TYPE_BLOB = 4;
const TYPE_NULL = 5;
const ENCODER = new TextEncoder();
