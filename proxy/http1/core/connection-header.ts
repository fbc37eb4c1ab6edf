/**
 * The Connection header (RFC 9110 section 7.6.1): what it says of persistence and upgrade, and
 * which other headers it takes out of the message. Reusable; one per message head.
 */
import { eachListElement, equalsIgnoringCase, lowerOf } from "./bytes.ts";
import {
  NAME_END,
  NAME_ID,
  NAME_START,
  STRIDE,
  VALUE_END,
  VALUE_START,
  type HeaderLines,
} from "./header-lines.ts";
import { isNominable } from "./header-names.ts";
import { NAME } from "./header-names.ts";
import type { FramingLine } from "./framing.ts";

/** What the Connection and Upgrade lines of one head say. */
export class Connection {
  hasClose = false;
  hasKeepAlive = false;
  /** `Connection: upgrade` was listed. */
  hasUpgrade = false;
  /** An Upgrade line other than `h2c` is there. */
  namesProtocol = false;
  /** An Upgrade line names `websocket`. */
  isWebSocket = false;
  /** Elements of all Connection lines. */
  optionCount = 0;
  /** Names other than the usual three were listed: `dropNominated` has work to do. */
  hasNominations = false;

  reset(): void {
    this.hasClose = false;
    this.hasKeepAlive = false;
    this.hasUpgrade = false;
    this.namesProtocol = false;
    this.isWebSocket = false;
    this.hasNominations = false;
    this.optionCount = 0;
  }

  /** Whether the message asks for another protocol on this connection. */
  get isUpgrade(): boolean {
    return this.hasUpgrade && this.namesProtocol;
  }

  /** Takes one Connection line; false = it lists more names than anybody needs. */
  take(bytes: Uint8Array, base: number, place: FramingLine): boolean {
    return eachListElement(bytes, valueOf(base, place), (start, end) => {
      this.optionCount += 1;
      if (this.optionCount > OPTIONS_MAX) return false;
      const range = { start, end };
      if (equalsIgnoringCase(bytes, range, "close")) this.hasClose = true;
      else if (equalsIgnoringCase(bytes, range, "keep-alive")) this.hasKeepAlive = true;
      else if (equalsIgnoringCase(bytes, range, "upgrade")) this.hasUpgrade = true;
      else this.hasNominations = true;
      return true;
    });
  }

  /**
   * Takes one Upgrade line. `h2c` is never passed on: an upstream that switched to it would carry
   * requests past everything that is checked here.
   */
  takeUpgrade(bytes: Uint8Array, base: number, place: FramingLine): void {
    this.namesProtocol = eachListElement(bytes, valueOf(base, place), (start, end) => {
      this.isWebSocket ||= equalsIgnoringCase(bytes, { start, end }, "websocket");
      return !equalsIgnoringCase(bytes, { start, end }, "h2c");
    });
  }
}

/**
 * Marks the lines whose names are listed in a Connection line as `NAME.nominated`, so that they are
 * dropped. Cost: listed names x lines; call it only when `hasNominations`.
 */
export function dropNominated(bytes: Uint8Array, base: number, lines: HeaderLines): void {
  const { entries, count } = lines;
  for (let index = 0; index < count; index += 1) {
    if (entries[index * STRIDE + NAME_ID] !== NAME.connection) continue;
    eachListElement(bytes, valueOf(base, { lines, index }), (start, end) => {
      for (let other = 0; other < count; other += 1) {
        const line = other * STRIDE;
        if (entries[line + NAME_ID] === NAME.connection) continue;
        if (!isNominable(entries[line + NAME_ID] as number)) continue;
        const nameStart = base + (entries[line + NAME_START] as number);
        const nameEnd = base + (entries[line + NAME_END] as number);
        if (nameEnd - nameStart !== end - start) continue;
        if (isSameName(bytes, nameStart, { start, end })) entries[line + NAME_ID] = NAME.nominated;
      }
      return true;
    });
  }
}

/**
 * Each name is compared with each line: without a limit, a head of 32 KiB could cost milliseconds.
 */
const OPTIONS_MAX = 64;

interface Range {
  readonly start: number;
  readonly end: number;
}

function valueOf(base: number, place: FramingLine): Range {
  const line = place.index * STRIDE;
  return {
    start: base + (place.lines.entries[line + VALUE_START] as number),
    end: base + (place.lines.entries[line + VALUE_END] as number),
  };
}

function isSameName(bytes: Uint8Array, at: number, listed: Range): boolean {
  for (let index = 0; index < listed.end - listed.start; index += 1) {
    const left = lowerOf(bytes[at + index] as number);
    if (left !== lowerOf(bytes[listed.start + index] as number)) return false;
  }
  return true;
}
