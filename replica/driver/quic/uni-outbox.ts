/**
 * Outgoing unidirectional sends of one connection, from the caller to their stream: each waits until
 * the peer grants a stream, urgent ones first, and is settled once everything is handed to quiche.
 */
import { OutboundStream } from "./outbound-stream.ts";
import type { WriteQueue } from "./write-queue.ts";
import type { EngineConnection } from "./engine.ts";

/** One unidirectional send. `settle` is called exactly once. */
export interface UniSend {
  readonly frames: readonly Uint8Array[];
  /** Payloads and length prefixes. */
  readonly bytes: number;
  readonly isUrgent: boolean;
  /** Set while the send is on a stream. */
  abort: (() => void) | null;
  /** `null` once settled. */
  settle: ((handedOver: boolean) => void) | null;
}

/** What the sends of one connection go through. */
export interface UniOutboxParts {
  readonly native: EngineConnection;
  readonly writes: WriteQueue;
  /** Gives up the sending half of a stream. */
  readonly reset: (streamId: number) => void;
}

/** Sends that wait for a stream. */
export class UniOutbox {
  readonly #parts: UniOutboxParts;
  readonly #urgent: UniSend[] = [];
  readonly #bulk: UniSend[] = [];
  #nextStreamId = FIRST_STREAM_ID;
  /** Bytes of the sends that wait. */
  waitingBytes = 0;

  constructor(parts: UniOutboxParts) {
    this.#parts = parts;
  }

  /** Sends that wait. */
  get waiting(): number {
    return this.#urgent.length + this.#bulk.length;
  }

  /** Adds a send. */
  push(send: UniSend): void {
    this.waitingBytes += send.bytes;
    (send.isUrgent ? this.#urgent : this.#bulk).push(send);
  }

  /** Puts as many sends on streams as the peer grants. */
  start(): void {
    if (this.waiting === 0) return;
    let left = this.#parts.native.peerStreamsLeftUni();
    for (const queue of [this.#urgent, this.#bulk]) {
      let taken = 0;
      for (; taken < queue.length && left > 0; taken += 1) {
        const send = queue[taken];
        if (send === undefined) break;
        this.waitingBytes -= send.bytes;
        if (send.settle === null) continue;
        this.#startOne(send);
        left -= 1;
      }
      queue.splice(0, taken);
    }
  }

  /** Settles everything that waits with `false`. */
  failAll(): void {
    for (const queue of [this.#urgent, this.#bulk]) {
      for (const send of queue.splice(0)) send.settle?.(false);
    }
    this.waitingBytes = 0;
  }

  #startOne(send: UniSend): void {
    const { native, writes } = this.#parts;
    const stream = new OutboundStream(this.#nextStreamId, send.isUrgent);
    this.#nextStreamId += STREAM_ID_STEP;
    if (send.isUrgent) native.streamPriority(stream.id, URGENCY_URGENT, false);
    for (const frame of send.frames) stream.pushFrame(frame);
    stream.pushEnd();
    // As a rule nothing waits before it, and quiche takes it whole.
    const outcome = writes.isEmpty ? stream.write(native) : "blocked";
    if (outcome === "blocked") this.#queue(send, stream);
    else send.settle?.(outcome === "drained");
  }

  #queue(send: UniSend, stream: OutboundStream): void {
    const { native, writes, reset } = this.#parts;
    // Tells quiche of the stream, so that its count of open ones is right before any write.
    if (!send.isUrgent) native.streamPriority(stream.id, URGENCY_BULK, true);
    stream.onProgress = (outcome) => {
      if (outcome === "broken") send.settle?.(false);
      else if (stream.isFinished) send.settle?.(true);
    };
    send.abort = () => {
      writes.remove(stream);
      reset(stream.id);
    };
    writes.add(stream);
  }
}

/** Unidirectional streams of a client are 2, 6, 10, ... (RFC 9000, section 2.1). */
const FIRST_STREAM_ID = 2;
const STREAM_ID_STEP = 4;
/** quiche sends lower numbers first; 127 is its default. */
const URGENCY_URGENT = 0;
const URGENCY_BULK = 127;
