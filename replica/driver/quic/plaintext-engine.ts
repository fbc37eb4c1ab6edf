/**
 * Connections in Corrosion's plaintext mode (protocol reference, section 1.7), on the QUIC core of
 * our own: what it says and hears in the words of `engine.ts`, with a clock.
 *
 * Neither private nor authenticated: for networks that are both themselves.
 */
import { createHash, randomBytes } from "node:crypto";
import { Connection } from "../../core/quic/connection.ts";
import { PlaintextHandshake } from "../../core/quic/handshake.ts";
import { PlaintextProtection } from "../../core/quic/protection.ts";
import { STREAM_BROKEN } from "../../core/quic/stream-set.ts";
import {
  DEFAULT_PARAMETERS,
  type TransportParameters,
} from "../../core/quic/transport-parameters.ts";
import { MAX_ACK_DELAY_MS } from "./delayed-ack.ts";
import type { Engine, EngineConnection, EngineError, EngineRequest } from "./engine.ts";
import type { TransportSettings } from "./options.ts";
import { CONNECTION_ID_BYTES } from "./packet-header.ts";
import { resetToken } from "./stateless.ts";

/** In place of certificates. */
export interface PlaintextMode {
  /**
   * Behind the tokens of stateless resets, which peers may take for ours after a restart too: what
   * stays the same for one replica, e.g. its actor id.
   */
  readonly resetSeed: string;
}

/** Makes connections without TLS. */
export function createPlaintextEngine(mode: PlaintextMode, settings: TransportSettings): Engine {
  const resetSecret = createHash("sha256")
    .update("patina stateless reset without a key\n")
    .update(mode.resetSeed)
    .digest();
  const protection = new PlaintextProtection();
  const create = (
    request: EngineRequest,
    role: { isClient: boolean; originalId: Uint8Array; peerId: Uint8Array | null },
  ): EngineConnection => {
    let isFirst = true;
    const issue = (): { id: Uint8Array; resetToken: Uint8Array } => {
      // The first one is known to the transport already.
      const id = isFirst ? request.id : randomBytes(CONNECTION_ID_BYTES);
      if (!isFirst) request.ids.issued(id);
      isFirst = false;
      return { id, resetToken: resetToken(resetSecret, id) };
    };
    const connection = new Connection({
      ...role,
      parameters: parametersOf(role.isClient, settings),
      maxUdpPayload: settings.maxUdpPayload,
      datagramQueue: DATAGRAM_QUEUE,
      ids: { issue, retire: (id) => request.ids.retired(id) },
      startHandshake: (encoded) => new PlaintextHandshake(role.isClient, encoded, protection),
      nowMs: performance.now(),
    });
    return new PlaintextConnection(connection, role.isClient);
  };
  return {
    resetSecret,
    judge: () => ({ actorId: null }),
    connect: (request) => {
      const originalId = randomBytes(CONNECTION_ID_BYTES);
      return create(request, { isClient: true, originalId, peerId: null });
    },
    accept: ({ originalId, peerId, ...request }) => {
      // Copies: the ids are views of a packet.
      const ids = { originalId: Buffer.from(originalId), peerId: Buffer.from(peerId) };
      return create(request, { isClient: false, ...ids });
    },
  };
}

class PlaintextConnection implements EngineConnection {
  readonly delaysAcks = true;
  readonly #core: Connection;
  /** Bit 0 of the ids of our streams. */
  readonly #ourBit: number;
  readonly #opened: [number, number] = [0, 0];

  constructor(core: Connection, isClient: boolean) {
    this.#core = core;
    this.#ourBit = isClient ? 0 : 1;
  }

  recv(packet: Uint8Array): number {
    const before = this.#core.packetsAccepted;
    this.#core.receive(packet, performance.now());
    return this.#core.packetsAccepted - before;
  }

  send(out: Uint8Array): readonly [number, unknown] | null {
    const length = this.#core.send(out, performance.now());
    return length === 0 ? null : [length, null];
  }

  timeout(): number | null {
    const { deadlineMs } = this.#core;
    if (deadlineMs === Number.POSITIVE_INFINITY) return null;
    return Math.max(0, Math.floor(deadlineMs - performance.now()));
  }

  onTimeout(): void {
    this.#core.onTimeout(performance.now());
  }

  isEstablished(): boolean {
    return this.#core.phase === "open";
  }

  isDraining(): boolean {
    return this.#core.phase === "draining";
  }

  isClosed(): boolean {
    return this.#core.phase === "closed" || this.#core.end?.kind === "reset";
  }

  isTimedOut(): boolean {
    return this.#core.end?.kind === "idle";
  }

  localError(): EngineError | null {
    const { end } = this.#core;
    return end?.kind === "local" || end?.kind === "version" ? errorOf(end) : null;
  }

  peerError(): EngineError | null {
    const { end } = this.#core;
    return end?.kind === "peer" ? errorOf(end) : null;
  }

  close(_isApp: boolean, code: number, reason: Uint8Array): void {
    this.#core.close(code, Buffer.from(reason).toString(), performance.now());
  }

  peerCertChain(): null {
    return null;
  }

  stats(): { recv: number } {
    return { recv: this.#core.packetsAccepted };
  }

  pathStats(): { rtt: number }[] {
    const { rtt } = this.#core;
    return rtt === null ? [] : [{ rtt: Math.floor(rtt.minMs) }];
  }

  sendAckEliciting(): void {
    this.#core.ping();
  }

  isReadable(): boolean {
    return this.#core.streams.isReadable();
  }

  readable(): Iterable<number> {
    return this.#core.streams.readable();
  }

  streamReadable(id: number): boolean {
    return this.#core.streams.isReadable(id);
  }

  streamRecv(id: number, out: Uint8Array): [number, boolean] | null {
    const { streams } = this.#core;
    if (!streams.isReadable(id)) return null;
    const length = streams.read(id, out);
    if (length === STREAM_BROKEN) throw new Error("RESET_STREAM");
    return [length, streams.readIsFin];
  }

  streamSend(id: number, bytes: Uint8Array, isFin: boolean): number | null {
    this.#open(id);
    const taken = this.#core.write(id, bytes, isFin);
    if (taken === STREAM_BROKEN) throw new Error("STOP_SENDING");
    return taken === 0 && bytes.length > 0 ? null : taken;
  }

  streamPriority(id: number, urgency: number): void {
    this.#open(id);
    if (urgency === 0) this.#core.streams.prefer(id);
  }

  streamShutdown(id: number, direction: number, code: number): void {
    if (direction === 0) this.#core.streams.stop(id);
    else this.#core.streams.reset(id, code);
  }

  peerStreamsLeftBidi(): number {
    return this.#core.streams.left(0);
  }

  peerStreamsLeftUni(): number {
    return this.#core.streams.left(1);
  }

  dgramRecvQueueLen(): number {
    return this.#core.datagramCount;
  }

  dgramRecvVec(): Uint8Array | null {
    return this.#core.takeDatagram();
  }

  isDgramSendQueueFull(): boolean {
    return this.#core.isDatagramQueueFull;
  }

  dgramSend(bytes: Uint8Array): void {
    this.#core.sendDatagram(bytes);
  }

  dgramMaxWritableLen(): number | null {
    return this.#core.datagramBytesMax;
  }

  /** Streams of ours begin in the order of their ids. */
  #open(id: number): void {
    if ((id & 1) !== this.#ourBit) return;
    const kind = (id & 2) === 0 ? 0 : 1;
    while (id >> 2 >= this.#opened[kind]) {
      if (this.#core.streams.open(kind) < 0) return;
      this.#opened[kind] += 1;
    }
  }
}

function errorOf(end: {
  readonly isApplication: boolean;
  readonly errorCode: number;
  readonly reason: string;
}): EngineError {
  const { isApplication, errorCode, reason } = end;
  return { isApp: isApplication, errorCode, reason: Buffer.from(reason) };
}

function parametersOf(isClient: boolean, settings: TransportSettings): TransportParameters {
  return {
    ...DEFAULT_PARAMETERS,
    maxIdleTimeout: settings.idleTimeoutMs,
    maxAckDelay: MAX_ACK_DELAY_MS,
    initialMaxData: CONNECTION_WINDOW,
    initialMaxStreamDataBidiLocal: STREAM_WINDOW,
    initialMaxStreamDataBidiRemote: STREAM_WINDOW,
    initialMaxStreamDataUni: STREAM_WINDOW,
    // A dialler accepts no streams (protocol reference, section 1.4), so it grants none.
    initialMaxStreamsBidi: isClient ? 0 : STREAMS_BIDI,
    initialMaxStreamsUni: isClient ? 0 : Math.min(settings.limits.uniStreamsMax, STREAMS_UNI_MAX),
    activeConnectionIdLimit: PEER_IDS,
    disableActiveMigration: true,
    maxDatagramFrameSize: 65_535,
  };
}

/** Datagrams queued in each direction; a burst of SWIM and no more. */
const DATAGRAM_QUEUE = 1_024;
/** Credit of one stream and of a connection, as with TLS (`tls-config.ts`). */
const STREAM_WINDOW = 1_250_000;
const CONNECTION_WINDOW = 64 * 1024 * 1024;
/** Protocol reference, section 1.3. */
const STREAMS_BIDI = 32;
const PEER_IDS = 5;
/** Unfinished streams of a peer; granted anew as they end, so that more is of no use. */
const STREAMS_UNI_MAX = 1_024;
