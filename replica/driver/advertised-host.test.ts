import type { NetworkInterfaceInfo } from "node:os";
import { expect, test } from "vitest";
import { chooseHost, isWildcard } from "./advertised-host.ts";

test.each<[string, string[], string]>([
  ["0.0.0.0", ["127.0.0.1", "192.0.2.1", "192.0.2.2"], "192.0.2.1"],
  ["0.0.0.0", ["::1", "2001:db8::1", "127.0.0.1", "192.0.2.1"], "192.0.2.1"],
  ["0.0.0.0", ["127.0.0.1", "2001:db8::1"], "127.0.0.1"],
  ["0.0.0.0", ["169.254.1.1", "192.0.2.1"], "192.0.2.1"],
  ["::", ["::1", "192.0.2.1", "fe80::1", "2001:db8::1"], "2001:db8::1"],
  ["::", ["::1", "fe80::1", "192.0.2.1"], "192.0.2.1"],
  ["::", ["::1", "fe80::1"], "::1"],
  ["::", [], "::1"],
  ["0.0.0.0", [], "127.0.0.1"],
])("for %s, of %j, the address %s is chosen", (wildcard, addresses, chosen) => {
  const interfaces = { eth0: addresses.map(infoOf), gone: undefined };
  expect(chooseHost(wildcard, interfaces)).toBe(chosen);
});

test("only the two unspecified addresses are wildcards", () => {
  const hosts = ["0.0.0.0", "::", "127.0.0.1", "::1", "10.0.0.0"];
  expect(hosts.filter(isWildcard)).toEqual(["0.0.0.0", "::"]);
});

function infoOf(address: string): NetworkInterfaceInfo {
  const internal = address === "127.0.0.1" || address === "::1";
  const common = { address, internal, mac: "00:00:00:00:00:00", netmask: "", cidr: null };
  return address.includes(":")
    ? { ...common, family: "IPv6", scopeid: 0 }
    : { ...common, family: "IPv4" };
}
