/**
 * The request target and the host it is for (RFC 9112 section 3.2, RFC 9110 section 7.2).
 *
 * Forwarded is always origin-form (or `*` for OPTIONS) with one Host. An absolute-form target is
 * normalised: its authority replaces the Host header, its path becomes the target.
 */
import { COLON, IS_HOST, IS_IPV6, SLASH, startsIgnoringCase } from "./bytes.ts";
import { STRIDE, VALUE_END, VALUE_START, type HeaderLines } from "./header-lines.ts";
import { METHOD } from "./methods.ts";
import type { RefusalCode } from "./refusal.ts";

/** The parts of a request head that the target is judged by. */
export interface TargetPlace {
  readonly head: {
    readonly lines: HeaderLines;
    readonly method: number;
    readonly methodEnd: number;
    readonly targetEnd: number;
  };
  /** Index of the Host line, -1 without. */
  readonly hostLine: number;
}

/** Where target and host are in the head, as offsets; reusable. */
export class RequestTarget {
  /** Path and query in origin-form, or `*`. Empty range = `/` (absolute-form without a path). */
  pathStart = 0;
  pathEnd = 0;
  /** Host with its port, as it is to be sent; empty for HTTP/1.0 without one. */
  hostStart = 0;
  hostEnd = 0;
  /** End of the host without its port; `hostStart..nameEnd` is what is routed by. */
  nameEnd = 0;
  /** The authority came in the target: the Host line must be replaced. */
  isAbsolute = false;
  #refusal: RefusalCode | null = null;

  /** Reads target and host of a scanned head; `null` = accepted. */
  take(bytes: Uint8Array, base: number, place: TargetPlace): RefusalCode | null {
    const { head, hostLine } = place;
    this.#refusal = null;
    this.isAbsolute = false;
    this.hostStart = this.hostEnd = this.nameEnd = 0;
    this.pathStart = head.methodEnd + 1;
    this.pathEnd = head.targetEnd;
    if (hostLine >= 0) {
      this.hostStart = head.lines.entries[hostLine * STRIDE + VALUE_START] as number;
      this.hostEnd = head.lines.entries[hostLine * STRIDE + VALUE_END] as number;
      if (this.hostStart === this.hostEnd) return "REQUEST_HOST_MISSING";
      this.#takeAuthority(bytes, base, "REQUEST_HOST");
      if (this.#refusal !== null) return this.#refusal;
    }
    const first = bytes[base + this.pathStart];
    if (first === SLASH) return null;
    if (first === ASTERISK && this.pathEnd - this.pathStart === 1) {
      return head.method === METHOD.options ? null : "REQUEST_TARGET";
    }
    return this.#takeAbsolute(bytes, base);
  }

  #takeAbsolute(bytes: Uint8Array, base: number): RefusalCode | null {
    const at = base + this.pathStart;
    const end = base + this.pathEnd;
    let from = 0;
    for (const scheme of SCHEMES) {
      if (at + scheme.length < end && startsIgnoringCase(bytes, at, scheme)) {
        from = at + scheme.length;
      }
    }
    if (from === 0) return "REQUEST_TARGET";
    let path = from;
    while (path < end && bytes[path] !== SLASH && bytes[path] !== QUESTION) path += 1;
    // `http://host?query` has an empty path, which cannot be written in origin-form byte by byte.
    if (path === from || (path < end && bytes[path] === QUESTION)) return "REQUEST_TARGET";
    this.isAbsolute = true;
    this.hostStart = from - base;
    this.hostEnd = path - base;
    this.pathStart = path - base;
    this.#takeAuthority(bytes, base, "REQUEST_TARGET");
    return this.#refusal;
  }

  /** Checks `hostStart..hostEnd` as host and optional port, and sets `nameEnd`. */
  #takeAuthority(bytes: Uint8Array, base: number, code: RefusalCode): void {
    let at = base + this.hostStart;
    const end = base + this.hostEnd;
    if (bytes[at] === OPEN_BRACKET) {
      at += 1;
      const from = at;
      while (at < end && IS_IPV6[bytes[at] as number] === 1) at += 1;
      if (at === from || bytes[at] !== CLOSE_BRACKET || at === end) return this.#refuse(code);
      at += 1;
    } else {
      const from = at;
      while (at < end && IS_HOST[bytes[at] as number] === 1) at += 1;
      if (at === from) return this.#refuse(code);
    }
    this.nameEnd = at - base;
    if (at === end) return;
    if (bytes[at] !== COLON) return this.#refuse(code);
    at += 1;
    // An empty port is allowed by RFC 3986 and means the default.
    if (end - at > PORT_DIGITS_MAX) return this.#refuse(code);
    for (; at < end; at += 1) {
      const byte = bytes[at] as number;
      if (byte < 0x30 || byte > 0x39) return this.#refuse(code);
    }
  }

  #refuse(code: RefusalCode): void {
    this.#refusal = code;
  }
}

const ASTERISK = 0x2a;
const QUESTION = 0x3f;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;
const PORT_DIGITS_MAX = 5;
const SCHEMES = ["http://", "https://"] as const;
