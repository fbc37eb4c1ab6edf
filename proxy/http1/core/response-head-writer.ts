/**
 * Response heads on their way out to the client: the received block copied as byte ranges, minus
 * what may not pass, plus Via, the request id, and what we say of the connection.
 */
import { bytesOf } from "./bytes.ts";
import { dropNominated } from "./connection-header.ts";
import type { HeadWriter } from "./head-writer.ts";
import { NAME_ID, STRIDE } from "./header-lines.ts";
import { NAME } from "./header-names.ts";
import type { ResponseHead } from "./response-head.ts";

/** Most bytes that `writeResponseHead` adds, without request id and added lines. */
export const RESPONSE_ADDED_BYTES_MAX = 512;

/** What a response head is written with besides the head itself. */
export interface ResponseParts {
  /** Bytes with the request id and its range. */
  readonly id: { readonly bytes: Uint8Array; readonly start: number; readonly end: number };
  /** What Connection says: nothing, `close`, `keep-alive` (to HTTP/1.0) or `upgrade` (101). */
  readonly connection: Uint8Array;
  /** Lines of the listener's own, each with its CRLF; empty = none. */
  readonly addedLines: Uint8Array;
  /** Take out Transfer-Encoding: the body is sent without chunks to a client that knows none. */
  readonly dropsChunked: boolean;
}

/** Writes the head of a response as it goes to the client, always HTTP/1.1. */
export function writeResponseHead(out: HeadWriter, head: ResponseHead, parts: ResponseParts): void {
  const { lines } = head;
  let from = 0;
  if (head.minor === 0) {
    out.all(STATUS_VERSION);
    from = STATUS_VERSION.length;
  }
  if (head.connection.hasNominations) dropNominated(out.source, out.base, lines);
  for (let index = 0; index < lines.count; index += 1) {
    const name = lines.entries[index * STRIDE + NAME_ID] as number;
    if (name === NAME.other || !isDroppedFromResponse(name, head, parts)) continue;
    out.copy(from, lines.entries[index * STRIDE] as number);
    from = lines.lineEnd(index);
  }
  out.copy(from, lines.end);
  out.all(out.via[head.minor as 0 | 1]);
  out.all(X_REQUEST_ID);
  out.put(parts.id.bytes, parts.id.start, parts.id.end);
  out.all(LINE_END);
  out.all(parts.addedLines);
  out.all(parts.connection);
  out.all(LINE_END);
}

/** Values of the Connection header of a response. */
export const CONNECTION_NONE: Uint8Array = new Uint8Array(0);
export const CONNECTION_CLOSE = bytesOf("connection: close\r\n");
export const CONNECTION_KEEP_ALIVE = bytesOf("connection: keep-alive\r\n");
export const CONNECTION_UPGRADE = bytesOf("connection: upgrade\r\n");

function isDroppedFromResponse(name: number, head: ResponseHead, parts: ResponseParts): boolean {
  switch (name) {
    case NAME.nominated:
    case NAME.connection:
    case NAME.keepAlive:
    case NAME.proxyConnection:
    case NAME.proxyAuthenticate:
    case NAME.te:
    case NAME.xRequestId:
      return true;
    case NAME.upgrade:
      return head.status !== 101;
    case NAME.contentLength:
      return head.status < 200 || head.status === 204;
    case NAME.transferEncoding:
      return head.status < 200 || head.status === 204 || parts.dropsChunked;
    default:
      return false;
  }
}

const STATUS_VERSION = bytesOf("HTTP/1.1");
const X_REQUEST_ID = bytesOf("x-request-id: ");
const LINE_END = bytesOf("\r\n");
