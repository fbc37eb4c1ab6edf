/**
 * Looks after the certificates of the gossip while a replica runs: files that changed are taken over for
 * the handshakes to come, without a connection dropped, and an expiry is told ahead, the more often the
 * nearer it is.
 *
 * Changed files are taken only when all of them can be read and fit each other; until then those before
 * serve, so a renewal that writes one file after the other is harmless. Two authorities overlap when
 * `ca_file` holds both.
 */
import { X509Certificate } from "node:crypto";
import { statSync } from "node:fs";
import { errorText } from "#base/errors.ts";
import type { Logger } from "#base/logger.ts";
import type { GossipConfig } from "../../config.ts";
import type { ActorId } from "../../types.ts";
import type { PlaintextMode } from "../quic/plaintext-engine.ts";
import type { TransportCertificates } from "../quic/tls-config.ts";
import { transportCertificates } from "./transport-certificates.ts";

/** Which certificate expires first. */
export interface CertificateExpiry {
  readonly file: string;
  /** Wall-clock milliseconds. */
  readonly expiresAtMs: number;
}

/** What a watch works with. */
export interface CertificateWatchOptions {
  readonly gossip: GossipConfig;
  readonly log: Logger;
  /** Uses them from here on; throws when they cannot be used. */
  readonly reload: (certificates: TransportCertificates) => void;
  /** An expired certificate was renewed: others had lost us, and we them. */
  readonly rejoin: () => unknown;
  /** Wall-clock milliseconds. */
  readonly nowMs: () => number;
}

/** Watches the files of `gossip.tls`; with `gossip.plaintext` there is nothing to watch. */
export class CertificateWatch {
  readonly #options: CertificateWatchOptions;
  readonly #files: readonly string[];
  readonly #actorId: ActorId | null;
  #stamp: string;
  #refusedStamp = "";
  #nextWarningMs = 0;
  #first: CertificateExpiry | null = null;
  #current: TransportCertificates;

  /** `current` is what the transport was opened with. */
  constructor(options: CertificateWatchOptions, current: TransportCertificates) {
    this.#options = options;
    this.#files = filesOf(options.gossip);
    this.#actorId = current.actorId ?? null;
    this.#current = current;
    this.#stamp = stampOf(this.#files);
    this.#first = firstToExpire(options.gossip, current);
  }

  /** What the transport uses. */
  get current(): TransportCertificates {
    return this.#current;
  }

  /** The certificate or authority that expires first; null = none is watched. */
  get first(): CertificateExpiry | null {
    return this.#first;
  }

  /** For people and programs; null = none is watched. */
  get view(): { file: string; expiresAt: string; daysLeft: number; isExpired: boolean } | null {
    if (this.#first === null) return null;
    const { file, expiresAtMs } = this.#first;
    const leftMs = expiresAtMs - this.#options.nowMs();
    const daysLeft = Math.floor(leftMs / DAY_MS);
    return {
      file,
      expiresAt: new Date(expiresAtMs).toISOString(),
      daysLeft,
      isExpired: leftMs <= 0,
    };
  }

  /** Takes over what changed, and warns of what expires. Never rejects; cheap when nothing did. */
  async look(): Promise<void> {
    if (this.#files.length === 0) return;
    const { gossip, log, reload, nowMs } = this.#options;
    let stamp = "";
    try {
      stamp = stampOf(this.#files);
      if (stamp !== this.#stamp) {
        const read = await transportCertificates(gossip, nowMs());
        const certificates = { ...read, actorId: this.#actorId };
        const wasExpired = this.view?.isExpired ?? false;
        reload(certificates);
        this.#current = certificates;
        this.#stamp = stamp;
        this.#nextWarningMs = 0;
        this.#first = firstToExpire(gossip, certificates);
        if (wasExpired) this.#options.rejoin();
        log.info?.("gossip-certificates-reloaded", "connections stay as they are", {
          files: this.#files,
        });
      }
    } catch (error) {
      if (stamp !== this.#refusedStamp || stamp === "") {
        log.warn?.("gossip-certificates-refused", errorText(error));
      }
      this.#refusedStamp = stamp;
    }
    this.#judge();
  }

  #judge(): void {
    const { log, nowMs } = this.#options;
    const { view } = this;
    const now = nowMs();
    if (view === null || now < this.#nextWarningMs) return;
    const periodMs = warningPeriodMs((this.#first?.expiresAtMs ?? 0) - now);
    if (periodMs === null) return;
    this.#nextWarningMs = now + periodMs;
    const fields = { file: view.file, daysLeft: view.daysLeft };
    if (view.isExpired) {
      const text =
        "the gossip certificate has expired: this replica answers reads and requests from what it" +
        " has, and hears of nothing new until the file is replaced";
      log.error("certificate-expired", text, fields);
    } else {
      log.warn?.("certificate-expires", `in ${view.daysLeft} days`, fields);
    }
  }
}

/** Watches on behalf of a transport, by the wall clock; null = in plaintext there is nothing to watch. */
export function watchCertificates(
  parts: {
    readonly gossip: GossipConfig;
    readonly log: Logger;
    readonly rejoin: () => unknown;
    readonly transport: { reloadCertificates(certificates: TransportCertificates): void };
  },
  current: TransportCertificates | PlaintextMode,
): CertificateWatch | null {
  if ("resetSeed" in current) return null;
  const { gossip, log, rejoin, transport } = parts;
  const reload = (certificates: TransportCertificates): void =>
    transport.reloadCertificates(certificates);
  return new CertificateWatch({ gossip, log, reload, rejoin, nowMs: () => Date.now() }, current);
}

/** How often to warn with so much time left, in ms: null = not yet. */
export function warningPeriodMs(leftMs: number): number | null {
  if (leftMs > 30 * DAY_MS) return null;
  if (leftMs > 7 * DAY_MS) return DAY_MS;
  return leftMs > DAY_MS ? DAY_MS / 4 : DAY_MS / 24;
}

function filesOf({ plaintext, tls }: GossipConfig): string[] {
  if (plaintext || tls === undefined) return [];
  const { cert_file, key_file, ca_file, client } = tls;
  const pair = client === undefined ? [] : [client.cert_file, client.key_file];
  return [cert_file, key_file, ...pair, ...(ca_file === undefined ? [] : [ca_file])];
}

function firstToExpire(
  { plaintext, tls }: GossipConfig,
  certificates: TransportCertificates,
): CertificateExpiry | null {
  if (plaintext || tls === undefined) return null;
  const { server, client, authoritiesPem } = certificates;
  const all = [
    {
      file: tls.cert_file,
      expiresAtMs: Date.parse(new X509Certificate(server.certificatePem).validTo),
    },
  ];
  const add = (
    file: string | undefined,
    pem: string | null | undefined,
    pick: typeof Math.min,
  ): void => {
    if (file === undefined || !pem) return;
    const ends = pem.match(CERTIFICATE)?.map((one) => Date.parse(new X509Certificate(one).validTo));
    if (ends !== undefined) all.push({ file, expiresAtMs: pick(...ends) });
  };
  add(tls.client?.cert_file, client?.certificatePem, Math.min);
  // Of two authorities the last one counts: the other is on its way out.
  add(tls.ca_file, authoritiesPem, Math.max);
  return all.reduce((first, one) => (one.expiresAtMs < first.expiresAtMs ? one : first));
}

/** Changes when a file is written or replaced, also through a link. */
function stampOf(files: readonly string[]): string {
  return files
    .map((file) => {
      const { ino, size, mtimeMs } = statSync(file);
      return `${ino}:${size}:${mtimeMs}`;
    })
    .join(" ");
}

/** Certificates are renewed days ahead; a few seconds make the wait for a reload bearable. */
export const CERTIFICATES_PERIOD_MS = 5_000;
const DAY_MS = 86_400_000;
const CERTIFICATE = /-----BEGIN CERTIFICATE-----[^]*?-----END CERTIFICATE-----/g;
