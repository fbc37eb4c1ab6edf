/**
 * Cuts a stream's bytes into frames: `[length u32be | payload]`, any number, until FIN (protocol
 * reference, section 1.5).
 *
 * Bytes arrive in pieces that respect no frame. A frame's memory grows with what has arrived, not
 * with what its length promises, so that four bytes cannot claim 100 MiB.
 */
import { failure, success, type Result } from "#base/machine.ts";

/** Why a stream cannot be read further. */
export type FrameFailure = "frameTooLarge" | "streamTooLarge" | "cutShort";

/** Limits of one stream, in bytes of payload. */
export interface FrameLimits {
  readonly frameBytesMax: number;
  readonly streamBytesMax: number;
}

/** Reads one stream. */
export class FrameReader {
  readonly #limits: FrameLimits;
  #headerBytes = 0;
  #header = 0;
  /** Payload of the frame under way: capacity may exceed what has arrived. */
  #payload: Buffer = EMPTY;
  #payloadLength = 0;
  #streamBytes = 0;
  /** Bytes held for the frame under way. */
  get heldBytes(): number {
    return this.#payload.length;
  }

  constructor(limits: FrameLimits) {
    this.#limits = limits;
  }

  /**
   * Takes the next bytes (copied; the caller may reuse them) and appends finished frames to
   * `frames`. After a failure the reader must not be used again.
   */
  push(bytes: Uint8Array, frames: Uint8Array[]): Result<null, FrameFailure> {
    let offset = 0;
    while (offset < bytes.length) {
      if (this.#headerBytes < HEADER_BYTES) {
        this.#header = this.#header * 256 + (bytes[offset] ?? 0);
        this.#headerBytes += 1;
        offset += 1;
        if (this.#headerBytes < HEADER_BYTES) continue;
        const refusal = this.#begin();
        if (refusal !== null) return failure(refusal);
      } else {
        const end = Math.min(bytes.length, offset + this.#header - this.#payloadLength);
        this.#append(bytes.subarray(offset, end));
        offset = end;
      }
      if (this.#payloadLength === this.#header) this.#finish(frames);
    }
    return success(null);
  }

  /** Takes the end of the stream: fails when it is inside a frame. */
  end(): Result<null, FrameFailure> {
    return this.#headerBytes === 0 ? success(null) : failure("cutShort");
  }

  #begin(): FrameFailure | null {
    if (this.#header > this.#limits.frameBytesMax) return "frameTooLarge";
    this.#streamBytes += this.#header;
    if (this.#streamBytes > this.#limits.streamBytesMax) return "streamTooLarge";
    // Small ones share a block: memory of their own costs more than all else that is done to a frame.
    this.#payload = Buffer.allocUnsafe(Math.min(this.#header, FIRST_CAPACITY_BYTES));
    return null;
  }

  #append(bytes: Uint8Array): void {
    const length = this.#payloadLength + bytes.length;
    if (length > this.#payload.length) {
      const capacity = Math.min(this.#header, Math.max(length, this.#payload.length * 2));
      const grown = Buffer.allocUnsafeSlow(capacity);
      this.#payload.copy(grown, 0, 0, this.#payloadLength);
      this.#payload = grown;
    }
    this.#payload.set(bytes, this.#payloadLength);
    this.#payloadLength = length;
  }

  #finish(frames: Uint8Array[]): void {
    frames.push(this.#payload);
    this.#headerBytes = 0;
    this.#header = 0;
    this.#payload = EMPTY;
    this.#payloadLength = 0;
  }
}

const HEADER_BYTES = 4;
const EMPTY = Buffer.alloc(0);
/** Most frames are smaller and so never grow. */
const FIRST_CAPACITY_BYTES = 64 * 1024;
