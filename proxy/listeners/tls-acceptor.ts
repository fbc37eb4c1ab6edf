/**
 * TLS on accepted sockets: certificates by the name a client asks for, resumption by tickets whose
 * key all threads of the process share, and a look at the certificates' files every few seconds.
 *
 * It binds nothing: a listener gives it raw sockets and gets secured ones back.
 */
import type { Socket } from "node:net";
import { createServer, type Server, type TLSSocket } from "node:tls";
import type { Logger } from "#base/logger.ts";
import type { TlsCertificates } from "./tls-certificates.ts";

/** Who counts what happens. */
export interface TlsObserver {
  handshakeDone(isResumed: boolean): void;
  handshakeFailed(): void;
  reloadFailed(): void;
  /** Wall-clock milliseconds at which the first certificate expires. */
  expiryKnown(expiresAtMs: number): void;
}

/** What an acceptor is made of. */
export interface TlsAcceptorOptions {
  readonly certificates: TlsCertificates;
  readonly minVersion: "TLSv1.2" | "TLSv1.3";
  /** Longest handshake in milliseconds. */
  readonly handshakeMs: number;
  /** 48 bytes, shared by the listeners whose tickets are each other's; absent = its own. */
  readonly ticketKeys?: Uint8Array | undefined;
  readonly observer: TlsObserver;
  readonly log: Logger;
  readonly onSecure: (socket: TLSSocket) => void;
}

/** Secures sockets. Close it when done. */
export class TlsAcceptor {
  readonly #options: TlsAcceptorOptions;
  readonly #server: Server;
  readonly #timer: NodeJS.Timeout;
  #nextWarningMs = 0;

  constructor(options: TlsAcceptorOptions) {
    const { certificates, minVersion } = options;
    this.#options = options;
    this.#server = createServer({
      ...this.#defaults(),
      minVersion,
      // Others would be spoken past everything that is checked here.
      ALPNProtocols: ["http/1.1"],
      handshakeTimeout: options.handshakeMs,
      SNICallback: (name, done) => done(null, certificates.contextOf(name) ?? undefined),
    });
    this.#server.on("secureConnection", (socket) => {
      options.observer.handshakeDone(socket.isSessionReused());
      options.onSecure(socket);
    });
    this.#server.on("tlsClientError", (_error, socket) => {
      options.observer.handshakeFailed();
      // Node leaves it open after a handshake that took too long.
      socket.destroy();
    });
    this.#judgeExpiry();
    this.#timer = setInterval(() => this.refresh(), REFRESH_MS);
    this.#timer.unref();
  }

  /** Takes a raw socket; a secured one comes out, or the socket is closed. */
  accept(socket: Socket): void {
    this.#server.emit("connection", socket);
  }

  /** Looks at the certificates' files. Called by its own timer; tests may call it. */
  refresh(): void {
    const { certificates, log, observer } = this.#options;
    const result = certificates.refresh();
    if (result.kind === "changed") {
      this.#server.setSecureContext(this.#defaults());
      const files = result.files.map(({ cert_file }) => cert_file);
      log.info?.("certificates-reloaded", files.join(", "));
      this.#nextWarningMs = 0;
    } else if (result.kind === "failed") {
      observer.reloadFailed();
      log.warn?.("certificate-unreadable", result.reason, { file: result.file });
    }
    this.#judgeExpiry();
  }

  /** Stops looking at files. Sockets go on. */
  close(): void {
    clearInterval(this.#timer);
  }

  /** For clients that ask for no name: a new context takes the place of the one before. */
  #defaults(): { cert: Buffer; key: Buffer; ticketKeys?: Buffer } {
    const { certificates, minVersion, ticketKeys } = this.#options;
    const { cert, key } = certificates.fallback;
    const common = { cert, key, minVersion };
    return ticketKeys === undefined ? common : { ...common, ticketKeys: Buffer.from(ticketKeys) };
  }

  #judgeExpiry(): void {
    const { certificates, observer, log } = this.#options;
    const { expiresAtMs, files } = certificates.firstToExpire;
    observer.expiryKnown(expiresAtMs);
    const nowMs = Date.now();
    const leftMs = expiresAtMs - nowMs;
    if (leftMs > WARNING_MS || nowMs < this.#nextWarningMs) return;
    this.#nextWarningMs = nowMs + WARNING_PERIOD_MS;
    const days = Math.floor(leftMs / DAY_MS);
    const fields = { file: files.cert_file, daysLeft: days };
    if (leftMs <= 0) log.error("certificate-expired", "clients refuse an expired one", fields);
    else log.warn?.("certificate-expires", `in ${days} days`, fields);
  }
}

/** Certificates are renewed days ahead; a few seconds make the wait for a reload bearable. */
const REFRESH_MS = 5_000;
const DAY_MS = 86_400_000;
/** A third of a 90-day certificate is left when its renewal is due, so half of that is late. */
const WARNING_MS = 14 * DAY_MS;
const WARNING_PERIOD_MS = DAY_MS;
