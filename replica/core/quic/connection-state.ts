/**
 * The parts of one connection, and the facts that its receiver, its sender and its timers share.
 * What each part does is told in its own file; how they work together, in `connection.ts`.
 */
import { Congestion, Pacer } from "./congestion.ts";
import { LocalIds, PeerIds, type IdSource } from "./connection-ids.ts";
import type { HandshakeSession } from "./handshake.ts";
import type { CloseFrame } from "./frames.ts";
import {
  APPLICATION_SPACE,
  HANDSHAKE_SPACE,
  INITIAL_SPACE,
  LossDetection,
  type TimingFacts,
} from "./loss-detection.ts";
import { ReceivedPackets, type AckPolicy } from "./received-packets.ts";
import { RecvStream } from "./recv-stream.ts";
import { RttEstimator } from "./rtt.ts";
import { SendStream } from "./send-stream.ts";
import { StreamSet } from "./stream-set.ts";
import type { TransportParameters } from "./transport-parameters.ts";

/** What a connection is made of. Durations are milliseconds. */
export interface ConnectionOptions {
  readonly isClient: boolean;
  /** Ours, without the ids, which are filled in. */
  readonly parameters: TransportParameters;
  /** Largest UDP payload to send, 1200 to 65527; a peer's smaller limit is kept. */
  readonly maxUdpPayload: number;
  /** Datagrams kept in each direction; one more pushes out the oldest that arrived. */
  readonly datagramQueue: number;
  readonly ids: IdSource;
  /** A client's: the id it makes up for the server, random, 8 bytes or more. */
  readonly originalId: Uint8Array;
  /** A server's: the id that its client goes by; else `null`. */
  readonly peerId: Uint8Array | null;
  /** Begins the handshake with our encoded parameters. */
  readonly startHandshake: (encodedParameters: Uint8Array) => HandshakeSession;
  readonly nowMs: number;
}

/** How a connection ended. */
export interface ConnectionEnd {
  /** Who ended it, and how; `error` codes are transport's or the application's. */
  readonly kind: "local" | "peer" | "idle" | "reset" | "version";
  readonly isApplication: boolean;
  readonly errorCode: number;
  readonly reason: string;
}

/**
 *     handshaking ──► open ──close──► closing ──time──► closed
 *          └────────────┴──peer's close, reset──► draining ──time──► closed
 */
export type ConnectionPhase = "handshaking" | "open" | "closing" | "draining" | "closed";

/**
 * Bytes of the handshake kept out of order, for peers of whom nothing is known yet. RFC 9000, section
 * 7.5, asks for 4096 at least; parameters are some hundred, certificates some thousand.
 */
export const HANDSHAKE_BYTES_MAX = 16_384;

/** One packet number space. */
export class PacketSpace {
  readonly received: ReceivedPackets;
  readonly handshakeOut = new SendStream(0, Number.POSITIVE_INFINITY);
  readonly handshakeIn = new RecvStream(0, HANDSHAKE_BYTES_MAX);
  /** Keys are gone: nothing is sent or read any more. */
  isDiscarded = false;
  /** Packets to send though the window is full. */
  probes = 0;

  constructor(policy: AckPolicy) {
    this.received = new ReceivedPackets(policy);
  }
}

/** Shared by the halves of a connection; nothing outside of it sees this. */
export class ConnectionState {
  readonly options: ConnectionOptions;
  readonly isClient: boolean;
  readonly handshake: HandshakeSession;
  readonly spaces: readonly [PacketSpace, PacketSpace, PacketSpace];
  readonly rtt = new RttEstimator();
  readonly congestion: Congestion;
  readonly pacer: Pacer;
  readonly facts: TimingFacts;
  readonly loss: LossDetection;
  readonly streams: StreamSet;
  readonly localIds: LocalIds;
  readonly peerIds: PeerIds;
  readonly datagramsOut: Uint8Array[] = [];
  readonly datagramsIn: Uint8Array[] = [];
  /** Answers to path challenges. */
  readonly pathResponses: Uint8Array[] = [];
  phase: ConnectionPhase = "handshaking";
  end: ConnectionEnd | null = null;
  /** What is said to the peer while closing. */
  closeFrame: CloseFrame | null = null;
  isClosePending = false;
  peer: TransportParameters | null = null;
  /** The peer is where it says it is; until then it gets three times what it sent (section 8.1). */
  isAddressValidated: boolean;
  bytesReceived = 0;
  bytesSent = 0;
  /** Authentic packets of the peer. */
  packetsAccepted = 0;
  /** The server has HANDSHAKE_DONE to tell. */
  isHandshakeDonePending = false;
  isPingPending = false;
  /** A packet that asks for an answer was sent since the last that came. */
  isAwaitingAnswer = false;
  idleStartMs: number;
  /** When the pacer lets the next packet go; `Infinity` = it is not what is in the way. */
  pacedUntilMs = Number.POSITIVE_INFINITY;
  /** When closing or draining is over. */
  overMs = Number.POSITIVE_INFINITY;

  constructor(options: ConnectionOptions, encode: (parameters: TransportParameters) => Uint8Array) {
    const { isClient } = options;
    this.options = options;
    this.isClient = isClient;
    this.localIds = new LocalIds(options.ids);
    const { activeConnectionIdLimit, maxAckDelay } = options.parameters;
    this.peerIds = new PeerIds(options.peerId ?? options.originalId, activeConnectionIdLimit);
    this.handshake = options.startHandshake(encode(this.#ownParameters()));
    const atOnce = { delayMs: 0, packetsMax: 1 };
    const patient = { delayMs: maxAckDelay * ACK_DELAY_USED, packetsMax: ACK_PACKETS };
    this.spaces = [new PacketSpace(atOnce), new PacketSpace(atOnce), new PacketSpace(patient)];
    this.congestion = new Congestion(options.maxUdpPayload);
    this.pacer = new Pacer(options.maxUdpPayload);
    this.facts = {
      maxAckDelayMs: 25,
      isPeerValidated: !isClient,
      isConfirmed: false,
      hasHandshakeKeys: false,
      idleTimeoutMs: options.parameters.maxIdleTimeout || Number.POSITIVE_INFINITY,
    };
    this.loss = new LossDetection(this);
    this.streams = new StreamSet(isClient, options.parameters);
    this.isAddressValidated = isClient;
    this.idleStartMs = options.nowMs;
  }

  /** A space by its number. */
  space(id: number): PacketSpace {
    return this.spaces[id === INITIAL_SPACE ? 0 : id === HANDSHAKE_SPACE ? 1 : 2];
  }

  /** Largest UDP payload to send. */
  get packetBytes(): number {
    return Math.min(this.options.maxUdpPayload, this.peer?.maxUdpPayloadSize ?? INITIAL_BYTES);
  }

  /** Whether packets other than a goodbye are exchanged. */
  get isAlive(): boolean {
    return this.phase === "handshaking" || this.phase === "open";
  }

  /** Probe timeout of the path, by which closing is measured. */
  get probeTimeoutMs(): number {
    return this.rtt.probeTimeoutMs(this.facts.maxAckDelayMs);
  }

  /** Moves handshake bytes from the session to the spaces that carry them. */
  pullHandshake(): void {
    for (const id of [INITIAL_SPACE, HANDSHAKE_SPACE, APPLICATION_SPACE]) {
      const bytes = this.handshake.take(id);
      if (bytes !== null) this.space(id).handshakeOut.write(bytes);
    }
  }

  /** Forgets a space with its keys. */
  discardSpace(id: number, nowMs: number): void {
    const space = this.space(id);
    if (space.isDiscarded) return;
    space.isDiscarded = true;
    this.facts.hasHandshakeKeys = true;
    space.probes = 0;
    space.received.acknowledged();
    this.loss.discard(id, nowMs);
  }

  /** Ends the connection with a goodbye to the peer (section 10.2). */
  closeWith(frame: CloseFrame, end: ConnectionEnd, nowMs: number): void {
    if (!this.isAlive) return;
    this.closeFrame = frame;
    this.isClosePending = true;
    this.#end("closing", end, nowMs);
  }

  /** Ends the connection without a word. */
  drain(end: ConnectionEnd, nowMs: number): void {
    if (this.isAlive) this.#end("draining", end, nowMs);
  }

  /** Ends the connection at once. */
  abandon(end: ConnectionEnd): void {
    if (this.phase === "closed") return;
    this.end ??= end;
    this.phase = "closed";
    this.localIds.retireAll();
  }

  #end(phase: "closing" | "draining", end: ConnectionEnd, nowMs: number): void {
    this.phase = phase;
    this.end = end;
    this.overMs = nowMs + 3 * this.probeTimeoutMs;
  }

  #ownParameters(): TransportParameters {
    const { id, resetToken } = this.localIds.first;
    return {
      ...this.options.parameters,
      initialSourceConnectionId: id,
      originalDestinationConnectionId: this.isClient ? null : this.options.originalId,
      statelessResetToken: this.isClient ? null : resetToken,
    };
  }
}

/** What a client sends before it knows what the server reads. */
const INITIAL_BYTES = 1_200;
/** Share of the announced delay that is used: timers are late. */
const ACK_DELAY_USED = 0.4;
/** RFC 9000, section 13.2.2. */
const ACK_PACKETS = 2;
