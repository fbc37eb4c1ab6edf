/** Bootstrap addresses: names to the addresses under which their replicas are dialled. */
import { lookup } from "node:dns/promises";
import { isIP } from "node:net";
import { errorText } from "#base/errors.ts";
import { joinHostPort, splitHostPort } from "#base/host-port.ts";
import type { Logger } from "#base/logger.ts";
import { canonicalAddress } from "../core/swim/address.ts";
import type { Address } from "../types.ts";

/** What the bootstrap entries came to. */
export interface ResolvedBootstrap {
  /** Where to announce ourselves; our own address is left out. */
  readonly addresses: Address[];
  /** Entries that led to no address at all: others may be there whom we cannot find. */
  readonly unresolved: number;
}

/**
 * Resolves `host:port` entries; only addresses of our own family count. A name that does not resolve
 * and an address of the other family are logged and left out: the announcer tries again.
 */
export async function resolveBootstrap(
  entries: readonly string[],
  self: Address,
  log: Logger,
): Promise<ResolvedBootstrap> {
  const family = isIP(splitHostPort(self).host) === 6 ? 6 : 4;
  const found = new Set<Address>();
  let unresolved = 0;
  for (const entry of entries) {
    const { host, port } = splitHostPort(entry);
    const ips = await addressesOf(host, family, log);
    if (ips.length === 0) unresolved++;
    for (const ip of ips) {
      const address = canonicalAddress(joinHostPort(ip, port));
      if (address.ok && address.value !== self) found.add(address.value);
    }
  }
  return { addresses: [...found], unresolved };
}

async function addressesOf(host: string, family: 4 | 6, log: Logger): Promise<string[]> {
  const literal = isIP(host);
  if (literal === family) return [host];
  try {
    if (literal !== 0) throw new Error(`not an IPv${family} address, as our own is`);
    return (await lookup(host, { all: true, family })).map((found) => found.address);
  } catch (error) {
    log.warn?.("bootstrap-unresolved", `${host}: ${errorText(error)}`, { host });
    return [];
  }
}
