/**
 * `patina tls rotate`: another authority for a cluster that runs, one command a step.
 *
 *     begin    once          makes the next authority beside the present one
 *     trust    on each host  takes certificates of either
 *     issue    on each host  shows certificates of the next one
 *     forget   on each host  takes those of the next one alone
 *     end      once          the next authority is the present one
 *
 * A step that is repeated finds itself done. `issue` and `forget` ask every other member first whether the
 * two would go on to speak with each other, and change nothing when one would not. Files are replaced
 * whole; the replica takes them over while it runs.
 */
import { X509Certificate } from "node:crypto";
import { existsSync, readFileSync, renameSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { PatinaError } from "#base/errors.ts";
import type { GossipConfig } from "../../replica/config.ts";
import {
  createCertificateAuthority,
  issueClientCertificate,
  issueServerCertificate,
  type CertificatePems,
} from "../../replica/driver/certificates/certificates.ts";
import { probeHandshake } from "../../replica/driver/certificates/handshake-probe.ts";
import { actorOf } from "../../replica/driver/quic/peer-identity.ts";
import type { TransportCertificates } from "../../replica/driver/quic/tls-config.ts";
import { gossipTarget, type GlobalOptions } from "../targets.ts";
import { askReplica } from "./admin.ts";
import { readAuthority, save } from "./tls.ts";

/** Flags of a step. */
export type RotateOptions = GlobalOptions & {
  /** Folder of the authorities. */
  readonly ca: string;
  /** Goes on though members do not answer or would be lost. */
  readonly force?: boolean;
};

type Tls = NonNullable<GossipConfig["tls"]> & { readonly ca_file: string };

/** Makes the next authority. */
export async function begin({ ca }: RotateOptions): Promise<void> {
  readAuthority({ ca });
  if (existsSync(join(ca, NEXT_CERTIFICATE))) return say("begun already: trust comes next");
  const nowMs = Date.now();
  // Two authorities of one name would be told apart by their keys alone.
  const commonName = `Patina cluster CA ${new Date(nowMs).toISOString()}`;
  save(ca, "next", await createCertificateAuthority({ nowMs, commonName }));
  say("now on each host: patina tls rotate trust");
}

/** Adds the next authority to those that this host trusts. */
export function trust(options: RotateOptions): void {
  const { tls } = hostOf(options);
  const next = readNext(options);
  const trusted = certificatesIn(tls.ca_file);
  if (trusted.some((one) => isSame(one, next))) return say(`${tls.ca_file}: trusts it already`);
  replace(tls.ca_file, `${readFileSync(tls.ca_file, "utf8").trimEnd()}\n${next}`);
  say(`${tls.ca_file}: ${trusted.length + 1} authorities. ${TAKEN_OVER}`);
  say("once all hosts are there: patina tls rotate issue");
}

/** Gives this host certificates of the next authority, with the names that they have. */
export async function issue(options: RotateOptions): Promise<void> {
  const { tls, gossip } = hostOf(options);
  const next = readNext(options);
  if (!certificatesIn(tls.ca_file).some((one) => isSame(one, next))) {
    throw refusal(`${tls.ca_file} does not trust the next authority: patina tls rotate trust`);
  }
  const pairs = [tls, ...(tls.client === undefined ? [] : [tls.client])];
  if (pairs.every(({ cert_file }) => isIssuedBy(cert_file, next))) {
    return say("has certificates of the next authority already");
  }
  const authority = readAuthority({
    ca: options.ca,
    caCert: join(options.ca, NEXT_CERTIFICATE),
    caKey: join(options.ca, "next.key"),
  });
  const server = await renewed(tls.cert_file, authority, "server");
  const client = tls.client && (await renewed(tls.client.cert_file, authority, "client"));
  const authoritiesPem = readFileSync(tls.ca_file, "utf8");
  await askMembers({ options, gossip }, { authoritiesPem, server, client: client ?? null });
  replacePair(tls, server);
  if (tls.client && client) replacePair(tls.client, client);
  say(
    `${pairs.map(({ cert_file }) => cert_file).join(", ")}: of the next authority. ${TAKEN_OVER}`,
  );
  say("once all hosts are there: patina tls rotate forget");
}

/** Takes the former authority from those that this host trusts. */
export async function forget(options: RotateOptions): Promise<void> {
  const { tls, gossip } = hostOf(options);
  const next = readNext(options);
  const trusted = certificatesIn(tls.ca_file);
  if (trusted.length === 1 && trusted.every((one) => isSame(one, next))) {
    return say(`${tls.ca_file}: trusts the next authority alone already`);
  }
  const pairs = [tls, ...(tls.client === undefined ? [] : [tls.client])];
  for (const { cert_file } of pairs) {
    if (isIssuedBy(cert_file, next)) continue;
    throw refusal(`${cert_file} is not of the next authority: patina tls rotate issue`);
  }
  const read = (file: { cert_file: string; key_file: string }): CertificatePems => ({
    certificatePem: readFileSync(file.cert_file, "utf8"),
    keyPem: readFileSync(file.key_file, "utf8"),
  });
  const client = tls.client === undefined ? null : read(tls.client);
  await askMembers({ options, gossip }, { authoritiesPem: next, server: read(tls), client });
  replace(tls.ca_file, next);
  say(`${tls.ca_file}: the next authority alone. ${TAKEN_OVER}`);
  say("once all hosts are there: patina tls rotate end");
}

/** The next authority takes the place of the present one, which stays as `former`. */
export function end({ ca }: RotateOptions): void {
  const left = ["key", "pem"].filter((kind) => existsSync(join(ca, `next.${kind}`)));
  if (left.length === 0) return say(`${ca}: no rotation is under way`);
  // The certificate last: while it is there, an end that broke off is gone on with.
  for (const kind of left) {
    const [former, present] = [join(ca, `former.${kind}`), join(ca, `ca.${kind}`)];
    if (existsSync(present)) renameSync(present, former);
    renameSync(join(ca, `next.${kind}`), present);
  }
  say(
    `${join(ca, "ca.pem")}: the authority from here on; the one before is former.pem, former.key`,
  );
}

/** Asks every member but ourselves. Throws `USAGE` when one would be lost, unless forced. */
async function askMembers(
  { options, gossip }: { options: RotateOptions; gossip: GossipConfig },
  pems: Pick<TransportCertificates, "authoritiesPem" | "server" | "client">,
): Promise<void> {
  const status = (await askReplica("Status", options)) as {
    readonly actor: string;
    readonly members: readonly { readonly address: string; readonly state: string }[];
  };
  const foreignClusterId = gossip.cluster_id === CLUSTER_ID_MAX ? 0 : CLUSTER_ID_MAX;
  const certificates = { ...pems, checksServers: true };
  const lost: string[] = [];
  for (const { address, state } of status.members) {
    if (state === "down") continue;
    const why = await probeHandshake(address, {
      certificates,
      actorId: status.actor,
      foreignClusterId,
    });
    if (why !== null) lost.push(`${address}: ${why}`);
  }
  if (lost.length === 0) return;
  const text = lost.join("\n");
  if (options.force === true) return void process.stderr.write(`${text}\n`);
  throw refusal(`members would be lost:\n${text}\nbring them to the step before, or use --force`);
}

async function renewed(
  file: string,
  authority: CertificatePems,
  side: "server" | "client",
): Promise<CertificatePems> {
  const certificate = new X509Certificate(readFileSync(file));
  const actorId = actorOf(certificate);
  const leaf = { nowMs: Date.now(), ...(actorId === null ? {} : { actorId }) };
  if (side === "client") return await issueClientCertificate(authority, leaf);
  const names = (certificate.subjectAltName ?? "").split(", ");
  const of = (kind: string): string[] =>
    names.filter((name) => name.startsWith(kind)).map((name) => name.slice(kind.length));
  return await issueServerCertificate(authority, {
    ...leaf,
    addresses: of("IP Address:"),
    names: of("DNS:"),
  });
}

function hostOf(options: RotateOptions): { readonly gossip: GossipConfig; readonly tls: Tls } {
  const gossip = gossipTarget(options);
  const { tls } = gossip;
  if (!gossip.plaintext && tls?.ca_file !== undefined) {
    return { gossip, tls: { ...tls, ca_file: tls.ca_file } };
  }
  throw refusal("the config has no gossip.tls.ca_file: there is no authority to change");
}

function readNext({ ca }: RotateOptions): string {
  const file = join(ca, NEXT_CERTIFICATE);
  if (existsSync(file)) return readFileSync(file, "utf8");
  throw refusal(
    `${file} is not there: patina tls rotate begin makes it, or name its folder with --ca`,
  );
}

function certificatesIn(file: string): readonly string[] {
  return readFileSync(file, "utf8").match(CERTIFICATE) ?? [];
}

function isSame(one: string, other: string): boolean {
  return new X509Certificate(one).fingerprint256 === new X509Certificate(other).fingerprint256;
}

function isIssuedBy(file: string, authorityPem: string): boolean {
  return new X509Certificate(readFileSync(file)).verify(
    new X509Certificate(authorityPem).publicKey,
  );
}

/** The key first: the pair is taken over only once both fit. */
function replacePair(
  files: { readonly cert_file: string; readonly key_file: string },
  pems: CertificatePems,
): void {
  replace(files.key_file, pems.keyPem);
  replace(files.cert_file, pems.certificatePem);
}

/** In one go, with the permissions that the file has. */
function replace(file: string, text: string): void {
  const next = `${file}.next`;
  writeFileSync(next, text, { mode: statSync(file).mode & 0o777 });
  renameSync(next, file);
}

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}

function refusal(message: string): PatinaError {
  return new PatinaError("USAGE", message);
}

const NEXT_CERTIFICATE = "next.pem";
const TAKEN_OVER = "A replica that runs takes it over within 5 seconds";
const CERTIFICATE = /-----BEGIN CERTIFICATE-----[^]*?-----END CERTIFICATE-----\n?/g;
const CLUSTER_ID_MAX = 0xffff;
