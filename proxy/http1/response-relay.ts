/**
 * The response on its way from an upstream to the client: head judged and edited, body passed on as
 * it comes, with back-pressure.
 *
 * What arrives together leaves together: a head and the body bytes behind it are one write. Longer
 * bodies are read into a buffer of their own and written from there without a copy.
 */
import { Body, BODY } from "./core/body.ts";
import { BodyRate } from "./core/body-rate.ts";
import {
  CONNECTION_CLOSE,
  CONNECTION_KEEP_ALIVE,
  CONNECTION_NONE,
  CONNECTION_UPGRADE,
  RESPONSE_ADDED_BYTES_MAX,
  writeResponseHead,
} from "./core/response-head-writer.ts";
import { DONE, MORE } from "./core/header-lines.ts";
import { METHOD } from "./core/methods.ts";
import type { RefusalCode } from "./core/refusal.ts";
import type { ResponseHead } from "./core/response-head.ts";
import type { Window } from "./exchange-client.ts";
import type { Exchange } from "./exchange.ts";
import { Tunnel } from "./tunnel.ts";

/** The response side of one exchange; reused with it. */
export class ResponseRelay {
  /** The upstream is not read because the client is behind. */
  isPaused = false;
  readonly tunnel: Tunnel;

  readonly #exchange: Exchange;
  readonly #body: Body;
  #head: ResponseHead | null = null;
  /** A head that has not come whole. */
  #partial: Buffer | null = null;
  #isUpstreamPersistent = false;
  #isPersistent = false;
  /** The client knows no chunks: data ranges of the bytes at hand go here. */
  #ranges: number[] | null = null;
  /** How fast the client takes what it is behind with. */
  readonly #rate: BodyRate;
  #isBehind = false;
  /** Bytes of the response that the network had taken when it was last looked at. */
  #takenBytes = 0;
  /** When nothing will have moved for too long. */
  #stalledAtMs = 0;

  constructor(exchange: Exchange) {
    const { sizes, times } = exchange.parts.settings;
    this.#exchange = exchange;
    this.tunnel = new Tunnel(exchange);
    this.#body = new Body(sizes.chunkOverheadBytesMax);
    this.#rate = new BodyRate({
      bytesPerSecondMin: sizes.responseBytesPerSecondMin,
      graceMs: times.bodyGraceMs,
    });
  }

  get hasPartialHead(): boolean {
    return this.#partial !== null;
  }

  /** The response waits for the client, not for the machine. */
  get isClientBehind(): boolean {
    return this.isPaused || this.#exchange.client.pendingBytes > 0;
  }

  reset(): void {
    this.isPaused = false;
    this.#isBehind = false;
    this.#takenBytes = 0;
    this.#rate.start();
    this.#partial = null;
    this.#ranges = null;
    this.#giveHead();
  }

  /** Bytes from the upstream, valid during the call. */
  bytes(bytes: Buffer, start: number, end: number): void {
    const { phase } = this.#exchange;
    if (phase === "answering") this.#passBody(bytes, start, end);
    else if (phase === "sent") this.#takeHeads({ bytes, start, end });
    else if (phase === "tunnel" && !this.tunnel.pass(bytes, start, end)) this.#pause();
  }

  /** The upstream's stream has ended. */
  ended(): void {
    if (this.#body.endOfStream()) this.#complete(false);
    else this.broken();
  }

  /** The upstream is gone in the middle of the response. */
  broken(systemCode = ""): void {
    this.#exchange.record.cause = systemCode;
    this.#exchange.record.retrySkipped = "response-started";
    this.#exchange.abandon("failed", "reset-mid-response");
    this.#exchange.fail("UPSTREAM_RESET");
  }

  /** The client has taken what was held back. */
  clientDrained(): void {
    if (!this.isPaused) return;
    this.isPaused = false;
    this.#setBodyDeadline();
    this.#exchange.connection?.resume();
  }

  /** Whether the deadline is to be kept to: a client that was behind may have caught up unseen. */
  isLate(): boolean {
    const { client, parts } = this.#exchange;
    const leftMs = this.#stalledAtMs - parts.deadlines.nowMs;
    if (client.pendingBytes > 0 || leftMs <= 0) return true;
    this.#judgeClient(0);
    client.setDeadline(leftMs);
    return false;
  }

  /** Interim responses, then the final head. */
  #takeHeads(window: Window): void {
    if (this.#partial !== null) {
      const arrived = window.bytes.subarray(window.start, window.end);
      window.bytes = Buffer.concat([this.#partial, arrived]);
      window.start = 0;
      window.end = window.bytes.length;
      this.#partial = null;
    }
    const exchange = this.#exchange;
    while (exchange.phase === "sent") {
      this.#head ??= exchange.parts.responseHeads.take();
      const head = this.#head;
      const verdict = head.parse(window.bytes, window.start, window.end);
      if (verdict === MORE) {
        if (window.end > window.start) {
          this.#partial = Buffer.from(window.bytes.subarray(window.start, window.end));
        }
        return;
      }
      if (verdict !== DONE) return this.#refuse(head.refusal);
      if (head.status >= 200) return this.#answer(head, window);
      if (head.status === 101) return this.#switch(head, window);
      this.#passInterim(head, window);
    }
  }

  #passInterim(head: ResponseHead, window: Window): void {
    const exchange = this.#exchange;
    // RFC 9110 section 15.2: never to an HTTP/1.0 client.
    if (exchange.record.httpMinor === 1) this.#writeHead(head, window, CONNECTION_NONE);
    window.start += head.length;
    head.reset();
  }

  #answer(head: ResponseHead, window: Window): void {
    const exchange = this.#exchange;
    const { parts } = exchange;
    const bodyAt = window.start + head.length;
    this.#startBody(head);
    const stop = this.#body.advance(window.bytes, bodyAt, window.end);
    if (stop < 0) return this.#refuse(this.#body.refusal);
    exchange.record.firstByteMs = exchange.record.elapsedMs();
    exchange.record.status = head.status;
    this.#isUpstreamPersistent = head.isPersistent && stop === window.end;
    this.#isPersistent =
      exchange.isClientPersistent &&
      exchange.upload.body.isComplete &&
      !parts.isDraining &&
      this.#body.kind !== BODY.untilClose &&
      this.#ranges === null;
    exchange.phase = "answering";
    exchange.upload.release();
    window.end = stop;
    this.#writeHead(head, window, this.#connectionValue());
    this.#giveHead();
    if (exchange.phase !== "answering") return;
    if (this.#body.isComplete) return this.#complete(true);
    const { connection } = exchange;
    if (connection !== null) {
      connection.isStreaming =
        this.#body.kind !== BODY.length || this.#body.left > COPIED_BODY_BYTES_MAX;
    }
    this.#setBodyDeadline();
  }

  /** How the end of the body is found (RFC 9112 section 6.3). */
  #startBody(head: ResponseHead): void {
    const { framing } = head;
    if (this.#exchange.record.methodId === METHOD.head || head.isBodiless) this.#body.startNone();
    else if (framing.isChunked) {
      if (this.#exchange.record.httpMinor === 1) this.#body.startChunked();
      else {
        const ranges: number[] = [];
        this.#ranges = ranges;
        this.#body.startChunked((start, end) => ranges.push(start, end));
      }
    } else if (framing.contentLength >= 0) this.#body.startLength(framing.contentLength);
    else this.#body.startUntilClose();
  }

  #connectionValue(): Uint8Array {
    if (!this.#isPersistent) return CONNECTION_CLOSE;
    return this.#exchange.record.httpMinor === 0 ? CONNECTION_KEEP_ALIVE : CONNECTION_NONE;
  }

  /** One write: the edited head and the body bytes of the same window. */
  #writeHead(head: ResponseHead, window: Window, connection: Uint8Array): void {
    const exchange = this.#exchange;
    const { writer, responseSlab } = exchange.parts;
    const bodyAt = window.start + head.length;
    const bodyBytes = head.status < 200 ? 0 : window.end - bodyAt;
    const idBytes = exchange.record.idEnd - exchange.record.idStart;
    const addedBytes = RESPONSE_ADDED_BYTES_MAX + idBytes + exchange.client.addedLines.length;
    responseSlab.reserve(head.length + addedBytes + bodyBytes);
    writer.source = window.bytes;
    writer.base = window.start;
    writer.target = responseSlab.bytes;
    writer.at = responseSlab.at;
    writeResponseHead(writer, head, {
      id: {
        bytes: exchange.record.head,
        start: exchange.record.idStart,
        end: exchange.record.idEnd,
      },
      addedLines: exchange.client.addedLines,
      connection,
      dropsChunked: this.#ranges !== null,
    });
    if (this.#ranges !== null) this.#putRanges(window.bytes);
    else if (bodyBytes > 0) writer.put(window.bytes, bodyAt, window.end);
    this.#send(responseSlab.commit(writer.at));
  }

  /** Writes bytes of the response slab; they are free again when the network took them. */
  #send(taken: Buffer): void {
    const { client, parts } = this.#exchange;
    this.#exchange.record.bytesOut += taken.length;
    if (taken.length === 0) return;
    const keepsUp = client.write(taken);
    if (client.pendingBytes === 0) parts.responseSlab.rewind(taken);
    else if (!keepsUp) this.#pause();
  }

  #passBody(bytes: Buffer, start: number, end: number): void {
    const exchange = this.#exchange;
    const { connection, client, parts } = exchange;
    const stop = this.#body.advance(bytes, start, end);
    if (stop < 0) {
      parts.settings.observer.parseRefused("upstream", this.#body.refusal);
      exchange.record.cause = this.#body.refusal;
      exchange.record.retrySkipped = "response-started";
      exchange.abandon("failed", "bad-response");
      return exchange.fail("UPSTREAM_RESPONSE");
    }
    if (stop < end) this.#isUpstreamPersistent = false;
    if (this.#ranges === null && connection !== null && connection.ownsBytes(bytes)) {
      exchange.record.bytesOut += stop - start;
      const keepsUp = client.write(bytes.subarray(start, stop));
      if (client.pendingBytes > 0) connection.releaseBytes();
      if (!keepsUp) this.#pause();
    } else {
      const { writer, responseSlab } = parts;
      responseSlab.reserve(stop - start);
      writer.target = responseSlab.bytes;
      writer.at = responseSlab.at;
      if (this.#ranges === null) writer.put(bytes, start, stop);
      else this.#putRanges(bytes);
      this.#send(responseSlab.commit(writer.at));
    }
    if (exchange.phase !== "answering") return;
    if (this.#body.isComplete) this.#complete(true);
    else this.#setBodyDeadline();
  }

  #putRanges(bytes: Buffer): void {
    const ranges = this.#ranges as number[];
    for (let index = 0; index < ranges.length; index += 2) {
      this.#exchange.parts.writer.put(bytes, ranges[index] as number, ranges[index + 1] as number);
    }
    ranges.length = 0;
  }

  /** 101: from here on bytes pass both ways without being looked at. */
  #switch(head: ResponseHead, window: Window): void {
    const exchange = this.#exchange;
    if (!exchange.wantsUpgrade || !exchange.upload.body.isComplete) {
      return this.#refuse("STATUS_SWITCH");
    }
    exchange.record.status = 101;
    exchange.phase = "tunnel";
    exchange.record.firstByteMs = exchange.record.elapsedMs();
    this.#writeHead(head, window, CONNECTION_UPGRADE);
    const restAt = window.start + head.length;
    this.tunnel.start(head.connection.isWebSocket);
    this.#giveHead();
    this.tunnel.touch();
    if (window.end > restAt) this.bytes(window.bytes, restAt, window.end);
    if (exchange.parts.isClosing) this.tunnel.leave();
    exchange.client.flushHeld();
  }

  #pause(): void {
    if (this.isPaused) return;
    this.isPaused = true;
    this.#exchange.connection?.pause();
  }

  #setBodyDeadline(): void {
    if (this.#exchange.phase === "tunnel") return this.tunnel.touch();
    const { client, parts } = this.#exchange;
    const { stalledBodyMs } = parts.settings.times;
    const pending = client.pendingBytes;
    this.#stalledAtMs = parts.deadlines.nowMs + stalledBodyMs;
    const isJudged = pending > 0 || this.#isBehind;
    const leftMs = isJudged ? this.#judgeClient(pending) : Infinity;
    client.setDeadline(Math.min(stalledBodyMs, leftMs));
  }

  /** Milliseconds until a client that has so much to take yet is too slow. */
  #judgeClient(pendingBytes: number): number {
    const { parts, record } = this.#exchange;
    const { nowMs } = parts.deadlines;
    const takenBytes = record.bytesOut - pendingBytes;
    this.#rate.took(this.#isBehind ? takenBytes - this.#takenBytes : 0, nowMs);
    this.#takenBytes = takenBytes;
    this.#isBehind = pendingBytes > 0;
    if (this.#isBehind) return this.#rate.leftMsFor(pendingBytes);
    this.#rate.rest(nowMs);
    return Infinity;
  }

  #complete(isStreamOpen: boolean): void {
    if (this.isPaused) this.#exchange.connection?.resume();
    this.#exchange.complete(isStreamOpen && this.#isUpstreamPersistent, this.#isPersistent);
  }

  #refuse(code: RefusalCode): void {
    this.#exchange.parts.settings.observer.parseRefused("upstream", code);
    this.#giveHead();
    this.#exchange.record.cause = code;
    this.#exchange.record.retrySkipped = "response-started";
    this.#exchange.abandon("failed", "bad-response");
    this.#exchange.fail("UPSTREAM_RESPONSE");
  }

  #giveHead(): void {
    if (this.#head === null) return;
    this.#exchange.parts.responseHeads.give(this.#head);
    this.#head = null;
  }
}

/** A body with no more than this to come is copied; a longer one is worth a buffer of its own. */
const COPIED_BODY_BYTES_MAX = 16_384;
