/**
 * Frames, the contents of packets (RFC 9000, section 19; datagrams: RFC 9221).
 *
 *     PADDING 00 · PING 01 · IMMEDIATE_ACK 1f · HANDSHAKE_DONE 1e          type only
 *     ACK 02, 03    largest | delay | rangeCount | firstRange | (gap | range)* [03: | ECN counts x3]
 *     RESET_STREAM 04   id | code | finalSize        STOP_SENDING 05   id | code
 *     CRYPTO 06         offset | length | bytes      NEW_TOKEN 07      length | bytes
 *     STREAM 08-0f      id | [04: offset] | [02: length] | bytes       01: the stream ends here
 *     MAX_DATA 10 max · MAX_STREAM_DATA 11 id | max · MAX_STREAMS 12, 13 max
 *     DATA_BLOCKED 14 limit · STREAM_DATA_BLOCKED 15 id | limit · STREAMS_BLOCKED 16, 17 limit
 *     NEW_CONNECTION_ID 18   sequence | retirePriorTo | length u8 | id | resetToken (16)
 *     RETIRE_CONNECTION_ID 19 sequence · PATH_CHALLENGE 1a, PATH_RESPONSE 1b   8 bytes
 *     CONNECTION_CLOSE 1c code | frameType | length | reason · 1d code | length | reason
 *     DATAGRAM 30, 31   [01: length] | bytes
 *
 * All integers but `u8` are varints. The reader is one object for all frames of all packets: it
 * moves from frame to frame and shows each one's fields, bytes as positions in the packet.
 * IMMEDIATE_ACK is a draft's (ack frequency); Corrosion's nodes send it to each other.
 */
import { CONNECTION_ID_BYTES_MAX } from "./packet.ts";
import { FRAME_ENCODING_ERROR, NO_ERROR, PROTOCOL_VIOLATION } from "./transport-error.ts";
import { UNBOUNDED, varintBytes, WireReader, type WireWriter } from "./wire.ts";

/** Frame types. */
export const FRAME = {
  padding: 0x00,
  ping: 0x01,
  ack: 0x02,
  ackEcn: 0x03,
  resetStream: 0x04,
  stopSending: 0x05,
  cryptoData: 0x06,
  newToken: 0x07,
  stream: 0x08,
  streamLast: 0x0f,
  maxData: 0x10,
  maxStreamData: 0x11,
  maxStreamsBidi: 0x12,
  maxStreamsUni: 0x13,
  dataBlocked: 0x14,
  streamDataBlocked: 0x15,
  streamsBlockedBidi: 0x16,
  streamsBlockedUni: 0x17,
  newConnectionId: 0x18,
  retireConnectionId: 0x19,
  pathChallenge: 0x1a,
  pathResponse: 0x1b,
  connectionClose: 0x1c,
  applicationClose: 0x1d,
  handshakeDone: 0x1e,
  immediateAck: 0x1f,
  datagram: 0x30,
  datagramWithLength: 0x31,
} as const;

/** Reads the frames of one packet after another. A field has a meaning only where its frame has it. */
export class FrameCursor {
  type = 0;
  streamId = 0;
  /** Of stream or handshake bytes. */
  offset = 0;
  /** Bytes of the frame: stream, handshake, datagram, token, id, challenge, reason. */
  dataStart = 0;
  dataEnd = 0;
  isFin = false;
  errorCode = 0;
  finalSize = 0;
  /** Of the MAX_ and BLOCKED frames. */
  maximum = 0;
  sequence = 0;
  retirePriorTo = 0;
  resetTokenStart = 0;
  /** The type that a transport close complains of. */
  closedFrameType = 0;
  /** Acknowledged packet numbers: smallest, largest, smallest, largest, ... from the top down. */
  readonly ackRanges: number[] = [];
  /** As on the wire: not yet scaled by the peer's exponent. */
  ackDelay = 0;
  /** Packets that arrived with the mark of congestion, of ACK with ECN counts. */
  ecnCongested = 0;
  /** Why reading ended before the last byte; a transport error code. */
  failure = NO_ERROR;
  readonly #reader = new WireReader();

  /** Points the cursor before the first frame of a payload. */
  reset(bytes: Uint8Array, at: number, end: number): void {
    this.#reader.reset(bytes, at, end);
    this.failure = NO_ERROR;
  }

  /** Where the next frame begins. */
  get at(): number {
    return this.#reader.at;
  }

  /** Moves to the next frame; false at the end of the payload, or at a frame that cannot be read. */
  next(): boolean {
    const reader = this.#reader;
    if (this.failure !== NO_ERROR || reader.remaining === 0) return false;
    const typeAt = reader.at;
    this.type = reader.varint();
    // A type must be written in its shortest form (RFC 9000, section 12.4).
    if (reader.at - typeAt !== varintBytes(this.type)) this.failure = PROTOCOL_VIOLATION;
    this.#readFields(reader);
    if (reader.isFailed && this.failure === NO_ERROR) this.failure = FRAME_ENCODING_ERROR;
    return this.failure === NO_ERROR;
  }

  #readFields(reader: WireReader): void {
    const { type } = this;
    if (type >= FRAME.stream && type <= FRAME.streamLast) return this.#readStream(reader);
    switch (type) {
      case FRAME.padding:
        return this.#readPadding(reader);
      case FRAME.ping:
      case FRAME.handshakeDone:
      case FRAME.immediateAck:
        return;
      case FRAME.ack:
      case FRAME.ackEcn:
        return this.#readAck(reader);
      case FRAME.cryptoData:
        this.offset = reader.varint();
        this.#readBytes(reader, reader.varint());
        if (!(this.offset + this.dataEnd - this.dataStart < UNBOUNDED)) this.#refuse();
        return;
      case FRAME.newToken:
        this.#readBytes(reader, reader.varint());
        if (this.dataStart === this.dataEnd) this.#refuse();
        return;
      case FRAME.maxData:
      case FRAME.dataBlocked:
        this.maximum = reader.varint();
        return;
      case FRAME.maxStreamsBidi:
      case FRAME.maxStreamsUni:
      case FRAME.streamsBlockedBidi:
      case FRAME.streamsBlockedUni:
        this.maximum = reader.varint();
        if (this.maximum > STREAMS_MAX) this.#refuse();
        return;
      case FRAME.pathChallenge:
      case FRAME.pathResponse:
        return this.#readBytes(reader, PATH_DATA_BYTES);
      case FRAME.datagram:
        return this.#readBytes(reader, reader.remaining);
      case FRAME.datagramWithLength:
        return this.#readBytes(reader, reader.varint());
      default:
        return this.#readRareFields(reader);
    }
  }

  #readRareFields(reader: WireReader): void {
    switch (this.type) {
      case FRAME.resetStream:
        this.streamId = reader.varint();
        this.errorCode = reader.varint();
        this.finalSize = reader.varint();
        return;
      case FRAME.stopSending:
        this.streamId = reader.varint();
        this.errorCode = reader.varint();
        return;
      case FRAME.maxStreamData:
      case FRAME.streamDataBlocked:
        this.streamId = reader.varint();
        this.maximum = reader.varint();
        return;
      case FRAME.newConnectionId:
        return this.#readConnectionId(reader);
      case FRAME.retireConnectionId:
        this.sequence = reader.varint();
        return;
      case FRAME.connectionClose:
        this.errorCode = reader.varint();
        this.closedFrameType = reader.varint();
        return this.#readBytes(reader, reader.varint());
      case FRAME.applicationClose:
        this.errorCode = reader.varint();
        return this.#readBytes(reader, reader.varint());
      default:
        this.#refuse();
    }
  }

  /** Padding is many frames of one byte; here a run of it is one. */
  #readPadding(reader: WireReader): void {
    const { bytes, end } = reader;
    let { at } = reader;
    while (at < end && bytes[at] === 0) at += 1;
    reader.at = at;
  }

  #readStream(reader: WireReader): void {
    const { type } = this;
    this.streamId = reader.varint();
    this.offset = (type & STREAM_HAS_OFFSET) === 0 ? 0 : reader.varint();
    this.isFin = (type & STREAM_HAS_FIN) !== 0;
    this.#readBytes(reader, (type & STREAM_HAS_LENGTH) === 0 ? reader.remaining : reader.varint());
    if (!(this.offset + this.dataEnd - this.dataStart < UNBOUNDED)) this.#refuse();
  }

  #readAck(reader: WireReader): void {
    const { ackRanges } = this;
    ackRanges.length = 0;
    let largest = reader.varint();
    this.ackDelay = reader.varint();
    let rest = reader.varint();
    for (;;) {
      const smallest = largest - reader.varint();
      // A number that is not exact as one of ours was never sent.
      if (reader.isFailed || smallest < 0 || largest >= UNBOUNDED) return this.#refuse();
      ackRanges.push(smallest, largest);
      if (rest === 0) break;
      rest -= 1;
      largest = smallest - reader.varint() - 2;
    }
    if (this.type !== FRAME.ackEcn) return;
    reader.varint();
    reader.varint();
    this.ecnCongested = reader.varint();
  }

  #readConnectionId(reader: WireReader): void {
    this.sequence = reader.varint();
    this.retirePriorTo = reader.varint();
    const length = reader.u8();
    this.#readBytes(reader, length);
    this.resetTokenStart = reader.skip(RESET_TOKEN_BYTES);
    if (length < 1 || length > CONNECTION_ID_BYTES_MAX) this.#refuse();
    if (this.retirePriorTo > this.sequence) this.#refuse();
  }

  #readBytes(reader: WireReader, byteCount: number): void {
    this.dataStart = reader.skip(byteCount);
    this.dataEnd = reader.at;
  }

  #refuse(): void {
    this.failure = FRAME_ENCODING_ERROR;
  }
}

/** Whether the peer must acknowledge a packet with such a frame (RFC 9002, section 2). */
export function isAckEliciting(type: number): boolean {
  const isSilent = type === FRAME.padding || type === FRAME.ack || type === FRAME.ackEcn;
  return !isSilent && type !== FRAME.connectionClose && type !== FRAME.applicationClose;
}

/** Bytes of a stream frame with its length, without its contents. */
export function streamFrameOverhead(streamId: number, offset: number, length: number): number {
  const offsetBytes = offset === 0 ? 0 : varintBytes(offset);
  return 1 + varintBytes(streamId) + offsetBytes + varintBytes(length);
}

/** What a stream frame says before its contents. */
export interface StreamFrameHead {
  readonly streamId: number;
  readonly offset: number;
  readonly length: number;
  readonly isFin: boolean;
}

/** Writes a stream frame up to its contents, always with its length. */
export function writeStreamHead(writer: WireWriter, head: StreamFrameHead): void {
  const fin = head.isFin ? STREAM_HAS_FIN : 0;
  const offset = head.offset === 0 ? 0 : STREAM_HAS_OFFSET;
  writer.u8(FRAME.stream | STREAM_HAS_LENGTH | offset | fin);
  writer.varint(head.streamId);
  if (head.offset !== 0) writer.varint(head.offset);
  writer.varint(head.length);
}

/** Writes a handshake frame up to its contents. */
export function writeCrypto(writer: WireWriter, offset: number, length: number): void {
  writer.u8(FRAME.cryptoData);
  writer.varint(offset);
  writer.varint(length);
}

/**
 * Writes a frame that is its type and one to three integers: RESET_STREAM, STOP_SENDING, the MAX_
 * and BLOCKED frames, RETIRE_CONNECTION_ID.
 */
export function writeIntegers(
  writer: WireWriter,
  type: number,
  ...values: readonly number[]
): void {
  writer.u8(type);
  for (const value of values) writer.varint(value);
}

/** Writes PATH_CHALLENGE or PATH_RESPONSE with its 8 bytes. */
export function writePath(writer: WireWriter, type: number, data: Uint8Array): void {
  writer.u8(type);
  writer.copy(data);
}

/** Writes a datagram with its length. */
export function writeDatagram(writer: WireWriter, bytes: Uint8Array): void {
  writer.u8(FRAME.datagramWithLength);
  writer.varint(bytes.length);
  writer.copy(bytes);
}

/** A connection id that the peer may use, with the token by which it knows its reset. */
export interface OfferedId {
  readonly sequence: number;
  readonly retirePriorTo: number;
  readonly id: Uint8Array;
  readonly resetToken: Uint8Array;
}

/** Writes NEW_CONNECTION_ID. */
export function writeNewConnectionId(writer: WireWriter, offer: OfferedId): void {
  writer.u8(FRAME.newConnectionId);
  writer.varint(offer.sequence);
  writer.varint(offer.retirePriorTo);
  writer.u8(offer.id.length);
  writer.copy(offer.id);
  writer.copy(offer.resetToken);
}

/** Why a connection is closed. */
export interface CloseFrame {
  /** An application's code, else a transport error. */
  readonly isApplication: boolean;
  readonly errorCode: number;
  /** The frame type that a transport error complains of; 0 = none in particular. */
  readonly frameType: number;
  readonly reason: Uint8Array;
}

/** Writes CONNECTION_CLOSE of either kind. */
export function writeClose(writer: WireWriter, close: CloseFrame): void {
  writer.u8(close.isApplication ? FRAME.applicationClose : FRAME.connectionClose);
  writer.varint(close.errorCode);
  if (!close.isApplication) writer.varint(close.frameType);
  writer.varint(close.reason.length);
  writer.copy(close.reason);
}

/**
 * Writes ACK for as many of the ranges, from the top, as fit into `bytesMax`. `ranges` is as
 * `FrameCursor.ackRanges`. Returns false, with nothing written, when not even one fits.
 */
export function writeAck(
  writer: WireWriter,
  ack: { readonly ranges: readonly number[]; readonly delay: number; readonly bytesMax: number },
): boolean {
  const { ranges } = ack;
  const smallest = ranges[0] ?? 0;
  let largest = ranges[1] ?? 0;
  const first = largest - smallest;
  let bytes = 3 + varintBytes(largest) + varintBytes(ack.delay) + varintBytes(first);
  if (bytes > ack.bytesMax) return false;
  let count = 1;
  let below = smallest;
  for (; count * 2 < ranges.length; count += 1) {
    const [nextSmallest, nextLargest] = [ranges[count * 2] ?? 0, ranges[count * 2 + 1] ?? 0];
    bytes += varintBytes(below - nextLargest - 2) + varintBytes(nextLargest - nextSmallest);
    if (bytes > ack.bytesMax) break;
    below = nextSmallest;
  }
  writer.u8(FRAME.ack);
  writer.varint(largest);
  writer.varint(ack.delay);
  writer.varint(count - 1);
  writer.varint(first);
  below = smallest;
  for (let index = 1; index < count; index += 1) {
    largest = ranges[index * 2 + 1] ?? 0;
    writer.varint(below - largest - 2);
    below = ranges[index * 2] ?? 0;
    writer.varint(largest - below);
  }
  return true;
}

/** Bytes of a reset token. */
export const RESET_TOKEN_BYTES = 16;
/** Bytes of a path challenge. */
const PATH_DATA_BYTES = 8;
const STREAM_HAS_FIN = 0x01;
const STREAM_HAS_LENGTH = 0x02;
const STREAM_HAS_OFFSET = 0x04;
/** A stream id is four times as large and must be an integer (RFC 9000, section 4.6). */
const STREAMS_MAX = 2 ** 60;
