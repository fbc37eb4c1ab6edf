/**
 * A QUIC connection without I/O: UDP payloads in, UDP payloads out, and between them streams and
 * datagrams (RFC 9000, 9002, 9221).
 *
 * Its owner hands over what arrives with `receive`, takes what is to be sent with `send` until there
 * is no more, and calls `onTimeout` when `deadlineMs` is reached; each with the time. After any of
 * these, and after any call that wants something sent, it asks `send` and `deadlineMs` again. What
 * came for the application lies ready: `streams.readable()`, `takeDatagram`, `phase`, `end`.
 *
 *     receive ──► PacketReceiver ──► streams, datagrams, ids, loss detection
 *     send    ◄── PacketSender   ◄── the same
 *
 * Not here: 0-RTT, Retry, migration, key update, path MTU discovery (decision 27). Packets of the
 * peer from another address are taken, and answered to the old one.
 */
import {
  ConnectionState,
  type ConnectionEnd,
  type ConnectionOptions,
  type ConnectionPhase,
} from "./connection-state.ts";
import { APPLICATION_SPACE, HANDSHAKE_SPACE, INITIAL_SPACE } from "./loss-detection.ts";
import { PacketReceiver, repeatPacket, settlePackets } from "./packet-receiver.ts";
import { PacketSender } from "./packet-sender.ts";
import type { StreamSet } from "./stream-set.ts";
import { NO_ERROR } from "./transport-error.ts";
import { encodeParameters } from "./transport-parameters.ts";

/** One connection, of either side. */
export class Connection {
  readonly streams: StreamSet;
  readonly #state: ConnectionState;
  readonly #receiver: PacketReceiver;
  readonly #sender: PacketSender;

  constructor(options: ConnectionOptions) {
    this.#state = new ConnectionState(options, encodeParameters);
    this.#receiver = new PacketReceiver(this.#state);
    this.#sender = new PacketSender(this.#state);
    this.streams = this.#state.streams;
    this.#state.pullHandshake();
  }

  /** Where the connection is in its life. */
  get phase(): ConnectionPhase {
    return this.#state.phase;
  }

  /** How it ended; `null` while it lives. */
  get end(): ConnectionEnd | null {
    return this.#state.end;
  }

  /** Authentic packets that have come; 0 = nobody is known to be there. */
  get packetsAccepted(): number {
    return this.#state.packetsAccepted;
  }

  /** Both sides know that the handshake is complete. */
  get isConfirmed(): boolean {
    return this.#state.facts.isConfirmed;
  }

  /** The smoothed and the smallest round-trip time, in ms; `null` before the first sample. */
  get rtt(): { readonly smoothedMs: number; readonly minMs: number } | null {
    const { rtt } = this.#state;
    return rtt.hasSample ? { smoothedMs: rtt.smoothedMs, minMs: rtt.minMs } : null;
  }

  /** Bytes that may be under way at a time. */
  get windowBytes(): number {
    return this.#state.congestion.windowBytes;
  }

  /** Takes a UDP payload. Parts of it may be kept: it must not be changed afterwards. */
  receive(datagram: Uint8Array, nowMs: number): void {
    this.#receiver.receive(datagram, nowMs);
  }

  /** Writes the next UDP payload into `out` and returns its length; 0 = nothing to send for now. */
  send(out: Uint8Array, nowMs: number): number {
    return this.#sender.send(out, nowMs);
  }

  /** When `onTimeout` is due, or `send` may have something; `Infinity` = only after other calls. */
  get deadlineMs(): number {
    const state = this.#state;
    if (state.phase === "closed") return Number.POSITIVE_INFINITY;
    if (!state.isAlive) return state.overMs;
    let deadlineMs = Math.min(state.loss.deadlineMs, this.#idleMs, state.pacedUntilMs);
    for (const { received, isDiscarded } of state.spaces) {
      if (!isDiscarded) deadlineMs = Math.min(deadlineMs, received.ackDueMs);
    }
    return deadlineMs;
  }

  /** Does what is overdue; what follows from it is sent by `send`. */
  onTimeout(nowMs: number): void {
    const state = this.#state;
    if (!state.isAlive) {
      if (nowMs >= state.overMs) state.phase = "closed";
      if (state.phase === "closed") state.localIds.retireAll();
      return;
    }
    if (nowMs >= this.#idleMs) {
      const reason = "idle timeout";
      state.abandon({ kind: "idle", isApplication: false, errorCode: NO_ERROR, reason });
      return;
    }
    if (nowMs < state.loss.deadlineMs) return;
    const probe = state.loss.onTimeout(nowMs);
    settlePackets(state);
    if (probe < 0) return;
    const space = state.space(probe);
    space.probes = PROBES;
    for (const packet of state.loss.oldest(probe, PROBES)) repeatPacket(state, packet);
    // A server that waits for the client's second half repeats its own first half too.
    const isHandshake = probe === INITIAL_SPACE || probe === HANDSHAKE_SPACE;
    if (!isHandshake || state.isClient) return;
    for (const packet of state.loss.oldest(HANDSHAKE_SPACE, PROBES)) repeatPacket(state, packet);
  }

  /** Queues a datagram, which must not be changed afterwards. */
  sendDatagram(bytes: Uint8Array): "queued" | "too large" | "full" {
    const { datagramsOut, options, isAlive } = this.#state;
    if (bytes.length > this.datagramBytesMax) return "too large";
    if (!isAlive || datagramsOut.length >= options.datagramQueue) return "full";
    datagramsOut.push(bytes);
    return "queued";
  }

  /** Whether one more datagram would be refused. */
  get isDatagramQueueFull(): boolean {
    return this.#state.datagramsOut.length >= this.#state.options.datagramQueue;
  }

  /** Largest datagram that goes into a packet; 0 = the peer takes none, or is not known yet. */
  get datagramBytesMax(): number {
    const { peer, packetBytes, peerIds, handshake } = this.#state;
    if (peer === null || peer.maxDatagramFrameSize === 0) return 0;
    const tagBytes = handshake.protection(APPLICATION_SPACE)?.tagBytes ?? 0;
    const packetRoom = packetBytes - 1 - peerIds.current.length - 4 - tagBytes;
    return Math.max(0, Math.min(peer.maxDatagramFrameSize, packetRoom) - DATAGRAM_OVERHEAD);
  }

  /** Datagrams that have come and were not taken. */
  get datagramCount(): number {
    return this.#state.datagramsIn.length;
  }

  /** The oldest datagram that has come. */
  takeDatagram(): Uint8Array | null {
    return this.#state.datagramsIn.shift() ?? null;
  }

  /** Writes to a stream as `StreamSet.write` does, as much as the path can use soon. */
  write(id: number, bytes: Uint8Array, isFin: boolean): number {
    const budget = Math.max(this.#state.congestion.windowBytes, UNSENT_BYTES_MIN);
    return this.streams.write(id, bytes, { isFin, budget });
  }

  /** Asks for a sign of life: something that the peer must acknowledge is sent. */
  ping(): void {
    this.#state.isPingPending = true;
  }

  /** Says goodbye with a code of the application's. */
  close(errorCode: number, reason: string, nowMs: number): void {
    const bytes = new TextEncoder().encode(reason);
    const frame = { isApplication: true, errorCode, frameType: 0, reason: bytes };
    this.#state.closeWith(frame, { kind: "local", isApplication: true, errorCode, reason }, nowMs);
  }

  /** Forgets everything at once, without a word. */
  abandon(reason: string): void {
    this.#state.abandon({ kind: "local", isApplication: false, errorCode: NO_ERROR, reason });
  }

  /** When silence has lasted too long: the smaller of both sides' timeouts (section 10.1). */
  get #idleMs(): number {
    const state = this.#state;
    return state.idleStartMs + Math.max(state.facts.idleTimeoutMs, 3 * state.probeTimeoutMs);
  }
}

/** RFC 9002, section 6.2.4: two, in case one is lost. */
const PROBES = 2;
/** Frame type and length. */
const DATAGRAM_OVERHEAD = 3;
/** Bytes taken from writers ahead of their being sent, however small the window is. */
const UNSENT_BYTES_MIN = 64 * 1024;
