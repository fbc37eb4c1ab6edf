/**
 * Error codes of the QUIC transport. None of them reaches an HTTP client. Hostile packets and
 * frames never become errors of the transport: they are counted in `stats`, and at most break the
 * one stream or connection they arrived on.
 */

/**
 * A peer cannot be dialled: no answer within the connect timeout, it hung up during the handshake,
 * or dialling it is being held back after repeated failures (`details.retryAfterMs`). No connection
 * exists; nothing was delivered. Retryable later.
 */
export const TRANSPORT_CONNECT = "TRANSPORT_CONNECT";

/**
 * The stream, its connection or the whole transport is closed (`details.reason`). What was sent but
 * not answered may or may not have arrived. Retryable on a stream opened anew.
 */
export const TRANSPORT_CLOSED = "TRANSPORT_CLOSED";

/**
 * A bound was hit: connections, streams, queued bytes, or the size of a frame
 * (`details.limit` names it). What was refused was not queued; for an oversized incoming frame the
 * stream is reset. Retryable when load falls, except for a frame that is too large.
 */
export const TRANSPORT_LIMIT = "TRANSPORT_LIMIT";

/**
 * A certificate was refused, by us or by the peer (`details.reason` says why: expired, unknown
 * authority, wrong address), or our own PEMs cannot be used. The connection is closed. Not
 * retryable until somebody repairs a certificate.
 */
export const TRANSPORT_TLS = "TRANSPORT_TLS";

/**
 * The UDP socket cannot be bound: the address is in use, not ours, or not an address. Nothing was
 * started. Not retryable without a change of the config or of what else runs.
 */
export const TRANSPORT_BIND = "TRANSPORT_BIND";
