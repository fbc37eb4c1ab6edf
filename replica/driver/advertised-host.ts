/**
 * The address that others are told to dial when the socket is bound to all addresses of the machine
 * and nobody has named one.
 *
 * An interface that leads out of the machine comes first, in the order of the system. A socket on
 * `::` takes IPv4 too, so it falls back on such an address. Link-local addresses are left out: they
 * mean something else on each link, and need a zone to be dialled.
 */
import { networkInterfaces } from "node:os";
import { joinHostPort, splitHostPort } from "#base/host-port.ts";
import type { Logger } from "#base/logger.ts";
import type { GossipConfig } from "../config.ts";

/** The config with an `external_addr` where it needs one; its port may be 0, as that of `addr`. */
export function withAddressOfMachine(gossip: GossipConfig, log: Logger): GossipConfig {
  const { host, port } = splitHostPort(gossip.addr);
  if (!isWildcard(host) || gossip.external_addr !== undefined) return gossip;
  const chosen = chooseHost(host, networkInterfaces());
  log.warn?.(
    "gossip-address-chosen",
    `gossip.addr is a wildcard: others are told to dial ${chosen}, one of this machine's` +
      " addresses; gossip.external_addr names another",
    { host: chosen },
  );
  return { ...gossip, external_addr: joinHostPort(chosen, port) };
}

/** Whether a host means all addresses of the machine. */
export function isWildcard(host: string): boolean {
  return host === "0.0.0.0" || host === "::";
}

/** An IP address of the machine for a wildcard; the loopback one when there is no other. */
export function chooseHost(
  wildcard: string,
  interfaces: ReturnType<typeof networkInterfaces>,
): string {
  const outward = Object.values(interfaces)
    .flatMap((addresses) => addresses ?? [])
    .filter(({ internal, address }) => !internal && !LINK_LOCAL.test(address));
  const first = (family: string): string | undefined =>
    outward.find((one) => one.family === family)?.address;
  if (wildcard === "0.0.0.0") return first("IPv4") ?? "127.0.0.1";
  return first("IPv6") ?? first("IPv4") ?? "::1";
}

/** `fe80::/10` and `169.254.0.0/16`. */
const LINK_LOCAL = /^(?:fe[89ab][0-9a-f]:|169\.254\.)/i;
