/**
 * All streams of a connection: opening and closing, flow control, and the frames that carry them
 * (RFC 9000, sections 2 to 4).
 *
 * Credit is handed out in windows: a peer may have so many bytes unread with us per stream and in
 * all, and so many streams unfinished. Of our own bytes only so many are taken as the congestion
 * window can use soon; what waits beyond is its owner's to order.
 *
 * Ids: bit 0 = opened by the server, bit 1 = unidirectional.
 */
import { FRAME, streamFrameOverhead, writeIntegers, writeStreamHead } from "./frames.ts";
import { PeerStreams } from "./peer-streams.ts";
import { RecvStream } from "./recv-stream.ts";
import { SendStream } from "./send-stream.ts";
import {
  FLOW_CONTROL_ERROR,
  NO_ERROR,
  STREAM_LIMIT_ERROR,
  STREAM_STATE_ERROR,
} from "./transport-error.ts";
import type { TransportParameters } from "./transport-parameters.ts";
import type { WireWriter } from "./wire.ts";

/** A stream with its halves; `null` = the kind has none, or it is over. */
interface Stream {
  readonly id: number;
  send: SendStream | null;
  recv: RecvStream | null;
}

/** What `write` gives for a stream that takes nothing any more: reset, stopped by the peer, or over. */
export const STREAM_BROKEN = -1;

/** Streams of one connection. */
export class StreamSet {
  /** Bytes written and not yet sent for the first time. */
  unsentBytes = 0;
  /** The last `read` came to the stream's end. */
  readIsFin = false;
  readonly #isClient: boolean;
  readonly #local: TransportParameters;
  readonly #streams = new Map<number, Stream>();
  /** By the two lowest bits of the id; ours hold nothing. */
  readonly #peerStreams: readonly [PeerStreams, PeerStreams];
  /** Streams that the peer lets us open, and those that we have: bidirectional, unidirectional. */
  readonly #creditStreams: [number, number] = [0, 0];
  readonly #openedStreams: [number, number] = [0, 0];
  #peer: TransportParameters | null = null;
  /** Connection-wide: what the peer may send, has sent, and we have read. */
  #maxData: number;
  #received = 0;
  #consumed = 0;
  /** Connection-wide: what we may write and have written. */
  #peerMaxData = 0;
  #written = 0;
  readonly #readable = new Set<number>();
  #urgent: SendStream[] = [];
  #bulk: SendStream[] = [];
  /** Frames to send: type and stream id (0 where the frame has none). */
  readonly #control = new Map<string, { readonly type: number; readonly id: number }>();

  constructor(isClient: boolean, local: TransportParameters) {
    this.#isClient = isClient;
    this.#local = local;
    this.#maxData = local.initialMaxData;
    this.#peerStreams = [
      new PeerStreams(local.initialMaxStreamsBidi),
      new PeerStreams(local.initialMaxStreamsUni),
    ];
  }

  /** What the peer grants is known. */
  start(peer: TransportParameters): void {
    this.#peer = peer;
    this.#peerMaxData = peer.initialMaxData;
    this.#creditStreams[0] = peer.initialMaxStreamsBidi;
    this.#creditStreams[1] = peer.initialMaxStreamsUni;
  }

  /** Streams of a kind (0: bidirectional, 1: unidirectional) that may be opened beside those open. */
  left(kind: 0 | 1): number {
    return Math.max(0, this.#creditStreams[kind] - this.#openedStreams[kind]);
  }

  /** Opens the next stream of a kind and returns its id; -1 = the peer grants no more. */
  open(kind: 0 | 1): number {
    if (this.#peer === null || this.left(kind) === 0) return -1;
    const id = this.#openedStreams[kind] * 4 + kind * UNI_BIT + (this.#isClient ? 0 : 1);
    this.#openedStreams[kind] += 1;
    this.#create(id);
    return id;
  }

  /** Streams that have something to read, in the order in which they came to have it. */
  readable(): IterableIterator<number> {
    return this.#readable.values();
  }

  /** Whether a stream has something to read; without an id, any. */
  isReadable(id?: number): boolean {
    return id === undefined ? this.#readable.size > 0 : this.#readable.has(id);
  }

  /** Whether there is anything to send. */
  get hasPending(): boolean {
    return this.#urgent.length > 0 || this.#bulk.length > 0 || this.#control.size > 0;
  }

  /** Lets a stream go before those that are not urgent. Only before its first write. */
  prefer(id: number): void {
    const send = this.#streams.get(id)?.send;
    if (send) send.isUrgent = true;
  }

  /**
   * Writes bytes, which must not be changed afterwards, and the end. Returns how many were taken, as
   * far as credit and `budget` go; the end counts only if all were.
   */
  write(id: number, bytes: Uint8Array, end: { isFin: boolean; budget: number }): number {
    const send = this.#streams.get(id)?.send;
    if (!send || send.resetCode >= 0 || send.isEnded) return STREAM_BROKEN;
    const room = Math.min(
      send.maxData - send.written,
      this.#peerMaxData - this.#written,
      Math.max(0, end.budget - this.unsentBytes),
    );
    const taken = Math.min(bytes.length, room);
    if (taken > 0) {
      send.write(taken === bytes.length ? bytes : bytes.subarray(0, taken));
      this.#written += taken;
      this.unsentBytes += taken;
    }
    if (end.isFin && taken === bytes.length) send.finish();
    this.#enqueue(send);
    return taken;
  }

  /**
   * Copies what is next of a stream into `out`; returns how many bytes, and tells in `readIsFin` if
   * that was the end. `STREAM_BROKEN` once after the peer's reset.
   */
  read(id: number, out: Uint8Array): number {
    this.readIsFin = false;
    const stream = this.#streams.get(id);
    const recv = stream?.recv;
    if (!stream || !recv) return 0;
    if (recv.resetCode >= 0) {
      stream.recv = null;
      this.#settle(stream);
      return STREAM_BROKEN;
    }
    const bytes = recv.read(out);
    this.#consume(bytes);
    this.readIsFin = recv.isAtEnd;
    if (recv.isAtEnd) stream.recv = null;
    else if (recv.grant()) this.#announce(FRAME.maxStreamData, id);
    if (!recv.isReadable || recv.isAtEnd) this.#readable.delete(id);
    this.#settle(stream);
    return bytes;
  }

  /** Gives up sending: the peer is told with RESET_STREAM. */
  reset(id: number, code: number): void {
    const send = this.#streams.get(id)?.send;
    if (!send?.reset(code)) return;
    this.unsentBytes -= send.written - send.sent;
    this.#announce(FRAME.resetStream, id);
  }

  /** Gives up reading: the peer is told with STOP_SENDING. */
  stop(id: number): void {
    const stream = this.#streams.get(id);
    const recv = stream?.recv;
    if (!stream || !recv || recv.isStopped) return;
    const before = recv.readAt;
    recv.stop();
    this.#consume(recv.readAt - before);
    this.#readable.delete(id);
    if (!recv.isComplete) this.#announce(FRAME.stopSending, id);
    this.#settle(stream);
  }

  // ------------------------------------------------------------------ frames of the peer

  /** Takes a STREAM frame. As all of these, it returns a transport error, or `NO_ERROR`. */
  onStream(id: number, offset: number, frame: { bytes: Uint8Array; isFin: boolean }): number {
    const found = this.#receiving(id);
    if (typeof found === "number") return found;
    const recv = found.recv;
    if (recv === null) return NO_ERROR;
    const [received, readAt] = [recv.received, recv.readAt];
    const error = recv.add(offset, frame.bytes, frame.isFin);
    if (error !== NO_ERROR) return error;
    return this.#noteReceived(found, recv, { received, readAt });
  }

  /** Takes RESET_STREAM. */
  onReset(id: number, code: number, finalSize: number): number {
    const found = this.#receiving(id);
    if (typeof found === "number") return found;
    const recv = found.recv;
    if (recv === null) return NO_ERROR;
    const [received, readAt] = [recv.received, recv.readAt];
    const error = recv.reset(code, finalSize);
    if (error !== NO_ERROR) return error;
    return this.#noteReceived(found, recv, { received, readAt });
  }

  /** Takes STOP_SENDING: what is not sent yet never will be. */
  onStopSending(id: number, code: number): number {
    const found = this.#sending(id);
    if (typeof found === "number") return found;
    this.reset(id, code);
    return NO_ERROR;
  }

  /** Takes MAX_STREAM_DATA. */
  onMaxStreamData(id: number, maximum: number): number {
    const found = this.#sending(id);
    if (typeof found === "number") return found;
    if (found.send) found.send.maxData = Math.max(found.send.maxData, maximum);
    return NO_ERROR;
  }

  /** Takes STREAM_DATA_BLOCKED, which asks for nothing. */
  onStreamDataBlocked(id: number): number {
    const found = this.#receiving(id);
    return typeof found === "number" ? found : NO_ERROR;
  }

  /** Takes MAX_DATA. */
  onMaxData(maximum: number): void {
    this.#peerMaxData = Math.max(this.#peerMaxData, maximum);
  }

  /** Takes MAX_STREAMS of a kind. */
  onMaxStreams(kind: 0 | 1, maximum: number): void {
    this.#creditStreams[kind] = Math.max(this.#creditStreams[kind], maximum);
  }

  // ------------------------------------------------------------------ frames of ours

  /**
   * Writes what is pending up to position `end` and records it in `frames`: four numbers each, the
   * type and up to three more, as `acked` and `lost` take them back.
   */
  writeFrames(writer: WireWriter, end: number, frames: number[]): void {
    for (const [key, { type, id }] of this.#control) {
      if (end - writer.at < CONTROL_BYTES_MAX) return;
      this.#control.delete(key);
      if (this.#writeControl(writer, type, id)) frames.push(type, id, 0, 0);
    }
    this.#writeStreams(writer, end, frames);
  }

  /** A frame of ours has arrived. */
  acked(type: number, id: number, offset: number, length: number): void {
    const stream = this.#streams.get(id);
    const send = stream?.send;
    if (!stream || !send) return;
    if (type === FRAME.stream) send.acked(offset, length >> 1, (length & 1) === 1);
    else if (type === FRAME.resetStream) send.isResetAcked = true;
    if (!send.isDone) return;
    stream.send = null;
    this.#settle(stream);
  }

  /** A frame of ours was lost. */
  lost(type: number, id: number, offset: number, length: number): void {
    if (type !== FRAME.stream) {
      this.#announce(type, id);
      return;
    }
    const send = this.#streams.get(id)?.send;
    if (!send) return;
    send.lost(offset, length >> 1, (length & 1) === 1);
    this.#enqueue(send);
  }

  #writeControl(writer: WireWriter, type: number, id: number): boolean {
    const stream = this.#streams.get(id);
    switch (type) {
      case FRAME.maxData:
        writeIntegers(writer, type, this.#maxData);
        return true;
      case FRAME.maxStreamsBidi:
      case FRAME.maxStreamsUni:
        writeIntegers(
          writer,
          type,
          this.#peerStreams[type === FRAME.maxStreamsUni ? 1 : 0].granted,
        );
        return true;
      case FRAME.maxStreamData:
        // A stream that has told its end needs no more credit.
        if (!stream?.recv || stream.recv.finalSize >= 0) return false;
        writeIntegers(writer, type, id, stream.recv.maxData);
        return true;
      case FRAME.resetStream:
        if (!stream?.send || stream.send.resetCode < 0) return false;
        writeIntegers(writer, type, id, stream.send.resetCode, stream.send.sent);
        return true;
      default:
        if (!stream?.recv || stream.recv.isComplete) return false;
        writeIntegers(writer, FRAME.stopSending, id, 0);
        return true;
    }
  }

  #writeStreams(writer: WireWriter, end: number, frames: number[]): void {
    for (;;) {
      const queue = this.#urgent.length > 0 ? this.#urgent : this.#bulk;
      const send = queue[0];
      if (send === undefined) return;
      const room = end - writer.at - streamFrameOverhead(send.id, send.written, end - writer.at);
      if (room < STREAM_ROOM_MIN) return;
      queue.shift();
      send.isQueued = false;
      const sentBefore = send.sent;
      if (!send.take(room)) continue;
      this.unsentBytes -= send.sent - sentBefore;
      const { frameOffset, frameLength, frameIsFin } = send;
      const head = {
        streamId: send.id,
        offset: frameOffset,
        length: frameLength,
        isFin: frameIsFin,
      };
      writeStreamHead(writer, head);
      send.copyFrame(writer);
      frames.push(FRAME.stream, send.id, frameOffset, frameLength * 2 + (frameIsFin ? 1 : 0));
      this.#enqueue(send);
    }
  }

  // ------------------------------------------------------------------ bookkeeping

  #create(id: number): Stream {
    const peer = this.#peer;
    const isOurs = this.#isOurs(id);
    const isUni = (id & UNI_BIT) !== 0;
    let credit = 0;
    let window = 0;
    if (isUni) {
      credit = peer?.initialMaxStreamDataUni ?? 0;
      window = this.#local.initialMaxStreamDataUni;
    } else if (isOurs) {
      credit = peer?.initialMaxStreamDataBidiRemote ?? 0;
      window = this.#local.initialMaxStreamDataBidiLocal;
    } else {
      credit = peer?.initialMaxStreamDataBidiLocal ?? 0;
      window = this.#local.initialMaxStreamDataBidiRemote;
    }
    const stream: Stream = {
      id,
      send: isOurs || !isUni ? new SendStream(id, credit) : null,
      recv: !isOurs || !isUni ? new RecvStream(id, window) : null,
    };
    this.#streams.set(id, stream);
    return stream;
  }

  /** The stream of a frame that brings something to us, or an error; over = `NO_ERROR`. */
  #receiving(id: number): Stream | number {
    if ((id & UNI_BIT) !== 0 && this.#isOurs(id)) return STREAM_STATE_ERROR;
    return this.#find(id);
  }

  /** The stream of a frame about what we send. */
  #sending(id: number): Stream | number {
    if ((id & UNI_BIT) !== 0 && !this.#isOurs(id)) return STREAM_STATE_ERROR;
    return this.#find(id);
  }

  #find(id: number): Stream | number {
    const stream = this.#streams.get(id);
    if (stream !== undefined) return stream;
    if (!Number.isSafeInteger(id)) return STREAM_LIMIT_ERROR;
    const kind = (id & UNI_BIT) === 0 ? 0 : 1;
    const index = Math.floor(id / 4);
    if (this.#isOurs(id)) {
      return index < this.#openedStreams[kind] ? NO_ERROR : STREAM_STATE_ERROR;
    }
    const arrival = this.#peerStreams[kind].arrive(index);
    if (arrival === "opens") return this.#create(id);
    return arrival === "over" ? NO_ERROR : STREAM_LIMIT_ERROR;
  }

  #noteReceived(
    stream: Stream,
    recv: RecvStream,
    before: { readonly received: number; readonly readAt: number },
  ): number {
    this.#received += recv.received - before.received;
    if (this.#received > this.#maxData) return FLOW_CONTROL_ERROR;
    this.#consume(recv.readAt - before.readAt);
    if (recv.isReadable) this.#readable.add(stream.id);
    this.#settle(stream);
    return NO_ERROR;
  }

  #consume(bytes: number): void {
    this.#consumed += bytes;
    const window = this.#local.initialMaxData;
    if (bytes === 0 || this.#maxData - this.#consumed > window / 2) return;
    this.#maxData = this.#consumed + window;
    this.#announce(FRAME.maxData, 0);
  }

  /** Forgets a stream of which both halves are over. */
  #settle(stream: Stream): void {
    const { id } = stream;
    if (stream.recv?.isStopped === true && stream.recv.isComplete) stream.recv = null;
    if (stream.recv === null) this.#readable.delete(id);
    if (stream.send !== null || stream.recv !== null) return;
    if (!this.#streams.delete(id) || this.#isOurs(id)) return;
    const kind = (id & UNI_BIT) === 0 ? 0 : 1;
    this.#peerStreams[kind].close();
    if (!this.#peerStreams[kind].grant()) return;
    this.#announce(kind === 0 ? FRAME.maxStreamsBidi : FRAME.maxStreamsUni, 0);
  }

  #announce(type: number, id: number): void {
    this.#control.set(`${type} ${id}`, { type, id });
  }

  #enqueue(send: SendStream): void {
    if (send.isQueued || !send.hasPending) return;
    send.isQueued = true;
    (send.isUrgent ? this.#urgent : this.#bulk).push(send);
  }

  #isOurs(id: number): boolean {
    return (id & 1) === (this.#isClient ? 0 : 1);
  }
}

const UNI_BIT = 2;
/** RESET_STREAM with its integers at their longest. */
const CONTROL_BYTES_MAX = 25;
/** Smaller rests of a packet are not worth a frame of their own. */
const STREAM_ROOM_MIN = 16;
