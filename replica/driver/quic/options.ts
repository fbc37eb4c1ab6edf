/** What a QUIC transport is given, with defaults and limits in one place. */
import type { ActorId, Address } from "../../types.ts";
import type { PlaintextMode } from "./plaintext-engine.ts";
import type { TransportCertificates } from "./tls-config.ts";

/**
 * Bounds on what peers and callers can make the transport hold. Reaching one is an error or a
 * count.
 */
export interface TransportLimits {
  /** Incoming connections, those in their handshake included. Default 1024. */
  readonly inboundConnectionsMax: number;
  /** Incoming connections in their handshake. Default 256. */
  readonly inboundHandshakesMax: number;
  /** Targets of outgoing connections. Default 1024. */
  readonly outgoingConnectionsMax: number;
  /**
   * Bytes queued on one connection's outgoing streams, quiche's own buffers not counted: 64 MiB.
   */
  readonly queuedBytesMax: number;
  /** Stream opens and unidirectional sends waiting on one target. Default 4096. */
  readonly waitingMax: number;
  /** Datagrams kept while a target is being dialled. Default 64. */
  readonly waitingDatagramsMax: number;
  /** A `BiStream.send` resolves while fewer bytes than this are queued on the stream: 256 KiB. */
  readonly streamQueueBytes: number;
  /** Payload of one incoming frame: 100 MiB (protocol reference, section 1.5). */
  readonly frameBytesMax: number;
  /** Payload of one incoming unidirectional stream. Default 128 MiB. */
  readonly uniStreamBytesMax: number;
  /** Unfinished incoming unidirectional streams of one connection, together. Default 192 MiB. */
  readonly uniBytesMax: number;
  /**
   * Unidirectional streams that a peer may have open, 65,536. quiche counts them from the start of
   * the connection when it decides about granting more: once a peer has opened this many, each
   * answer carries a grant, and each grant asks for an answer. Lower where peers are not known.
   */
  readonly uniStreamsMax: number;
  /** Unidirectional streams of which we hold a part; a further one is refused. Default 1024. */
  readonly uniUnfinishedMax: number;
  /** Replies per second to packets that belong to no connection. Default 200. */
  readonly statelessRepliesPerSecond: number;
}

/**
 * Emulates a real network on loopback, for demos and tests only. Applies to every UDP packet sent.
 */
export interface FaultInjection {
  /** One-way delay of packets to `remote` in milliseconds; 0 = none. Called for every packet. */
  delayMs?(remote: Address): number;
  /** Share of packets lost, 0 to 1. Default 0. */
  readonly dropRate?: number;
}

/** Options of a transport. Durations are milliseconds. */
export interface QuicTransportOptions {
  /** Where peers dial us; port 0 = chosen by the system. `[::]:0` serves IPv4 and IPv6. */
  readonly local: Address;
  /** A socket of its own for outgoing connections. Default: one socket serves both. */
  readonly clientLocal?: Address;
  /** With TLS; or without, in Corrosion's plaintext mode. */
  readonly certificates: TransportCertificates | PlaintextMode;
  /**
   * A connection without packets for this long is dead; PINGs go out at half of it. Default 30000.
   */
  readonly idleTimeoutMs?: number;
  /** Default 5000. */
  readonly connectTimeoutMs?: number;
  /** How long a unidirectional send may take until everything is handed over. Default 5000. */
  readonly uniTimeoutMs?: number;
  /**
   * Largest UDP payload sent, 1200 to 16383; there is no path MTU discovery. Default 1350, which
   * passes almost every path; on loopback 8000 is five times as fast for bulk.
   */
  readonly maxUdpPayload?: number;
  readonly limits?: Partial<TransportLimits>;
  readonly faults?: FaultInjection;
  /** Whether the replica to be reached at an address may be this one. Default: any may be. */
  readonly mayBe?: (target: Address, actorId: ActorId) => boolean;
  /** Jitter of the back-off and injected loss. Default `Math.random`. */
  readonly random?: () => number;
}

/** Options with every default filled in. */
export interface TransportSettings {
  readonly idleTimeoutMs: number;
  readonly connectTimeoutMs: number;
  readonly uniTimeoutMs: number;
  readonly maxUdpPayload: number;
  readonly limits: TransportLimits;
  readonly mayBe: (target: Address, actorId: ActorId) => boolean;
  readonly random: () => number;
}

/** Fills in the defaults. */
export function resolveSettings(options: QuicTransportOptions): TransportSettings {
  return {
    idleTimeoutMs: options.idleTimeoutMs ?? 30_000,
    connectTimeoutMs: options.connectTimeoutMs ?? 5_000,
    uniTimeoutMs: options.uniTimeoutMs ?? 5_000,
    maxUdpPayload: options.maxUdpPayload ?? 1_350,
    limits: { ...DEFAULT_LIMITS, ...options.limits },
    mayBe: options.mayBe ?? (() => true),
    random: options.random ?? Math.random,
  };
}

const MIB = 1024 * 1024;

/** Arbitrary unless said in the type; large enough for some hundreds of replicas. */
const DEFAULT_LIMITS: TransportLimits = {
  inboundConnectionsMax: 1_024,
  inboundHandshakesMax: 256,
  outgoingConnectionsMax: 1_024,
  queuedBytesMax: 64 * MIB,
  waitingMax: 4_096,
  waitingDatagramsMax: 64,
  streamQueueBytes: 256 * 1024,
  frameBytesMax: 100 * MIB,
  uniStreamBytesMax: 128 * MIB,
  uniBytesMax: 192 * MIB,
  uniStreamsMax: 65_536,
  uniUnfinishedMax: 1_024,
  statelessRepliesPerSecond: 200,
};
