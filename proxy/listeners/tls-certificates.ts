/**
 * The certificates of an HTTPS listener: read at start, read again when their files change.
 *
 * A changed pair is taken only when certificate and key can be read and fit; until then the one
 * before goes on serving, so a renewal that writes its two files one after the other is harmless.
 * Connections keep what they were opened with.
 */
import { X509Certificate } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { createSecureContext, type SecureContext } from "node:tls";
import { errorText, PatinaError } from "#base/errors.ts";
import { dnsNamesOf, ServerNames } from "./core/server-names.ts";

/** Where one certificate (with its chain) and its key are, both PEM. */
export interface CertificateFiles {
  readonly cert_file: string;
  readonly key_file: string;
}

/** A certificate in use. */
export interface LoadedCertificate {
  readonly files: CertificateFiles;
  readonly cert: Buffer;
  readonly key: Buffer;
  readonly names: readonly string[];
  /** Wall-clock milliseconds. */
  readonly expiresAtMs: number;
  readonly context: SecureContext;
  /** What the files looked like on the disk. */
  readonly stamp: string;
}

/** What a look at the files came to. */
export type RefreshResult =
  | { readonly kind: "same" }
  | { readonly kind: "changed"; readonly files: readonly CertificateFiles[] }
  | { readonly kind: "failed"; readonly file: string; readonly reason: string };

/** All certificates of one listener; the first serves clients that ask for no known name. */
export class TlsCertificates {
  readonly #minVersion: "TLSv1.2" | "TLSv1.3";
  #loaded: LoadedCertificate[];
  #byName: ServerNames<SecureContext>;
  /** Stamp of the change that was refused last: it is told once. */
  #refusedStamp = "";

  /** Throws `CERTIFICATE_UNREADABLE` naming the file. At least one pair. */
  constructor(pairs: readonly CertificateFiles[], minVersion: "TLSv1.2" | "TLSv1.3") {
    this.#minVersion = minVersion;
    this.#loaded = pairs.map((files) => {
      try {
        return load(files, minVersion);
      } catch (error) {
        throw new PatinaError(
          "CERTIFICATE_UNREADABLE",
          `proxy.tls.certificates: ${files.cert_file}: ${errorText(error)}`,
          { cause: error },
        );
      }
    });
    this.#byName = namesOf(this.#loaded);
  }

  /** For clients without a name, or with one that no certificate has. */
  get fallback(): LoadedCertificate {
    const [first] = this.#loaded;
    if (first === undefined) throw new Error("a TLS listener has at least one certificate");
    return first;
  }

  /** The context for a name, `null` = the fallback's. */
  contextOf(name: string): SecureContext | null {
    return this.#byName.find(name);
  }

  /** The certificate that expires first. */
  get firstToExpire(): LoadedCertificate {
    return this.#loaded.reduce((first, one) => (one.expiresAtMs < first.expiresAtMs ? one : first));
  }

  /** Reads what changed on the disk. Cost: two `stat` per certificate when nothing did. */
  refresh(): RefreshResult {
    const changed: CertificateFiles[] = [];
    let failed: RefreshResult | null = null;
    this.#loaded = this.#loaded.map((before) => {
      const { files } = before;
      let stamp = "";
      try {
        stamp = stampOf(files);
        if (stamp === before.stamp) return before;
        const after = load(files, this.#minVersion);
        changed.push(files);
        return after;
      } catch (error) {
        const refused = `${files.cert_file} ${stamp}`;
        if (refused !== this.#refusedStamp) {
          failed = { kind: "failed", file: files.cert_file, reason: errorText(error) };
        }
        this.#refusedStamp = refused;
        return before;
      }
    });
    if (changed.length > 0) this.#byName = namesOf(this.#loaded);
    if (failed !== null) return failed;
    return changed.length > 0 ? { kind: "changed", files: changed } : { kind: "same" };
  }
}

function load(files: CertificateFiles, minVersion: "TLSv1.2" | "TLSv1.3"): LoadedCertificate {
  const stamp = stampOf(files);
  const cert = readFileSync(files.cert_file);
  const key = readFileSync(files.key_file);
  const { subjectAltName = "", validTo } = new X509Certificate(cert);
  return {
    files,
    cert,
    key,
    names: dnsNamesOf(subjectAltName),
    expiresAtMs: Date.parse(validTo),
    // Throws when they do not fit.
    context: createSecureContext({ cert, key, minVersion }),
    stamp,
  };
}

function namesOf(loaded: readonly LoadedCertificate[]): ServerNames<SecureContext> {
  return new ServerNames(loaded.map(({ names, context }) => ({ names, value: context })));
}

/** Changes when either file is written or replaced, also through a link. */
function stampOf({ cert_file, key_file }: CertificateFiles): string {
  return [cert_file, key_file]
    .map((file) => {
      const { ino, size, mtimeMs } = statSync(file);
      return `${ino}:${size}:${mtimeMs}`;
    })
    .join(" ");
}
