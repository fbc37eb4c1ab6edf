/**
 * How a replica is known to others: by the certificates of the config's files; or, with
 * `gossip.plaintext`, not at all.
 *
 * The transport has no certificates then: it is Corrosion's plaintext mode. What else signs, notices between
 * edges, does so with certificates of an authority whose key everybody has: it is computed from a
 * public text. That proves as little as plaintext does, and keeps apart what a cluster's own
 * authority vouches for.
 */
import { createECDH, createHash, createPrivateKey } from "node:crypto";
import { readFileSync } from "node:fs";
import { isIP } from "node:net";
import { errorText, PatinaError } from "#base/errors.ts";
import { splitHostPort } from "#base/host-port.ts";
import type { GossipConfig } from "../../config.ts";
import type { ActorId } from "../../types.ts";
import type { PlaintextMode } from "../quic/plaintext-engine.ts";
import type { TransportCertificates } from "../quic/tls-config.ts";
import {
  createCertificateAuthority,
  issueClientCertificate,
  issueServerCertificate,
  type CertificatePems,
} from "./certificates.ts";

/** What protects the transport. Rejects as `transportCertificates` does. */
export async function transportProtection(
  gossip: GossipConfig,
  actorId: ActorId,
  nowMs: number,
): Promise<TransportCertificates | PlaintextMode> {
  if (gossip.plaintext) return { resetSeed: actorId };
  const certificates = await transportCertificates(gossip, nowMs);
  return gossip.tls?.verify_actor === true ? { ...certificates, actorId } : certificates;
}

/**
 * Reads or makes them. `nowMs` is the wall clock. Rejects with `CERTIFICATE_UNREADABLE` naming the
 * key and the file.
 */
export async function transportCertificates(
  gossip: GossipConfig,
  nowMs: number,
): Promise<TransportCertificates> {
  if (gossip.plaintext || gossip.tls === undefined) return unauthenticated(gossip, nowMs);
  const { ca_file, client, insecure } = gossip.tls;
  return {
    authoritiesPem: ca_file === undefined ? null : readPem("gossip.tls.ca_file", ca_file),
    server: readPair("gossip.tls", gossip.tls),
    client: client === undefined ? null : readPair("gossip.tls.client", client),
    checksServers: !insecure,
  };
}

async function unauthenticated(
  gossip: GossipConfig,
  nowMs: number,
): Promise<TransportCertificates> {
  const validity = { nowMs, validityDays: VALIDITY_DAYS };
  const authority = await createCertificateAuthority({
    ...validity,
    commonName: AUTHORITY_NAME,
    keyPem: keyEverybodyHas(),
  });
  const { host } = splitHostPort(gossip.external_addr ?? gossip.addr);
  const names = isIP(host) === 0 ? { addresses: [], names: [host] } : { addresses: [host] };
  const server = await issueServerCertificate(authority, { ...validity, ...names });
  const client = await issueClientCertificate(authority, validity);
  return {
    authoritiesPem: authority.certificatePem,
    server,
    client,
    checksServers: true,
  };
}

/** A private key of P-256 as PEM, the same wherever it is computed. */
function keyEverybodyHas(): string {
  const secret = createHash("sha256").update(AUTHORITY_NAME).digest();
  const pair = createECDH("prime256v1");
  pair.setPrivateKey(secret);
  const point = pair.getPublicKey();
  const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString("base64url");
  const jwk = {
    kty: "EC",
    crv: "P-256",
    d: text(secret),
    x: text(point.subarray(1, 33)),
    y: text(point.subarray(33)),
  };
  return createPrivateKey({ key: jwk, format: "jwk" }).export({ type: "pkcs8", format: "pem" });
}

function readPair(
  section: string,
  { cert_file, key_file }: { readonly cert_file: string; readonly key_file: string },
): CertificatePems {
  return {
    certificatePem: readPem(`${section}.cert_file`, cert_file),
    keyPem: readPem(`${section}.key_file`, key_file),
  };
}

function readPem(key: string, file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    throw new PatinaError(
      "CERTIFICATE_UNREADABLE",
      `${key}: ${errorText(error)}; make certificates with patina tls`,
      { cause: error },
    );
  }
}

/** Changing it makes notices of replicas with `gossip.plaintext` void for those before. */
const AUTHORITY_NAME = "Patina without authentication";
/** Longer than any process runs: they are made anew at each start. */
const VALIDITY_DAYS = 3_650;
