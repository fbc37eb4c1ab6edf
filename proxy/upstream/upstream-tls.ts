/**
 * How machines that speak HTTPS are dialled: always verified, against an authority of the
 * operator's or the system's, by a name of the config's or the address that was dialled.
 */
import { readFileSync } from "node:fs";
import { createSecureContext, type SecureContext } from "node:tls";
import { errorText, PatinaError } from "#base/errors.ts";

/** What every dial over TLS is made with. */
export interface UpstreamTls {
  readonly secureContext: SecureContext;
  /** Asked for and verified; absent = the address must be in the certificate. */
  readonly servername?: string;
}

/** Reads the config's section. Throws `CERTIFICATE_UNREADABLE` naming the key. */
export function upstreamTlsOf(section: {
  readonly ca_file?: string | undefined;
  readonly server_name?: string | undefined;
}): UpstreamTls {
  const { ca_file, server_name } = section;
  try {
    const secureContext = createSecureContext(
      ca_file === undefined ? {} : { ca: readFileSync(ca_file) },
    );
    return server_name === undefined
      ? { secureContext }
      : { secureContext, servername: server_name };
  } catch (error) {
    throw new PatinaError(
      "CERTIFICATE_UNREADABLE",
      `proxy.upstream_tls.ca_file: ${ca_file}: ${errorText(error)}`,
      { cause: error },
    );
  }
}
