/** The transport error codes of RFC 9000, section 20.1, as far as an endpoint here gives them. */

/** All is well; also what a close without an error says. */
export const NO_ERROR = 0x0;
/** The peer sent more than it was allowed to. */
export const FLOW_CONTROL_ERROR = 0x3;
/** The peer opened more streams than it was allowed to. */
export const STREAM_LIMIT_ERROR = 0x4;
/** A frame for a stream that cannot have it, e.g. bytes on a stream that only we send on. */
export const STREAM_STATE_ERROR = 0x5;
/** The end of a stream moved, or bytes lie behind it. */
export const FINAL_SIZE_ERROR = 0x6;
/** A frame that cannot be read, or of an unknown type. */
export const FRAME_ENCODING_ERROR = 0x7;
/** Transport parameters that cannot be read, or say what must not be said. */
export const TRANSPORT_PARAMETER_ERROR = 0x8;
/** More connection ids than were asked for. */
export const CONNECTION_ID_LIMIT_ERROR = 0x9;
/** Any other breach of the protocol. */
export const PROTOCOL_VIOLATION = 0xa;
/** What a transport-level close says in place of an application's code during the handshake. */
export const APPLICATION_ERROR = 0xc;
/** More handshake bytes out of order than we keep. */
export const CRYPTO_BUFFER_EXCEEDED = 0xd;
