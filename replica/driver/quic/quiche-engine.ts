/** Connections with TLS: quiche's native binding in the words of `engine.ts`. */
import { quiche } from "@matrixai/quic/native/index.js";
import type { Engine } from "./engine.ts";
import type { TransportSettings } from "./options.ts";
import { resetToken, tokenNumber } from "./stateless.ts";
import { createHandshakeConfig, type TransportCertificates } from "./tls-config.ts";

/** Makes connections that use these certificates. Throws `TRANSPORT_TLS`. */
export function createQuicheEngine(
  certificates: TransportCertificates,
  settings: TransportSettings,
): Engine {
  const { client, server, judge, resetSecret } = createHandshakeConfig(certificates, settings);
  return {
    resetSecret,
    judge,
    // No server name: it would be sent as SNI, which addresses are not.
    connect: ({ id, local, remote }) => quiche.Connection.connect(null, id, local, remote, client),
    accept: ({ id, local, remote }) => {
      server.setStatelessResetToken(tokenNumber(resetToken(resetSecret, id)));
      return quiche.Connection.accept(id, null, local, remote, server);
    },
  };
}
