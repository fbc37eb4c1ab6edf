/**
 * Byte classes of HTTP/1.1 and the few operations on byte ranges that the parsers share.
 *
 * Source: RFC 9110 section 5.6 (tokens), 5.5 (field values); RFC 9112 section 3.2 (targets).
 * Control characters other than HTAB are refused in values, where RFC 9110 lets a recipient
 * choose.
 */

/** Bytes that the grammar names. */
export const TAB = 0x09;
export const LF = 0x0a;
export const CR = 0x0d;
export const SPACE = 0x20;
export const COMMA = 0x2c;
export const SLASH = 0x2f;
export const COLON = 0x3a;
export const SEMICOLON = 0x3b;

/** Byte -> 1 when it is a tchar: header names, methods, list tokens. */
export const IS_TCHAR = classOf("!#$%&'*+-.^_`|~", true);

/** Byte -> 1 when it may stand in a header value: HTAB, SP to `~`, obs-text. */
export const IS_VALUE = new Uint8Array(256).map((_, byte) =>
  byte === TAB || (byte >= SPACE && byte !== 0x7f) ? 1 : 0,
);

/**
 * Byte -> 1 when it may stand in a request target: visible ASCII but `#`, which starts a fragment.
 */
export const IS_TARGET = new Uint8Array(256).map((_, byte) =>
  byte > SPACE && byte < 0x7f && byte !== 0x23 ? 1 : 0,
);

/** Byte -> 1 when it may stand in a host name or IPv4 literal. */
export const IS_HOST = classOf("-._~%!$&'()*+,;=", true);

/** Byte -> 1 when it may stand inside the brackets of an IPv6 literal. */
export const IS_IPV6 = new Uint8Array(256).map((_, byte) =>
  /[0-9a-f:.]/i.test(String.fromCharCode(byte)) ? 1 : 0,
);

/** Byte -> 1 when it may stand in a request id that is kept. */
export const IS_REQUEST_ID = classOf("-._~:/+=@", true);

/** Byte -> value of the hex digit, or 255. */
export const HEX_VALUE = new Uint8Array(256).map((_, byte) => {
  const text = String.fromCharCode(byte);
  return /[0-9a-f]/i.test(text) ? parseInt(text, 16) : 255;
});

/** The bytes of a Latin-1 text. */
export function bytesOf(text: string): Uint8Array {
  const bytes = new Uint8Array(text.length);
  for (let index = 0; index < text.length; index += 1) bytes[index] = text.charCodeAt(index);
  return bytes;
}

/** The Latin-1 text of a range. Cost: one string concatenation per byte; not for the hot path. */
export function textOf(bytes: Uint8Array, start: number, end: number): string {
  let text = "";
  for (let at = start; at < end; at += 1) text += String.fromCharCode(bytes[at] ?? 0);
  return text;
}

/** Whether a range equals a lower-case ASCII text, ignoring the range's case. */
export function equalsIgnoringCase(
  bytes: Uint8Array,
  range: { readonly start: number; readonly end: number },
  lowerCase: string,
): boolean {
  if (range.end - range.start !== lowerCase.length) return false;
  return startsIgnoringCase(bytes, range.start, lowerCase);
}

/** Whether the bytes from `start` begin with a lower-case ASCII text, ignoring their case. */
export function startsIgnoringCase(bytes: Uint8Array, start: number, lowerCase: string): boolean {
  for (let index = 0; index < lowerCase.length; index += 1) {
    if (lowerOf(bytes[start + index] ?? 0) !== lowerCase.charCodeAt(index)) return false;
  }
  return true;
}

/** ASCII lower case of one byte. */
export function lowerOf(byte: number): number {
  return byte >= 0x41 && byte <= 0x5a ? byte | 0x20 : byte;
}

/**
 * Calls `visit` with each non-empty element of a comma-separated list, outer whitespace removed.
 * Stops when `visit` returns false; the answer says whether it went to the end.
 */
export function eachListElement(
  bytes: Uint8Array,
  range: { readonly start: number; readonly end: number },
  visit: (start: number, end: number) => boolean,
): boolean {
  let at = range.start;
  while (at < range.end) {
    let comma = at;
    while (comma < range.end && bytes[comma] !== COMMA) comma += 1;
    let start = at;
    let end = comma;
    while (start < end && isBlank(bytes[start])) start += 1;
    while (end > start && isBlank(bytes[end - 1])) end -= 1;
    if (end > start && !visit(start, end)) return false;
    at = comma + 1;
  }
  return true;
}

/**
 * A whole number of decimal digits only, or -1: no sign, no blanks, at most 2^53-1. Fifteen digits
 * are a petabyte; longer ones are refused rather than rounded.
 */
export function decimalOf(bytes: Uint8Array, start: number, end: number): number {
  if (end <= start || end - start > 15) return -1;
  let value = 0;
  for (let at = start; at < end; at += 1) {
    const digit = (bytes[at] ?? 0) - 0x30;
    if (digit < 0 || digit > 9) return -1;
    value = value * 10 + digit;
  }
  return value;
}

function isBlank(byte: number | undefined): boolean {
  return byte === SPACE || byte === TAB;
}

function classOf(others: string, withAlphanumerics: boolean): Uint8Array {
  return new Uint8Array(256).map((_, byte) => {
    const text = String.fromCharCode(byte);
    if (withAlphanumerics && /[0-9A-Za-z]/.test(text)) return 1;
    return others.includes(text) ? 1 : 0;
  });
}
