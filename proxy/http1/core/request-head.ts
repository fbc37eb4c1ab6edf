/**
 * The head of a request: strict, resumable parser and the meaning of its headers.
 *
 * `parse` may be called with the bytes as they come; it never looks at a byte twice. When it says
 * `DONE`, the fields hold offsets into the head (add `base`) and flags; no string was made. Offsets
 * count from the first byte of the request line, or of the one empty line that may precede it.
 *
 * Source: RFC 9112 sections 2.2, 3, 6; RFC 9110 section 7.2 (Host), 10.1.1 (Expect).
 */
import { CR, equalsIgnoringCase, IS_TARGET, IS_TCHAR, LF, SPACE } from "./bytes.ts";
import { Connection } from "./connection-header.ts";
import { Framing } from "./framing.ts";
import {
  DONE,
  HeaderLines,
  MORE,
  NAME_ID,
  REFUSED,
  STRIDE,
  VALUE_END,
  VALUE_START,
} from "./header-lines.ts";
import { NAME } from "./header-names.ts";
import { methodOf, METHOD } from "./methods.ts";
import type { RefusalCode } from "./refusal.ts";
import { RequestTarget } from "./request-target.ts";

/** Limits of one head, in bytes and lines. */
export interface HeadLimits {
  readonly headBytesMax: number;
  readonly targetBytesMax: number;
  readonly headerLinesMax: number;
}

const BEFORE = 0;
const BEFORE_LINE_FEED = 1;
const IN_METHOD = 2;
const IN_TARGET = 3;
const IN_VERSION = 4;
const VERSION_LINE_FEED = 5;
const IN_LINES = 6;

/** Parser and result of one request head; reusable after `reset`. */
export class RequestHead {
  readonly lines: HeaderLines;
  readonly framing = new Framing();
  readonly connection = new Connection();
  /** Host and target, normalised. */
  readonly target = new RequestTarget();
  /** Offset of the request line: 0, or 2 after an empty line. */
  lineStart = 0;
  methodEnd = 0;
  /** Number of the method, `METHOD.other` for those without one. */
  method: number = METHOD.other;
  targetEnd = 0;
  /** Minor HTTP version: 0 or 1. */
  minor = 1;
  /** Whether `Expect: 100-continue` is asked for (never in HTTP/1.0). */
  expectsContinue = false;
  /** A Via line is there: look whether it names us. */
  hasViaLine = false;
  /** Bytes of the head, final CRLF included. Valid when done. */
  length = 0;
  /** Why it was refused. */
  refusal: RefusalCode = "HEAD_SYNTAX";

  readonly #limits: HeadLimits;
  #phase = BEFORE;
  #at = 0;

  constructor(limits: HeadLimits) {
    this.#limits = limits;
    this.lines = new HeaderLines(limits.headerLinesMax);
  }

  /** Whether the client means to keep its connection after this request. */
  get isPersistent(): boolean {
    if (this.connection.hasClose) return false;
    return this.minor === 1 || this.connection.hasKeepAlive;
  }

  reset(): void {
    this.#phase = BEFORE;
    this.#at = 0;
    this.lineStart = 0;
  }

  /** Goes on with `bytes[base ..end)`, where `base` is where the head starts. */
  parse(bytes: Uint8Array, base: number, end: number): number {
    const limit = base + this.#limits.headBytesMax;
    const last = end > limit ? limit : end;
    if (this.#phase !== IN_LINES) {
      const verdict = this.#parseLine(bytes, base, last);
      if (verdict === REFUSED) return REFUSED;
      if (verdict === MORE) return end > limit ? this.#refuse("HEAD_TOO_LARGE") : MORE;
    }
    const verdict = this.lines.scan(bytes, base, last);
    if (verdict === DONE) {
      this.length = this.lines.offset;
      return this.#interpret(bytes, base);
    }
    if (verdict === REFUSED) return this.#refuse(this.lines.refusal);
    return end > limit ? this.#refuse("HEAD_TOO_LARGE") : MORE;
  }

  #parseLine(bytes: Uint8Array, base: number, end: number): number {
    let at = base + this.#at;
    while (at < end) {
      switch (this.#phase) {
        case BEFORE:
          if (bytes[at] === CR && this.lineStart === 0) {
            this.#phase = BEFORE_LINE_FEED;
            at += 1;
          } else this.#phase = IN_METHOD;
          break;
        case BEFORE_LINE_FEED:
          if (bytes[at] !== LF) return this.#refuse("HEAD_BARE_CR");
          at += 1;
          this.lineStart = at - base;
          this.#phase = IN_METHOD;
          break;
        case IN_METHOD:
          while (at < end && IS_TCHAR[bytes[at] as number] === 1) at += 1;
          this.methodEnd = at - base;
          if (this.methodEnd - this.lineStart > METHOD_BYTES_MAX) {
            return this.#refuse("REQUEST_LINE");
          }
          if (at === end) break;
          if (bytes[at] !== SPACE || this.methodEnd === this.lineStart) {
            return this.#refuse("REQUEST_LINE");
          }
          at += 1;
          this.#phase = IN_TARGET;
          break;
        case IN_TARGET:
          while (at < end && IS_TARGET[bytes[at] as number] === 1) at += 1;
          this.targetEnd = at - base;
          if (this.targetEnd - this.methodEnd - 1 > this.#limits.targetBytesMax) {
            return this.#refuse("REQUEST_TARGET_TOO_LONG");
          }
          if (at === end) break;
          if (bytes[at] !== SPACE || this.targetEnd === this.methodEnd + 1) {
            return this.#refuse("REQUEST_LINE");
          }
          at += 1;
          this.#phase = IN_VERSION;
          break;
        case IN_VERSION: {
          const from = base + this.targetEnd + 1;
          if (end - from < VERSION.length + 1) return this.#pause(MORE, at - base);
          if (!this.#takeVersion(bytes, from)) return REFUSED;
          at = from + VERSION.length + 1;
          this.#phase = VERSION_LINE_FEED;
          break;
        }
        case VERSION_LINE_FEED: {
          const from = base + this.targetEnd + 1 + VERSION.length + 1;
          if (end - from < 2) return this.#pause(MORE, at - base);
          return this.#endLine(bytes, from, base);
        }
        default:
          return DONE;
      }
    }
    return this.#pause(MORE, at - base);
  }

  #takeVersion(bytes: Uint8Array, from: number): boolean {
    for (let index = 0; index < VERSION.length; index += 1) {
      if (bytes[from + index] === VERSION.charCodeAt(index)) continue;
      // `HTTP/2.0` is a version we do not speak; anything else there is no version at all.
      const isVersion = index === MAJOR_AT && isDigit(bytes[from + index]);
      this.#refuse(isVersion ? "REQUEST_VERSION" : "REQUEST_LINE");
      return false;
    }
    const digit = bytes[from + VERSION.length] as number;
    if (!isDigit(digit)) {
      this.#refuse("REQUEST_LINE");
      return false;
    }
    if (digit > 0x31) {
      this.#refuse("REQUEST_VERSION");
      return false;
    }
    this.minor = digit - 0x30;
    return true;
  }

  #endLine(bytes: Uint8Array, from: number, base: number): number {
    if (bytes[from] !== CR) {
      return this.#refuse(bytes[from] === LF ? "HEAD_BARE_LF" : "REQUEST_LINE");
    }
    if (bytes[from + 1] !== LF) return this.#refuse("HEAD_BARE_CR");
    this.#phase = IN_LINES;
    this.lines.reset(from + 2 - base);
    return DONE;
  }

  /** What the headers mean together; one look at each line that matters. */
  #interpret(bytes: Uint8Array, base: number): number {
    const { lines, framing, connection } = this;
    this.method = methodOf(bytes, base + this.lineStart, base + this.methodEnd);
    this.expectsContinue = false;
    this.hasViaLine = false;
    framing.reset();
    connection.reset();
    let hostLine = -1;
    for (let index = 0; index < lines.count; index += 1) {
      const name = lines.entries[index * STRIDE + NAME_ID] as number;
      if (name === NAME.other) continue;
      if (name === NAME.host) {
        if (hostLine >= 0) return this.#refuse("REQUEST_HOST_DUPLICATE");
        hostLine = index;
      } else if (name === NAME.contentLength || name === NAME.transferEncoding) {
        const refusal = framing.take(bytes, base, { lines, index });
        if (refusal !== null) return this.#refuse(refusal);
      } else if (name === NAME.connection) {
        if (!connection.take(bytes, base, { lines, index })) return this.#refuse("HEAD_CONNECTION");
      } else if (name === NAME.upgrade) connection.takeUpgrade(bytes, base, { lines, index });
      else if (name === NAME.via) this.hasViaLine = true;
      else if (name === NAME.expect && !this.#takeExpect(bytes, base, index)) return REFUSED;
    }
    if (framing.isChunked && this.minor === 0) return this.#refuse("FRAMING_CODING");
    if (this.method === METHOD.connect || this.method === METHOD.trace) {
      return this.#refuse("REQUEST_METHOD_REFUSED");
    }
    if (hostLine < 0 && this.minor === 1) return this.#refuse("REQUEST_HOST_MISSING");
    const refusal = this.target.take(bytes, base, { head: this, hostLine });
    return refusal === null ? DONE : this.#refuse(refusal);
  }

  #takeExpect(bytes: Uint8Array, base: number, index: number): boolean {
    // RFC 9110 section 10.1.1: an HTTP/1.0 client's expectation is ignored.
    if (this.minor === 0) return true;
    const start = base + (this.lines.entries[index * STRIDE + VALUE_START] as number);
    const end = base + (this.lines.entries[index * STRIDE + VALUE_END] as number);
    // One line, one expectation: what others make of none or several differs.
    const isKnown = !this.expectsContinue && equalsIgnoringCase(bytes, { start, end }, CONTINUE);
    if (!isKnown) this.#refuse("REQUEST_EXPECT");
    this.expectsContinue = isKnown;
    return isKnown;
  }

  #pause(verdict: number, at: number): number {
    this.#at = at;
    return verdict;
  }

  #refuse(code: RefusalCode): number {
    this.refusal = code;
    return REFUSED;
  }
}

function isDigit(byte: number | undefined): boolean {
  return byte !== undefined && byte >= 0x30 && byte <= 0x39;
}

const CONTINUE = "100-continue";
const VERSION = "HTTP/1.";
/** Place of the major version inside `VERSION`. */
const MAJOR_AT = 5;
/** Longest registered method is 17 bytes (UPDATEREDIRECTREF); anything longer is a probe. */
const METHOD_BYTES_MAX = 32;
