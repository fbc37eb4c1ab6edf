/**
 * The sending half of a connection: what is pending into frames, frames into packets, packets of
 * several spaces into one datagram (RFC 9000, sections 12.2, 13 and 14).
 *
 * A datagram is first laid out and sealed at the end, because its last packet is padded to what the
 * first one asks for. Acknowledgements ride along with whatever leaves; alone they leave when due.
 */
import type { ConnectionState, PacketSpace } from "./connection-state.ts";
import {
  FRAME,
  writeAck,
  writeClose,
  writeCrypto,
  writeDatagram,
  writeIntegers,
  writeNewConnectionId,
  writePath,
} from "./frames.ts";
import { APPLICATION_SPACE, HANDSHAKE_SPACE, INITIAL_SPACE } from "./loss-detection.ts";
import {
  finishLongHeader,
  HANDSHAKE,
  INITIAL,
  INITIAL_DATAGRAM_BYTES,
  packetNumberBytesFor,
  writeLongHeader,
  writeShortHeader,
} from "./packet.ts";
import { APPLICATION_ERROR } from "./transport-error.ts";
import { varintBytes, WireWriter } from "./wire.ts";

/** A packet that is laid out and not sealed yet. */
interface LaidOutPacket {
  readonly space: number;
  readonly number: number;
  readonly start: number;
  readonly numberStart: number;
  readonly numberBytes: number;
  /** Of the long header; -1 for a short one. */
  readonly lengthAt: number;
  /** Behind the room for the tag. */
  end: number;
  readonly isAckEliciting: boolean;
  readonly frames: number[];
}

/** Writes for one connection. */
export class PacketSender {
  readonly #state: ConnectionState;
  readonly #writer = new WireWriter();
  readonly #packets: LaidOutPacket[] = [];

  constructor(state: ConnectionState) {
    this.#state = state;
  }

  /** Fills `out` with the next datagram and returns its length; 0 = there is none for now. */
  send(out: Uint8Array, nowMs: number): number {
    const state = this.#state;
    if (state.phase === "draining" || state.phase === "closed") return 0;
    state.pacedUntilMs = Number.POSITIVE_INFINITY;
    let room = Math.min(out.length, state.packetBytes);
    if (!state.isAddressValidated) {
      room = Math.min(room, AMPLIFICATION * state.bytesReceived - state.bytesSent);
    }
    this.#writer.reset(out, 0);
    this.#packets.length = 0;
    if (state.phase === "closing") this.#layOutClose(room);
    else this.#layOut(room, nowMs);
    if (this.#packets.length === 0) return 0;
    this.#pad(room);
    this.#seal(out, nowMs);
    state.bytesSent += this.#writer.at;
    return this.#writer.at;
  }

  #layOut(room: number, nowMs: number): void {
    const state = this.#state;
    for (const id of SPACES) {
      const space = state.space(id);
      if (space.isDiscarded || state.handshake.protection(id) === null) continue;
      if (id === APPLICATION_SPACE && state.phase !== "open") continue;
      this.#layOutPacket(id, room, nowMs);
    }
  }

  #layOutPacket(id: number, room: number, nowMs: number): void {
    const state = this.#state;
    const space = state.space(id);
    const writer = this.#writer;
    const tagBytes = state.handshake.protection(id)?.tagBytes ?? 0;
    if (room - writer.at < PACKET_ROOM_MIN) return;
    const head = this.#writeHeader(id);
    const bodyStart = writer.at;
    const bodyEnd = room - tagBytes;
    const frames: number[] = [];
    if (space.received.owesAck || space.probes > 0) this.#writeAck(id, bodyEnd, nowMs, frames);
    const ackEnd = writer.at;
    if (this.#hasWork(id, space) && this.#maySend(space, room - head.start, nowMs)) {
      this.#writeFrames(id, { bodyEnd, ackEnd }, frames);
    }
    const isAckEliciting = writer.at > ackEnd;
    // A datagram may be too long to go with an acknowledgement, and then waits for it to be out.
    const isInTheWay = id === APPLICATION_SPACE && state.datagramsOut.length > 0;
    const isAckDue = ackEnd > bodyStart && (isInTheWay || space.received.ackDueMs <= nowMs);
    if (!isAckEliciting && !isAckDue) {
      writer.at = head.start;
      return;
    }
    if (ackEnd > bodyStart) space.received.acknowledged();
    if (isAckEliciting && space.probes > 0) space.probes -= 1;
    writer.at += tagBytes;
    this.#packets.push({ space: id, ...head, end: writer.at, isAckEliciting, frames });
  }

  #writeHeader(id: number): Omit<LaidOutPacket, "space" | "end" | "isAckEliciting" | "frames"> {
    const { loss, peerIds, localIds } = this.#state;
    const writer = this.#writer;
    const start = writer.at;
    const number = loss.nextNumber(id);
    const numberBytes = packetNumberBytesFor(number, loss.largestAcked(id));
    let lengthAt = -1;
    if (id === APPLICATION_SPACE) {
      writeShortHeader(writer, peerIds.current, { number, numberBytes });
    } else {
      const kind = id === INITIAL_SPACE ? INITIAL : HANDSHAKE;
      const scid = localIds.first.id;
      lengthAt = writeLongHeader(writer, {
        kind,
        dcid: peerIds.current,
        scid,
        number,
        numberBytes,
      });
    }
    return { number, start, numberStart: writer.at - numberBytes, numberBytes, lengthAt };
  }

  #writeAck(id: number, bodyEnd: number, nowMs: number, frames: number[]): void {
    const state = this.#state;
    const { received } = state.space(id);
    if (received.ranges.length === 0) return;
    const exponent = state.options.parameters.ackDelayExponent;
    const delay = Math.floor((received.delayMs(nowMs) * 1_000) / 2 ** exponent);
    const bytesMax = Math.min(bodyEnd - this.#writer.at, ACK_BYTES_MAX);
    if (!writeAck(this.#writer, { ranges: received.ranges, delay, bytesMax })) return;
    frames.push(FRAME.ack, received.largest, 0, 0);
  }

  /** Whether there is anything beside acknowledgements. */
  #hasWork(id: number, space: PacketSpace): boolean {
    const state = this.#state;
    if (space.probes > 0 || space.handshakeOut.hasPending) return true;
    if (id !== APPLICATION_SPACE) return false;
    const hasControl = state.isHandshakeDonePending || state.isPingPending;
    const hasIds = state.localIds.pending.length > 0 || state.peerIds.pendingRetired.length > 0;
    if (hasControl || hasIds || state.pathResponses.length > 0) return true;
    return state.datagramsOut.length > 0 || state.streams.hasPending;
  }

  /** Whether the window and the pacer let a packet go that asks for an acknowledgement. */
  #maySend(space: PacketSpace, bytes: number, nowMs: number): boolean {
    const { congestion, pacer, rtt } = this.#state;
    if (space.probes > 0) return true;
    if (congestion.freeBytes < bytes) return false;
    const { windowBytes } = congestion;
    const readyMs = pacer.readyMs({ windowBytes, smoothedMs: rtt.smoothedMs, nowMs });
    if (readyMs <= nowMs) return true;
    this.#state.pacedUntilMs = readyMs;
    return false;
  }

  #writeFrames(id: number, body: { bodyEnd: number; ackEnd: number }, frames: number[]): void {
    const state = this.#state;
    const space = state.space(id);
    const writer = this.#writer;
    this.#writeHandshake(space, body.bodyEnd, frames);
    if (id === APPLICATION_SPACE) {
      this.#writeConnectionFrames(body.bodyEnd, frames);
      this.#writeDatagrams(body.bodyEnd);
      state.streams.writeFrames(writer, body.bodyEnd, frames);
    }
    const wantsPing = space.probes > 0 || (id === APPLICATION_SPACE && state.isPingPending);
    if (id === APPLICATION_SPACE) state.isPingPending = false;
    if (writer.at > body.ackEnd || !wantsPing || writer.at >= body.bodyEnd) return;
    writer.u8(FRAME.ping);
    frames.push(FRAME.ping, 0, 0, 0);
  }

  #writeHandshake(space: PacketSpace, bodyEnd: number, frames: number[]): void {
    const { handshakeOut } = space;
    const writer = this.#writer;
    while (handshakeOut.hasPending) {
      const room = bodyEnd - writer.at - CRYPTO_OVERHEAD_MAX;
      if (room <= 0 || !handshakeOut.take(room)) return;
      const { frameOffset, frameLength } = handshakeOut;
      writeCrypto(writer, frameOffset, frameLength);
      handshakeOut.copyFrame(writer);
      frames.push(FRAME.cryptoData, frameOffset, frameLength, 0);
    }
  }

  #writeConnectionFrames(bodyEnd: number, frames: number[]): void {
    const { state, writer } = { state: this.#state, writer: this.#writer };
    const hasRoom = (): boolean => bodyEnd - writer.at >= CONTROL_BYTES_MAX;
    if (state.isHandshakeDonePending && hasRoom()) {
      state.isHandshakeDonePending = false;
      writer.u8(FRAME.handshakeDone);
      frames.push(FRAME.handshakeDone, 0, 0, 0);
    }
    const { pathResponses } = state;
    while (pathResponses.length > 0 && hasRoom()) {
      writePath(writer, FRAME.pathResponse, pathResponses.shift() ?? NO_BYTES);
    }
    const { localIds } = state;
    while (localIds.pending.length > 0 && hasRoom()) {
      const offer = localIds.takeOffer();
      if (offer === undefined) break;
      writeNewConnectionId(writer, offer);
      frames.push(FRAME.newConnectionId, offer.sequence, 0, 0);
    }
    const { pendingRetired } = state.peerIds;
    while (pendingRetired.length > 0 && hasRoom()) {
      const sequence = pendingRetired.shift() ?? 0;
      writeIntegers(writer, FRAME.retireConnectionId, sequence);
      frames.push(FRAME.retireConnectionId, sequence, 0, 0);
    }
  }

  #writeDatagrams(bodyEnd: number): void {
    const { datagramsOut } = this.#state;
    const writer = this.#writer;
    for (;;) {
      const next = datagramsOut[0];
      if (next === undefined) return;
      if (1 + varintBytes(next.length) + next.length > bodyEnd - writer.at) return;
      datagramsOut.shift();
      writeDatagram(writer, next);
    }
  }

  /** A goodbye in every space whose keys the peer may have (section 10.2.3). */
  #layOutClose(room: number): void {
    const state = this.#state;
    const close = state.closeFrame;
    if (close === null || !state.isClosePending) return;
    state.isClosePending = false;
    const writer = this.#writer;
    for (const id of SPACES) {
      const protection = state.handshake.protection(id);
      if (state.space(id).isDiscarded || protection === null) continue;
      if (room - writer.at < PACKET_ROOM_MIN + close.reason.length) return;
      const head = this.#writeHeader(id);
      const isHidden = close.isApplication && id !== APPLICATION_SPACE;
      writeClose(writer, isHidden ? { ...close, ...HIDDEN_CLOSE } : close);
      writer.at += protection.tagBytes;
      const packet = { space: id, ...head, end: writer.at, isAckEliciting: false, frames: [] };
      this.#packets.push(packet);
    }
  }

  /** Datagrams with Initial packets that ask for an answer are of full size (section 14.1). */
  #pad(room: number): void {
    const state = this.#state;
    const last = this.#packets.at(-1);
    const hasInitial = this.#packets.some(
      ({ space, isAckEliciting }) => space === INITIAL_SPACE && (isAckEliciting || state.isClient),
    );
    const end = Math.min(INITIAL_DATAGRAM_BYTES, room);
    if (last === undefined || !hasInitial || this.#writer.at >= end) return;
    const tagBytes = state.handshake.protection(last.space)?.tagBytes ?? 0;
    this.#writer.bytes.fill(0, last.end - tagBytes, end);
    last.end = end;
    this.#writer.at = end;
  }

  #seal(out: Uint8Array, nowMs: number): void {
    const state = this.#state;
    const { congestion, loss, pacer } = state;
    for (const packet of this.#packets) {
      const protection = state.handshake.protection(packet.space);
      if (packet.lengthAt >= 0) finishLongHeader(out, packet.lengthAt, packet.end);
      protection?.seal(out, packet, packet.number);
      const bytes = packet.end - packet.start;
      const isInFlight = packet.isAckEliciting;
      if (isInFlight) {
        pacer.sent(bytes);
        if (!state.isAwaitingAnswer) state.idleStartMs = nowMs;
        state.isAwaitingAnswer = true;
      }
      const wasLimited = (congestion.bytesInFlight + bytes) * 2 >= congestion.windowBytes;
      const { number, space, isAckEliciting, frames } = packet;
      loss.sent({
        number,
        space,
        sentMs: nowMs,
        bytes,
        isAckEliciting,
        isInFlight,
        frames,
        wasLimited,
      });
    }
    const hasHandshake = this.#packets.some(({ space }) => space === HANDSHAKE_SPACE);
    if (state.isClient && hasHandshake) state.discardSpace(INITIAL_SPACE, nowMs);
  }
}

const SPACES = [INITIAL_SPACE, HANDSHAKE_SPACE, APPLICATION_SPACE] as const;
const NO_BYTES = new Uint8Array(0);
/** RFC 9000, section 8.1. */
const AMPLIFICATION = 3;
/** A long header with ids of 20 bytes, a frame and a tag. */
const PACKET_ROOM_MIN = 96;
/** NEW_CONNECTION_ID with an id of 20 bytes. */
const CONTROL_BYTES_MAX = 60;
const CRYPTO_OVERHEAD_MAX = 12;
/** Of an acknowledgement; more ranges are told by the next. */
const ACK_BYTES_MAX = 256;
/** What a handshake packet says in place of an application's code and reason (section 10.2.3). */
const HIDDEN_CLOSE = {
  isApplication: false,
  errorCode: APPLICATION_ERROR,
  frameType: 0,
  reason: NO_BYTES,
};
