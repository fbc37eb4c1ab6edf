/**
 * Incoming unidirectional streams of one connection: collects each stream's frames and hands them
 * over together after FIN.
 *
 * Unfinished streams are bounded in number, and in bytes per stream and together; the stream that goes
 * over a bound is given up (STOP_SENDING) and counted, the others go on.
 */
import { READING, type EngineConnection } from "./engine.ts";
import { FrameReader } from "./frame-reader.ts";
import type { TransportLimits } from "./options.ts";
import type { TransportStats } from "./stats.ts";

interface UniStream {
  readonly reader: FrameReader;
  readonly frames: Uint8Array[];
  receivedBytes: number;
}

/** How to read one stream. */
export interface UniRead {
  /** Holds one read; reused. */
  readonly scratch: Buffer;
  readonly budgetBytes: number;
  readonly deliver: (frames: readonly Uint8Array[]) => void;
}

/** Unfinished streams by id. */
export class UniInbox {
  readonly #streams = new Map<number, UniStream>();
  readonly #limits: TransportLimits;
  readonly #stats: TransportStats;
  /** Bytes received on unfinished streams. */
  #heldBytes = 0;

  constructor(limits: TransportLimits, stats: TransportStats) {
    this.#limits = limits;
    this.#stats = stats;
  }

  /** Reads what quiche has for `id`. Returns bytes read. */
  read(native: EngineConnection, id: number, request: UniRead): number {
    let total = 0;
    while (total < request.budgetBytes) {
      let part: [number, boolean] | null;
      try {
        part = native.streamRecv(id, request.scratch);
      } catch (thrown) {
        if (!(thrown instanceof Error)) throw thrown;
        this.#giveUp(id);
        break;
      }
      if (part === null) break;
      const [length, isEnd] = part;
      total += length;
      const stream = this.#take(id, request.scratch.subarray(0, length), isEnd);
      if (stream === null) {
        this.#giveUp(id);
        stopSending(native, id);
        break;
      }
      if (!isEnd) continue;
      this.#forget(id);
      this.#stats.uniStreamsReceived += 1;
      for (const frame of stream.frames) this.#stats.uniBytesReceived += frame.length;
      request.deliver(stream.frames);
      break;
    }
    return total;
  }

  /** Adds bytes to a stream; `null` when the stream is to be given up. */
  #take(id: number, bytes: Uint8Array, isEnd: boolean): UniStream | null {
    let stream = this.#streams.get(id);
    if (stream === undefined) {
      const { frameBytesMax, uniStreamBytesMax, uniUnfinishedMax } = this.#limits;
      if (this.#streams.size >= uniUnfinishedMax) return null;
      const reader = new FrameReader({ frameBytesMax, streamBytesMax: uniStreamBytesMax });
      stream = { reader, frames: [], receivedBytes: 0 };
      this.#stats.uniStreamsAccepted += 1;
      this.#streams.set(id, stream);
    }
    stream.receivedBytes += bytes.length;
    this.#heldBytes += bytes.length;
    if (this.#heldBytes > this.#limits.uniBytesMax) return null;
    // Empty frames cost memory without bytes of payload, so prefixes count too.
    if (stream.receivedBytes > this.#limits.uniStreamBytesMax * 2) return null;
    if (!stream.reader.push(bytes, stream.frames).ok) return null;
    return isEnd && !stream.reader.end().ok ? null : stream;
  }

  #giveUp(id: number): void {
    this.#forget(id);
    this.#stats.streamsBroken += 1;
  }

  #forget(id: number): void {
    this.#heldBytes -= this.#streams.get(id)?.receivedBytes ?? 0;
    this.#streams.delete(id);
  }
}

function stopSending(native: EngineConnection, id: number): void {
  try {
    native.streamShutdown(id, READING, 0);
  } catch (thrown) {
    // The stream is over already.
    if (!(thrown instanceof Error)) throw thrown;
  }
}
