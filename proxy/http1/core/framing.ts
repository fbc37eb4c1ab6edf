/**
 * Where a body ends: the framing headers of one message, judged together (RFC 9112 section 6).
 *
 * Everything that two recipients could read as two different lengths is refused: both framing
 * headers, a repeated or listed Content-Length even with equal values, any coding but `chunked`, and
 * `chunked` before a tab, which belongs to the value for some readers (Node's among them).
 */
import { decimalOf, eachListElement, equalsIgnoringCase, SPACE, TAB } from "./bytes.ts";
import { NAME_ID, STRIDE, VALUE_END, VALUE_START, type HeaderLines } from "./header-lines.ts";
import { NAME } from "./header-names.ts";
import type { RefusalCode } from "./refusal.ts";

/** What the framing headers of one message say; reusable. */
export class Framing {
  /** Bytes of the body, -1 without a Content-Length. */
  contentLength = -1;
  isChunked = false;

  reset(): void {
    this.contentLength = -1;
    this.isChunked = false;
  }

  /** Takes one framing line; `null` = accepted so far. */
  take(bytes: Uint8Array, base: number, place: FramingLine): RefusalCode | null {
    const { lines, index } = place;
    const line = index * STRIDE;
    const start = base + (lines.entries[line + VALUE_START] as number);
    const end = base + (lines.entries[line + VALUE_END] as number);
    if (lines.entries[line + NAME_ID] === NAME.contentLength) {
      if (this.isChunked) return "FRAMING_BOTH";
      if (this.contentLength >= 0) return "FRAMING_LENGTH";
      this.contentLength = decimalOf(bytes, start, end);
      return this.contentLength < 0 ? "FRAMING_LENGTH" : null;
    }
    if (this.contentLength >= 0) return "FRAMING_BOTH";
    if (this.isChunked) return "FRAMING_CODING";
    const refusal = codingRefusal(bytes, start, end);
    this.isChunked = refusal === null;
    return refusal;
  }
}

/** A line of a header section. */
export interface FramingLine {
  readonly lines: HeaderLines;
  readonly index: number;
}

function codingRefusal(bytes: Uint8Array, start: number, end: number): RefusalCode | null {
  if (equalsIgnoringCase(bytes, { start, end }, "chunked")) {
    return hasTabBehind(bytes, end) ? "FRAMING_CODING" : null;
  }
  let isLastChunked = false;
  let times = 0;
  eachListElement(bytes, { start, end }, (from, to) => {
    isLastChunked = equalsIgnoringCase(bytes, { start: from, end: to }, "chunked");
    times += isLastChunked ? 1 : 0;
    return true;
  });
  return isLastChunked && times === 1 ? "FRAMING_CODING_UNKNOWN" : "FRAMING_CODING";
}

/** Whether the white space between a value and its CR holds a tab. */
function hasTabBehind(bytes: Uint8Array, end: number): boolean {
  let at = end;
  while (bytes[at] === SPACE) at += 1;
  return bytes[at] === TAB;
}
