/**
 * The one header of W3C Trace Context that a proxy reads: `traceparent`.
 *
 *   00 - trace-id (32 hex) - parent-id (16 hex) - flags (2 hex)
 *
 * Only lower-case hex and no id of zeros, as the recommendation has it (level 1, section 3.2).
 * Later versions may be longer; their first part is the same.
 */

/** Whether a range is a value that a trace can go on from. */
export function isTraceparent(bytes: Uint8Array, start: number, end: number): boolean {
  const length = end - start;
  if (length < LENGTH) return false;
  for (let at = 0; at < LENGTH; at += 1) {
    const byte = bytes[start + at] as number;
    const isDash = at === 2 || at === 35 || at === 52;
    if (isDash ? byte !== DASH : !isLowerHex(byte)) return false;
  }
  const isVersion0 = bytes[start] === ZERO && bytes[start + 1] === ZERO;
  const isVersion255 = bytes[start] === LOWER_F && bytes[start + 1] === LOWER_F;
  if (isVersion255 || (isVersion0 && length !== LENGTH)) return false;
  if (length > LENGTH && bytes[start + LENGTH] !== DASH) return false;
  return !isZeros(bytes, start + 3, start + 35) && !isZeros(bytes, start + 36, start + 52);
}

function isLowerHex(byte: number): boolean {
  return (byte >= ZERO && byte <= 0x39) || (byte >= 0x61 && byte <= LOWER_F);
}

function isZeros(bytes: Uint8Array, start: number, end: number): boolean {
  for (let at = start; at < end; at += 1) if (bytes[at] !== ZERO) return false;
  return true;
}

const DASH = 0x2d;
const ZERO = 0x30;
const LOWER_F = 0x66;
/** Bytes of version 00. */
const LENGTH = 55;
