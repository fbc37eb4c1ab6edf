/** `patina tls ...`: the certificates of a cluster, as files with safe permissions. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { errorText, PatinaError } from "#base/errors.ts";
import {
  createCertificateAuthority,
  issueClientCertificate,
  issueServerCertificate,
  type CertificatePems,
  type LeafOptions,
} from "../../replica/driver/certificates/certificates.ts";
import type { ActorId } from "../../replica/types.ts";

/** Writes `ca.pem` and `ca.key`; refuses to overwrite an authority. */
export async function generateAuthority(options: { out: string }): Promise<void> {
  save(options.out, "ca", await createCertificateAuthority({ nowMs: Date.now() }));
}

/** Writes `server.pem` and `server.key` for the addresses given. */
export async function generateServer(addresses: string[], options: LeafFlags): Promise<void> {
  const authority = readAuthority(options);
  const leaf = await issueServerCertificate(authority, { ...leafOf(options), addresses });
  save(options.out, "server", leaf);
}

/** Writes `client.pem` and `client.key`. */
export async function generateClient(options: LeafFlags): Promise<void> {
  const authority = readAuthority(options);
  save(options.out, "client", await issueClientCertificate(authority, leafOf(options)));
}

/** Flags of both leaves. */
interface LeafFlags extends AuthorityOptions {
  readonly out: string;
  /** The actor that the certificate is for. */
  readonly actor?: ActorId;
}

function leafOf({ actor }: LeafFlags): LeafOptions {
  return { nowMs: Date.now(), ...(actor === undefined ? {} : { actorId: actor }) };
}

/** Where the authority is: a folder with our names of the files, or the files one by one. */
interface AuthorityOptions {
  readonly ca: string;
  readonly caCert?: string;
  readonly caKey?: string;
}

/** Throws `CERTIFICATE_UNREADABLE` with the way out. */
export function readAuthority({ ca, caCert, caKey }: AuthorityOptions): CertificatePems {
  try {
    return {
      certificatePem: readFileSync(caCert ?? join(ca, "ca.pem"), "utf8"),
      keyPem: readFileSync(caKey ?? join(ca, "ca.key"), "utf8"),
    };
  } catch (error) {
    throw new PatinaError(
      "CERTIFICATE_UNREADABLE",
      `${errorText(error)}; make an authority with patina tls ca generate, or name its folder with --ca`,
      { cause: error },
    );
  }
}

/** Writes a pair; throws `USAGE` when there is one. */
export function save(folder: string, stem: string, pems: CertificatePems): void {
  const [certificate, key] = [join(folder, `${stem}.pem`), join(folder, `${stem}.key`)];
  for (const file of [certificate, key]) {
    if (existsSync(file)) {
      throw new PatinaError("USAGE", `${file} exists; remove it first, or choose another --out`);
    }
  }
  mkdirSync(folder, { recursive: true });
  writeFileSync(key, pems.keyPem, { mode: 0o600 });
  writeFileSync(certificate, pems.certificatePem);
  process.stdout.write(`${certificate}\n${key}\n`);
}
