/**
 * The header that a load balancer puts before a connection's own bytes to say whose it is: PROXY
 * protocol, version 1 (a line of text) and 2 (binary).
 *
 *   v1: PROXY TCP4|TCP6|UNKNOWN source target sourcePort targetPort CRLF      at most 107 bytes
 *   v2: signature (12) | version, command (1) | family (1) | length (2) | addresses | extensions
 *
 * Source: haproxy.org, doc/proxy-protocol.txt, sections 2.1 and 2.2. Extensions of version 2 are
 * skipped; what is neither TCP over IPv4 nor over IPv6 says nothing of the client.
 */

/** What the bytes so far come to. */
export type ProxyHeader =
  | { readonly kind: "more" }
  | { readonly kind: "refused" }
  /** `length`: bytes of the header; `address`: the client's, `null` where it does not say. */
  | { readonly kind: "done"; readonly length: number; readonly address: string | null };

/** Reads a header from the first byte of a connection. Any bytes are answered, none throws. */
export function readProxyHeader(bytes: Uint8Array): ProxyHeader {
  if (bytes.length === 0) return MORE;
  return bytes[0] === SIGNATURE[0] ? readBinary(bytes) : readText(bytes);
}

function readText(bytes: Uint8Array): ProxyHeader {
  const last = Math.min(bytes.length, TEXT_BYTES_MAX);
  for (let at = 0; at < last; at += 1) {
    if (at < PREFIX.length && bytes[at] !== PREFIX.charCodeAt(at)) return REFUSED;
    if (bytes[at] !== 0x0a) continue;
    if (bytes[at - 1] !== 0x0d) return REFUSED;
    const line = String.fromCharCode(...bytes.subarray(PREFIX.length, at - 1));
    return readLine(line, at + 1);
  }
  return bytes.length >= TEXT_BYTES_MAX ? REFUSED : MORE;
}

function readLine(line: string, length: number): ProxyHeader {
  if (line === "UNKNOWN" || line.startsWith("UNKNOWN ")) {
    return { kind: "done", length, address: null };
  }
  const [family, address = "", target = "", ...ports] = line.split(" ");
  const isAddress = family === "TCP4" ? isIpv4 : family === "TCP6" ? isIpv6 : () => false;
  if (!isAddress(address) || !isAddress(target)) return REFUSED;
  if (ports.length !== 2 || !ports.every(isPort)) return REFUSED;
  return { kind: "done", length, address: address.toLowerCase() };
}

function readBinary(bytes: Uint8Array): ProxyHeader {
  const known = Math.min(bytes.length, SIGNATURE.length);
  for (let at = 0; at < known; at += 1) if (bytes[at] !== SIGNATURE[at]) return REFUSED;
  if (bytes.length < FIXED_BYTES) return MORE;
  const [versionAndCommand = 0, family = 0, high = 0, low = 0] = bytes.subarray(12, FIXED_BYTES);
  const length = FIXED_BYTES + high * 256 + low;
  const command = versionAndCommand & 0x0f;
  if (versionAndCommand >> 4 !== 2 || command > 1) return REFUSED;
  if (length > BINARY_BYTES_MAX) return REFUSED;
  if (bytes.length < length) return MORE;
  // LOCAL: the balancer's own connection, a health check for one.
  if (command === 0) return { kind: "done", length, address: null };
  if (family === TCP_IPV4) {
    if (length < FIXED_BYTES + 12) return REFUSED;
    return { kind: "done", length, address: bytes.subarray(16, 20).join(".") };
  }
  if (family === TCP_IPV6) {
    if (length < FIXED_BYTES + 36) return REFUSED;
    return { kind: "done", length, address: ipv6Text(bytes.subarray(16, 32)) };
  }
  return { kind: "done", length, address: null };
}

/** The longest run of zero groups abbreviated, as RFC 5952 has it. */
function ipv6Text(bytes: Uint8Array): string {
  const groups: string[] = [];
  for (let at = 0; at < 16; at += 2) {
    groups.push(((bytes[at] as number) * 256 + (bytes[at + 1] as number)).toString(16));
  }
  let best = { start: 0, length: 0 };
  for (let start = 0; start < 8; start += 1) {
    let length = 0;
    while (groups[start + length] === "0") length += 1;
    if (length > best.length) best = { start, length };
  }
  if (best.length < 2) return groups.join(":");
  const before = groups.slice(0, best.start).join(":");
  return `${before}::${groups.slice(best.start + best.length).join(":")}`;
}

function isIpv4(text: string): boolean {
  return /^(?:(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(?:\.(?!$)|$)){4}$/.test(text);
}

/** Up to eight groups of hex digits, one run of them abbreviated. IPv4 tails are not written. */
function isIpv6(text: string): boolean {
  const halves = text.split("::");
  if (halves.length > 2) return false;
  const groups = halves.flatMap((half) => (half === "" ? [] : half.split(":")));
  if (!groups.every((group) => /^[0-9a-fA-F]{1,4}$/.test(group))) return false;
  return halves.length === 2 ? groups.length < 8 : groups.length === 8;
}

function isPort(text: string): boolean {
  return /^(?:0|[1-9]\d{0,4})$/.test(text) && Number(text) <= 65_535;
}

const MORE: ProxyHeader = { kind: "more" };
const REFUSED: ProxyHeader = { kind: "refused" };
const PREFIX = "PROXY ";
const TEXT_BYTES_MAX = 107;
const SIGNATURE = new Uint8Array([13, 10, 13, 10, 0, 13, 10, 81, 85, 73, 84, 10]);
const FIXED_BYTES = 16;
/** Room for extensions such as a client certificate's name; the format allows 64 KiB. */
const BINARY_BYTES_MAX = 4_096;
const TCP_IPV4 = 0x11;
const TCP_IPV6 = 0x21;
