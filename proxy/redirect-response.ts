/** The answer that sends a plain request on to HTTPS. */

/** What it depends on. */
export interface RedirectOptions {
  /** Host without its port. */
  readonly host: string;
  /** Where HTTPS is served, as clients see it. */
  readonly port: number;
  /** Path and query as they were asked for. */
  readonly target: string;
  /** GET and HEAD: others must be repeated with their method and body. */
  readonly isSafe: boolean;
  readonly requestId: string;
  /** Our name in Via. */
  readonly viaName: string;
  readonly isPersistent: boolean;
  readonly httpMinor: number;
}

/** Status of the redirect (RFC 9110 sections 15.4.2, 15.4.9). */
export function redirectStatus(isSafe: boolean): number {
  return isSafe ? 301 : 308;
}

/** The whole response as bytes; it has no body. */
export function redirectResponse(options: RedirectOptions): Buffer {
  const { host, port, isSafe } = options;
  const authority = port === HTTPS_PORT ? host : `${host}:${port}`;
  const lines = [
    `HTTP/1.1 ${isSafe ? "301 Moved Permanently" : "308 Permanent Redirect"}`,
    `location: https://${authority}${options.target}`,
    "content-length: 0",
    `via: 1.1 ${options.viaName}`,
    `x-request-id: ${options.requestId}`,
  ];
  if (!options.isPersistent) lines.push("connection: close");
  else if (options.httpMinor === 0) lines.push("connection: keep-alive");
  return Buffer.from(`${lines.join("\r\n")}\r\n\r\n`, "latin1");
}

/**
 * Certificate authorities fetch this over plain HTTP (RFC 8555 section 8.3): were it sent on to
 * HTTPS, a first certificate could not be had.
 */
export function isAcmeChallenge(target: string): boolean {
  return target.startsWith("/.well-known/acme-challenge/");
}

const HTTPS_PORT = 443;
