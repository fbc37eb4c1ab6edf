/**
 * One UDP socket, with the emulated network of fault injection in its sending path.
 *
 * Addresses are literals, so the system's resolver is never asked. Injected delay keeps the order
 * of packets to one remote as long as its delay stays the same.
 */
import { createSocket, type Socket } from "node:dgram";
import { DelayQueue } from "#base/delay-queue.ts";
import { errorText, PatinaError } from "#base/errors.ts";
import type { Address } from "../../types.ts";
import { formatAddress, parseAddress, type HostPort } from "./address.ts";
import { TRANSPORT_BIND } from "./errors.ts";
import type { FaultInjection } from "./options.ts";
import type { TransportStats } from "./stats.ts";

/** What a socket needs. */
export interface UdpSocketOptions {
  readonly local: Address;
  readonly stats: TransportStats;
  readonly faults: FaultInjection | null;
  readonly random: () => number;
}

/** Takes a received packet; `host` is as the socket spells it (`::ffff:...` when dual-stack). */
export type PacketListener = (packet: Buffer, host: string, port: number) => void;

/** A bound socket. */
export class UdpSocket {
  /** As bound, in the socket's own spelling; wildcards stay wildcards. */
  readonly bound: HostPort;
  /** Sends and receives IPv6, and IPv4 as `::ffff:...`. */
  readonly isDualStack: boolean;
  readonly #socket: Socket;
  readonly #options: UdpSocketOptions;
  readonly #delayed = new DelayQueue<{ packet: Buffer; host: string; port: number }>();
  #timer: NodeJS.Timeout | null = null;
  #timerMs = Number.POSITIVE_INFINITY;
  #isClosed = false;

  private constructor(socket: Socket, options: UdpSocketOptions) {
    const { address, port, family } = socket.address();
    this.bound = { host: address, port };
    this.isDualStack = family === "IPv6";
    this.#socket = socket;
    this.#options = options;
  }

  /** Binds. Rejects with `TRANSPORT_BIND`. */
  static async bind(options: UdpSocketOptions, listener: PacketListener): Promise<UdpSocket> {
    const local = parseAddress(options.local);
    if (local === null) {
      throw bindError(options.local, "not an IP address with a port", null);
    }
    const socket = createSocket({
      type: local.host.includes(":") ? "udp6" : "udp4",
      lookup: (host, _options, found) => found(null, host, 0),
    });
    await new Promise<void>((resolve, reject) => {
      const refuse = (error: Error): void => {
        socket.close();
        reject(bindError(options.local, errorText(error), error));
      };
      socket.once("error", refuse);
      socket.bind({ address: local.host, port: local.port }, () => {
        socket.removeListener("error", refuse);
        resolve();
      });
    });
    const { stats } = options;
    socket.on("error", () => {
      stats.socketErrors += 1;
    });
    socket.on("message", (packet, source) => listener(packet, source.address, source.port));
    growBuffers(socket, stats);
    return new UdpSocket(socket, options);
  }

  /** The bound address as text. */
  get local(): Address {
    return formatAddress(this.bound.host, this.bound.port);
  }

  /** Whether the kernel lags behind so far that no more packets should be made. */
  get isCongested(): boolean {
    return this.#socket.getSendQueueSize() > SEND_QUEUE_BYTES;
  }

  /** Sends one packet; `packet` must not be changed afterwards. */
  send(packet: Buffer, host: string, port: number): void {
    if (this.#isClosed) return;
    const { stats, faults } = this.#options;
    stats.packetsSent += 1;
    stats.bytesSent += packet.length;
    if (faults === null) return this.#sendNow(packet, host, port);
    if (faults.dropRate !== undefined && this.#options.random() < faults.dropRate) {
      stats.packetsLostOnPurpose += 1;
      return;
    }
    const delayMs = faults.delayMs?.(formatAddress(host, port)) ?? 0;
    if (!(delayMs > 0)) return this.#sendNow(packet, host, port);
    const dueMs = performance.now() + delayMs;
    this.#delayed.push(dueMs, { packet, host, port });
    if (dueMs < this.#timerMs) this.#arm();
  }

  /** Sends what is delayed at once and closes. Resolves when the descriptor is gone. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#sendDue(Number.POSITIVE_INFINITY);
    this.#isClosed = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    await new Promise<void>((resolve) => {
      this.#socket.close(() => resolve());
    });
  }

  #sendNow(packet: Buffer, host: string, port: number): void {
    this.#socket.send(packet, port, host);
  }

  #sendDue(nowMs: number): void {
    for (let next = this.#delayed.take(nowMs); next !== undefined;) {
      this.#sendNow(next.packet, next.host, next.port);
      next = this.#delayed.take(nowMs);
    }
  }

  #arm(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    this.#timerMs = this.#delayed.dueMs;
    if (this.#timerMs === Number.POSITIVE_INFINITY) return;
    const waitMs = Math.max(1, Math.round(this.#timerMs - performance.now()));
    this.#timer = setTimeout(() => {
      // Half a millisecond early is nearer to the wanted delay than a whole one late.
      this.#sendDue(performance.now() + 0.5);
      this.#arm();
    }, waitMs);
  }
}

function growBuffers(socket: Socket, stats: TransportStats): void {
  try {
    socket.setRecvBufferSize(KERNEL_BUFFER_BYTES);
    socket.setSendBufferSize(KERNEL_BUFFER_BYTES);
  } catch (thrown) {
    if (!(thrown instanceof Error)) throw thrown;
    // Smaller buffers only cost speed: a burst is lost and sent again.
    stats.socketErrors += 1;
  }
}

function bindError(local: Address, reason: string, cause: unknown): PatinaError {
  return new PatinaError(TRANSPORT_BIND, `cannot bind UDP ${local}: ${reason}`, {
    ...(cause === null ? {} : { cause }),
    details: { local, reason },
  });
}

/** The kernel caps it at net.core.rmem_max; its usual default of 208 KiB is some 90 packets. */
const KERNEL_BUFFER_BYTES = 4 * 1024 * 1024;
/** Arbitrary; about what quiche would have in flight on a fast path. */
const SEND_QUEUE_BYTES = 4 * 1024 * 1024;
