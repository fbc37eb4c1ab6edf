/**
 * Actor ids between their two forms: 16 raw bytes on the wire, a lower-case hyphenated UUID in memory.
 *
 * Both directions run once per changeset, so they work by table lookup instead of number formatting.
 */
import type { ByteReader } from "#base/byte-reader.ts";
import type { ActorId } from "../../types.ts";

/** The actor id in the 16 bytes of `bytes` from `offset`; the caller has checked that they exist. */
export function actorIdFromBytes(bytes: Uint8Array, offset = 0): ActorId {
  let text = "";
  for (let index = 0; index < ACTOR_ID_BYTES; index += 1) {
    text += HEX_BY_BYTE[bytes[offset + index] ?? 0] ?? "";
    if (HYPHEN_AFTER.has(index)) text += "-";
  }
  return text;
}

/** The 16 bytes of an actor id; `null` unless it is a hyphenated UUID (either case). */
export function actorIdToBytes(actorId: ActorId): Uint8Array | null {
  if (actorId.length !== 36) return null;
  const bytes = new Uint8Array(ACTOR_ID_BYTES);
  let at = 0;
  for (let index = 0; index < ACTOR_ID_BYTES; index += 1) {
    const high = NIBBLE_BY_CODE[actorId.charCodeAt(at)] ?? 255;
    const low = NIBBLE_BY_CODE[actorId.charCodeAt(at + 1)] ?? 255;
    if (high > 15 || low > 15) return null;
    bytes[index] = (high << 4) | low;
    at += 2;
    if (!HYPHEN_AFTER.has(index)) continue;
    if (actorId.charCodeAt(at) !== HYPHEN_CODE) return null;
    at += 1;
  }
  return bytes;
}

/** Reads 16 bytes as an actor id; the nil id after a failure of the reader. */
export function readActorId(reader: ByteReader): ActorId {
  const offset = reader.offset;
  reader.skip(ACTOR_ID_BYTES);
  if (reader.failure !== null) return NIL_ACTOR_ID;
  return actorIdFromBytes(reader.bytes, offset);
}

/** Bytes of an actor id on the wire. */
export const ACTOR_ID_BYTES = 16;
/** The id of an actor not known yet, as in an announce to an address of the configuration. */
export const NIL_ACTOR_ID: ActorId = "00000000-0000-0000-0000-000000000000";

const HYPHEN_CODE = 0x2d;
/** Indexes of the bytes that a hyphen follows. */
const HYPHEN_AFTER: ReadonlySet<number> = new Set([3, 5, 7, 9]);
const HEX_BY_BYTE: readonly string[] = Array.from({ length: 256 }, (_, byte) =>
  byte.toString(16).padStart(2, "0"),
);
/** Value of a hexadecimal digit by its character code; 255 = not one. */
const NIBBLE_BY_CODE: Uint8Array = createNibbles();

function createNibbles(): Uint8Array {
  const nibbles = new Uint8Array(128).fill(255);
  for (let value = 0; value < 16; value += 1) {
    const digit = value.toString(16);
    nibbles[digit.charCodeAt(0)] = value;
    nibbles[digit.toUpperCase().charCodeAt(0)] = value;
  }
  return nibbles;
}
