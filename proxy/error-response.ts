/**
 * The only place where an error becomes an HTTP response.
 *
 * A short plain text with the stable code, the same code in `patina-error`, and the request id, so
 * that a user's report leads to the log line. It tells nothing of machines or addresses.
 */
import { PROXY_ERRORS, type ProxyErrorCode } from "./errors.ts";

/** What the response to one failed request depends on. */
export interface ErrorResponseOptions {
  readonly code: ProxyErrorCode;
  /** Sent as `x-request-id` unless empty. */
  readonly requestId: string;
  /** Our name in Via. */
  readonly viaName: string;
  /** The connection goes on after it: decides about `Connection: close`. */
  readonly isPersistent: boolean;
  /** HTTP/1.0 has to be told that its connection goes on. */
  readonly httpMinor: number;
  /** Lines of the listener's own, each with its CRLF. */
  readonly addedLines: string;
  /** The answer to HEAD has no body. */
  readonly isHead: boolean;
}

/** Status that goes with a code; the table says 0 where none can be sent. */
export function statusOf(code: ProxyErrorCode): number {
  return PROXY_ERRORS[code].status;
}

/** The whole response as bytes. Call it only for codes with a status. */
export function errorResponse(options: ErrorResponseOptions): Buffer {
  const { status, meaning } = PROXY_ERRORS[options.code];
  const body = `${status} ${options.code}: ${meaning}\n`;
  const lines = [
    `HTTP/1.1 ${status} ${REASONS[status] ?? "Error"}`,
    "content-type: text/plain; charset=utf-8",
    `content-length: ${body.length}`,
    `patina-error: ${options.code}`,
    `via: 1.1 ${options.viaName}`,
  ];
  if (options.requestId !== "") lines.push(`x-request-id: ${options.requestId}`);
  if (status === 503) lines.push("retry-after: 1");
  if (status === 405) lines.push("allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
  if (!options.isPersistent) lines.push("connection: close");
  else if (options.httpMinor === 0) lines.push("connection: keep-alive");
  const head = `${lines.join("\r\n")}\r\n${options.addedLines}\r\n`;
  return Buffer.from(options.isHead ? head : head + body, "latin1");
}

/** Reason phrases of the statuses in the table (RFC 9110 section 15, RFC 6585). */
const REASONS: Readonly<Record<number, string>> = {
  400: "Bad Request",
  404: "Not Found",
  405: "Method Not Allowed",
  408: "Request Timeout",
  413: "Content Too Large",
  414: "URI Too Long",
  417: "Expectation Failed",
  431: "Request Header Fields Too Large",
  501: "Not Implemented",
  502: "Bad Gateway",
  503: "Service Unavailable",
  504: "Gateway Timeout",
  505: "HTTP Version Not Supported",
  508: "Loop Detected",
};
