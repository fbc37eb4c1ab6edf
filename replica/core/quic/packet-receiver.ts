/**
 * The receiving half of a connection: datagrams into packets, packets into frames, frames to the
 * parts they concern (RFC 9000, sections 12 and 13).
 *
 * Whatever is not authentic is dropped without a trace. What is authentic and breaks the protocol
 * closes the connection with the error that the RFC names. Nothing throws.
 */
import { HANDSHAKE_BYTES_MAX, type ConnectionState, type PacketSpace } from "./connection-state.ts";
import { FRAME, FrameCursor, isAckEliciting, RESET_TOKEN_BYTES } from "./frames.ts";
import { APPLICATION_SPACE, HANDSHAKE_SPACE, INITIAL_SPACE } from "./loss-detection.ts";
import {
  expandPacketNumber,
  HANDSHAKE,
  hasReservedBits,
  INITIAL,
  packetNumberBytes,
  PacketHeader,
  QUIC_VERSION,
  readTruncated,
  RETRY,
  SHORT,
  VERSION_NEGOTIATION,
  ZERO_RTT,
} from "./packet.ts";
import {
  CRYPTO_BUFFER_EXCEEDED,
  NO_ERROR,
  PROTOCOL_VIOLATION,
  TRANSPORT_PARAMETER_ERROR,
} from "./transport-error.ts";
import { decodeParameters, type TransportParameters } from "./transport-parameters.ts";

/** Reads for one connection. */
export class PacketReceiver {
  readonly #state: ConnectionState;
  readonly #header = new PacketHeader();
  readonly #frame = new FrameCursor();
  readonly #place = { start: 0, numberStart: 0, numberBytes: 0, end: 0 };
  /** The packet under way goes to an id that we chose. */
  #isToOurId = false;
  /** Packets that came after our goodbye. */
  #late = 0;

  constructor(state: ConnectionState) {
    this.#state = state;
  }

  /** Takes one UDP payload from the peer. Its bytes may be kept. */
  receive(datagram: Uint8Array, nowMs: number): void {
    const state = this.#state;
    if (state.phase === "closed" || state.phase === "draining") return;
    state.bytesReceived += datagram.length;
    const header = this.#header;
    let wasAccepted = false;
    for (let at = 0; at < datagram.length; at = header.end) {
      if (!header.read(datagram, at, state.localIds.first.id.length)) break;
      if (header.kind === VERSION_NEGOTIATION) {
        this.#onVersions(datagram);
        break;
      }
      if (header.kind === RETRY) break;
      if (header.kind !== ZERO_RTT && this.#isOurs(datagram)) {
        wasAccepted = this.#receivePacket(datagram, nowMs) || wasAccepted;
      }
      if (!state.isAlive) break;
    }
    if (state.phase === "closing" && wasAccepted) this.#repeatGoodbye();
    if (!wasAccepted && state.isAlive && state.peerIds.isReset(datagram)) {
      const reason = "the peer no longer knows the connection";
      state.drain({ kind: "reset", isApplication: false, errorCode: NO_ERROR, reason }, nowMs);
    }
  }

  #isOurs(datagram: Uint8Array): boolean {
    const { dcidStart, dcidLength, kind } = this.#header;
    if (this.#state.localIds.has(datagram, dcidStart, dcidLength)) {
      this.#isToOurId = true;
      return true;
    }
    this.#isToOurId = false;
    const { originalId } = this.#state.options;
    if (this.#state.isClient || kind !== INITIAL || dcidLength !== originalId.length) return false;
    return originalId.every((byte, at) => datagram[dcidStart + at] === byte);
  }

  /** Returns whether the packet was authentic. */
  #receivePacket(datagram: Uint8Array, nowMs: number): boolean {
    const state = this.#state;
    const header = this.#header;
    const place = this.#place;
    const spaceId = spaceOf(header.kind);
    const space = state.space(spaceId);
    const protection = space.isDiscarded ? null : state.handshake.protection(spaceId);
    place.start = header.start;
    place.numberStart = header.numberStart;
    place.end = header.end;
    if (protection === null || !protection.unmask(datagram, place)) return false;
    const first = datagram[place.start] ?? 0;
    place.numberBytes = packetNumberBytes(first);
    const truncated = readTruncated(datagram, place.numberStart, place.numberBytes);
    const number = expandPacketNumber(truncated, place.numberBytes, space.received.largest);
    if (!protection.open(datagram, place, number)) return false;
    // Only somebody who got a packet of ours knows the id (section 8.1).
    if (this.#isToOurId) state.isAddressValidated = true;
    if (space.received.has(number)) return true;
    if (hasReservedBits(first)) this.#fail(PROTOCOL_VIOLATION, "reserved bits", nowMs);
    else this.#onPacket(datagram, { spaceId, number, nowMs }, protection.tagBytes);
    return true;
  }

  #onPacket(
    datagram: Uint8Array,
    packet: { spaceId: number; number: number; nowMs: number },
    tagBytes: number,
  ): void {
    const state = this.#state;
    const { spaceId, number, nowMs } = packet;
    const { numberStart, numberBytes, end } = this.#place;
    const payloadStart = numberStart + numberBytes;
    const frame = this.#frame;
    frame.reset(datagram, payloadStart, end - tagBytes);
    if (!state.isAlive) return this.#onLatePacket();
    state.packetsAccepted += 1;
    state.idleStartMs = nowMs;
    state.isAwaitingAnswer = false;
    if (state.isClient && spaceId !== APPLICATION_SPACE) this.#adoptServerId(datagram);
    if (payloadStart >= end - tagBytes) this.#fail(PROTOCOL_VIOLATION, "an empty packet", nowMs);
    let asksForAck = false;
    while (state.isAlive && frame.next()) {
      asksForAck ||= isAckEliciting(frame.type);
      const isEarly = spaceId !== APPLICATION_SPACE;
      const error =
        isEarly && !IN_HANDSHAKE.has(frame.type)
          ? PROTOCOL_VIOLATION
          : this.#onFrame(datagram, spaceId, nowMs);
      if (error !== NO_ERROR) this.#fail(error, `frame ${frame.type}`, nowMs, frame.type);
    }
    if (frame.failure !== NO_ERROR) this.#fail(frame.failure, "a frame", nowMs, frame.type);
    if (!state.isAlive) return;
    const { received } = state.space(spaceId);
    received.add(number, { isAckEliciting: asksForAck, nowMs });
    // A client that has our handshake says so, or sends what it can only send then.
    const isThrough =
      spaceId === APPLICATION_SPACE ||
      (spaceId === HANDSHAKE_SPACE && state.space(HANDSHAKE_SPACE).handshakeOut.isAllAcked);
    if (!state.isClient && isThrough) this.#onClientThrough(nowMs);
  }

  /** After our goodbye only the peer's is of interest: then neither need say more. */
  #onLatePacket(): void {
    const frame = this.#frame;
    while (frame.next()) {
      const isClose = frame.type === FRAME.connectionClose || frame.type === FRAME.applicationClose;
      if (isClose) this.#state.phase = "draining";
    }
  }

  /** Ever more rarely, so that two that say goodbye to each other come to an end. */
  #repeatGoodbye(): void {
    this.#late += 1;
    if ((this.#late & (this.#late - 1)) === 0) this.#state.isClosePending = true;
  }

  #onFrame(datagram: Uint8Array, spaceId: number, nowMs: number): number {
    const { streams } = this.#state;
    const frame = this.#frame;
    const { type, streamId, maximum } = frame;
    if (type >= FRAME.stream && type <= FRAME.streamLast) {
      const bytes = datagram.subarray(frame.dataStart, frame.dataEnd);
      return streams.onStream(streamId, frame.offset, { bytes, isFin: frame.isFin });
    }
    switch (type) {
      case FRAME.ack:
      case FRAME.ackEcn:
        return this.#onAck(spaceId, nowMs);
      case FRAME.cryptoData:
        return this.#onHandshakeBytes(datagram, spaceId, nowMs);
      case FRAME.datagram:
      case FRAME.datagramWithLength:
        return this.#onDatagram(datagram);
      case FRAME.maxData:
        streams.onMaxData(maximum);
        return NO_ERROR;
      case FRAME.maxStreamData:
        return streams.onMaxStreamData(streamId, maximum);
      case FRAME.maxStreamsBidi:
      case FRAME.maxStreamsUni:
        streams.onMaxStreams(type === FRAME.maxStreamsUni ? 1 : 0, maximum);
        return NO_ERROR;
      case FRAME.resetStream:
        return streams.onReset(streamId, frame.errorCode, frame.finalSize);
      case FRAME.stopSending:
        return streams.onStopSending(streamId, frame.errorCode);
      case FRAME.streamDataBlocked:
        return streams.onStreamDataBlocked(streamId);
      default:
        return this.#onRareFrame(datagram, nowMs);
    }
  }

  #onRareFrame(datagram: Uint8Array, nowMs: number): number {
    const state = this.#state;
    const frame = this.#frame;
    switch (frame.type) {
      case FRAME.newConnectionId:
        return state.peerIds.onNew({
          sequence: frame.sequence,
          retirePriorTo: frame.retirePriorTo,
          id: datagram.slice(frame.dataStart, frame.dataEnd),
          resetToken: datagram.slice(
            frame.resetTokenStart,
            frame.resetTokenStart + RESET_TOKEN_BYTES,
          ),
        });
      case FRAME.retireConnectionId:
        return state.localIds.onRetire(frame.sequence);
      case FRAME.pathChallenge:
        // A flood of challenges is answered in part.
        if (state.pathResponses.length < PATH_RESPONSES_MAX) {
          state.pathResponses.push(datagram.slice(frame.dataStart, frame.dataEnd));
        }
        return NO_ERROR;
      case FRAME.handshakeDone:
        if (!state.isClient) return PROTOCOL_VIOLATION;
        this.#confirm(nowMs);
        return NO_ERROR;
      case FRAME.immediateAck:
        state.space(APPLICATION_SPACE).received.hurry(nowMs);
        return NO_ERROR;
      case FRAME.newToken:
        return state.isClient ? NO_ERROR : PROTOCOL_VIOLATION;
      case FRAME.connectionClose:
      case FRAME.applicationClose:
        this.#onClose(datagram, nowMs);
        return NO_ERROR;
      default:
        // PADDING, PING, BLOCKED: nothing to do. PATH_RESPONSE: no challenge was sent.
        return NO_ERROR;
    }
  }

  #onAck(spaceId: number, nowMs: number): number {
    const state = this.#state;
    const exponent = state.peer?.ackDelayExponent ?? 3;
    const delayMs = (this.#frame.ackDelay * 2 ** exponent) / 1_000;
    const isKnown = state.loss.onAck(spaceId, {
      ranges: this.#frame.ackRanges,
      delayMs,
      nowMs,
    });
    if (!isKnown) return PROTOCOL_VIOLATION;
    if (state.isClient && spaceId === HANDSHAKE_SPACE) state.facts.isPeerValidated = true;
    settlePackets(state);
    state.loss.rearm(nowMs);
    return NO_ERROR;
  }

  #onHandshakeBytes(datagram: Uint8Array, spaceId: number, nowMs: number): number {
    const state = this.#state;
    const { handshakeIn } = state.space(spaceId);
    const { offset, dataStart, dataEnd } = this.#frame;
    handshakeIn.maxData = handshakeIn.readAt + HANDSHAKE_BYTES_MAX;
    const error = handshakeIn.add(offset, datagram.subarray(dataStart, dataEnd), false);
    // Too far ahead, or in too many pieces.
    if (error !== NO_ERROR) return CRYPTO_BUFFER_EXCEEDED;
    while (handshakeIn.isReadable) {
      const bytes = new Uint8Array(handshakeIn.received - handshakeIn.readAt);
      const refusal = state.handshake.receive(spaceId, bytes.subarray(0, handshakeIn.read(bytes)));
      if (refusal !== NO_ERROR) return refusal;
    }
    state.facts.hasHandshakeKeys = state.handshake.protection(HANDSHAKE_SPACE) !== null;
    if (state.peer === null && state.handshake.peerParameters !== null) {
      const failure = this.#startWith(state.handshake.peerParameters, nowMs);
      if (failure !== NO_ERROR) return failure;
    }
    state.pullHandshake();
    return NO_ERROR;
  }

  #startWith(encoded: Uint8Array, nowMs: number): number {
    const state = this.#state;
    const decoded = decodeParameters(encoded, state.isClient ? "server" : "client");
    if (!decoded.ok || !this.#hasRightIds(decoded.value)) return TRANSPORT_PARAMETER_ERROR;
    const peer = decoded.value;
    state.peer = peer;
    state.facts.maxAckDelayMs = peer.maxAckDelay;
    const idleTimeoutMs = peer.maxIdleTimeout || Number.POSITIVE_INFINITY;
    state.facts.idleTimeoutMs = Math.min(state.facts.idleTimeoutMs, idleTimeoutMs);
    state.streams.start(peer);
    state.localIds.offer(peer.activeConnectionIdLimit);
    if (state.isClient) {
      state.peerIds.replaceFirst(state.peerIds.current, peer.statelessResetToken);
      state.phase = "open";
      state.loss.rearm(nowMs);
    }
    return NO_ERROR;
  }

  /** Whether the handshake was between the two that think so (section 7.3). */
  #hasRightIds(peer: TransportParameters): boolean {
    const { isClient, options, peerIds } = this.#state;
    if (!isSame(peer.initialSourceConnectionId, peerIds.current)) return false;
    if (!isClient) return true;
    const isDirect = peer.retrySourceConnectionId === null;
    return isDirect && isSame(peer.originalDestinationConnectionId, options.originalId);
  }

  /** From the server's first packet on it goes by an id of its own choice. */
  #adoptServerId(datagram: Uint8Array): void {
    if (this.#state.packetsAccepted > 1) return;
    const { scidStart, scidLength } = this.#header;
    const id = datagram.slice(scidStart, scidStart + scidLength);
    this.#state.peerIds.replaceFirst(id, null);
  }

  #onClientThrough(nowMs: number): void {
    const state = this.#state;
    if (state.facts.isConfirmed || state.peer === null) return;
    state.phase = "open";
    state.isHandshakeDonePending = true;
    this.#confirm(nowMs);
  }

  #confirm(nowMs: number): void {
    const { facts } = this.#state;
    facts.isConfirmed = true;
    facts.isPeerValidated = true;
    this.#state.discardSpace(INITIAL_SPACE, nowMs);
    this.#state.discardSpace(HANDSHAKE_SPACE, nowMs);
  }

  #onDatagram(datagram: Uint8Array): number {
    const { options, datagramsIn } = this.#state;
    if (options.parameters.maxDatagramFrameSize === 0) return PROTOCOL_VIOLATION;
    if (datagramsIn.length >= options.datagramQueue) datagramsIn.shift();
    datagramsIn.push(datagram.slice(this.#frame.dataStart, this.#frame.dataEnd));
    return NO_ERROR;
  }

  #onClose(datagram: Uint8Array, nowMs: number): void {
    const { type, errorCode, dataStart, dataEnd } = this.#frame;
    const reason = new TextDecoder().decode(
      datagram.subarray(dataStart, Math.min(dataEnd, dataStart + REASON_BYTES_MAX)),
    );
    const isApplication = type === FRAME.applicationClose;
    this.#state.drain({ kind: "peer", isApplication, errorCode, reason }, nowMs);
  }

  /** Only before anything else has come (section 6.2). */
  #onVersions(datagram: Uint8Array): void {
    const state = this.#state;
    if (!state.isClient || state.phase !== "handshaking" || state.packetsAccepted > 0) return;
    const { dcidStart, dcidLength, scidStart, scidLength, numberStart } = this.#header;
    const { originalId } = state.options;
    const isAnswer =
      state.localIds.has(datagram, dcidStart, dcidLength) &&
      isSame(datagram.subarray(scidStart, scidStart + scidLength), originalId);
    if (!isAnswer) return;
    for (let at = numberStart; at + 4 <= datagram.length; at += 4) {
      if (readTruncated(datagram, at, 4) === QUIC_VERSION) return;
    }
    const reason = "the peer does not speak version 1 of QUIC";
    state.abandon({ kind: "version", isApplication: false, errorCode: NO_ERROR, reason });
  }

  #fail(errorCode: number, reason: string, nowMs: number, frameType = 0): void {
    const frame = { isApplication: false, errorCode, frameType, reason: new Uint8Array(0) };
    const end = { kind: "local", isApplication: false, errorCode, reason } as const;
    this.#state.closeWith(frame, end, nowMs);
  }
}

/** Does for the packets just found acknowledged or lost what their frames ask for. */
export function settlePackets(state: ConnectionState): void {
  for (const packet of state.loss.acked) {
    forEachFrame(state, packet, onFrameAcked);
  }
  for (const packet of state.loss.lost) {
    forEachFrame(state, packet, onFrameLost);
  }
}

/** Has the frames of a packet sent again though it is not given up yet. */
export function repeatPacket(
  state: ConnectionState,
  packet: { readonly space: number; readonly frames: readonly number[] },
): void {
  forEachFrame(state, packet, onFrameLost);
}

type FrameAction = (
  state: ConnectionState,
  space: PacketSpace,
  frame: { type: number; first: number; second: number; third: number },
) => void;

function forEachFrame(
  state: ConnectionState,
  packet: { readonly space: number; readonly frames: readonly number[] },
  action: FrameAction,
): void {
  const { frames } = packet;
  const space = state.space(packet.space);
  for (let at = 0; at < frames.length; at += 4) {
    scratch.type = frames[at] ?? 0;
    scratch.first = frames[at + 1] ?? 0;
    scratch.second = frames[at + 2] ?? 0;
    scratch.third = frames[at + 3] ?? 0;
    action(state, space, scratch);
  }
}

const onFrameAcked: FrameAction = (state, space, { type, first, second, third }) => {
  if (type === FRAME.ack) space.received.forget(first);
  else if (type === FRAME.cryptoData) space.handshakeOut.acked(first, second, false);
  else state.streams.acked(type, first, second, third);
};

const onFrameLost: FrameAction = (state, space, { type, first, second, third }) => {
  switch (type) {
    case FRAME.ack:
    case FRAME.ping:
      return;
    case FRAME.cryptoData:
      space.handshakeOut.lost(first, second, false);
      return;
    case FRAME.handshakeDone:
      state.isHandshakeDonePending = true;
      return;
    case FRAME.newConnectionId:
      state.localIds.offerLost(first);
      return;
    case FRAME.retireConnectionId:
      state.peerIds.pendingRetired.push(first);
      return;
    default:
      state.streams.lost(type, first, second, third);
  }
};

function spaceOf(kind: number): number {
  if (kind === SHORT) return APPLICATION_SPACE;
  return kind === HANDSHAKE ? HANDSHAKE_SPACE : INITIAL_SPACE;
}

function isSame(bytes: Uint8Array | null, other: Uint8Array): boolean {
  return (
    bytes !== null && bytes.length === other.length && bytes.every((byte, at) => byte === other[at])
  );
}

/** One frame record, reused: the actions run to their end before the next. */
const scratch = { type: 0, first: 0, second: 0, third: 0 };
/** Frames of Initial and Handshake packets (section 12.4). */
const IN_HANDSHAKE: ReadonlySet<number> = new Set([
  FRAME.padding,
  FRAME.ping,
  FRAME.ack,
  FRAME.ackEcn,
  FRAME.cryptoData,
  FRAME.connectionClose,
]);
const PATH_RESPONSES_MAX = 8;
/** A peer chooses this text; enough to read in a log line. */
const REASON_BYTES_MAX = 200;
