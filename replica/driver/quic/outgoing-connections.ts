/**
 * The cache of outgoing connections: one per address, dialled when first needed (protocol
 * reference, section 1.4).
 *
 *     idle ──send──► dialling ──handshake──► up ──lost──► idle
 *                      │ └─failed once, quickly─► dialling again
 *                      └─failed─► held back (doubling, jittered) ─time, forget, sign of life─► idle
 *
 * While a target is being dialled, what is sent to it waits, within bounds. While it is held back,
 * datagrams are dropped and counted and the rest is refused at once: a peer that is down must not
 * cost a handshake per SWIM packet, nor be stormed when it returns. A connection that breaks
 * because the peer refuses our certificate counts as a failed dial, though it was up: with TLS 1.3
 * the refusal comes after the dialler's handshake is complete.
 */
import { PatinaError } from "#base/errors.ts";
import type { Address } from "../../types.ts";
import { parseAddress, type HostPort } from "./address.ts";
import { closedError, limitError, type QuicBiStream } from "./bi-stream.ts";
import type { QuicConnection } from "./connection.ts";
import { TRANSPORT_CONNECT, TRANSPORT_TLS } from "./errors.ts";
import type { TransportSettings } from "./options.ts";
import type { TransportStats } from "./stats.ts";
import type { UniSend } from "./uni-outbox.ts";

/** What the cache needs from the transport. */
export interface OutgoingParts {
  readonly settings: TransportSettings;
  readonly stats: TransportStats;
  /** Starts a handshake. May throw when the address cannot be reached from our socket. */
  dial(peer: HostPort): QuicConnection;
  nowMs(): number;
  /** The edge of a target's state; called outside of calls into the transport. */
  report(target: Address, state: "up" | "down", reason: string): void;
  /** A new minimum, whole milliseconds; 0 = below one. Called like `report`. */
  reportRtt(target: Address, rttMs: number): void;
}

interface WaitingBi {
  readonly resolve: (stream: QuicBiStream) => void;
  readonly reject: (error: PatinaError) => void;
}

interface Target {
  readonly address: Address;
  readonly peer: HostPort;
  connection: QuicConnection | null;
  /** The dial under way is the second one of the same attempt. */
  isSecondDial: boolean;
  failures: number;
  retryAtMs: number;
  datagrams: Uint8Array[];
  unis: UniSend[];
  bis: WaitingBi[];
}

/** Connections by target. */
export class OutgoingConnections {
  readonly #parts: OutgoingParts;
  readonly #targets = new Map<Address, Target>();

  constructor(parts: OutgoingParts) {
    this.#parts = parts;
  }

  /** Targets with a connection, those whose handshake is under way included. O(targets). */
  get size(): number {
    let size = 0;
    for (const { connection } of this.#targets.values()) if (connection !== null) size += 1;
    return size;
  }

  /** Sends, queues or drops one datagram. */
  sendDatagram(address: Address, bytes: Uint8Array): void {
    const target = this.#reach(address);
    if (target instanceof PatinaError) {
      this.#parts.stats.datagramsDropped += 1;
    } else if (target.connection?.isOpen === true) {
      target.connection.sendDatagram(bytes);
    } else if (target.datagrams.length < this.#parts.settings.limits.waitingDatagramsMax) {
      target.datagrams.push(bytes);
    } else {
      this.#parts.stats.datagramsDropped += 1;
    }
  }

  /** Sends or queues; settles with `false` when the target cannot be had. */
  sendUni(address: Address, send: UniSend): void {
    const target = this.#reach(address);
    if (target instanceof PatinaError) send.settle?.(false);
    else if (target.connection?.isOpen === true) target.connection.sendUni(send);
    else if (target.unis.length < this.#parts.settings.limits.waitingMax) target.unis.push(send);
    else send.settle?.(false);
  }

  /** Opens a stream, after dialling if need be. */
  openBi(address: Address, waiting: WaitingBi): void {
    const target = this.#reach(address);
    if (target instanceof PatinaError) waiting.reject(target);
    else if (target.connection?.isOpen === true) openOn(target.connection, waiting);
    else if (target.bis.length < this.#parts.settings.limits.waitingMax) target.bis.push(waiting);
    else waiting.reject(limitError("waitingMax"));
  }

  /** The connection to an address, in whatever state. */
  connectionTo(address: Address): QuicConnection | null {
    return this.#targets.get(address)?.connection ?? null;
  }

  /** Forgets all failures: what stood in the way of dialling may be gone. */
  release(): void {
    for (const target of this.#targets.values()) {
      target.failures = 0;
      target.retryAtMs = 0;
    }
  }

  /** Drops the connection and the memory of failures. What waits for a dial is dialled anew. */
  forget(address: Address, reason: string): void {
    const target = this.#targets.get(address);
    if (target === undefined) return;
    target.failures = 0;
    target.retryAtMs = 0;
    const { connection } = target;
    if (connection === null) return;
    target.connection = null;
    if (connection.isOpen) {
      this.#parts.stats.connectionsLost += 1;
      this.#parts.report(address, "down", reason);
      connection.close({ reason, nowMs: this.#parts.nowMs(), isFinal: false });
    } else {
      connection.discard(closedError(reason));
    }
    target.isSecondDial = false;
    if (hasWaiting(target)) this.#dial(target);
  }

  /**
   * A handshake came from this address, so it is alive: dial without waiting for old timers. It may
   * also have restarted; if so, a PING on a connection to its predecessor brings that to light.
   */
  signOfLife(address: Address): void {
    const target = this.#targets.get(address);
    if (target === undefined) return;
    target.retryAtMs = 0;
    const { connection } = target;
    connection?.keepAlive(this.#parts.nowMs(), 0);
    if (connection === null || !connection.isHandshaking) return;
    // Packets sent before the peer came up are lost, and quiche repeats them only after a second.
    const isStuck = connection.handshake.elapsedMs(this.#parts.nowMs()) > STUCK_DIAL_MS;
    if (isStuck && connection.packetsAccepted === 0) this.forget(address, "dialling anew");
  }

  /** A handshake that the cache started is complete. */
  established(connection: QuicConnection): void {
    const target = this.#targetOf(connection);
    if (target === undefined) return;
    target.isSecondDial = false;
    this.#parts.report(target.address, "up", "handshake complete");
    this.#sampleRtt(target.address, connection);
    for (const bytes of target.datagrams.splice(0)) connection.sendDatagram(bytes);
    for (const send of target.unis.splice(0)) {
      if (send.settle !== null) connection.sendUni(send);
    }
    for (const waiting of target.bis.splice(0)) openOn(connection, waiting);
  }

  /** A connection that the cache started is over. */
  ended(connection: QuicConnection, error: PatinaError): void {
    const target = this.#targetOf(connection);
    if (target === undefined) return;
    target.connection = null;
    const isTls = error.code === TRANSPORT_TLS;
    if (connection.openedMs !== null && !isTls) {
      this.#parts.stats.connectionsLost += 1;
      this.#parts.report(target.address, "down", error.message);
      return;
    }
    const isQuick = connection.handshake.elapsedMs(this.#parts.nowMs()) < QUICK_FAILURE_MS;
    if (isQuick && !isTls && !target.isSecondDial) {
      target.isSecondDial = true;
      this.#dial(target);
      return;
    }
    this.#fail(target, error);
  }

  /** Once per tick: samples round-trip times, keeps connections alive, forgets old failures. */
  tick(nowMs: number): void {
    for (const target of this.#targets.values()) {
      const { connection } = target;
      if (connection === null) {
        const isStale = nowMs > target.retryAtMs + FAILURE_MEMORY_MS;
        if (isStale) this.#targets.delete(target.address);
        continue;
      }
      connection.keepAlive(nowMs, this.#parts.settings.idleTimeoutMs / 2);
      if (connection.openedMs !== null && nowMs - connection.openedMs >= SETTLED_MS) {
        target.failures = 0;
      }
      this.#sampleRtt(target.address, connection);
    }
  }

  /** Refuses everything that waits; connections are closed by the transport. */
  close(error: PatinaError): void {
    for (const target of this.#targets.values()) this.#refuseWaiting(target, error);
    this.#targets.clear();
  }

  /** The target, dialled or being dialled, or why it cannot be had. */
  #reach(address: Address): Target | PatinaError {
    const known = this.#targets.get(address);
    if (known !== undefined) {
      if (known.connection !== null) return known;
      const waitMs = known.retryAtMs - this.#parts.nowMs();
      return waitMs > 0 ? heldBackError(address, waitMs) : this.#dial(known);
    }
    const peer = parseAddress(address);
    if (peer === null || peer.port === 0) {
      return connectError(`not an address that can be dialled: ${address}`, {});
    }
    if (this.#targets.size >= this.#parts.settings.limits.outgoingConnectionsMax) {
      return limitError("outgoingConnectionsMax");
    }
    const target: Target = {
      address,
      peer,
      connection: null,
      isSecondDial: false,
      failures: 0,
      retryAtMs: 0,
      datagrams: [],
      unis: [],
      bis: [],
    };
    this.#targets.set(address, target);
    return this.#dial(target);
  }

  #dial(target: Target): Target | PatinaError {
    this.#parts.stats.dials += 1;
    try {
      target.connection = this.#parts.dial(target.peer);
      return target;
    } catch (thrown) {
      const error = connectError(`cannot dial ${target.address}`, { cause: thrown });
      this.#fail(target, error);
      return error;
    }
  }

  #sampleRtt(address: Address, connection: QuicConnection): void {
    const rttMs = connection.sampleRtt();
    if (rttMs !== null) this.#parts.reportRtt(address, rttMs);
  }

  #fail(target: Target, error: PatinaError): void {
    this.#parts.stats.dialsFailed += 1;
    target.isSecondDial = false;
    target.failures += 1;
    const { random } = this.#parts.settings;
    const doubled = HOLD_BACK_MIN_MS * 2 ** Math.min(target.failures - 1, 16);
    const holdBackMs = Math.min(HOLD_BACK_MAX_MS, doubled) * (0.5 + random() / 2);
    target.retryAtMs = this.#parts.nowMs() + holdBackMs;
    this.#parts.report(target.address, "down", error.message);
    this.#refuseWaiting(target, error);
  }

  #refuseWaiting(target: Target, error: PatinaError): void {
    this.#parts.stats.datagramsDropped += target.datagrams.splice(0).length;
    for (const send of target.unis.splice(0)) send.settle?.(false);
    for (const waiting of target.bis.splice(0)) waiting.reject(error);
  }

  #targetOf(connection: QuicConnection): Target | undefined {
    const target = this.#targets.get(connection.remote);
    return target?.connection === connection ? target : undefined;
  }
}

function openOn(connection: QuicConnection, waiting: WaitingBi): void {
  try {
    waiting.resolve(connection.openBi());
  } catch (thrown) {
    if (!(thrown instanceof PatinaError)) throw thrown;
    waiting.reject(thrown);
  }
}

function hasWaiting(target: Target): boolean {
  return target.datagrams.length + target.unis.length + target.bis.length > 0;
}

function heldBackError(address: Address, retryAfterMs: number): PatinaError {
  const message = `${address} failed before; not dialled again yet`;
  return connectError(message, { details: { retryAfterMs: Math.ceil(retryAfterMs) } });
}

function connectError(
  message: string,
  options: { cause?: unknown; details?: Readonly<Record<string, unknown>> },
): PatinaError {
  return new PatinaError(TRANSPORT_CONNECT, message, options);
}

/** First hold-back after a failed dial; a process takes about this long to come back. */
const HOLD_BACK_MIN_MS = 500;
/** A peer that returns is found within this time even if it says nothing itself. */
const HOLD_BACK_MAX_MS = 10_000;
/** A connection that lived this long was a success: a refusal of our certificate comes sooner. */
const SETTLED_MS = 1_000;
/** A failure within this time came from an answer, not from silence: worth a second dial. */
const QUICK_FAILURE_MS = 1_000;
/** A handshake on any path is answered within this time, or was lost. */
const STUCK_DIAL_MS = 300;
/** How long a target without connection stays in the map after its hold-back. */
const FAILURE_MEMORY_MS = 60_000;
