/**
 * Why bytes are no message: the codes the strict parsers refuse with. `proxy/errors.ts` gives each
 * its meaning and HTTP status.
 */
export type RefusalCode =
  | "HEAD_SYNTAX"
  | "HEAD_TOO_LARGE"
  | "HEAD_FOLDED"
  | "HEAD_BARE_CR"
  | "HEAD_BARE_LF"
  | "HEAD_SPACE_BEFORE_COLON"
  | "HEAD_NAME"
  | "HEAD_VALUE"
  | "HEAD_TOO_MANY_LINES"
  | "REQUEST_LINE"
  | "REQUEST_METHOD_REFUSED"
  | "REQUEST_TARGET"
  | "REQUEST_TARGET_TOO_LONG"
  | "REQUEST_VERSION"
  | "REQUEST_HOST_MISSING"
  | "REQUEST_HOST_DUPLICATE"
  | "REQUEST_HOST"
  | "REQUEST_EXPECT"
  | "STATUS_LINE"
  | "STATUS_SWITCH"
  | "FRAMING_BOTH"
  | "FRAMING_LENGTH"
  | "FRAMING_CODING"
  | "FRAMING_CODING_UNKNOWN"
  | "BODY_CHUNK_SIZE"
  | "BODY_CHUNK_EXTENSION"
  | "BODY_CHUNK_END"
  | "BODY_TRAILER"
  | "BODY_OVERHEAD";
