/**
 * Where WebSocket frames begin and end in passing bytes (RFC 6455 section 5.2), so that a frame of
 * ours can go between two of theirs. Payloads are skipped by arithmetic and never looked at.
 *
 *   FIN, opcode (1) | mask bit, length (1) | longer length (0, 2, 8) | mask key (0, 4) | payload
 */

const FIRST = 0;
const SECOND = 1;
const LENGTH = 2;
const MASK = 3;
const PAYLOAD = 4;

/** Cursor over the frames of one direction. */
export class FrameCursor {
  #phase = FIRST;
  /** Bytes left of the current phase. */
  #left = 0;
  #payload = 0;
  #isMasked = false;

  /** Whether the next byte begins a frame. */
  get isAtBoundary(): boolean {
    return this.#phase === FIRST;
  }

  /** Goes over all of `bytes[start..end)`. */
  advance(bytes: Uint8Array, start: number, end: number): void {
    let at = start;
    while (at < end) at = this.toBoundary(bytes, at, end);
  }

  /** Goes on to the end of the current frame, or to `end`; answers where it stopped. */
  toBoundary(bytes: Uint8Array, start: number, end: number): number {
    let at = start;
    while (at < end) {
      if (this.#phase >= MASK) {
        const taken = Math.min(this.#left, end - at);
        this.#left -= taken;
        at += taken;
        if (this.#left === 0) this.#endPart();
      } else {
        this.#step(bytes[at] as number);
        at += 1;
      }
      if (this.#phase === FIRST) return at;
    }
    return at;
  }

  #step(byte: number): void {
    if (this.#phase === FIRST) this.#phase = SECOND;
    else if (this.#phase === SECOND) {
      this.#isMasked = (byte & 0x80) !== 0;
      const length = byte & 0x7f;
      this.#payload = length < 126 ? length : 0;
      this.#left = length < 126 ? 0 : length === 126 ? 2 : 8;
      this.#phase = LENGTH;
      if (this.#left === 0) this.#endLength();
    } else {
      // Above 2^53 it is no longer exact; no connection lives to see the end of such a frame.
      this.#payload = this.#payload * 256 + byte;
      this.#left -= 1;
      if (this.#left === 0) this.#endLength();
    }
  }

  #endLength(): void {
    if (this.#isMasked) {
      this.#phase = MASK;
      this.#left = 4;
    } else this.#startPayload();
  }

  #endPart(): void {
    if (this.#phase === MASK) this.#startPayload();
    else this.#phase = FIRST;
  }

  #startPayload(): void {
    this.#left = this.#payload;
    this.#phase = this.#left === 0 ? FIRST : PAYLOAD;
  }
}

/** A close frame as a server sends it: status 1001, the endpoint goes away (section 7.4.1). */
export const GOING_AWAY = new Uint8Array([0x88, 0x02, 0x03, 0xe9]);
