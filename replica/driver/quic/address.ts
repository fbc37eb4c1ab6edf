/**
 * UDP addresses in the three spellings that meet in this driver: canonical text (`Address`), host
 * and port for the quiche binding, and what Node reports for a packet's source.
 *
 * An IPv4 peer seen through a dual-stack socket appears as `::ffff:192.0.2.1`; in `Address` it is
 * always plain IPv4. Link-local IPv6 addresses with a zone (`fe80::1%eth0`) are not supported: the
 * binding would hand the zone to the system's resolver.
 */
import { isIP, isIPv4, SocketAddress } from "node:net";
import type { Address } from "../../types.ts";

/** An IP address literal and a port from 0 to 65535. */
export interface HostPort {
  readonly host: string;
  readonly port: number;
}

/** Parses `192.0.2.1:8787` or `[2001:db8::1]:8787`; `null` for anything else, names included. */
export function parseAddress(text: string): HostPort | null {
  const match = ADDRESS_PATTERN.exec(text);
  if (match === null) return null;
  const host = match[1] ?? match[2] ?? "";
  const port = Number(match[3]);
  if (port > 65_535 || isIP(host) === 0 || host.includes("%")) return null;
  if ((match[1] !== undefined) === isIPv4(host)) return null;
  return { host: canonicalHost(host), port };
}

/** The canonical text of an address as a socket reports it. */
export function formatAddress(host: string, port: number): Address {
  const plain = host.startsWith(MAPPED_PREFIX) ? host.slice(MAPPED_PREFIX.length) : host;
  return plain.includes(":") ? `[${plain}]:${port}` : `${plain}:${port}`;
}

/** The spelling that a socket of the given kind needs in order to send to `host`. */
export function hostForSocket(host: string, isDualStack: boolean): string {
  return isDualStack && isIPv4(host) ? `${MAPPED_PREFIX}${host}` : host;
}

function canonicalHost(host: string): string {
  if (isIPv4(host)) return host;
  const canonical = new SocketAddress({ address: host, port: 0, family: "ipv6" }).address;
  return canonical.startsWith(MAPPED_PREFIX) ? canonical.slice(MAPPED_PREFIX.length) : canonical;
}

const MAPPED_PREFIX = "::ffff:";
const ADDRESS_PATTERN = /^(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)):([0-9]{1,5})$/;
