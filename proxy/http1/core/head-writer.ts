/**
 * Request heads on their way out: the received block copied as byte ranges, minus what may not pass, plus
 * what a proxy has to say (RFC 9110 section 7.6).
 *
 * The writer has a source (the received head) and a target with room enough; nothing is decoded and
 * lines keep their order, spelling and bytes. Ours come last.
 */
import {
  bytesOf,
  eachListElement,
  equalsIgnoringCase,
  IS_REQUEST_ID,
  SPACE,
  TAB,
} from "./bytes.ts";
import { dropNominated } from "./connection-header.ts";
import { NAME_ID, STRIDE, VALUE_END, VALUE_START, type HeaderLines } from "./header-lines.ts";
import { NAME } from "./header-names.ts";
import type { RequestHead } from "./request-head.ts";
import { isTraceparent } from "./trace-context.ts";

/** What is the same for all connections of one listener. */
export interface ListenerBlock {
  readonly proto: Uint8Array;
  readonly port: Uint8Array;
  /** What follows the client's address in the lines of a peer whose values are replaced. */
  readonly lines: Uint8Array;
  /** What follows the client's address in our element of Forwarded (RFC 7239), up to the host. */
  readonly forwarded: Uint8Array;
}

/** What is the same for all requests of one client connection: no bytes of its own. */
export interface PeerBlock {
  /** Values sent by this peer are kept and appended to. */
  readonly isTrusted: boolean;
  readonly keepsRequestId: boolean;
  /** An IP literal or `unknown`. */
  readonly address: string;
  readonly listener: ListenerBlock;
  readonly writesForwarded: boolean;
}

/** Makes a `ListenerBlock`. `proto` is `http` or `https`, `port` the listener's. */
export function createListenerBlock(proto: string, port: number): ListenerBlock {
  return {
    proto: bytesOf(proto),
    port: bytesOf(String(port)),
    lines: bytesOf(`\r\nx-forwarded-proto: ${proto}\r\nx-forwarded-port: ${port}\r\n`),
    forwarded: bytesOf(`;proto=${proto}`),
  };
}

/** Copies ranges of a source and other bytes into a target, one after the other. */
export class HeadWriter {
  source: Uint8Array = EMPTY;
  /** Where the head starts in the source. */
  base = 0;
  target: Uint8Array = EMPTY;
  /** Where the next byte goes. */
  at = 0;
  /** Where the request id was written in the target. */
  idStart = 0;
  idEnd = 0;
  /** `via: 1.x NAME` by minor version of what was received. */
  readonly via: readonly [Uint8Array, Uint8Array];

  constructor(viaName: string) {
    this.via = [bytesOf(`via: 1.0 ${viaName}\r\n`), bytesOf(`via: 1.1 ${viaName}\r\n`)];
  }

  /** Copies source offsets `start..end`, counted from the head's first byte. */
  copy(start: number, end: number): void {
    this.put(this.source, this.base + start, this.base + end);
  }

  /** Copies a range of other bytes. */
  put(bytes: Uint8Array, start: number, end: number): void {
    const length = end - start;
    if (length > LOOP_BYTES_MAX) this.target.set(bytes.subarray(start, end), this.at);
    else {
      for (let index = 0; index < length; index += 1) {
        this.target[this.at + index] = bytes[start + index] as number;
      }
    }
    this.at += length;
  }

  /** Writes a text of Latin-1. */
  text(text: string): void {
    for (let index = 0; index < text.length; index += 1) {
      this.target[this.at + index] = text.charCodeAt(index);
    }
    this.at += text.length;
  }

  /** Copies all of some bytes. */
  all(bytes: Uint8Array): void {
    this.put(bytes, 0, bytes.length);
  }
}

/**
 * Most bytes that `writeRequestHead` adds to a head: the peer's lines with an IPv6 address, Via,
 * request id, and a Host in place of none. Host and X-Forwarded-For values come on top.
 */
export const REQUEST_ADDED_BYTES_MAX = 1024;

/** What a request head is written with besides the head itself. */
export interface RequestParts {
  readonly peer: PeerBlock;
  /** Request id to use when none is kept. */
  readonly freshId: Uint8Array;
  /** Host for requests that came without (HTTP/1.0). */
  readonly defaultHost: Uint8Array;
  /** Starts a trace (W3C Trace Context) where there is none; without it the headers just pass. */
  readonly traces?: TraceSource | null;
}

/** Makes values of `traceparent`: bytes that change with the next call. */
export interface TraceSource {
  next(): Uint8Array;
}

/** Writes the head of a request as it goes to an upstream, always HTTP/1.1. */
export function writeRequestHead(out: HeadWriter, head: RequestHead, parts: RequestParts): void {
  const { lines, target } = head;
  let from = head.lineStart;
  if (target.isAbsolute || head.minor === 0) {
    out.copy(head.lineStart, head.methodEnd + 1);
    if (target.pathStart === target.pathEnd) out.all(ROOT);
    else out.copy(target.pathStart, target.pathEnd);
    out.all(REQUEST_VERSION);
    from = lines.count > 0 ? (lines.entries[0] as number) : lines.end;
  }
  if (head.connection.hasNominations) dropNominated(out.source, out.base, lines);
  const traces = parts.traces ?? null;
  const hasTrace = traces === null || keepsTrace(out, lines);
  let idLine = -1;
  let hasForwarding = false;
  let takesTrailers = false;
  for (let index = 0; index < lines.count; index += 1) {
    const name = lines.entries[index * STRIDE + NAME_ID] as number;
    if (name === NAME.other || !isDroppedFromRequest(name, head)) continue;
    if (isKept(name, parts.peer, hasTrace)) continue;
    if (name === NAME.xRequestId) idLine = idLine === -1 ? index : -2;
    else if (name === NAME.te) takesTrailers ||= listsTrailers(out, lines, index);
    else if (name >= NAME.xForwardedFor && name <= NAME.xForwardedPort) hasForwarding = true;
    out.copy(from, lines.entries[index * STRIDE] as number);
    from = lines.lineEnd(index);
  }
  out.copy(from, lines.end);
  if (hasForwarding && parts.peer.isTrusted) appendForwarding(out, head, parts.peer);
  else {
    out.all(X_FORWARDED_FOR);
    out.text(parts.peer.address);
    out.all(parts.peer.listener.lines);
    if (target.hostEnd > target.hostStart) putHost(out, head, X_FORWARDED_HOST);
  }
  if (parts.peer.writesForwarded) putForwarded(out, head, parts.peer);
  if (!hasTrace && traces !== null) putLine(out, TRACEPARENT, traces.next());
  if (target.isAbsolute) putHost(out, head, HOST);
  else if (target.hostEnd === target.hostStart) putLine(out, HOST, parts.defaultHost);
  if (head.connection.isUpgrade && head.minor === 1) out.all(CONNECTION_UPGRADE);
  else if (takesTrailers) out.all(TE_TRAILERS);
  out.all(out.via[head.minor as 0 | 1]);
  putRequestId(out, { lines, index: idLine }, parts);
  out.all(HEAD_END);
}

/** Whether a Via line of the source names us: the request has been here before. */
export function hasVia(out: HeadWriter, lines: HeaderLines, name: string): boolean {
  const { source: bytes, base } = out;
  const lowerName = name.toLowerCase();
  let found = false;
  for (let index = 0; index < lines.count; index += 1) {
    if (lines.entries[index * STRIDE + NAME_ID] !== NAME.via) continue;
    eachListElement(bytes, valueRange(base, lines, index), (start, end) => {
      let at = start;
      while (at < end && !isBlank(bytes[at])) at += 1;
      while (at < end && isBlank(bytes[at])) at += 1;
      let stop = at;
      while (stop < end && !isBlank(bytes[stop])) stop += 1;
      found ||= equalsIgnoringCase(bytes, { start: at, end: stop }, lowerName);
      return !found;
    });
  }
  return found;
}

function isDroppedFromRequest(name: number, head: RequestHead): boolean {
  switch (name) {
    case NAME.contentLength:
    case NAME.transferEncoding:
    case NAME.via:
    case NAME.trailer:
    case NAME.proxyAuthenticate:
      return false;
    case NAME.host:
      return head.target.isAbsolute;
    case NAME.upgrade:
      return !head.connection.isUpgrade || head.minor === 0;
    case NAME.expect:
      return head.minor === 0;
    default:
      return true;
  }
}

/** Whether a line that is nearly always dropped stays for this peer or trace. */
function isKept(name: number, peer: PeerBlock, hasTrace: boolean): boolean {
  if (name === NAME.traceparent || name === NAME.tracestate) return hasTrace;
  return name === NAME.forwarded && peer.isTrusted && !peer.writesForwarded;
}

/** Whether there is one valid traceparent; else its tracestate means nothing either. */
function keepsTrace(out: HeadWriter, lines: HeaderLines): boolean {
  let valid = 0;
  let all = 0;
  eachLine(lines, NAME.traceparent, (index) => {
    const { start, end } = valueRange(out.base, lines, index);
    valid += isTraceparent(out.source, start, end) ? 1 : 0;
    all += 1;
  });
  return all === 1 && valid === 1;
}

/** Forwarded with our element last; only a trusted peer's elements stay before it. */
function putForwarded(out: HeadWriter, head: RequestHead, peer: PeerBlock): void {
  const { hostStart, hostEnd } = head.target;
  out.all(FORWARDED);
  if (peer.isTrusted) {
    eachLine(head.lines, NAME.forwarded, (index) => {
      copyValue(out, head.lines, index);
      out.all(LIST_COMMA);
    });
  }
  out.all(FORWARDED_FOR);
  out.text(peer.address.includes(":") ? `"[${peer.address}]"` : peer.address);
  out.all(peer.listener.forwarded);
  if (hostEnd > hostStart) {
    out.all(FORWARDED_HOST);
    out.copy(hostStart, hostEnd);
    out.all(QUOTE);
  }
  out.all(LINE_END);
}

/** A trusted peer's values are kept: For is appended to, the others stand when they are there. */
function appendForwarding(out: HeadWriter, head: RequestHead, peer: PeerBlock): void {
  const { lines } = head;
  const seen = new Set<number>();
  out.all(X_FORWARDED_FOR);
  eachLine(lines, NAME.xForwardedFor, (index) => {
    copyValue(out, lines, index);
    out.all(LIST_COMMA);
  });
  out.text(peer.address);
  out.all(LINE_END);
  for (const [name, prefix] of KEPT_FORWARDING) {
    eachLine(lines, name, (index) => {
      if (seen.has(name)) return;
      seen.add(name);
      out.all(prefix);
      copyValue(out, lines, index);
      out.all(LINE_END);
    });
  }
  if (!seen.has(NAME.xForwardedProto)) putLine(out, X_FORWARDED_PROTO, peer.listener.proto);
  if (!seen.has(NAME.xForwardedPort)) putLine(out, X_FORWARDED_PORT, peer.listener.port);
  const { hostStart, hostEnd } = head.target;
  if (!seen.has(NAME.xForwardedHost) && hostEnd > hostStart) putHost(out, head, X_FORWARDED_HOST);
}

function putRequestId(
  out: HeadWriter,
  line: { readonly lines: HeaderLines; readonly index: number },
  parts: RequestParts,
): void {
  out.all(X_REQUEST_ID);
  out.idStart = out.at;
  if (line.index >= 0 && parts.peer.keepsRequestId && isGoodId(out, line.lines, line.index)) {
    copyValue(out, line.lines, line.index);
  } else out.all(parts.freshId);
  out.idEnd = out.at;
}

function isGoodId(out: HeadWriter, lines: HeaderLines, index: number): boolean {
  const { start, end } = valueRange(out.base, lines, index);
  if (end === start || end - start > REQUEST_ID_BYTES_MAX) return false;
  for (let at = start; at < end; at += 1) {
    if (IS_REQUEST_ID[out.source[at] as number] === 0) return false;
  }
  return true;
}

function listsTrailers(out: HeadWriter, lines: HeaderLines, index: number): boolean {
  return !eachListElement(
    out.source,
    valueRange(out.base, lines, index),
    (start, end) => !equalsIgnoringCase(out.source, { start, end }, "trailers"),
  );
}

function putHost(out: HeadWriter, head: RequestHead, prefix: Uint8Array): void {
  out.all(prefix);
  out.copy(head.target.hostStart, head.target.hostEnd);
  out.all(LINE_END);
}

function putLine(out: HeadWriter, prefix: Uint8Array, value: Uint8Array): void {
  out.all(prefix);
  out.all(value);
  out.all(LINE_END);
}

function copyValue(out: HeadWriter, lines: HeaderLines, index: number): void {
  const line = index * STRIDE;
  out.copy(lines.entries[line + VALUE_START] as number, lines.entries[line + VALUE_END] as number);
}

function eachLine(lines: HeaderLines, name: number, visit: (index: number) => void): void {
  for (let index = 0; index < lines.count; index += 1) {
    if (lines.entries[index * STRIDE + NAME_ID] === name) visit(index);
  }
}

function valueRange(
  base: number,
  lines: HeaderLines,
  index: number,
): { start: number; end: number } {
  const line = index * STRIDE;
  return {
    start: base + (lines.entries[line + VALUE_START] as number),
    end: base + (lines.entries[line + VALUE_END] as number),
  };
}

function isBlank(byte: number | undefined): boolean {
  return byte === SPACE || byte === TAB;
}

const EMPTY = new Uint8Array(0);
/** Below this a loop is cheaper than making a view and calling into the engine (measured). */
const LOOP_BYTES_MAX = 48;
/** Longer ids are replaced: they would be copied into every answer and log line. */
export const REQUEST_ID_BYTES_MAX = 128;
const ROOT = bytesOf("/");
const REQUEST_VERSION = bytesOf(" HTTP/1.1\r\n");
const HOST = bytesOf("host: ");
const X_FORWARDED_FOR = bytesOf("x-forwarded-for: ");
const X_FORWARDED_HOST = bytesOf("x-forwarded-host: ");
const X_FORWARDED_PROTO = bytesOf("x-forwarded-proto: ");
const X_FORWARDED_PORT = bytesOf("x-forwarded-port: ");
const X_REQUEST_ID = bytesOf("x-request-id: ");
const FORWARDED = bytesOf("forwarded: ");
const FORWARDED_FOR = bytesOf("for=");
const FORWARDED_HOST = bytesOf(';host="');
const QUOTE = bytesOf('"');
const TRACEPARENT = bytesOf("traceparent: ");
const CONNECTION_UPGRADE = bytesOf("connection: upgrade\r\n");
const TE_TRAILERS = bytesOf("te: trailers\r\nconnection: te\r\n");
const LIST_COMMA = bytesOf(", ");
const LINE_END = bytesOf("\r\n");
const HEAD_END = bytesOf("\r\n\r\n");
const KEPT_FORWARDING: readonly (readonly [number, Uint8Array])[] = [
  [NAME.xForwardedProto, X_FORWARDED_PROTO],
  [NAME.xForwardedHost, X_FORWARDED_HOST],
  [NAME.xForwardedPort, X_FORWARDED_PORT],
];
