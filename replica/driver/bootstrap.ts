/** Bootstrap addresses: names to the addresses under which their replicas are dialled. */
import { lookup } from "node:dns/promises";
import { isIP } from "node:net";
import { errorText } from "#base/errors.ts";
import { joinHostPort, splitHostPort } from "#base/host-port.ts";
import type { Logger } from "#base/logger.ts";
import { canonicalAddress } from "../core/swim/address.ts";
import type { Address } from "../types.ts";

/**
 * Resolves `host:port` entries; only addresses of our own family count, ours is left out. A name
 * that does not resolve is logged and left out: the announcer tries again.
 */
export async function resolveBootstrap(
  entries: readonly string[],
  self: Address,
  log: Logger,
): Promise<Address[]> {
  const family = isIP(splitHostPort(self).host) === 6 ? 6 : 4;
  const found = new Set<Address>();
  for (const entry of entries) {
    const { host, port } = splitHostPort(entry);
    for (const ip of await addressesOf(host, family, log)) {
      const address = canonicalAddress(joinHostPort(ip, port));
      if (address.ok && address.value !== self) found.add(address.value);
    }
  }
  return [...found];
}

async function addressesOf(host: string, family: 4 | 6, log: Logger): Promise<string[]> {
  const literal = isIP(host);
  if (literal !== 0) return literal === family ? [host] : [];
  try {
    return (await lookup(host, { all: true, family })).map((found) => found.address);
  } catch (error) {
    log.warn?.("bootstrap-unresolved", `${host}: ${errorText(error)}`, { host });
    return [];
  }
}
