/**
 * A list of addresses and networks from the config: who is trusted, who speaks PROXY protocol.
 */
import { BlockList, isIP } from "node:net";
import { z } from "zod";

/** `192.0.2.0/24`, `2001:db8::/32`, or a single address, as it stands in a config file. */
export const network = z
  .string()
  .refine((text) => partsOf(text) !== null, "an IP address, or a network as 192.0.2.0/24");

/**
 * A test of addresses against networks; `null` for an empty list, which holds nobody. An IPv4
 * address that came over an IPv6 socket (`::ffff:`) counts as IPv4.
 */
export function addressTest(networks: readonly string[]): ((address: string) => boolean) | null {
  if (networks.length === 0) return null;
  const list = new BlockList();
  for (const text of networks) {
    const parts = partsOf(text);
    if (parts !== null) list.addSubnet(parts.address, parts.prefix, parts.family);
  }
  return (address) => {
    const plain = address.startsWith("::ffff:") ? address.slice(7) : address;
    const family = isIP(plain);
    return family !== 0 && list.check(plain, family === 4 ? "ipv4" : "ipv6");
  };
}

function partsOf(
  text: string,
): { address: string; prefix: number; family: "ipv4" | "ipv6" } | null {
  const match = /^([0-9a-fA-F:.]+)(?:\/(\d{1,3}))?$/.exec(text);
  const family = isIP(match?.[1] ?? "");
  if (match === null || family === 0) return null;
  const bits = family === 4 ? 32 : 128;
  const prefix = match[2] === undefined ? bits : Number(match[2]);
  if (prefix > bits) return null;
  return { address: match[1] ?? "", prefix, family: family === 4 ? "ipv4" : "ipv6" };
}
