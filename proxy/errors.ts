/**
 * Every way a request can fail, once: stable code, meaning, effect on state, whether trying again
 * can help, and the HTTP status a client sees. `error-response.ts` makes the answers from it.
 */
import type { RefusalCode } from "./http1/core/refusal.ts";
import type { NoPickCode } from "./types.ts";

/** A failure of the data plane that can reach a client. */
export type ProxyErrorCode = RefusalCode | NoPickCode | EngineErrorCode;

/** Failures that the engine itself finds. */
export type EngineErrorCode =
  | "ROUTE_QUEUE_TIMEOUT"
  | "UPSTREAM_CONNECT"
  | "UPSTREAM_CONNECT_TIMEOUT"
  | "UPSTREAM_RESET"
  | "UPSTREAM_RESPONSE"
  | "UPSTREAM_RESPONSE_TIMEOUT"
  | "UPSTREAM_STALLED"
  | "PROXY_LOOP"
  | "PROXY_SHUTDOWN"
  | "REQUEST_BODY_TOO_LARGE"
  | "CLIENT_CONNECTIONS"
  | "CLIENT_HEAD_TIMEOUT"
  | "CLIENT_BODY_TIMEOUT"
  | "CLIENT_BODY_STALLED"
  | "CLIENT_GONE"
  | "LISTEN_FAILED";

/** What is fixed about one code. */
export interface ProxyError {
  /** Status sent; 0 = never sent (the connection is closed instead). */
  readonly status: number;
  readonly meaning: string;
  /** What the engine does besides answering. */
  readonly effect: string;
  /** Whether the same request may succeed later. */
  readonly isRetryable: boolean;
}

const CLOSES = "The client connection is closed; nothing was sent to an upstream.";
const CUTS = "Both connections are closed; the upstream may have seen a part.";
const KEEPS = "None; the client connection is kept.";

/** The table of all codes. */
export const PROXY_ERRORS: Readonly<Record<ProxyErrorCode, ProxyError>> = {
  HEAD_SYNTAX: refused(400, "The head is not HTTP/1.1."),
  HEAD_TOO_LARGE: refused(431, "The head is larger than allowed."),
  HEAD_TOO_MANY_LINES: refused(431, "The head has more header lines than allowed."),
  HEAD_CONNECTION: refused(400, "Connection lists more names than allowed."),
  HEAD_FOLDED: refused(400, "A header line is folded or starts with a blank."),
  HEAD_BARE_CR: refused(400, "A CR without its LF."),
  HEAD_BARE_LF: refused(400, "A LF without its CR."),
  HEAD_SPACE_BEFORE_COLON: refused(400, "A blank between header name and colon."),
  HEAD_NAME: refused(400, "A header name has a byte outside tchar, or is empty."),
  HEAD_VALUE: refused(400, "A header value has a control character."),
  REQUEST_LINE: refused(400, "The request line is malformed."),
  REQUEST_METHOD_REFUSED: refused(405, "CONNECT and TRACE are not served."),
  REQUEST_TARGET: refused(400, "The request target is in no form allowed here."),
  REQUEST_TARGET_TOO_LONG: refused(414, "The request target is longer than allowed."),
  REQUEST_VERSION: refused(505, "The HTTP version is not 1.0 or 1.1."),
  REQUEST_HOST_MISSING: refused(400, "HTTP/1.1 without a Host, or an empty one."),
  REQUEST_HOST_DUPLICATE: refused(400, "More than one Host."),
  REQUEST_HOST: refused(400, "The Host is not a host with an optional port."),
  REQUEST_EXPECT: refused(417, "An expectation other than 100-continue."),
  STATUS_LINE: refused(502, "The upstream's status line is malformed."),
  STATUS_SWITCH: refused(502, "The upstream switched protocols unasked."),
  FRAMING_BOTH: refused(400, "Content-Length and Transfer-Encoding together."),
  FRAMING_LENGTH: refused(400, "Content-Length is malformed or repeated."),
  FRAMING_CODING: refused(400, "Transfer-Encoding does not end in one chunked."),
  FRAMING_CODING_UNKNOWN: refused(501, "A transfer coding besides chunked."),
  REQUEST_BODY_TOO_LARGE: { ...cut("The request body is larger than allowed."), status: 413 },
  BODY_CHUNK_SIZE: cut("A chunk size is malformed or too large."),
  BODY_CHUNK_EXTENSION: cut("A chunk extension has a control character."),
  BODY_CHUNK_END: cut("A chunk does not end in CRLF."),
  BODY_TRAILER: cut("A trailer is malformed or has a name that may not be there."),
  BODY_OVERHEAD: cut("More chunk extensions and trailers than allowed."),
  ROUTE_NO_APP: { status: 404, meaning: "No app has this host.", effect: KEEPS, isRetryable: true },
  ROUTE_NO_MACHINE: unavailable("The app has no machine that takes requests."),
  ROUTE_ALL_FULL: unavailable("All machines are at their hard limit, and so is the queue."),
  ROUTE_QUEUE_TIMEOUT: unavailable("All machines stayed at their hard limit for too long."),
  ROUTE_NOT_READY: unavailable("The routing table is not loaded yet."),
  UPSTREAM_CONNECT: upstream(502, "No machine could be connected to."),
  UPSTREAM_CONNECT_TIMEOUT: upstream(504, "Connecting to machines took too long."),
  UPSTREAM_RESET: upstream(502, "The machine closed the connection before it answered."),
  UPSTREAM_RESPONSE: upstream(502, "The machine's response is not valid HTTP/1.1."),
  UPSTREAM_RESPONSE_TIMEOUT: upstream(504, "The machine did not answer in time."),
  UPSTREAM_STALLED: {
    status: 0,
    meaning: "The machine stopped sending in the middle of a response.",
    effect: CUTS,
    isRetryable: true,
  },
  PROXY_LOOP: {
    status: 508,
    meaning: "The request has been through this edge before (Via).",
    effect: KEEPS,
    isRetryable: false,
  },
  PROXY_SHUTDOWN: unavailable("The edge is draining and out of time."),
  CLIENT_HEAD_TIMEOUT: refused(408, "The request head did not arrive in time."),
  CLIENT_BODY_TIMEOUT: {
    ...cut("The request body stopped arriving, or came too slowly."),
    status: 408,
  },
  CLIENT_CONNECTIONS: {
    status: 503,
    meaning: "The client has as many connections open as it may.",
    effect: "The connection is closed as it arrives; with TLS without an answer.",
    isRetryable: true,
  },
  CLIENT_BODY_STALLED: {
    ...cut("The client stopped reading the response, or read it too slowly."),
    status: 0,
  },
  LISTEN_FAILED: {
    status: 0,
    meaning: "The listening socket could not be bound or taken over.",
    effect: "The data plane does not start.",
    isRetryable: true,
  },
  CLIENT_GONE: { ...cut("The client closed its connection first."), status: 0 },
};

function refused(status: number, meaning: string): ProxyError {
  return { status, meaning, effect: CLOSES, isRetryable: false };
}

function cut(meaning: string): ProxyError {
  return { status: 400, meaning, effect: CUTS, isRetryable: false };
}

function unavailable(meaning: string): ProxyError {
  return { status: 503, meaning, effect: KEEPS, isRetryable: true };
}

function upstream(status: number, meaning: string): ProxyError {
  const effect = "The upstream connection is closed; failed connects exclude the machine.";
  return { status, meaning, effect, isRetryable: true };
}
