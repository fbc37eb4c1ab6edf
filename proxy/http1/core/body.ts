/**
 * One body in passing: how much of the bytes at hand belongs to it and whether it is whole.
 */
import { ChunkScanner } from "./chunked.ts";
import type { RefusalCode } from "./refusal.ts";

/** How a body's end is found. */
export const BODY = { none: 0, length: 1, chunked: 2, untilClose: 3 } as const;

/** Cursor over one body; reusable. */
export class Body {
  kind: number = BODY.none;
  isComplete = true;
  /** Bytes still to come of a body with a length. */
  left = 0;
  refusal: RefusalCode = "BODY_CHUNK_SIZE";

  readonly #overheadMax: number;
  /** Made when the first chunked body comes: most connections never see one. */
  #chunks: ChunkScanner | null = null;

  constructor(overheadMax: number) {
    this.#overheadMax = overheadMax;
  }

  startNone(): void {
    this.kind = BODY.none;
    this.isComplete = true;
  }

  startLength(length: number): void {
    this.kind = BODY.length;
    this.left = length;
    this.isComplete = length === 0;
  }

  startUntilClose(): void {
    this.kind = BODY.untilClose;
    this.isComplete = false;
  }

  /** `onData`: see `ChunkScanner.onData`. */
  startChunked(onData: ((start: number, end: number) => void) | null = null): void {
    this.kind = BODY.chunked;
    this.isComplete = false;
    this.#chunks ??= new ChunkScanner(this.#overheadMax);
    this.#chunks.reset();
    this.#chunks.onData = onData;
  }

  /** The stream has ended: whole if that is how this body ends. */
  endOfStream(): boolean {
    if (this.kind === BODY.untilClose) this.isComplete = true;
    return this.isComplete;
  }

  /** Takes what belongs to the body from `bytes[start..end)`: where it stopped, -1 = refused. */
  advance(bytes: Uint8Array, start: number, end: number): number {
    if (this.isComplete) return start;
    if (this.kind === BODY.length) {
      const stop = end - start > this.left ? start + this.left : end;
      this.left -= stop - start;
      this.isComplete = this.left === 0;
      return stop;
    }
    if (this.kind === BODY.untilClose) return end;
    const chunks = this.#chunks as ChunkScanner;
    const stop = chunks.scan(bytes, start, end);
    if (stop < 0) this.refusal = chunks.refusal;
    else this.isComplete = chunks.isComplete;
    return stop;
  }
}
