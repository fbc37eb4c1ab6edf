/**
 * One TCP connection to an upstream: connects, delivers bytes, takes bytes. It knows nothing of
 * HTTP.
 *
 * Reads go into a buffer that all connections of the thread share: the bytes are valid only inside
 * `upstreamBytes`. A connection in the middle of a long body reads into a buffer of its own
 * instead, so that the bytes can be written on without a copy; if the receiver did not take all of
 * it, that buffer is left to the receiver and another one is used (`releaseBytes`).
 */
import { connect, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import { connect as connectTls, type ConnectionOptions } from "node:tls";

import type { ReadBuffers } from "../read-buffers.ts";
import type { DelayEmulation, Upstream } from "../types.ts";
import { connectFarAway } from "./emulated-distance.ts";
import type { UpstreamTls } from "./upstream-tls.ts";

/** Who a connection belongs to while a request runs on it. */
export interface UpstreamOwner {
  /** The TCP connect succeeded; `connectMs` is how long it took. */
  upstreamConnected(connectMs: number): void;
  /** Bytes arrived, valid during the call only. */
  upstreamBytes(bytes: Buffer, start: number, end: number): void;
  /** The upstream closed its sending side. `upstreamClosed` may follow. */
  upstreamEnded(): void;
  /** The connection is gone; `code` is the system's error code or `""`. At most once. */
  upstreamClosed(code: string): void;
  /** Everything held back was taken by the network. */
  upstreamDrained(): void;
}

/** What a connection needs to exist. */
export interface UpstreamConnectionOptions {
  readonly upstream: Upstream;
  readonly buffers: ReadBuffers;
  readonly delay: DelayEmulation | null;
  /** For machines that speak HTTPS; called at the first of them. */
  readonly tls: () => UpstreamTls;
  /** An idle connection closed, or sent something nobody asked for. */
  readonly onIdleBroken: (connection: UpstreamConnection) => void;
  /** It is closed or about to be; called once. */
  readonly onGone: (connection: UpstreamConnection) => void;
}

/** One connection; dials when constructed. */
export class UpstreamConnection {
  readonly upstream: Upstream;
  /** The request that uses it; `null` in the pool. */
  owner: UpstreamOwner | null = null;
  /** It has served a request before. */
  isReused = false;
  isConnected = false;
  idleSinceMs = 0;
  /** More of a long body is coming: read into a buffer of its own. */
  isStreaming = false;

  readonly #socket: Socket | Duplex;
  readonly #buffers: ReadBuffers;
  readonly #onIdleBroken: (connection: UpstreamConnection) => void;
  readonly #onGone: (connection: UpstreamConnection) => void;
  readonly #dialledAtMs = performance.now();
  #own: Buffer | null = null;
  /** The buffer the next read goes to was changed since the last one. */
  #current: Buffer;
  #connectMs = 0;
  #errorCode = "";
  #isGone = false;

  constructor(options: UpstreamConnectionOptions) {
    this.upstream = options.upstream;
    this.#buffers = options.buffers;
    this.#onIdleBroken = options.onIdleBroken;
    this.#onGone = options.onGone;
    this.#current = options.buffers.shared;
    const oneWayMs = options.delay?.oneWayDelayMs(options.upstream) ?? 0;
    const { isTls } = options.upstream;
    if (isTls) this.#socket = this.#dialTls(options.tls());
    else this.#socket = oneWayMs > 0 ? this.#dialFar(oneWayMs) : this.#dial();
    this.#socket.on("connect", () => this.#onConnect(isTls));
    this.#socket.on("end", () => this.#onEnd());
    this.#socket.on("drain", () => this.owner?.upstreamDrained());
    this.#socket.on("error", (error: NodeJS.ErrnoException) => {
      this.#errorCode = error.code ?? "EUNKNOWN";
    });
    this.#socket.on("close", () => this.#onClose());
  }

  /** Writes; true = the receiver keeps up. After false wait for `upstreamDrained`. */
  write(bytes: Uint8Array): boolean {
    return this.#socket.write(bytes) || this.#socket.writableLength === 0;
  }

  /** Whether bytes written before still wait for the network. */
  get isCongested(): boolean {
    return this.#socket.writableLength > 0;
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  /** Ends our sending side, after what was written. */
  end(): void {
    this.#socket.end();
  }

  /** Closes at once; the owner hears nothing more. Idempotent. */
  destroy(): void {
    this.owner = null;
    this.#leave();
    this.#socket.destroy();
  }

  /** Whether `bytes` may be written on without a copy: they are in a buffer that no other uses. */
  ownsBytes(bytes: Buffer): boolean {
    return bytes !== this.#buffers.shared;
  }

  /** The bytes of the current read are still in use by their receiver: never read over them. */
  releaseBytes(): void {
    this.#own = null;
  }

  #dial(): Socket {
    return connect({ ...this.#place(), onread: this.#readInto() });
  }

  /** Emits `secureConnect` when the certificate was found good; else it is an error. */
  #dialTls(tls: UpstreamTls): Socket {
    // `onread` is documented and missing in the types.
    const options: ConnectionOptions & { onread: unknown } = {
      ...this.#place(),
      ...tls,
      ALPNProtocols: ["http/1.1"],
      onread: this.#readInto(),
    };
    const socket = connectTls(options);
    socket.on("secureConnect", () => this.#onReady());
    return socket;
  }

  #place() {
    const { host, port } = this.upstream;
    return { host, port, noDelay: true, autoSelectFamily: false };
  }

  #readInto() {
    return {
      // `undefined` means "as before", which the types do not know.
      buffer: this.#nextBuffer as () => Uint8Array,
      callback: (length: number, bytes: Uint8Array): boolean => {
        this.#onBytes(bytes as Buffer, length);
        return true;
      },
    };
  }

  #dialFar(oneWayMs: number): Duplex {
    const socket = connectFarAway(this.upstream, oneWayMs);
    socket.on("data", (bytes: Buffer) => this.#onBytes(bytes, bytes.length));
    return socket;
  }

  /** Called by Node before the first read and after each one. */
  readonly #nextBuffer = (): Uint8Array | undefined => {
    const before = this.#current;
    const wantsOwn = this.isStreaming && !this.#isGone;
    if (wantsOwn) this.#own ??= this.#buffers.take();
    else if (this.#own !== null) {
      this.#buffers.give(this.#own);
      this.#own = null;
    }
    this.#current = this.#own ?? this.#buffers.shared;
    return this.#current === before && this.isConnected ? undefined : this.#current;
  };

  /** TCP is there: that alone tells how far away the machine is. */
  #onConnect(isTls: boolean): void {
    this.#connectMs = performance.now() - this.#dialledAtMs;
    if (!isTls) this.#onReady();
  }

  #onReady(): void {
    this.isConnected = true;
    this.owner?.upstreamConnected(this.#connectMs);
  }

  #onBytes(bytes: Buffer, length: number): void {
    if (this.#isGone) return;
    if (this.owner !== null) this.owner.upstreamBytes(bytes, 0, length);
    else this.#breakIdle();
  }

  #onEnd(): void {
    if (this.owner !== null) this.owner.upstreamEnded();
    else this.#breakIdle();
  }

  #onClose(): void {
    if (this.#isGone) return;
    this.#leave();
    const owner = this.owner;
    this.owner = null;
    if (owner !== null) owner.upstreamClosed(this.#errorCode);
    else this.#onIdleBroken(this);
  }

  #leave(): void {
    if (this.#isGone) return;
    this.#isGone = true;
    this.#onGone(this);
  }

  #breakIdle(): void {
    if (this.#isGone) return;
    this.destroy();
    this.#onIdleBroken(this);
  }
}
