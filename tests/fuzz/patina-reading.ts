/**
 * What Patina's parsers make of bytes, and what it would pass on: the pure parts of the engine, in
 * the order in which an exchange uses them, without sockets.
 */
import { Body, BODY } from "../../proxy/http1/core/body.ts";
import { bytesOf } from "../../proxy/http1/core/bytes.ts";
import {
  createListenerBlock,
  HeadWriter,
  writeRequestHead,
  type PeerBlock,
} from "../../proxy/http1/core/head-writer.ts";
import { DONE, MORE } from "../../proxy/http1/core/header-lines.ts";
import { RequestHead } from "../../proxy/http1/core/request-head.ts";
import {
  CONNECTION_CLOSE,
  CONNECTION_NONE,
  CONNECTION_UPGRADE,
  writeResponseHead,
} from "../../proxy/http1/core/response-head-writer.ts";
import { ResponseHead } from "../../proxy/http1/core/response-head.ts";
import { DEFAULT_SIZES } from "../../proxy/http1/engine.ts";

/** How a reading ended: with the bytes, in the middle of a message, or at a refusal. */
export type Ending = "whole" | "open" | { readonly refused: string };

/** One message that Patina accepts and passes on. */
export interface PassedMessage {
  /** `""` in a response. */
  readonly method: string;
  /** As received, and as passed on. */
  readonly target: string;
  readonly targetOut: string;
  /** Host as passed on. */
  readonly host: string;
  /** 0 in a request. */
  readonly status: number;
  /** Its decoded body as far as it came. */
  readonly body: string;
  readonly isComplete: boolean;
  /** Its rest was refused: the connections are cut, and nobody takes it for whole. */
  readonly isRefused: boolean;
  /** The sender may send another message on the connection. */
  readonly isPersistent: boolean;
  /** Bytes that leave for the other side: in requests for an upstream, in responses for a client. */
  readonly out: Buffer;
  /** One after its last byte. */
  readonly end: number;
}

/** All that was read of one connection. */
export interface PatinaReading {
  readonly messages: readonly PassedMessage[];
  readonly ending: Ending;
}

/** What a response answers. */
export interface ResponseContext {
  readonly method: string;
  readonly clientMinor: 0 | 1;
  readonly wantsUpgrade: boolean;
}

/** Both parsers, used again for each reading. */
export class PatinaReader {
  readonly #request = new RequestHead(DEFAULT_SIZES);
  readonly #response = new ResponseHead(DEFAULT_SIZES);
  readonly #writer = new HeadWriter("patina-fuzz");
  readonly #body = new Body(DEFAULT_SIZES.chunkOverheadBytesMax);
  #bytes: Buffer = Buffer.alloc(0);
  /** Where the pieces end in which the bytes are given to the parsers. */
  #cuts: readonly number[] = [];
  #data = "";

  /**
   * Reads all requests of one connection. The bytes are given piece by piece, cut at `cuts`
   * (ascending, inside the bytes).
   */
  requests(bytes: Buffer, cuts: readonly number[] = []): PatinaReading {
    this.#bytes = bytes;
    this.#cuts = cuts;
    const messages: PassedMessage[] = [];
    for (let at = 0; at < bytes.length;) {
      this.#request.reset();
      const verdict = this.#parse(this.#request, at);
      if (verdict === MORE) return { messages, ending: "open" };
      if (verdict !== DONE) return { messages, ending: { refused: this.#request.refusal } };
      const head = this.#request;
      const out = this.#requestHead(at);
      const { isChunked, contentLength } = head.framing;
      if (isChunked) this.#body.startChunked(this.#onData);
      else if (contentLength > 0) this.#body.startLength(contentLength);
      else this.#body.startNone();
      const bodyAt = at + head.length;
      const stop = this.#advance(bodyAt);
      messages.push(this.#passedRequest(at, bodyAt, { stop, out }));
      if (stop < 0) return { messages, ending: { refused: this.#body.refusal } };
      if (!this.#body.isComplete) return { messages, ending: "open" };
      if (!head.isPersistent) return { messages, ending: "whole" };
      at = stop;
    }
    return { messages, ending: "whole" };
  }

  /** Reads interim responses and the final one; what follows is not looked at. */
  responses(bytes: Buffer, about: ResponseContext, cuts: readonly number[] = []): PatinaReading {
    this.#bytes = bytes;
    this.#cuts = cuts;
    const messages: PassedMessage[] = [];
    for (let at = 0; ;) {
      this.#response.reset();
      const verdict = this.#parse(this.#response, at);
      if (verdict === MORE) return { messages, ending: "open" };
      const head = this.#response;
      if (verdict !== DONE) return { messages, ending: { refused: head.refusal } };
      if (head.status === 101 && !about.wantsUpgrade) {
        return { messages, ending: { refused: "STATUS_SWITCH" } };
      }
      const bodyAt = at + head.length;
      if (head.status < 200) {
        this.#body.startNone();
        this.#data = "";
        if (about.clientMinor === 1 || head.status === 101) {
          messages.push(this.#passedResponse(at, bodyAt, { about, stop: bodyAt }));
        }
        if (head.status === 101) return { messages, ending: "whole" };
        at = bodyAt;
        continue;
      }
      this.#startResponseBody(about);
      const stop = this.#advance(bodyAt);
      if (stop >= 0) this.#body.endOfStream();
      messages.push(this.#passedResponse(at, bodyAt, { about, stop }));
      if (stop < 0) return { messages, ending: { refused: this.#body.refusal } };
      return { messages, ending: this.#body.isComplete ? "whole" : "open" };
    }
  }

  #parse(head: RequestHead | ResponseHead, at: number): number {
    for (const cut of this.#cuts) {
      if (cut <= at) continue;
      const verdict = head.parse(this.#bytes, at, cut);
      if (verdict !== MORE) return verdict;
    }
    return head.parse(this.#bytes, at, this.#bytes.length);
  }

  /** Goes through the body: where it ends, or the bytes do; -1 = refused. */
  #advance(from: number): number {
    const { kind } = this.#body;
    this.#data = "";
    let at = from;
    for (const cut of this.#cuts) {
      if (cut <= at || this.#body.isComplete) continue;
      at = this.#body.advance(this.#bytes, at, cut);
      if (at < 0) return -1;
    }
    at = this.#body.advance(this.#bytes, at, this.#bytes.length);
    if (at >= 0 && kind !== BODY.chunked) this.#data = this.#bytes.toString("latin1", from, at);
    return at;
  }

  readonly #onData = (start: number, end: number): void => {
    this.#data += this.#bytes.toString("latin1", start, end);
  };

  #requestHead(at: number): Buffer {
    const out = this.#writer;
    out.source = this.#bytes;
    out.base = at;
    out.target = Buffer.allocUnsafe(this.#request.length * 2 + 2_048);
    out.at = 0;
    writeRequestHead(out, this.#request, { peer: PEER, freshId: ID, defaultHost: DEFAULT_HOST });
    return out.target.subarray(0, out.at) as Buffer;
  }

  #passedRequest(
    at: number,
    bodyAt: number,
    { stop, out }: { readonly stop: number; readonly out: Buffer },
  ): PassedMessage {
    const head = this.#request;
    const { target } = head;
    const slice = (from: number, to: number) => this.#bytes.toString("latin1", at + from, at + to);
    return {
      method: slice(head.lineStart, head.methodEnd),
      target: slice(head.methodEnd + 1, head.targetEnd),
      targetOut: slice(target.pathStart, target.pathEnd) || "/",
      host: slice(target.hostStart, target.hostEnd) || "fallback",
      status: 0,
      body: this.#data,
      isComplete: stop >= 0 && this.#body.isComplete,
      isRefused: stop < 0,
      isPersistent: head.isPersistent,
      out: stop < 0 ? out : Buffer.concat([out, this.#bytes.subarray(bodyAt, stop)]),
      end: stop < 0 ? bodyAt : stop,
    };
  }

  /** How the end of the body is found, as in the engine's relay. */
  #startResponseBody(about: ResponseContext): void {
    const { framing, isBodiless } = this.#response;
    if (about.method === "HEAD" || isBodiless) this.#body.startNone();
    else if (framing.isChunked) this.#body.startChunked(this.#onData);
    else if (framing.contentLength >= 0) this.#body.startLength(framing.contentLength);
    else this.#body.startUntilClose();
  }

  #passedResponse(
    at: number,
    bodyAt: number,
    { about, stop }: { readonly about: ResponseContext; readonly stop: number },
  ): PassedMessage {
    const head = this.#response;
    const { kind } = this.#body;
    const dropsChunked = kind === BODY.chunked && about.clientMinor === 0;
    const isFinal = head.status >= 200;
    const isPersistent = about.clientMinor === 1 && kind !== BODY.untilClose;
    let connection = CONNECTION_NONE;
    if (head.status === 101) connection = CONNECTION_UPGRADE;
    else if (isFinal && !isPersistent) connection = CONNECTION_CLOSE;
    const out = this.#writer;
    out.source = this.#bytes;
    out.base = at;
    out.target = Buffer.allocUnsafe(head.length + 1_024);
    out.at = 0;
    const id = { bytes: ID, start: 0, end: ID.length };
    writeResponseHead(out, head, { id, addedLines: NONE, connection, dropsChunked });
    const headOut = out.target.subarray(0, out.at) as Buffer;
    const bodyOut = dropsChunked
      ? Buffer.from(this.#data, "latin1")
      : this.#bytes.subarray(bodyAt, Math.max(bodyAt, stop));
    return {
      method: "",
      target: "",
      targetOut: "",
      host: "",
      status: head.status,
      body: isFinal ? this.#data : "",
      isComplete: stop >= 0 && this.#body.isComplete,
      isRefused: stop < 0,
      isPersistent,
      out: Buffer.concat([headOut, bodyOut]),
      end: Math.max(bodyAt, stop),
    };
  }
}

const ID = bytesOf("0123456789ab");
const NONE = new Uint8Array(0);
const DEFAULT_HOST = bytesOf("fallback");
const PEER: PeerBlock = {
  isTrusted: false,
  keepsRequestId: true,
  address: "192.0.2.1",
  listener: createListenerBlock("http", 80),
  writesForwarded: false,
};
