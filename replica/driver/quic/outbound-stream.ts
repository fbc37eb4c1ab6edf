/**
 * The sending half of one QUIC stream: frames queued by the caller, handed to quiche as far as flow
 * and congestion control allow.
 */
import { errorText } from "#base/errors.ts";
import type { EngineConnection } from "./engine.ts";

/** How a write ended: all handed over, no room for now, or the peer does not want more. */
export type WriteOutcome = "drained" | "blocked" | "broken";

/** Queue of one stream's outgoing bytes. */
export class OutboundStream {
  readonly id: number;
  readonly isUrgent: boolean;
  /** Called when everything queued was handed over, or the stream broke. Set by its owner. */
  onProgress: (outcome: WriteOutcome) => void = () => {};
  /** Payload and prefixes not yet handed to quiche. */
  queuedBytes = 0;
  /** What quiche said when a write ended as "broken". */
  brokenBy = "";
  /** FIN was handed to quiche. */
  isFinished = false;
  /** On the connection's list of streams to write. */
  isScheduled = false;
  readonly #chunks: Uint8Array[] = [];
  #at = 0;
  #offset = 0;
  #endsHere = false;

  constructor(id: number, isUrgent: boolean) {
    this.id = id;
    this.isUrgent = isUrgent;
  }

  /** Whether FIN was asked for. */
  get isEnding(): boolean {
    return this.#endsHere;
  }

  /** Queues a frame with its length prefix. The payload must not be changed afterwards. */
  pushFrame(frame: Uint8Array): void {
    const header = Buffer.allocUnsafe(HEADER_BYTES);
    header.writeUInt32BE(frame.length);
    // One call into quiche per frame is cheaper than two, as long as copying is cheaper than it.
    if (frame.length <= COPY_BYTES_MAX) this.#chunks.push(Buffer.concat([header, frame]));
    else this.#chunks.push(header, frame);
    this.queuedBytes += HEADER_BYTES + frame.length;
  }

  /** Queues FIN after what was pushed. */
  pushEnd(): void {
    this.#endsHere = true;
  }

  /** Drops what is queued. */
  clear(): void {
    this.#chunks.length = 0;
    this.#at = 0;
    this.#offset = 0;
    this.queuedBytes = 0;
  }

  /** Hands over what quiche takes. */
  write(native: EngineConnection): WriteOutcome {
    try {
      while (this.#at < this.#chunks.length) {
        if (!this.#writeChunk(native)) return "blocked";
      }
      this.clear();
      if (this.#endsHere && !this.isFinished) {
        native.streamSend(this.id, EMPTY, true);
        this.isFinished = true;
      }
      return "drained";
    } catch (thrown) {
      // STOP_SENDING, or the connection is closing: both mean that nobody reads on.
      this.brokenBy = errorText(thrown);
      this.clear();
      return "broken";
    }
  }

  #writeChunk(native: EngineConnection): boolean {
    const chunk = this.#chunks[this.#at] ?? EMPTY;
    const rest = this.#offset === 0 ? chunk : chunk.subarray(this.#offset);
    const isLast = this.#endsHere && this.#at === this.#chunks.length - 1;
    const taken = native.streamSend(this.id, rest, isLast);
    if (taken === null) return false;
    this.queuedBytes -= taken;
    if (taken < rest.length) {
      this.#offset += taken;
      return false;
    }
    this.#chunks[this.#at] = EMPTY;
    this.#at += 1;
    this.#offset = 0;
    if (isLast) this.isFinished = true;
    return true;
  }
}

const HEADER_BYTES = 4;
const COPY_BYTES_MAX = 16 * 1024;
const EMPTY = Buffer.alloc(0);
