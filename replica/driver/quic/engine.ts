/**
 * What the transport needs of a QUIC implementation, as a port: quiche with TLS, or the core of our
 * own in Corrosion's plaintext mode. Its shape is that of quiche's binding, in which the first of
 * them is written.
 */
import type { HostPort } from "./address.ts";
import type { PeerJudge } from "./peer-identity.ts";

/** Why one side closed. */
export interface EngineError {
  readonly isApp: boolean;
  readonly errorCode: number;
  readonly reason: Uint8Array;
}

/**
 * One connection. Nothing in it happens by itself: packets go in with `recv` and are fetched with
 * `send`, and `onTimeout` is due after `timeout()` ms.
 */
export interface EngineConnection {
  /**
   * It chooses when to acknowledge. Absent: it acknowledges with whatever is sent next, so that to
   * wait is up to the transport.
   */
  readonly delaysAcks?: boolean;
  /** Takes a UDP payload, which belongs to the connection from then on. May throw: it is refused. */
  recv(packet: Uint8Array, info: { from: HostPort; to: HostPort }): number;
  /** Writes the next UDP payload; its length comes first. `null` = there is none. */
  send(out: Uint8Array): readonly [number, unknown] | null;
  /** Milliseconds, rounded down; `null` = nothing is due. */
  timeout(): number | null;
  onTimeout(): void;
  isEstablished(): boolean;
  /** The peer has closed. */
  isDraining(): boolean;
  /** Nothing will be sent or taken any more. */
  isClosed(): boolean;
  isTimedOut(): boolean;
  localError(): EngineError | null;
  peerError(): EngineError | null;
  close(isApp: boolean, code: number, reason: Uint8Array): unknown;
  /** The peer's certificate and its intermediates, DER; `null` = it showed none. */
  peerCertChain(): Uint8Array[] | null;
  /** Packets taken. */
  stats(): { readonly recv: number };
  /** Round-trip time in whole ms; empty = not known yet. */
  pathStats(): { readonly rtt: number }[];
  /** Sends something that the peer must answer. */
  sendAckEliciting(): void;
  // Streams. A stream of ours begins with the first call that names it; ids follow each other.
  isReadable(): boolean;
  readable(): Iterable<number>;
  streamReadable(id: number): boolean;
  /** Bytes and whether they are the last; `null` = none now. Throws after a reset. */
  streamRecv(id: number, out: Uint8Array): [number, boolean] | null;
  /** Bytes taken; `null` = none now. Throws when nobody reads on. */
  streamSend(id: number, bytes: Uint8Array, isFin: boolean): number | null;
  streamPriority(id: number, urgency: number, isIncremental: boolean): void;
  /** Gives up `READING` or `WRITING`. May throw when the stream is over. */
  streamShutdown(id: number, direction: number, code: number): unknown;
  peerStreamsLeftBidi(): number;
  peerStreamsLeftUni(): number;
  // Datagrams.
  dgramRecvQueueLen(): number;
  dgramRecvVec(): Uint8Array | null;
  isDgramSendQueueFull(): boolean;
  dgramSend(bytes: Uint8Array): unknown;
  dgramMaxWritableLen(): number | null;
}

/** Directions of a stream to give up. */
export const READING = 0;
/** See `READING`. */
export const WRITING = 1;

/** Ids by which packets find a connection, beside those that it is made with. */
export interface ExtraIds {
  issued(id: Uint8Array): void;
  retired(id: Uint8Array): void;
}

/** Between whom a connection is, and by which ids. */
export interface EngineRequest {
  /** Ours, of 8 bytes. */
  readonly id: Buffer;
  readonly local: HostPort;
  readonly remote: HostPort;
  readonly ids: ExtraIds;
}

/** Makes connections. */
export interface Engine {
  /** Behind the tokens of stateless resets. */
  readonly resetSecret: Buffer;
  /** Asked about the peer's certificate after each handshake that the TLS library let pass. */
  readonly judge: PeerJudge;
  /** Begins a handshake. */
  connect(request: EngineRequest): EngineConnection;
  /** Answers one; `originalId` and `peerId` are of the client's first packet. */
  accept(request: EngineRequest & { originalId: Buffer; peerId: Buffer }): EngineConnection;
}
