/**
 * The header names that mean something to a proxy, as small numbers.
 *
 * A name is classified once, while its line is scanned: by length first, so that nearly all other
 * names cost one table look-up.
 */
import { startsIgnoringCase } from "./bytes.ts";

/** Number of a header name; `other` passes untouched. */
export const NAME = {
  other: 0,
  /** Dropped for a reason found in another line (listed in Connection). */
  nominated: 1,
  host: 2,
  contentLength: 3,
  transferEncoding: 4,
  connection: 5,
  keepAlive: 6,
  proxyConnection: 7,
  te: 8,
  upgrade: 9,
  expect: 10,
  http2Settings: 11,
  proxyAuthenticate: 12,
  proxyAuthorization: 13,
  via: 14,
  xForwardedFor: 15,
  xForwardedProto: 16,
  xForwardedHost: 17,
  xForwardedPort: 18,
  xRequestId: 19,
  trailer: 20,
  forwarded: 21,
  traceparent: 22,
  tracestate: 23,
} as const;

const NAMES: readonly (readonly [string, number])[] = [
  ["host", NAME.host],
  ["content-length", NAME.contentLength],
  ["transfer-encoding", NAME.transferEncoding],
  ["connection", NAME.connection],
  ["keep-alive", NAME.keepAlive],
  ["proxy-connection", NAME.proxyConnection],
  ["te", NAME.te],
  ["upgrade", NAME.upgrade],
  ["expect", NAME.expect],
  ["http2-settings", NAME.http2Settings],
  ["proxy-authenticate", NAME.proxyAuthenticate],
  ["proxy-authorization", NAME.proxyAuthorization],
  ["via", NAME.via],
  ["x-forwarded-for", NAME.xForwardedFor],
  ["x-forwarded-proto", NAME.xForwardedProto],
  ["x-forwarded-host", NAME.xForwardedHost],
  ["x-forwarded-port", NAME.xForwardedPort],
  ["x-request-id", NAME.xRequestId],
  ["trailer", NAME.trailer],
  ["forwarded", NAME.forwarded],
  ["traceparent", NAME.traceparent],
  ["tracestate", NAME.tracestate],
];

const LONGEST = Math.max(...NAMES.map(([text]) => text.length));
const BY_LENGTH: readonly (readonly (readonly [string, number])[])[] = Array.from(
  { length: LONGEST + 1 },
  (_, length) => NAMES.filter(([text]) => text.length === length),
);

/** The number of the name in a range, `NAME.other` when it is none of ours. */
export function nameOf(bytes: Uint8Array, start: number, end: number): number {
  const length = end - start;
  if (length > LONGEST) return NAME.other;
  const candidates = BY_LENGTH[length] as readonly (readonly [string, number])[];
  for (let index = 0; index < candidates.length; index += 1) {
    const candidate = candidates[index] as readonly [string, number];
    if (startsIgnoringCase(bytes, start, candidate[0])) return candidate[1];
  }
  return NAME.other;
}

/**
 * Whether a Connection header may make a proxy drop this name. Framing, routing and what we say of
 * the client may not be talked away: naming them there is a known way to bypass checks behind us.
 */
export function isNominable(name: number): boolean {
  switch (name) {
    case NAME.host:
    case NAME.contentLength:
    case NAME.transferEncoding:
    case NAME.expect:
    case NAME.te:
    case NAME.via:
    case NAME.xForwardedFor:
    case NAME.xForwardedProto:
    case NAME.xForwardedHost:
    case NAME.xForwardedPort:
    case NAME.xRequestId:
    case NAME.forwarded:
      return false;
    default:
      return true;
  }
}

/** Whether a trailer section may not carry this name (RFC 9110 section 6.5.1). */
export function isForbiddenTrailer(name: number): boolean {
  return name !== NAME.other && name !== NAME.nominated;
}
