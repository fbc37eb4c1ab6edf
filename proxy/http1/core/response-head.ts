/**
 * The head of a response: the same strict, resumable pass as for requests. What an upstream sends
 * is trusted no more than what a client sends: two readings of one response poison a client's
 * cache or hand one client's answer to another.
 *
 * Source: RFC 9112 section 4 (status line), section 6.3 (body by status and request method).
 */
import { CR, IS_VALUE, LF, SPACE } from "./bytes.ts";
import { Connection } from "./connection-header.ts";
import { Framing } from "./framing.ts";
import { DONE, HeaderLines, MORE, NAME_ID, REFUSED, STRIDE } from "./header-lines.ts";
import { NAME } from "./header-names.ts";
import type { RefusalCode } from "./refusal.ts";
import type { HeadLimits } from "./request-head.ts";

const IN_STATUS = 0;
const IN_REASON = 1;
const REASON_LINE_FEED = 2;
const IN_LINES = 3;

/** Parser and result of one response head; reusable after `reset`. */
export class ResponseHead {
  readonly lines: HeaderLines;
  readonly framing = new Framing();
  readonly connection = new Connection();
  /** Three-digit status, 100-599. */
  status = 0;
  /** Minor HTTP version: 0 or 1. */
  minor = 1;
  /** Bytes of the head, final CRLF included. Valid when done. */
  length = 0;
  refusal: RefusalCode = "HEAD_SYNTAX";

  readonly #limits: HeadLimits;
  #phase = IN_STATUS;
  #at = 0;

  constructor(limits: HeadLimits) {
    this.#limits = limits;
    this.lines = new HeaderLines(limits.headerLinesMax);
  }

  reset(): void {
    this.#phase = IN_STATUS;
    this.#at = 0;
  }

  /** Whether a response with this status never has a body. */
  get isBodiless(): boolean {
    return this.status < 200 || this.status === 204 || this.status === 304;
  }

  /** Whether the upstream means to keep its connection after this response. */
  get isPersistent(): boolean {
    if (this.connection.hasClose) return false;
    return this.minor === 1 || this.connection.hasKeepAlive;
  }

  /** Goes on with `bytes[base .. end)`, where `base` is where the head starts. */
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
      if (this.#phase === IN_STATUS) {
        // `HTTP/1.1 200` and the byte that follows it.
        if (end - base < STATUS_BYTES + 1) return MORE;
        if (!this.#takeStatus(bytes, base)) return this.#refuse("STATUS_LINE");
        at = base + STATUS_BYTES;
        // Some servers leave out the space before an empty reason; every client reads that.
        if (bytes[at] === SPACE) at += 1;
        else if (bytes[at] !== CR) return this.#refuse("STATUS_LINE");
        this.#phase = IN_REASON;
      } else if (this.#phase === IN_REASON) {
        while (at < end && IS_VALUE[bytes[at] as number] === 1) at += 1;
        if (at === end) break;
        if (bytes[at] !== CR) {
          return this.#refuse(bytes[at] === LF ? "HEAD_BARE_LF" : "STATUS_LINE");
        }
        at += 1;
        this.#phase = REASON_LINE_FEED;
      } else {
        if (bytes[at] !== LF) return this.#refuse("HEAD_BARE_CR");
        this.#phase = IN_LINES;
        this.lines.reset(at + 1 - base);
        return DONE;
      }
    }
    this.#at = at - base;
    return MORE;
  }

  #takeStatus(bytes: Uint8Array, base: number): boolean {
    for (let index = 0; index < VERSION.length; index += 1) {
      if (bytes[base + index] !== VERSION.charCodeAt(index)) return false;
    }
    this.minor = (bytes[base + VERSION.length] as number) - 0x30;
    if (this.minor !== 0 && this.minor !== 1) return false;
    if (bytes[base + VERSION.length + 1] !== SPACE) return false;
    let status = 0;
    for (let index = STATUS_BYTES - 3; index < STATUS_BYTES; index += 1) {
      const digit = (bytes[base + index] as number) - 0x30;
      if (digit < 0 || digit > 9) return false;
      status = status * 10 + digit;
    }
    this.status = status;
    return status >= 100 && status <= 599;
  }

  #interpret(bytes: Uint8Array, base: number): number {
    const { lines, framing, connection } = this;
    framing.reset();
    connection.reset();
    for (let index = 0; index < lines.count; index += 1) {
      const name = lines.entries[index * STRIDE + NAME_ID] as number;
      if (name === NAME.other) continue;
      if (name === NAME.contentLength || name === NAME.transferEncoding) {
        const refusal = framing.take(bytes, base, { lines, index });
        if (refusal !== null) return this.#refuse(refusal);
      } else if (name === NAME.connection) {
        if (!connection.take(bytes, base, { lines, index })) return this.#refuse("HEAD_CONNECTION");
      } else if (name === NAME.upgrade) connection.takeUpgrade(bytes, base, { lines, index });
    }
    if (framing.isChunked && this.minor === 0) return this.#refuse("FRAMING_CODING");
    return DONE;
  }

  #refuse(code: RefusalCode): number {
    this.refusal = code;
    return REFUSED;
  }
}

const VERSION = "HTTP/1.";
/** `HTTP/1.1 200`. */
const STATUS_BYTES = 12;
