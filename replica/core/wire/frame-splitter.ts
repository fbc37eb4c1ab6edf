/**
 * Cuts a stream of bytes into frames: `u32be length ‖ payload`, any number until the stream ends
 * (protocol reference, 1.5).
 *
 * Bytes arrive in fragments of any size. A frame's buffer grows with what has arrived, not with what
 * its header promises, so a peer that promises 100 MiB and sends nothing costs nothing. Frames are
 * copies: the transport may reuse its receive buffer.
 */

/** One splitter per stream direction. After a failure it takes nothing more. */
export class FrameSplitter {
  readonly #frameBytesMax: number;
  readonly #header = new Uint8Array(FRAME_HEADER_BYTES);
  #headerLength = 0;
  /** Room for the frame under way, of which `#received` bytes are there. */
  #frame: Uint8Array = new Uint8Array(0);
  #frameBytes = 0;
  #received = 0;
  #failure: string | null = null;

  /** `frameBytesMax` = greatest payload accepted; default 100 MiB, as Corrosion. */
  constructor(frameBytesMax: number = FRAME_BYTES_MAX) {
    this.#frameBytesMax = frameBytesMax;
  }

  /** `frame-too-large` once a header has promised too much: the stream is lost; else `null`. */
  get failure(): string | null {
    return this.#failure;
  }

  /** True between frames: a stream that ends elsewhere was cut short. */
  get isAtBoundary(): boolean {
    return this.#failure === null && this.#headerLength === 0;
  }

  /** Payload bytes held for the frame under way. */
  get bufferedBytes(): number {
    return this.#received;
  }

  /** Takes the next fragment and returns the payloads that it completes, in order. */
  push(fragment: Uint8Array): Uint8Array[] {
    const frames: Uint8Array[] = [];
    let at = 0;
    while (at < fragment.length && this.#failure === null) {
      at =
        this.#headerLength < FRAME_HEADER_BYTES
          ? this.#takeHeader(fragment, at)
          : this.#takePayload(fragment, at);
      const isWhole =
        this.#headerLength === FRAME_HEADER_BYTES && this.#received === this.#frameBytes;
      if (isWhole && this.#failure === null) frames.push(this.#finishFrame());
    }
    return frames;
  }

  #takeHeader(fragment: Uint8Array, start: number): number {
    let at = start;
    while (at < fragment.length && this.#headerLength < FRAME_HEADER_BYTES) {
      this.#header[this.#headerLength] = fragment[at] ?? 0;
      this.#headerLength += 1;
      at += 1;
    }
    if (this.#headerLength < FRAME_HEADER_BYTES) return at;
    this.#frameBytes = new DataView(this.#header.buffer).getUint32(0);
    if (this.#frameBytes > this.#frameBytesMax) this.#failure = "frame-too-large";
    else this.#frame = new Uint8Array(Math.min(this.#frameBytes, fragment.length - at));
    return at;
  }

  #takePayload(fragment: Uint8Array, at: number): number {
    const taken = Math.min(fragment.length - at, this.#frameBytes - this.#received);
    const needed = this.#received + taken;
    if (needed > this.#frame.length) {
      // Doubling bounds the copying; the promised length bounds the doubling.
      const room = Math.min(this.#frameBytes, Math.max(needed, this.#frame.length * 2));
      const larger = new Uint8Array(room);
      larger.set(this.#frame.subarray(0, this.#received));
      this.#frame = larger;
    }
    this.#frame.set(fragment.subarray(at, at + taken), this.#received);
    this.#received = needed;
    return at + taken;
  }

  #finishFrame(): Uint8Array {
    const frame = this.#frame;
    this.#frame = new Uint8Array(0);
    this.#headerLength = 0;
    this.#frameBytes = 0;
    this.#received = 0;
    return frame;
  }
}

/** The length prefix of a payload of `payloadBytes` bytes. */
export function frameHeader(payloadBytes: number): Uint8Array {
  const header = new Uint8Array(FRAME_HEADER_BYTES);
  new DataView(header.buffer).setUint32(0, payloadBytes);
  return header;
}

/** The payloads as one run of bytes, each after its length prefix. */
export function joinFrames(payloads: readonly Uint8Array[]): Uint8Array {
  let byteCount = 0;
  for (const payload of payloads) byteCount += FRAME_HEADER_BYTES + payload.length;
  const joined = new Uint8Array(byteCount);
  const view = new DataView(joined.buffer);
  let at = 0;
  for (const payload of payloads) {
    view.setUint32(at, payload.length);
    joined.set(payload, at + FRAME_HEADER_BYTES);
    at += FRAME_HEADER_BYTES + payload.length;
  }
  return joined;
}

/** Bytes of the length prefix. */
export const FRAME_HEADER_BYTES = 4;
/** Corrosion's receive limit for one payload. */
export const FRAME_BYTES_MAX = 100 * 1024 * 1024;
