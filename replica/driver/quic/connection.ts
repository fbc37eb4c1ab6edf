/**
 * One QUIC connection over the quiche binding: packets in, packets out, and between them datagrams,
 * unidirectional and bidirectional streams.
 *
 * Nothing happens in the receive callback except handing the packet to quiche. All else is done by
 * `pump`, which the transport calls once per turn of the event loop for each connection that was
 * touched: read what arrived, write what is queued, send packets. Each step has a budget, so one
 * connection cannot hold the loop; `pump` then asks for another turn.
 *
 *     handshaking ──► open ──► closing (says goodbye, absorbs late packets) ──► closed
 *
 * quiche buffers outgoing bytes only up to the congestion window. What waits beyond that is ours to
 * order: urgent streams first, then the others in turn.
 */
import type { PatinaError } from "#base/errors.ts";
import type { ActorId, Address } from "../../types.ts";
import { formatAddress, type HostPort } from "./address.ts";
import { closedError, limitError, QuicBiStream, type StreamHost } from "./bi-stream.ts";
import { BAD_CERTIFICATE, explainClose, noAnswerError } from "./connection-error.ts";
import { DelayedAck } from "./delayed-ack.ts";
import { READING, WRITING, type EngineConnection } from "./engine.ts";
import { HandshakeClock } from "./handshake-clock.ts";
import type { TransportSettings } from "./options.ts";
import type { OutboundStream } from "./outbound-stream.ts";
import type { PacketBuffers } from "./packet-buffers.ts";
import type { PeerJudge } from "./peer-identity.ts";
import type { TransportStats } from "./stats.ts";
import type { UdpSocket } from "./udp-socket.ts";
import { UniInbox } from "./uni-inbox.ts";
import { UniOutbox, type UniSend } from "./uni-outbox.ts";
import { WriteQueue } from "./write-queue.ts";

/**
 * What a connection tells the transport; only ever from within `pump`, except `wake` and `defer`.
 */
export interface ConnectionOwner {
  wake(connection: QuicConnection): void;
  defer(task: () => void): void;
  established(connection: QuicConnection): void;
  /** Told once, when no stream or datagram can be sent any more. */
  ended(connection: QuicConnection, error: PatinaError): void;
  datagram(bytes: Uint8Array, connection: QuicConnection): void;
  uniFrames(frames: readonly Uint8Array[], connection: QuicConnection): void;
  biStream(stream: QuicBiStream): void;
}

/** What a connection is made of. */
export interface ConnectionParts {
  readonly native: EngineConnection;
  readonly socket: UdpSocket;
  /** In the socket's own spelling. */
  readonly peer: HostPort;
  readonly isOutgoing: boolean;
  readonly judge: PeerJudge;
  readonly settings: TransportSettings;
  readonly stats: TransportStats;
  readonly owner: ConnectionOwner;
  readonly buffers: PacketBuffers;
  readonly nowMs: number;
}

/** A connection in either direction. */
export class QuicConnection implements StreamHost {
  readonly remote: Address;
  readonly isOutgoing: boolean;
  readonly peer: HostPort;
  /** Our connection ids under which the transport finds this connection. */
  readonly idKeys: string[] = [];
  /** When `onTimer` is next due, in monotonic milliseconds. */
  deadlineMs = Number.POSITIVE_INFINITY;
  /** When the handshake completed; `null` before. */
  openedMs: number | null = null;
  peerActorId: ActorId | null = null;
  readonly handshake: HandshakeClock;
  readonly #native: EngineConnection;
  readonly #parts: ConnectionParts;
  readonly #writes: WriteQueue;
  readonly #inbox: UniInbox;
  readonly #outbox: UniOutbox;
  readonly #biStreams = new Map<number, QuicBiStream>();
  /** Streams whose listener is ready again. */
  #resumed = new Set<QuicBiStream>();
  readonly #abandoned = new Set<number>();
  readonly #recvInfo: { from: HostPort; to: HostPort };
  #nextBiId = 0;
  /** Of the peer's unidirectional streams, the least above all that have been read from. */
  #nextUniId = UNI_BIT;
  #state: "handshaking" | "open" | "closing" | "closed" = "handshaking";
  /** A short packet came, which a server sends only once its handshake is complete. */
  #isConfirmed = false;
  /** What to close with as soon as that is safe. */
  #goodbye: { reason: string; untilMs: number } | null = null;
  /** Packets sent since the goodbye. */
  #lastPackets = 0;
  /** Smallest round-trip time seen, whole milliseconds as the binding gives them. */
  #rttMs = Number.POSITIVE_INFINITY;
  #lastSendMs: number;
  /** quiche was given something, so it may have something for us, or be at its end. */
  #hasInput = false;
  readonly ack = new DelayedAck();

  constructor(parts: ConnectionParts) {
    this.#native = parts.native;
    this.#parts = parts;
    this.peer = parts.peer;
    this.remote = formatAddress(parts.peer.host, parts.peer.port);
    this.isOutgoing = parts.isOutgoing;
    const { connectTimeoutMs: timeoutMs, limits } = parts.settings;
    this.handshake = new HandshakeClock({ startedMs: parts.nowMs, timeoutMs });
    this.#lastSendMs = parts.nowMs;
    this.#recvInfo = { from: parts.peer, to: parts.socket.bound };
    this.#writes = new WriteQueue(parts.native);
    this.#outbox = new UniOutbox({
      native: parts.native,
      writes: this.#writes,
      reset: (id) => {
        this.#shutdown(id, WRITING);
        this.wake();
      },
    });
    this.#inbox = new UniInbox(limits, parts.stats);
  }

  get isOpen(): boolean {
    return this.#state === "open";
  }

  get isHandshaking(): boolean {
    return this.#state === "handshaking";
  }

  /** Nothing is left to absorb: the transport may forget this connection. */
  get isClosed(): boolean {
    return this.#state === "closed";
  }

  get streamQueueBytes(): number {
    return this.#parts.settings.limits.streamQueueBytes;
  }

  get frameLimits(): { frameBytesMax: number; streamBytesMax: number } {
    const { frameBytesMax } = this.#parts.settings.limits;
    return { frameBytesMax, streamBytesMax: Number.POSITIVE_INFINITY };
  }

  /** Hands one received packet to quiche (which decrypts in place). Never throws. */
  receive(packet: Buffer, host: string, port: number): void {
    this.#hasInput = true;
    if (this.#native.delaysAcks !== true) this.ack.received(packet.length, performance.now());
    const isKnown = host === this.peer.host && port === this.peer.port;
    const info = isKnown ? this.#recvInfo : { from: { host, port }, to: this.#recvInfo.to };
    try {
      const isShort = ((packet[0] ?? LONG_FORM) & LONG_FORM) === 0;
      this.#native.recv(packet, info);
      this.#isConfirmed ||= isShort;
    } catch (thrown) {
      if (!(thrown instanceof Error)) throw thrown;
      // quiche has set the connection's error where the packet was authentic; `pump` looks at that.
      this.#parts.stats.packetsRefused += 1;
    }
    this.wake();
  }

  /**
   * Whether a packet for an unknown connection id is the peer's notice that it does not know this
   * connection (RFC 9000, section 10.3). Only quiche knows the peer's token, so it is asked.
   */
  takeReset(packet: Buffer): boolean {
    if (this.#state !== "open") return false;
    this.receive(packet, this.peer.host, this.peer.port);
    return this.#native.isClosed();
  }

  /** Packets that quiche has accepted as ours. 0 = nothing authentic has arrived yet. */
  get packetsAccepted(): number {
    return this.#native.stats().recv;
  }

  /** Reads, writes and sends. Returns whether budget ran out before the work did. */
  pump(nowMs: number): boolean {
    if (this.#state === "closed") return false;
    if (this.#state === "handshaking" && this.#native.isEstablished()) this.#open(nowMs);
    if (this.#goodbye !== null && this.#isConfirmed) {
      this.#native.close(true, 0, Buffer.from(this.#goodbye.reason));
      this.#goodbye = null;
    }
    const hasInput = this.#hasInput;
    this.#hasInput = false;
    let hasMore = false;
    if (this.#state === "open") {
      // Each question to quiche is a call into native code: asked only where the answer can be new.
      if (hasInput || this.#resumed.size > 0) this.#hasInput = hasMore = this.#read();
      this.#outbox.start();
      hasMore = this.#writes.run() || hasMore;
    }
    if (!this.#mayAckLater(nowMs)) hasMore = this.#flush(nowMs) || hasMore;
    if (hasInput || this.#state !== "open") this.#checkEnd();
    const timeoutMs = this.#native.timeout();
    // The binding rounds down; a timer that fires early would only find nothing to do.
    const quicheMs = timeoutMs === null ? Number.POSITIVE_INFINITY : nowMs + timeoutMs + 1;
    this.deadlineMs = Math.min(quicheMs, this.ack.dueMs, this.#goodbye?.untilMs ?? Infinity);
    if (this.#state === "handshaking") {
      this.deadlineMs = Math.min(this.deadlineMs, this.handshake.deadlineMs);
    }
    return hasMore;
  }

  /** Lets quiche act on what is overdue, and acknowledges what is owed. */
  onTimer(nowMs: number): void {
    if (this.#state === "handshaking" && nowMs >= this.handshake.deadlineMs) {
      return this.discard(noAnswerError(this.#parts.settings.connectTimeoutMs));
    }
    this.#hasInput = true;
    this.ack.hasten(nowMs);
    if (this.#goodbye !== null && nowMs >= this.#goodbye.untilMs) this.#state = "closed";
    else this.#native.onTimeout();
    this.wake();
  }

  /** Queues one datagram. */
  sendDatagram(bytes: Uint8Array): void {
    const { stats } = this.#parts;
    const bytesMax = this.#native.dgramMaxWritableLen();
    if (bytesMax !== null && bytes.length > bytesMax) {
      stats.datagramsTooLarge += 1;
    } else if (this.#native.isDgramSendQueueFull()) {
      stats.datagramsDropped += 1;
    } else {
      this.#native.dgramSend(bytes);
      stats.datagramsSent += 1;
      stats.datagramBytesSent += bytes.length;
      this.wake();
    }
  }

  /** Queues a unidirectional send; settles it with `false` when over a limit. */
  sendUni(send: UniSend): void {
    const { limits } = this.#parts.settings;
    if (this.#outbox.waiting >= limits.waitingMax || this.admit(send.bytes) !== null) {
      send.settle?.(false);
      return;
    }
    this.#outbox.push(send);
    this.wake();
  }

  /** Opens a bidirectional stream. Throws `TRANSPORT_LIMIT` when the peer grants no more. */
  openBi(): QuicBiStream {
    if (this.#native.peerStreamsLeftBidi() === 0) throw limitError("peer's bidirectional streams");
    const stream = new QuicBiStream(this.#nextBiId, this);
    this.#nextBiId += STREAM_ID_STEP;
    // Tells quiche of the stream, so that its count of open ones is right; sends nothing.
    this.#native.streamSend(stream.id, EMPTY, false);
    this.#biStreams.set(stream.id, stream);
    this.#parts.stats.biStreamsOpened += 1;
    return stream;
  }

  /** The new minimum round-trip time in ms if it fell since the last call, else `null`. */
  sampleRtt(): number | null {
    if (this.#state !== "open") return null;
    const rttMs = this.#native.pathStats()[0]?.rtt;
    if (rttMs === undefined || rttMs >= this.#rttMs) return null;
    this.#rttMs = rttMs;
    return rttMs;
  }

  /** Sends a PING if nothing was sent for `quietMs`. */
  keepAlive(nowMs: number, quietMs: number): void {
    if (this.#state !== "open" || nowMs - this.#lastSendMs < quietMs) return;
    this.#native.sendAckEliciting();
    this.wake();
  }

  /**
   * Closes with application code 0. Streams break at once; the goodbye leaves with the next pump.
   *
   * A dialler that does not know yet that the peer completed the handshake waits for that sign, up to
   * a second (`isFinal`: not at all): closed earlier, quiche may have handshake packets to repeat, in
   * which it can neither say goodbye nor stop.
   */
  close(request: { reason: string; nowMs: number; isFinal: boolean }): void {
    const { reason, nowMs, isFinal } = request;
    if (this.#state === "handshaking") return this.discard(closedError(reason));
    if (this.#state !== "open") return;
    // Datagrams queued before, such as "I am leaving", go first: once closing, quiche drops them.
    this.#flush(nowMs);
    this.#end("closing", closedError(reason));
    if (this.isOutgoing && !this.#isConfirmed && !isFinal) {
      this.#goodbye = { reason, untilMs: nowMs + GOODBYE_WAIT_MS };
    } else {
      this.#native.close(true, 0, Buffer.from(reason));
    }
    this.wake();
  }

  /** Forgets the connection without a word to the peer. */
  discard(error: PatinaError): void {
    this.#end("closed", error);
    this.wake();
  }

  // ------------------------------------------------------------------ StreamHost

  admit(bytes: number): PatinaError | null {
    const queued = this.#writes.queuedBytes() + this.#outbox.waitingBytes;
    return queued + bytes > this.#parts.settings.limits.queuedBytesMax
      ? limitError("queuedBytesMax")
      : null;
  }

  schedule(stream: OutboundStream): void {
    this.#writes.add(stream);
    this.wake();
  }

  wake(): void {
    this.#parts.owner.wake(this);
  }

  resume(stream: QuicBiStream): void {
    this.#resumed.add(stream);
    this.wake();
  }

  abandon(stream: QuicBiStream): void {
    this.#biStreams.delete(stream.id);
    this.#abandoned.add(stream.id);
    if (this.#abandoned.size > ABANDONED_MAX) {
      for (const oldest of this.#abandoned) {
        this.#abandoned.delete(oldest);
        break;
      }
    }
    this.#writes.remove(stream.outbound);
    this.#parts.stats.streamsBroken += 1;
    this.#shutdown(stream.id, READING);
    this.#shutdown(stream.id, WRITING);
    this.wake();
  }

  release(stream: QuicBiStream): void {
    this.#biStreams.delete(stream.id);
  }

  defer(task: () => void): void {
    this.#parts.owner.defer(task);
  }

  // ------------------------------------------------------------------ steps of pump

  /** Only on a peer's connection, where nothing else of ours can be waiting for a packet. */
  #mayAckLater(nowMs: number): boolean {
    if (this.isOutgoing || this.#state !== "open" || this.#biStreams.size > 0) return false;
    const isSettled = nowMs - (this.openedMs ?? nowMs) > HANDSHAKE_AFTERMATH_MS;
    return isSettled && this.ack.mayWait(nowMs);
  }

  #open(nowMs: number): void {
    const verdict = this.#parts.judge(this.#native.peerCertChain()?.[0], this);
    if ("refusal" in verdict) {
      this.#native.close(false, BAD_CERTIFICATE, Buffer.from(verdict.refusal));
      return this.#end("closing", explainClose(this.#native, false));
    }
    this.peerActorId = verdict.actorId;
    this.#state = "open";
    this.openedMs = nowMs;
    this.#parts.owner.established(this);
  }

  #read(): boolean {
    const { owner, stats } = this.#parts;
    let datagrams = this.#native.dgramRecvQueueLen();
    for (; datagrams > 0 && this.#state === "open"; datagrams -= 1) {
      const bytes = this.#native.dgramRecvVec();
      if (bytes === null) break;
      // A dialler reads only its own streams' answers (protocol reference, section 1.4).
      if (this.isOutgoing) continue;
      stats.datagramsReceived += 1;
      stats.datagramBytesReceived += bytes.length;
      owner.datagram(bytes, this);
    }
    let budgetBytes = READ_BUDGET_BYTES;
    const resumed = this.#resumed;
    this.#resumed = new Set();
    for (const stream of resumed)
      budgetBytes -= stream.read(this.#native, this.#parts.buffers.scratch, budgetBytes);
    if (!this.#native.isReadable()) return false;
    if (!this.isOutgoing) budgetBytes -= this.#readNextUnis(budgetBytes);
    if (this.#state !== "open" || !this.#native.isReadable()) return false;
    for (const id of this.#native.readable()) {
      if (this.#state !== "open") return false;
      if (budgetBytes <= 0) return true;
      budgetBytes -= this.#readStream(id, budgetBytes);
    }
    return budgetBytes <= 0;
  }

  /** The streams that a peer opens next: as a rule all there is, and found without quiche's list. */
  #readNextUnis(budgetBytes: number): number {
    let bytes = 0;
    while (bytes < budgetBytes && this.#state === "open") {
      const id = this.#nextUniId;
      if (!this.#native.streamReadable(id)) break;
      bytes += this.#readStream(id, budgetBytes - bytes);
    }
    return bytes;
  }

  #readStream(id: number, budgetBytes: number): number {
    if ((id & UNI_BIT) !== 0) {
      this.#nextUniId = Math.max(this.#nextUniId, id + STREAM_ID_STEP);
      return this.#inbox.read(this.#native, id, {
        scratch: this.#parts.buffers.scratch,
        budgetBytes,
        deliver: (frames) => this.#parts.owner.uniFrames(frames, this),
      });
    }
    const stream = this.#biStreams.get(id) ?? this.#acceptBi(id);
    return stream?.read(this.#native, this.#parts.buffers.scratch, budgetBytes) ?? 0;
  }

  #acceptBi(id: number): QuicBiStream | null {
    // Streams given up are only read to the end by quiche itself.
    if (this.isOutgoing || this.#abandoned.has(id)) return null;
    const stream = new QuicBiStream(id, this);
    this.#biStreams.set(id, stream);
    this.#parts.stats.biStreamsAccepted += 1;
    this.#parts.owner.biStream(stream);
    return stream;
  }

  #flush(nowMs: number): boolean {
    const { socket, settings, buffers } = this.#parts;
    const { host, port } = this.peer;
    if (socket.isCongested) return true;
    this.ack.settled();
    for (let packets = 0; packets < FLUSH_PACKETS_MAX; packets += 1) {
      const sent = this.#native.send(buffers.reserve(settings.maxUdpPayload));
      if (sent === null) return false;
      this.#lastSendMs = nowMs;
      if (this.#state === "closing" && this.#isTalkative()) return false;
      socket.send(buffers.commit(sent[0]), host, port);
    }
    return true;
  }

  /** A goodbye takes a packet or two. See `close` for when quiche would go on for ever. */
  #isTalkative(): boolean {
    if (this.#goodbye === null) this.#lastPackets += 1;
    if (this.#lastPackets <= LAST_PACKETS_MAX) return false;
    this.#state = "closed";
    return true;
  }

  #checkEnd(): void {
    if (this.#state === "open" || this.#state === "handshaking") {
      const hasError = this.#native.isDraining() || this.#native.isClosed();
      if (!hasError && this.#native.localError() === null) return;
      this.#end("closing", explainClose(this.#native, this.#state === "open"));
    }
    if (this.#native.isClosed()) this.#state = "closed";
  }

  #end(state: "closing" | "closed", error: PatinaError): void {
    const isFirst = this.#state === "handshaking" || this.#state === "open";
    this.#state = state;
    if (!isFirst) return;
    for (const stream of this.#biStreams.values()) stream.breakWith(error);
    this.#writes.breakAll();
    this.#outbox.failAll();
    this.#parts.owner.ended(this, error);
  }

  #shutdown(id: number, direction: number): void {
    try {
      this.#native.streamShutdown(id, direction, 0);
    } catch (thrown) {
      // The stream is over already, or the connection: what was wanted is the case.
      if (!(thrown instanceof Error)) throw thrown;
    }
  }
}

const EMPTY = Buffer.alloc(0);
const LONG_FORM = 0x80;
/** Some repeated handshakes fit in. Later the peer learns by silence or by a reset. */
const GOODBYE_WAIT_MS = 1_000;
/** Packets of the handshake are lost and repeated within this time: nothing waits there. */
const HANDSHAKE_AFTERMATH_MS = 1_000;
/** Arbitrary; far more than a goodbye and its repetitions take. */
const LAST_PACKETS_MAX = 32;
/** Stream ids: bit 1 = unidirectional; a client's bidirectional ones are 0, 4, 8, ... */
const UNI_BIT = 2;
const STREAM_ID_STEP = 4;
/** Given-up streams of which late bytes may come; more than can be open at once. */
const ABANDONED_MAX = 1_024;
/** Work of one turn: about 10 ms of reading and 1 ms of sending on the reference machine. */
const READ_BUDGET_BYTES = 1024 * 1024;
const FLUSH_PACKETS_MAX = 64;
