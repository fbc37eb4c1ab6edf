/**
 * The header section of a message: one strict pass that leaves numbers, no objects.
 *
 * Each line becomes five integers: name start and end, value start and end (outer whitespace
 * removed), and the number of the name. Offsets count from the first byte of the head, so that a
 * head which arrives in pieces can move to another buffer in between. The scan stops anywhere and
 * goes on where it stopped: a byte is never looked at twice, however a client drips them, and the
 * verdict does not depend on how the bytes were cut.
 *
 * Source: RFC 9112 section 5. Refused where the RFC leaves a choice: obs-fold, bare CR, bare LF.
 */
import { COLON, CR, IS_TCHAR, IS_VALUE, LF, SPACE, TAB } from "./bytes.ts";
import { nameOf } from "./header-names.ts";
import type { RefusalCode } from "./refusal.ts";

/** Verdicts of a resumable parser. */
export const MORE = 0;
export const DONE = 1;
export const REFUSED = 2;

/** Integers per line. */
export const STRIDE = 5;
/** Place of each integer inside a line's five. */
export const NAME_START = 0;
export const NAME_END = 1;
export const VALUE_START = 2;
export const VALUE_END = 3;
export const NAME_ID = 4;

const LINE = 0;
const IN_NAME = 1;
const BEFORE_VALUE = 2;
const IN_VALUE = 3;
const LINE_FEED = 4;
const LAST_LINE_FEED = 5;

/** Scanner and result of one header section; reusable after `reset`. */
export class HeaderLines {
  /** `count` lines of `STRIDE` integers. */
  readonly entries: Int32Array;
  count = 0;
  /** Offset of the empty line's CR: one after the last header line. Valid when done. */
  end = 0;
  /** Why the last scan was refused. */
  refusal: RefusalCode = "HEAD_SYNTAX";

  readonly #linesMax: number;
  #phase = LINE;
  /** Offset of the next byte to look at. */
  #at = 0;

  constructor(linesMax: number) {
    this.#linesMax = linesMax;
    this.entries = new Int32Array(linesMax * STRIDE);
  }

  /** Makes ready for a section that starts at offset `at` of its head. */
  reset(at: number): void {
    this.count = 0;
    this.#phase = LINE;
    this.#at = at;
  }

  /** Offset of the next byte to look at; when done, one after the empty line. */
  get offset(): number {
    return this.#at;
  }

  /** Where line `index` ends, its CRLF included. */
  lineEnd(index: number): number {
    return index + 1 < this.count ? (this.entries[(index + 1) * STRIDE] as number) : this.end;
  }

  /** Goes on with `bytes[base + offset .. end)`; `base` is where the head starts in `bytes`. */
  scan(bytes: Uint8Array, base: number, end: number): number {
    let at = base + this.#at;
    let phase = this.#phase;
    const entries = this.entries;
    while (at < end) {
      const byte = bytes[at] as number;
      switch (phase) {
        case LINE:
          if (byte === CR) phase = LAST_LINE_FEED;
          else if (IS_TCHAR[byte] === 0) return this.#refuse(at - base, codeOfStart(byte));
          else if (this.count === this.#linesMax) {
            return this.#refuse(at - base, "HEAD_TOO_MANY_LINES");
          } else {
            entries[this.count * STRIDE + NAME_START] = at - base;
            phase = IN_NAME;
          }
          if (byte === CR) this.end = at - base;
          at += 1;
          break;
        case IN_NAME: {
          while (at < end && IS_TCHAR[bytes[at] as number] === 1) at += 1;
          if (at === end) break;
          if (bytes[at] !== COLON) return this.#refuse(at - base, codeInName(bytes[at] as number));
          const line = this.count * STRIDE;
          entries[line + NAME_END] = at - base;
          entries[line + NAME_ID] = nameOf(bytes, base + (entries[line] as number), at);
          phase = BEFORE_VALUE;
          at += 1;
          break;
        }
        case BEFORE_VALUE:
          while (at < end && (bytes[at] === SPACE || bytes[at] === TAB)) at += 1;
          if (at === end) break;
          entries[this.count * STRIDE + VALUE_START] = at - base;
          phase = IN_VALUE;
          break;
        case IN_VALUE:
          while (at < end && IS_VALUE[bytes[at] as number] === 1) at += 1;
          if (at === end) break;
          if (bytes[at] !== CR) return this.#refuse(at - base, codeInValue(bytes[at] as number));
          this.#endValue(bytes, base, at);
          phase = LINE_FEED;
          at += 1;
          break;
        default:
          if (byte !== LF) return this.#refuse(at - base, "HEAD_BARE_CR");
          at += 1;
          if (phase === LAST_LINE_FEED) {
            this.#at = at - base;
            return DONE;
          }
          phase = LINE;
      }
    }
    this.#phase = phase;
    this.#at = at - base;
    return MORE;
  }

  #endValue(bytes: Uint8Array, base: number, at: number): void {
    const line = this.count * STRIDE;
    const start = base + (this.entries[line + VALUE_START] as number);
    let end = at;
    while (end > start && (bytes[end - 1] === SPACE || bytes[end - 1] === TAB)) end -= 1;
    this.entries[line + VALUE_END] = end - base;
    this.count += 1;
  }

  #refuse(at: number, code: RefusalCode): number {
    this.#at = at;
    this.refusal = code;
    return REFUSED;
  }
}

function codeOfStart(byte: number): RefusalCode {
  if (byte === SPACE || byte === TAB) return "HEAD_FOLDED";
  if (byte === LF) return "HEAD_BARE_LF";
  return "HEAD_NAME";
}

function codeInName(byte: number): RefusalCode {
  if (byte === SPACE || byte === TAB) return "HEAD_SPACE_BEFORE_COLON";
  if (byte === LF) return "HEAD_BARE_LF";
  return "HEAD_NAME";
}

function codeInValue(byte: number): RefusalCode {
  return byte === LF ? "HEAD_BARE_LF" : "HEAD_VALUE";
}
