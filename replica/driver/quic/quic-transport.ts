/**
 * The `Transport` port on QUIC behind UDP sockets: quiche's native binding with mutual TLS, or the
 * core of our own in Corrosion's plaintext mode.
 *
 * Packets are handed to the engine as they arrive; everything else happens once per turn of the event
 * loop, in `#turn`: each connection that was touched reads, writes and sends. One timer serves all
 * connections. Everything sent goes over connections that we dialled; connections dialled by peers
 * are only read, and answered inside their bidirectional streams (protocol reference, section 1.4).
 *
 * A restarted process answers packets of its predecessor's connections with a stateless reset, so
 * that peers learn of the restart in one round trip.
 *
 * Not here: path MTU discovery, 0-RTT, Retry, migration. quiche limits what is sent to an address
 * that has not proved itself (RFC 9000, section 8.1).
 */
import { randomBytes } from "node:crypto";
import type { PatinaError } from "#base/errors.ts";
import { INITIAL_DATAGRAM_BYTES } from "../../core/quic/packet.ts";
import type { Address, BiStream, Transport, TransportEvents } from "../../types.ts";
import { formatAddress, hostForSocket, type HostPort } from "./address.ts";
import { closedError } from "./bi-stream.ts";
import { QuicConnection, type ConnectionOwner } from "./connection.ts";
import { resolveSettings, type QuicTransportOptions, type TransportSettings } from "./options.ts";
import { createPlaintextEngine } from "./plaintext-engine.ts";
import { createQuicheEngine } from "./quiche-engine.ts";
import type { Engine, ExtraIds } from "./engine.ts";
import { OutgoingConnections } from "./outgoing-connections.ts";
import {
  CONNECTION_ID_BYTES,
  connectionIdKey,
  QUIC_VERSION,
  readPacketHeader,
  type PacketHeader,
} from "./packet-header.ts";
import { PacketBuffers } from "./packet-buffers.ts";
import { createStatelessReset, createVersionNegotiation, ReplyBudget } from "./stateless.ts";
import { createStats, type TransportStats } from "./stats.ts";
import type { TransportCertificates } from "./tls-config.ts";
import { UdpSocket } from "./udp-socket.ts";
import type { UniSend } from "./uni-outbox.ts";

/** QUIC between replicas. Created by `open`; ends with `close`. */
export class QuicTransport implements Transport {
  /** Counters since the start; read them at any time. */
  readonly stats: TransportStats;
  readonly #settings: TransportSettings;
  readonly #events: TransportEvents;
  readonly #outgoing: OutgoingConnections;
  readonly #owner: ConnectionOwner;
  readonly #connections = new Set<QuicConnection>();
  readonly #byId = new Map<string, QuicConnection>();
  /** Ids of dials that were given up, by age: what the peer still says to them opens nothing. */
  readonly #givenUpIds = new Set<string>();
  readonly #replies: ReplyBudget;
  readonly #buffers = new PacketBuffers();
  #engine: Engine;
  #serverSocket: UdpSocket | null = null;
  #clientSocket: UdpSocket | null = null;
  #inbound = 0;
  #inboundHandshakes = 0;
  /** Connections to pump in the next turn, and notifications to give in it. */
  #dirty = new Set<QuicConnection>();
  #deferred: (() => void)[] = [];
  #isTurnDue = false;
  #timer: NodeJS.Timeout | null = null;
  #timerMs = Number.POSITIVE_INFINITY;
  #tickMs: number;
  /** Unidirectional sends in order of their deadline. */
  readonly #expiries: { send: UniSend; deadlineMs: number }[] = [];
  #closing: Promise<void> | null = null;

  private constructor(
    options: QuicTransportOptions,
    events: TransportEvents,
    stats: TransportStats,
  ) {
    this.stats = stats;
    this.#events = events;
    this.#settings = resolveSettings(options);
    this.#engine = createEngine(options, this.#settings);
    this.#replies = new ReplyBudget(this.#settings.limits.statelessRepliesPerSecond);
    this.#tickMs = performance.now() + this.#tickPeriodMs;
    this.#owner = this.#createOwner();
    this.#outgoing = new OutgoingConnections({
      settings: this.#settings,
      stats,
      dial: (peer) => this.#dial(peer),
      nowMs: () => performance.now(),
      report: (target, state, reason) => {
        this.#defer(() => this.#events.connection(target, state, reason));
      },
      reportRtt: (target, rttMs) => this.#defer(() => this.#events.rtt(target, rttMs)),
    });
  }

  /**
   * Binds and starts. Rejects with `TRANSPORT_BIND` or `TRANSPORT_TLS`; then nothing is left open.
   */
  static async open(
    options: QuicTransportOptions,
    events: TransportEvents,
  ): Promise<QuicTransport> {
    const stats = createStats();
    const transport = new QuicTransport(options, events, stats);
    const bind = (local: Address): Promise<UdpSocket> =>
      UdpSocket.bind(
        {
          local,
          stats,
          faults: options.faults ?? null,
          random: transport.#settings.random,
        },
        (packet, host, port) => transport.#onPacket(packet, host, port),
      );
    const server = await bind(options.local);
    transport.#serverSocket = server;
    try {
      const { clientLocal } = options;
      transport.#clientSocket = clientLocal === undefined ? server : await bind(clientLocal);
    } catch (thrown) {
      await server.close();
      throw thrown;
    }
    transport.#arm(transport.#tickMs);
    return transport;
  }

  get local(): Address {
    return this.#server.local;
  }

  /** Connections of both directions, those that are going away included. */
  get connectionCount(): number {
    return this.#connections.size;
  }

  /** Addresses to which a connection is up or being made. */
  get dialledCount(): number {
    return this.#outgoing.size;
  }

  sendDatagram(target: Address, bytes: Uint8Array): void {
    if (this.#closing !== null) this.stats.datagramsDropped += 1;
    else this.#outgoing.sendDatagram(target, bytes);
  }

  sendUni(
    target: Address,
    frames: readonly Uint8Array[],
    options: { readonly urgent?: boolean } = {},
  ): Promise<boolean> {
    if (this.#closing !== null) return Promise.resolve(false);
    return new Promise((resolve) => {
      const send: UniSend = {
        frames,
        bytes: frames.reduce((bytes, frame) => bytes + frame.length + 4, 0),
        isUrgent: options.urgent === true,
        abort: null,
        settle: (isHandedOver) => {
          send.settle = null;
          send.abort = null;
          this.stats[isHandedOver ? "uniStreamsSent" : "uniStreamsFailed"] += 1;
          if (isHandedOver) this.stats.uniBytesSent += send.bytes;
          resolve(isHandedOver);
        },
      };
      const { frameBytesMax } = this.#settings.limits;
      // The peer would reset the stream after megabytes of it.
      if (frames.some((frame) => frame.length > frameBytesMax)) send.settle?.(false);
      else this.#outgoing.sendUni(target, send);
      if (send.settle === null) return;
      const deadlineMs = performance.now() + this.#settings.uniTimeoutMs;
      this.#expiries.push({ send, deadlineMs });
      this.#arm(deadlineMs);
    });
  }

  openBi(target: Address): Promise<BiStream> {
    if (this.#closing !== null) return Promise.reject(closedError("shutting down"));
    return new Promise((resolve, reject) => {
      this.#outgoing.openBi(target, { resolve, reject });
    });
  }

  forget(target: Address, reason: string): void {
    this.#outgoing.forget(target, reason);
  }

  /**
   * Uses other certificates for handshakes from here on; existing connections go on with theirs, and
   * whoever was held back after failed dials may be dialled at once.
   * Throws `TRANSPORT_TLS`, and then keeps the old ones.
   */
  reloadCertificates(certificates: TransportCertificates): void {
    this.#engine = createQuicheEngine(certificates, this.#settings);
    this.#outgoing.release();
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  get #server(): UdpSocket {
    if (this.#serverSocket === null) throw new Error("the transport is not bound");
    return this.#serverSocket;
  }

  /** Short idle timeouts need a finer tick for their keep-alive. */
  get #tickPeriodMs(): number {
    return Math.min(1_000, this.#settings.idleTimeoutMs / 8);
  }

  async #close(): Promise<void> {
    this.#outgoing.close(closedError(SHUTTING_DOWN));
    const goodbye = { reason: SHUTTING_DOWN, nowMs: performance.now(), isFinal: true };
    for (const connection of this.#connections) connection.close(goodbye);
    this.#expiries.length = 0;
    // Two turns: the goodbyes leave, and what they set off is told.
    for (let turns = 0; turns < 2; turns += 1) {
      await new Promise((resolve) => setImmediate(resolve));
      this.#turn();
    }
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    this.#connections.clear();
    this.#byId.clear();
    await this.#server.close();
    if (this.#clientSocket !== this.#serverSocket) await this.#clientSocket?.close();
  }

  #createOwner(): ConnectionOwner {
    return {
      wake: (connection) => {
        this.#dirty.add(connection);
        this.#requestTurn();
      },
      defer: (task) => this.#defer(task),
      established: (connection) => {
        if (connection.isOutgoing) return this.#outgoing.established(connection);
        this.#inboundHandshakes -= 1;
        this.stats.handshakesAccepted += 1;
        this.#outgoing.signOfLife(connection.remote);
      },
      ended: (connection, error) => this.#onEnded(connection, error),
      datagram: (bytes, { remote, peerActorId }) =>
        this.#events.datagram(bytes, remote, peerActorId),
      uniFrames: (frames, connection) => this.#events.uniFrames(frames, connection.remote),
      biStream: (stream) => this.#events.biStream(stream),
    };
  }

  #onEnded(connection: QuicConnection, error: PatinaError): void {
    if (connection.isOutgoing) return this.#outgoing.ended(connection, error);
    if (connection.openedMs !== null) return;
    this.#inboundHandshakes -= 1;
    this.stats.handshakesFailed += 1;
  }

  #dial(peer: HostPort): QuicConnection {
    const socket = this.#clientSocket ?? this.#server;
    const isIpv6 = peer.host.includes(":");
    if (isIpv6 && !socket.isDualStack) throw new Error("our socket is IPv4 only");
    const id = randomBytes(CONNECTION_ID_BYTES);
    const remote = { host: hostForSocket(peer.host, socket.isDualStack), port: peer.port };
    const ids = this.#extraIds();
    const connection = new QuicConnection({
      native: this.#engine.connect({ id, local: socket.bound, remote, ids }),
      socket,
      peer: remote,
      isOutgoing: true,
      judge: this.#engine.judge,
      settings: this.#settings,
      stats: this.stats,
      owner: this.#owner,
      buffers: this.#buffers,
      nowMs: performance.now(),
    });
    ids.connection = connection;
    this.#adopt(connection, [id]);
    connection.wake();
    return connection;
  }

  // ------------------------------------------------------------------ packets

  /** Takes any bytes from anybody; never throws. */
  #onPacket(packet: Buffer, host: string, port: number): void {
    if (this.#serverSocket === null) return;
    this.stats.packetsReceived += 1;
    this.stats.bytesReceived += packet.length;
    const header = readPacketHeader(packet);
    if (header === null || port === 0 || host.includes("%")) {
      this.stats.packetsMalformed += 1;
      return;
    }
    const key = connectionIdKey(header.dcid);
    const connection = this.#byId.get(key);
    if (connection !== undefined) connection.receive(packet, host, port);
    else if (this.#givenUpIds.has(key)) this.stats.packetsUnknown += 1;
    else if (header.kind === "initial") this.#accept(packet, header, { host, port });
    else this.#replyToStranger(packet, header, { host, port });
  }

  #accept(packet: Buffer, header: PacketHeader, peer: HostPort): void {
    const { limits } = this.#settings;
    // RFC 9000, sections 7.2 and 14.1: anything shorter is no first packet of a client.
    const isFirst = packet.length >= INITIAL_DATAGRAM_BYTES && header.dcid.length >= 8;
    if (!isFirst || this.#closing !== null) {
      this.stats.packetsUnknown += 1;
      return;
    }
    const isFull = this.#inbound >= limits.inboundConnectionsMax;
    if (isFull || this.#inboundHandshakes >= limits.inboundHandshakesMax) {
      this.stats.connectionsRefused += 1;
      return;
    }
    const id = randomBytes(CONNECTION_ID_BYTES);
    const { dcid: originalId, scid: peerId } = header;
    const socket = this.#server;
    const ids = this.#extraIds();
    const request = { id, local: socket.bound, remote: peer, ids, originalId, peerId };
    const connection = new QuicConnection({
      native: this.#engine.accept(request),
      socket,
      peer,
      isOutgoing: false,
      judge: this.#engine.judge,
      settings: this.#settings,
      stats: this.stats,
      owner: this.#owner,
      buffers: this.#buffers,
      nowMs: performance.now(),
    });
    // Until it has our id, the client keeps sending to the one it made up.
    ids.connection = connection;
    this.#adopt(connection, [id, header.dcid]);
    this.#inbound += 1;
    this.#inboundHandshakes += 1;
    connection.receive(packet, peer.host, peer.port);
    // Garbage that looks like a first packet must not occupy a handshake for seconds.
    if (connection.packetsAccepted === 0) connection.discard(closedError("not a handshake"));
  }

  #replyToStranger(packet: Buffer, header: PacketHeader, peer: HostPort): void {
    this.stats.packetsUnknown += 1;
    let reply: Buffer | null = null;
    if (header.kind === "short") {
      const outgoing = this.#outgoing.connectionTo(formatAddress(peer.host, peer.port));
      if (outgoing?.takeReset(packet) === true) return;
      reply = createStatelessReset(this.#engine.resetSecret, packet);
    } else if (header.version !== QUIC_VERSION && header.version !== 0) {
      // RFC 9000, section 6.1: only an answer to something that could start a connection.
      const isLarge = packet.length >= INITIAL_DATAGRAM_BYTES;
      reply = isLarge ? createVersionNegotiation(header) : null;
    }
    if (reply === null) return;
    if (!this.#replies.take(performance.now())) {
      this.stats.statelessRepliesHeldBack += 1;
      return;
    }
    const isReset = header.kind === "short";
    this.stats[isReset ? "statelessResetsSent" : "versionNegotiationsSent"] += 1;
    this.#server.send(reply, peer.host, peer.port);
  }

  /** Ids that a connection gives out later lead to it too. */
  #extraIds(): ExtraIds & { connection: QuicConnection | null } {
    const extra: ExtraIds & { connection: QuicConnection | null } = {
      connection: null,
      issued: (id) => {
        if (extra.connection !== null) this.#adopt(extra.connection, [Buffer.from(id)]);
      },
      retired: (id) => this.#byId.delete(connectionIdKey(Buffer.from(id))),
    };
    return extra;
  }

  #adopt(connection: QuicConnection, ids: readonly Buffer[]): void {
    this.#connections.add(connection);
    for (const id of ids) {
      const key = connectionIdKey(id);
      connection.idKeys.push(key);
      this.#byId.set(key, connection);
    }
  }

  #drop(connection: QuicConnection): void {
    if (!this.#connections.delete(connection)) return;
    for (const key of connection.idKeys) this.#byId.delete(key);
    if (!connection.isOutgoing) this.#inbound -= 1;
    else if (connection.openedMs === null) this.#noteGivenUp(connection.idKeys);
  }

  /** A server's first packets look like a client's: each would begin a handshake that must fail. */
  #noteGivenUp(keys: readonly string[]): void {
    for (const key of keys) this.#givenUpIds.add(key);
    for (const oldest of this.#givenUpIds) {
      if (this.#givenUpIds.size <= GIVEN_UP_MAX) break;
      this.#givenUpIds.delete(oldest);
    }
  }

  // ------------------------------------------------------------------ turns and time

  #defer(task: () => void): void {
    this.#deferred.push(task);
    this.#requestTurn();
  }

  #requestTurn(): void {
    if (this.#isTurnDue) return;
    this.#isTurnDue = true;
    // The check phase follows the poll phase: all packets of one poll share one turn.
    setImmediate(() => {
      if (this.#isTurnDue) this.#turn();
    });
  }

  #turn(): void {
    this.#isTurnDue = false;
    const dirty = this.#dirty;
    const deferred = this.#deferred;
    this.#dirty = new Set();
    this.#deferred = [];
    for (const task of deferred) task();
    const nowMs = performance.now();
    for (const connection of dirty) {
      const hasMore = connection.pump(nowMs);
      if (connection.isClosed) this.#drop(connection);
      else if (hasMore) this.#owner.wake(connection);
      else this.#arm(connection.deadlineMs);
    }
  }

  #arm(deadlineMs: number): void {
    if (deadlineMs >= this.#timerMs) return;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timerMs = deadlineMs;
    const waitMs = Math.max(1, Math.ceil(deadlineMs - performance.now()));
    this.#timer = setTimeout(() => this.#onTimer(), waitMs);
  }

  #onTimer(): void {
    const nowMs = performance.now();
    const lateMs = nowMs - this.#timerMs;
    this.#timer = null;
    this.#timerMs = Number.POSITIVE_INFINITY;
    if (this.#closing !== null) return;
    for (const connection of this.#connections) connection.handshake.forgive(lateMs, nowMs);
    this.#expireUnis(nowMs);
    if (nowMs >= this.#tickMs) {
      this.#tickMs = nowMs + this.#tickPeriodMs;
      this.#outgoing.tick(nowMs);
    }
    let nextMs = Math.min(this.#tickMs, this.#expiries[0]?.deadlineMs ?? this.#tickMs);
    for (const connection of this.#connections) {
      // A connection that acts is pumped next and arms the timer for itself then.
      if (connection.deadlineMs <= nowMs || connection.ack.isOwed) connection.onTimer(nowMs);
      else nextMs = Math.min(nextMs, connection.deadlineMs);
    }
    this.#arm(nextMs);
  }

  #expireUnis(nowMs: number): void {
    let done = 0;
    for (const { send, deadlineMs } of this.#expiries) {
      if (deadlineMs > nowMs && send.settle !== null) break;
      done += 1;
      send.abort?.();
      send.settle?.(false);
    }
    this.#expiries.splice(0, done);
  }
}

function createEngine({ certificates }: QuicTransportOptions, settings: TransportSettings): Engine {
  return "resetSeed" in certificates
    ? createPlaintextEngine(certificates, settings)
    : createQuicheEngine(certificates, settings);
}

/** The reason Corrosion gives when it stops (protocol reference, section 1.4). */
const SHUTTING_DOWN = "shutting down";
/** Arbitrary; all dials of a large cluster, and 100 KB of ids. */
const GIVEN_UP_MAX = 1_024;
