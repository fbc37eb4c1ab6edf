/**
 * The certificate of an HTTPS API: read at the start, read again when its files change, and its expiry
 * told ahead.
 *
 * Changed files are taken only when both can be read and fit; until then the pair before serves. Connections
 * keep what they were opened with.
 */
import { X509Certificate } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { createSecureContext } from "node:tls";
import { errorText, PatinaError } from "#base/errors.ts";
import type { Logger } from "#base/logger.ts";
import { warningPeriodMs } from "../certificates/certificate-watch.ts";

/** Where certificate (with its chain) and key are, both PEM. */
export interface ApiCertificateFiles {
  readonly cert_file: string;
  readonly key_file: string;
}

/** One per API. */
export class ApiCertificate {
  readonly #files: ApiCertificateFiles;
  readonly #log: Logger;
  #pems: { readonly cert: Buffer; readonly key: Buffer };
  #stamp: string;
  #refusedStamp = "";
  #nextWarningMs = 0;
  #expiresAtMs: number;

  /** Throws `CERTIFICATE_UNREADABLE` naming the file. */
  constructor(files: ApiCertificateFiles, log: Logger) {
    this.#files = files;
    this.#log = log;
    try {
      this.#stamp = stampOf(files);
      [this.#pems, this.#expiresAtMs] = load(files);
    } catch (error) {
      throw new PatinaError(
        "CERTIFICATE_UNREADABLE",
        `api.tls: ${files.cert_file}: ${errorText(error)}`,
        { cause: error },
      );
    }
  }

  /** What handshakes are made with. */
  get pems(): { readonly cert: Buffer; readonly key: Buffer } {
    return this.#pems;
  }

  /** Wall-clock milliseconds. */
  get expiresAtMs(): number {
    return this.#expiresAtMs;
  }

  /** Looks at the files, and at the time; whether `pems` are others. `nowMs` is the wall clock. */
  refresh(nowMs: number): boolean {
    const isChanged = this.#reload();
    this.#judge(nowMs);
    return isChanged;
  }

  #reload(): boolean {
    let stamp = "";
    try {
      stamp = stampOf(this.#files);
      if (stamp === this.#stamp) return false;
      [this.#pems, this.#expiresAtMs] = load(this.#files);
      this.#stamp = stamp;
      this.#nextWarningMs = 0;
      this.#log.info?.("api-certificate-reloaded", this.#files.cert_file);
      return true;
    } catch (error) {
      if (stamp !== this.#refusedStamp || stamp === "") {
        this.#log.warn?.("api-certificate-refused", errorText(error));
      }
      this.#refusedStamp = stamp;
      return false;
    }
  }

  #judge(nowMs: number): void {
    const leftMs = this.#expiresAtMs - nowMs;
    const periodMs = warningPeriodMs(leftMs);
    if (periodMs === null || nowMs < this.#nextWarningMs) return;
    this.#nextWarningMs = nowMs + periodMs;
    const daysLeft = Math.floor(leftMs / 86_400_000);
    const fields = { file: this.#files.cert_file, daysLeft };
    if (leftMs > 0) this.#log.warn?.("certificate-expires", `in ${daysLeft} days`, fields);
    else this.#log.error("certificate-expired", "clients of the API refuse an expired one", fields);
  }
}

function load(files: ApiCertificateFiles): [{ cert: Buffer; key: Buffer }, number] {
  const [cert, key] = [readFileSync(files.cert_file), readFileSync(files.key_file)];
  // Throws when they do not fit.
  createSecureContext({ cert, key });
  return [{ cert, key }, new X509Certificate(cert).validToDate.getTime()];
}

/** Changes when either file is written or replaced, also through a link. */
function stampOf({ cert_file, key_file }: ApiCertificateFiles): string {
  return [cert_file, key_file]
    .map((file) => {
      const { ino, size, mtimeMs } = statSync(file);
      return `${ino}:${size}:${mtimeMs}`;
    })
    .join(" ");
}

/** As often as the other certificates are looked at. */
export const API_CERTIFICATE_PERIOD_MS = 5_000;
