/**
 * TLS and transport parameters of both sides, as `Config` objects of the quiche binding.
 *
 * Both sides show a certificate and both demand one that chains to the cluster's authority; chain,
 * validity period and key usage are checked by BoringSSL during the handshake. The server's address
 * is checked by us afterwards: quiche can only compare DNS names, and a server name given to it
 * would be sent as SNI, which an IP address must not be (protocol reference, section 1.2).
 *
 * As in Corrosion, a replica may be given no client certificate, and then asks for none; and a
 * dialler may be told to take any server.
 */
import { createPrivateKey, X509Certificate } from "node:crypto";
import { quiche, type Config } from "@matrixai/quic/native/index.js";
import { errorText, PatinaError } from "#base/errors.ts";
import type { ActorId } from "../../types.ts";
import type { CertificatePems } from "../certificates/certificates.ts";
import { MAX_ACK_DELAY_MS } from "./delayed-ack.ts";
import { TRANSPORT_TLS } from "./errors.ts";
import type { TransportSettings } from "./options.ts";
import { actorOf, createPeerJudge, type PeerJudge } from "./peer-identity.ts";
import { createResetSecret } from "./stateless.ts";

/** PEM texts of one replica. A certificate may be followed by its intermediates. */
export interface TransportCertificates {
  /** One or more authorities; nothing else is trusted. Null: nothing is checked at all. */
  readonly authoritiesPem: string | null;
  readonly server: CertificatePems;
  /** Null: none is shown, and none demanded of those who dial. */
  readonly client: CertificatePems | null;
  /** Whether the certificates of those dialled are checked. */
  readonly checksServers: boolean;
  /**
   * Who we are: our certificates must name this actor, and those of others the actor that they speak
   * as. Default null: certificates vouch for the cluster, not for a replica.
   */
  readonly actorId?: ActorId | null;
}

/** What new handshakes are made with. */
export interface HandshakeConfig {
  readonly server: Config;
  readonly client: Config;
  readonly judge: PeerJudge;
  /** Behind the stateless reset tokens of connections accepted with `server`. */
  readonly resetSecret: Buffer;
}

/** Builds the configs. Throws `TRANSPORT_TLS` saying which PEM cannot be used. */
export function createHandshakeConfig(
  certificates: TransportCertificates,
  settings: TransportSettings,
): HandshakeConfig {
  const { authoritiesPem, checksServers, actorId = null } = certificates;
  const { mayBe } = settings;
  for (const side of ["server", "client"] as const) {
    const pems = certificates[side];
    if (pems === null) continue;
    checkPair(side, pems);
    if (actorId !== null) checkActor(side, pems, actorId);
  }
  if (authoritiesPem !== null) checkAuthorities(authoritiesPem);
  const authorities = authoritiesPem === null ? null : Buffer.from(authoritiesPem);
  const create = (pems: CertificatePems | null, checksPeer: boolean): Config =>
    quiche.Config.withBoringSslCtx(
      checksPeer,
      false,
      authorities,
      pems === null ? null : [Buffer.from(pems.keyPem)],
      pems === null ? null : [Buffer.from(pems.certificatePem)],
      SIGNATURE_ALGORITHMS,
    );
  try {
    const server = create(certificates.server, certificates.client !== null);
    const client = create(certificates.client, checksServers);
    for (const config of [server, client]) setTransportParameters(config, settings);
    server.setInitialMaxStreamsBidi(STREAMS_BIDI);
    server.setInitialMaxStreamsUni(settings.limits.uniStreamsMax);
    // A dialler accepts no streams (protocol reference, section 1.4), so it grants none.
    client.setInitialMaxStreamsBidi(0);
    client.setInitialMaxStreamsUni(0);
    return {
      server,
      client,
      judge: createPeerJudge({ checksServers, verifiesActors: actorId !== null, mayBe }),
      resetSecret: createResetSecret(certificates.server.keyPem),
    };
  } catch (thrown) {
    throw pemError("certificates refused by the TLS library", thrown);
  }
}

function setTransportParameters(config: Config, settings: TransportSettings): void {
  config.setApplicationProtos([APPLICATION_PROTOCOL]);
  config.setMaxIdleTimeout(settings.idleTimeoutMs);
  config.setMaxAckDelay(MAX_ACK_DELAY_MS);
  config.setMaxSendUdpPayloadSize(settings.maxUdpPayload);
  config.setMaxRecvUdpPayloadSize(UDP_PAYLOAD_MAX);
  config.setInitialMaxData(CONNECTION_WINDOW);
  config.setMaxConnectionWindow(CONNECTION_WINDOW);
  config.setInitialMaxStreamDataBidiLocal(STREAM_WINDOW);
  config.setInitialMaxStreamDataBidiRemote(STREAM_WINDOW);
  config.setInitialMaxStreamDataUni(STREAM_WINDOW);
  config.setMaxStreamWindow(STREAM_WINDOW_MAX);
  config.setDisableActiveMigration(true);
  // Pacing would need the send times, which the binding hands out only as opaque objects.
  config.enablePacing(false);
  config.enableDgram(true, DATAGRAM_QUEUE, DATAGRAM_QUEUE);
  config.grease(false);
}

function checkPair(side: "server" | "client", { certificatePem, keyPem }: CertificatePems): void {
  let fits: boolean;
  try {
    fits = new X509Certificate(certificatePem).checkPrivateKey(createPrivateKey(keyPem));
  } catch (thrown) {
    throw pemError(`cannot read the ${side} certificate or its key`, thrown);
  }
  if (!fits) throw pemError(`the ${side} key does not fit the ${side} certificate`, null);
}

function checkActor(
  side: "server" | "client",
  { certificatePem }: CertificatePems,
  actorId: ActorId,
): void {
  const named = actorOf(new X509Certificate(certificatePem));
  if (named === actorId) return;
  const names = named === null ? "no actor" : `actor ${named}`;
  const fix = `make it anew with patina tls ${side} generate --actor ${actorId}`;
  throw pemError(
    `the ${side} certificate names ${names}, this replica is ${actorId}: ${fix}`,
    null,
  );
}

function checkAuthorities(pem: string): void {
  let isAuthority: boolean;
  try {
    isAuthority = new X509Certificate(pem).ca;
  } catch (thrown) {
    throw pemError("cannot read the certificate authorities", thrown);
  }
  if (!isAuthority) throw pemError("the certificate to trust is not an authority's", null);
}

function pemError(message: string, thrown: unknown): PatinaError {
  const reason = thrown === null ? message : errorText(thrown);
  return new PatinaError(TRANSPORT_TLS, message, {
    ...(thrown === null ? {} : { cause: thrown }),
    details: { reason },
  });
}

/**
 * quiche requires both sides to agree on an application protocol. Corrosion sets none, which is why
 * its nodes cannot shake hands with this transport; the formats above QUIC are the same. The number
 * changes with what travels on streams and datagrams.
 * 1: Corrosion's FullV2 formats.
 */
const APPLICATION_PROTOCOL = "patina/1";

/** The signatures of protocol reference, section 1.2. */
const SIGNATURE_ALGORITHMS = [
  "ecdsa_secp256r1_sha256",
  "ecdsa_secp384r1_sha384",
  "ed25519",
  "rsa_pss_rsae_sha256",
  "rsa_pss_rsae_sha384",
  "rsa_pss_rsae_sha512",
  "rsa_pkcs1_sha256",
  "rsa_pkcs1_sha384",
  "rsa_pkcs1_sha512",
].join(":");

/** Bidirectional streams a peer may have open to us (protocol reference, section 1.3). */
const STREAMS_BIDI = 32;
/** Initial credit of one stream (protocol reference, section 1.3). */
const STREAM_WINDOW = 1_250_000;
/** What a stream's credit may grow to while it is read; at 250 ms that allows 16 MB/s. */
const STREAM_WINDOW_MAX = 4 * 1024 * 1024;
/**
 * Credit of a connection. Corrosion gives unlimited; here it bounds what a peer can park with us,
 * and is above 32 unread bidirectional streams at their initial credit, so these never block the
 * rest.
 */
const CONNECTION_WINDOW = 64 * 1024 * 1024;
/** Largest UDP payload there is (65535 less the headers). */
const UDP_PAYLOAD_MAX = 65_527;
/** Datagrams quiche queues in each direction; a burst of SWIM and no more. */
const DATAGRAM_QUEUE = 1_024;
