/**
 * A cluster's own certificates: an authority, and leaves for the two sides of a QUIC connection.
 *
 * What `corrosion tls` generates (protocol reference, section 1.2): ECDSA keys; an authority valid
 * for five years; leaves for one; a server leaf names the IP addresses it is dialled by, because
 * the dialler compares the address it dialled with them; a client leaf has an empty subject. A leaf
 * may also carry the replica's actor id as a URI name (`urn:uuid:...`).
 *
 * Time is an argument, so that tests can issue expired certificates. Nothing is written to disk.
 * `@peculiar/x509` is loaded at the first call: it takes about 100 ms, and replicas that only *use*
 * certificates never need it.
 */
import { createPrivateKey, createPublicKey, X509Certificate, type webcrypto } from "node:crypto";
import { isIP } from "node:net";
import type * as X509 from "@peculiar/x509";
import { errorText, PatinaError } from "#base/errors.ts";
import type { ActorId } from "../../types.ts";
import { CERTIFICATE_INPUT } from "./errors.ts";
import { provideReflectMetadata } from "./reflect-metadata.ts";

/** P-256 signs several times faster in BoringSSL; P-384 is what Corrosion generates. */
export type CertificateCurve = "P-256" | "P-384";

/** A certificate with its private key, as PEM text (the key in PKCS #8). */
export interface CertificatePems {
  readonly certificatePem: string;
  readonly keyPem: string;
}

/** How to make an authority. */
export interface AuthorityOptions {
  /** Wall-clock milliseconds; validity starts five minutes earlier. */
  readonly nowMs: number;
  /** Default "Patina cluster CA". */
  readonly commonName?: string;
  /** Default P-256. */
  readonly curve?: CertificateCurve;
  /** Default 1825 (5 years). */
  readonly validityDays?: number;
  /** Its private key on `curve`, in PKCS #8. Default: a new one. */
  readonly keyPem?: string;
}

/** What every leaf needs. */
export interface LeafOptions {
  /** Wall-clock milliseconds; validity starts five minutes earlier. */
  readonly nowMs: number;
  /** Default P-256. */
  readonly curve?: CertificateCurve;
  /** Default 365. */
  readonly validityDays?: number;
  /** Added as the URI name `urn:uuid:<actor id>`. */
  readonly actorId?: ActorId;
}

/** A server leaf: the addresses and names under which the replica is dialled. */
export interface ServerLeafOptions extends LeafOptions {
  /** IP addresses without port, IPv4 or IPv6 ("192.0.2.1", "2001:db8::1"). */
  readonly addresses: readonly string[];
  /** DNS names. */
  readonly names?: readonly string[];
}

/** Creates a self-signed authority that may sign leaves only. Takes a few milliseconds. */
export async function createCertificateAuthority(
  options: AuthorityOptions,
): Promise<CertificatePems> {
  const x509 = await loadX509();
  const curve = options.curve ?? "P-256";
  const { keyPem } = options;
  const keys = keyPem === undefined ? await generateKeys(curve) : readKeys(keyPem, curve);
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    name: [{ CN: [options.commonName ?? "Patina cluster CA"] }],
    keys,
    ...validity(options.nowMs, options.validityDays ?? AUTHORITY_DAYS),
    signingAlgorithm: { name: "ECDSA", hash: hashOf(curve) },
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(
        x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign,
        true,
      ),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return { certificatePem: pemText(certificate), keyPem: await exportKey(keys.privateKey) };
}

/**
 * Issues the leaf that a replica shows to those who dial it. Rejects with `CERTIFICATE_INPUT` when
 * an address is not an IP address, there is neither address nor name, or the authority is unusable.
 */
export async function issueServerCertificate(
  authority: CertificatePems,
  options: ServerLeafOptions,
): Promise<CertificatePems> {
  const names = options.names ?? [];
  for (const address of options.addresses) {
    if (isIP(address) === 0) throw inputError(`${address} is not an IP address`, address);
  }
  if (options.addresses.length + names.length === 0) {
    throw inputError("a server certificate needs an address or a name", null);
  }
  return issueLeaf(authority, {
    ...options,
    commonName: SERVER_COMMON_NAME,
    usage: SERVER_AUTH,
    names: [
      ...options.addresses.map((value) => ({ type: "ip" as const, value })),
      ...names.map((value) => ({ type: "dns" as const, value })),
    ],
  });
}

/** Issues the leaf that a replica shows to those it dials. Rejects with `CERTIFICATE_INPUT`. */
export async function issueClientCertificate(
  authority: CertificatePems,
  options: LeafOptions,
): Promise<CertificatePems> {
  return issueLeaf(authority, { ...options, commonName: null, usage: CLIENT_AUTH, names: [] });
}

interface LeafRequest extends LeafOptions {
  readonly commonName: string | null;
  readonly usage: string;
  readonly names: readonly { readonly type: "ip" | "dns" | "url"; readonly value: string }[];
}

async function loadX509(): Promise<typeof X509> {
  provideReflectMetadata();
  return await import("@peculiar/x509");
}

async function issueLeaf(
  authority: CertificatePems,
  request: LeafRequest,
): Promise<CertificatePems> {
  const signer = readAuthority(authority);
  const x509 = await loadX509();
  const issuer = new x509.X509Certificate(authority.certificatePem);
  const keys = await generateKeys(request.curve ?? "P-256");
  const names = [...request.names];
  if (request.actorId !== undefined) {
    names.push({ type: "url", value: `urn:uuid:${request.actorId}` });
  }
  const extensions: X509.Extension[] = [
    new x509.BasicConstraintsExtension(false, undefined, true),
    new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
    new x509.ExtendedKeyUsageExtension([request.usage]),
    await x509.AuthorityKeyIdentifierExtension.create(issuer.publicKey),
    await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
  ];
  if (names.length > 0) {
    // RFC 5280, 4.2.1.6: critical when the subject is empty, since the names are then all there is.
    const isCritical = request.commonName === null;
    extensions.push(new x509.SubjectAlternativeNameExtension(names, isCritical));
  }
  const certificate = await x509.X509CertificateGenerator.create({
    subject: request.commonName === null ? "" : [{ CN: [request.commonName] }],
    issuer: issuer.subject,
    publicKey: keys.publicKey,
    signingKey: signer.key,
    signingAlgorithm: { name: "ECDSA", hash: hashOf(signer.curve) },
    ...validity(request.nowMs, request.validityDays ?? LEAF_DAYS),
    extensions,
  });
  return { certificatePem: pemText(certificate), keyPem: await exportKey(keys.privateKey) };
}

/** Parses the authority and makes sure that certificate and key belong together. */
function readAuthority(authority: CertificatePems): {
  key: webcrypto.CryptoKey;
  curve: CertificateCurve;
} {
  try {
    const certificate = new X509Certificate(authority.certificatePem);
    const keyObject = createPrivateKey(authority.keyPem);
    const named = keyObject.asymmetricKeyDetails?.namedCurve ?? keyObject.asymmetricKeyType;
    const curve = CURVE_BY_OPENSSL_NAME.get(named ?? "");
    if (curve === undefined) throw inputError("the authority's key is not on a known curve", named);
    if (!certificate.ca) throw inputError("the issuer is not an authority", certificate.subject);
    if (!certificate.checkPrivateKey(keyObject)) {
      throw inputError("the authority's key does not fit its certificate", certificate.subject);
    }
    const algorithm = { name: "ECDSA", namedCurve: curve };
    return { key: keyObject.toCryptoKey(algorithm, false, ["sign"]), curve };
  } catch (thrown) {
    if (thrown instanceof PatinaError) throw thrown;
    throw new PatinaError(CERTIFICATE_INPUT, "cannot read the certificate authority", {
      cause: thrown,
      details: { found: errorText(thrown) },
    });
  }
}

async function generateKeys(curve: CertificateCurve): Promise<webcrypto.CryptoKeyPair> {
  return crypto.subtle.generateKey({ name: "ECDSA", namedCurve: curve }, true, ["sign", "verify"]);
}

function readKeys(keyPem: string, curve: CertificateCurve): webcrypto.CryptoKeyPair {
  const algorithm = { name: "ECDSA", namedCurve: curve };
  return {
    privateKey: createPrivateKey(keyPem).toCryptoKey(algorithm, true, ["sign"]),
    publicKey: createPublicKey(keyPem).toCryptoKey(algorithm, true, ["verify"]),
  };
}

async function exportKey(key: webcrypto.CryptoKey): Promise<string> {
  const base64 = Buffer.from(await crypto.subtle.exportKey("pkcs8", key)).toString("base64");
  const lines = base64.match(/.{1,64}/g) ?? [];
  return `-----BEGIN PRIVATE KEY-----\n${lines.join("\n")}\n-----END PRIVATE KEY-----\n`;
}

function pemText(certificate: { toString(format: "pem"): string }): string {
  return `${certificate.toString("pem").trimEnd()}\n`;
}

function validity(nowMs: number, days: number): { notBefore: Date; notAfter: Date } {
  return { notBefore: new Date(nowMs - CLOCK_SKEW_MS), notAfter: new Date(nowMs + days * DAY_MS) };
}

/** The hash whose strength fits the signing curve. */
function hashOf(curve: CertificateCurve): "SHA-256" | "SHA-384" {
  return curve === "P-256" ? "SHA-256" : "SHA-384";
}

function inputError(message: string, found: unknown): PatinaError {
  return new PatinaError(CERTIFICATE_INPUT, message, { details: { found } });
}

const CURVE_BY_OPENSSL_NAME: ReadonlyMap<string, CertificateCurve> = new Map([
  ["prime256v1", "P-256"],
  ["secp384r1", "P-384"],
]);
const DAY_MS = 86_400_000;
const AUTHORITY_DAYS = 5 * 365;
const LEAF_DAYS = 365;
/** Hosts whose clocks are a little behind must accept a certificate issued just now. */
const CLOCK_SKEW_MS = 300_000;
/** The name that Corrosion writes into its server leaves. */
const SERVER_COMMON_NAME = "r.u.local";
/** Extended key usages, RFC 5280, section 4.2.1.12. */
const SERVER_AUTH = "1.3.6.1.5.5.7.3.1";
const CLIENT_AUTH = "1.3.6.1.5.5.7.3.2";
