/**
 * Socket addresses between their canonical text and their octets.
 *
 * One socket address has exactly one text here, so that texts can be compared and used as map keys:
 * IPv4 in dotted decimal, IPv6 as RFC 5952 asks (lower case, no leading zeros, the longest run of
 * two or more zero groups shortened, the first of equal runs, IPv4-mapped ones in mixed notation)
 * and in brackets. Scope ids do not travel on the wire and are refused.
 */
import { assert } from "#base/errors.ts";
import { failure, type Result, success } from "#base/machine.ts";
import type { Address } from "../../types.ts";

/** A socket address in parts. `octets` has 4 or 16 bytes. */
export interface SocketAddress {
  readonly octets: Uint8Array;
  readonly port: number;
}

/** Why a text is no socket address. */
export interface AddressError {
  readonly kind: "badAddress";
  readonly text: string;
}

/** Parses any valid text form of an IP address with a port; the text need not be canonical. */
export function parseAddress(text: string): Result<SocketAddress, AddressError> {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):([0-9]{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  if (match === null || port > 65_535) return failure({ kind: "badAddress", text });
  const octets =
    match[1] === undefined ? parseIpv4(match[2] ?? "") : parseIpv6(match[1].toLowerCase());
  if (octets === null) return failure({ kind: "badAddress", text });
  return success({ octets: Uint8Array.from(octets), port });
}

/** The canonical text of a socket address. */
export function formatAddress(address: SocketAddress): Address {
  const { octets, port } = address;
  assert(octets.length === 4 || octets.length === 16, "an IP address has 4 or 16 octets");
  if (octets.length === 4) return `${octets.join(".")}:${port}`;
  return `[${formatIpv6(octets)}]:${port}`;
}

/** Brings a text form of a socket address into the canonical one. */
export function canonicalAddress(text: string): Result<Address, AddressError> {
  const parsed = parseAddress(text);
  return parsed.ok ? success(formatAddress(parsed.value)) : parsed;
}

function parseIpv4(text: string): number[] | null {
  const parts = text.split(".");
  if (parts.length !== 4) return null;
  // A leading zero is refused: some parsers read it as octal.
  if (!parts.every((part) => /^(?:0|[1-9][0-9]{0,2})$/.test(part))) return null;
  const octets = parts.map(Number);
  return octets.every((octet) => octet <= 255) ? octets : null;
}

function parseIpv6(text: string): number[] | null {
  const halves = text.split("::");
  if (halves.length > 2) return null;
  const left = parseGroups(halves[0] ?? "", halves.length === 1);
  if (left === null) return null;
  if (halves.length === 1) return left.length === 16 ? left : null;
  const right = parseGroups(halves[1] ?? "", true);
  // `::` stands for at least one group.
  if (right === null || left.length + right.length > 14) return null;
  const zeros = Array.from({ length: 16 - left.length - right.length }, () => 0);
  return [...left, ...zeros, ...right];
}

/** The octets of colon-separated groups; the last may be a dotted IPv4 where `isEnd`. */
function parseGroups(text: string, isEnd: boolean): number[] | null {
  if (text === "") return [];
  const octets: number[] = [];
  const groups = text.split(":");
  for (const [index, group] of groups.entries()) {
    if (isEnd && index === groups.length - 1 && group.includes(".")) {
      const embedded = parseIpv4(group);
      if (embedded === null) return null;
      octets.push(...embedded);
    } else {
      if (!/^[0-9a-f]{1,4}$/.test(group)) return null;
      const value = Number.parseInt(group, 16);
      octets.push(value >> 8, value & 255);
    }
  }
  return octets;
}

function formatIpv6(octets: Uint8Array): string {
  const groups: number[] = [];
  for (let at = 0; at < 16; at += 2) groups.push(((octets[at] ?? 0) << 8) | (octets[at + 1] ?? 0));
  if (groups.slice(0, 5).every((group) => group === 0) && groups[5] === 0xffff) {
    return `::ffff:${octets.subarray(12).join(".")}`;
  }
  const run = longestZeroRun(groups);
  const hex = (part: number[]) => part.map((group) => group.toString(16)).join(":");
  if (run.length < 2) return hex(groups);
  return `${hex(groups.slice(0, run.start))}::${hex(groups.slice(run.start + run.length))}`;
}

function longestZeroRun(groups: readonly number[]): { start: number; length: number } {
  let best = { start: 0, length: 0 };
  let length = 0;
  for (const [index, group] of groups.entries()) {
    length = group === 0 ? length + 1 : 0;
    if (length > best.length) best = { start: index - length + 1, length };
  }
  return best;
}
