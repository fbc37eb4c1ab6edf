/**
 * The head of a request as it goes to an upstream, composed once in memory that all requests of the
 * thread share: sent from there, kept there until the upstream answers.
 */
import { bytesOf } from "./core/bytes.ts";
import { REQUEST_ADDED_BYTES_MAX, writeRequestHead, type PeerBlock } from "./core/head-writer.ts";
import type { RequestHead } from "./core/request-head.ts";
import type { EngineParts } from "./engine-parts.ts";
import type { Window } from "./exchange-client.ts";
import type { RequestRecord } from "./request-record.ts";

/** What a head is composed from. */
export interface RequestSource {
  readonly head: RequestHead;
  /** Where it was received. */
  readonly window: Window;
  readonly peer: PeerBlock;
}

/** Composes the head into `record.head`, with room behind it for a short body in the same write. */
export function composeRequest(
  parts: EngineParts,
  record: RequestRecord,
  { head, window, peer }: RequestSource,
): void {
  const { writer, requestSlab, ids } = parts;
  const bodyRoom = Math.min(window.end - window.start - head.length, FIRST_BODY_BYTES_MAX);
  requestSlab.reserve(head.length * 2 + REQUEST_ADDED_BYTES_MAX + bodyRoom);
  writer.source = window.bytes;
  writer.base = window.start;
  writer.target = requestSlab.bytes;
  writer.at = requestSlab.at;
  writeRequestHead(writer, head, {
    peer,
    freshId: ids.next(),
    defaultHost: DEFAULT_HOST,
    traces: parts.traces,
  });
  record.idStart = writer.idStart - requestSlab.at;
  record.idEnd = writer.idEnd - requestSlab.at;
  record.headLength = writer.at - requestSlab.at;
  record.head = requestSlab.bytes.subarray(requestSlab.at, writer.at);
}

/** The composed head is used later: nobody else may write there. */
export function commitRequest(parts: EngineParts, record: RequestRecord): void {
  const { requestSlab } = parts;
  const end = record.head.byteOffset + record.head.length;
  if (record.head.buffer === requestSlab.bytes.buffer && end > requestSlab.at) {
    requestSlab.at = end;
  }
}

/** Bodies up to this size at hand with the head are copied behind it: one write instead of two. */
export const FIRST_BODY_BYTES_MAX = 16_384;
/** RFC 9112 section 3.2: an HTTP/1.1 request has a Host, if only an unhelpful one. */
const DEFAULT_HOST = bytesOf("unknown");
