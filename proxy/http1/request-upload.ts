/**
 * The request on its way to an upstream: the composed head, and the body as the client sends it,
 * with back-pressure and judged by its size and rate.
 *
 * What was sent is kept as long as it is short and may be repeated, so that it can be sent again to
 * another machine: in the head's memory what went with the head, in a block of its own what came later.
 */
import { commitRequest, FIRST_BODY_BYTES_MAX } from "./compose-request.ts";
import { BodyRate } from "./core/body-rate.ts";
import { Body, BODY } from "./core/body.ts";
import { isIdempotent } from "./core/methods.ts";
import type { RequestHead } from "./core/request-head.ts";
import type { Exchange } from "./exchange.ts";

/** The request side of one exchange; reused with it. */
export class RequestUpload {
  readonly body: Body;
  /** Whether the request has a body at all. */
  hasBody = false;
  /** Body bytes that left for an upstream, over all attempts: none, all still at hand, or gone. */
  bodySent: "none" | "kept" | "gone" = "none";
  /** The upstream takes no more for the moment: the client is not read. */
  isPaused = false;
  /** The client closed its sending side: it may be gone, or wait for the response. */
  hasClientEnded = false;

  readonly #exchange: Exchange;
  readonly #rate: BodyRate;
  #bodyBytes = 0;
  /** Body bytes that were sent after the first write; null = none, or none are kept. */
  #kept: Uint8Array | null = null;
  #keptBytes = 0;

  constructor(exchange: Exchange) {
    const { sizes, times } = exchange.parts.settings;
    this.#exchange = exchange;
    this.body = new Body(sizes.chunkOverheadBytesMax);
    this.#rate = new BodyRate({
      bytesPerSecondMin: sizes.bodyBytesPerSecondMin,
      graceMs: times.bodyGraceMs,
    });
  }

  /** Makes ready for a request; `null` = one without a head. */
  reset(head: RequestHead | null): void {
    this.bodySent = "none";
    this.isPaused = false;
    this.hasClientEnded = false;
    this.hasBody = false;
    this.#bodyBytes = 0;
    this.#rate.start();
    this.release();
    this.body.startNone();
    if (head === null) return;
    const { isChunked, contentLength } = head.framing;
    this.hasBody = isChunked || contentLength > 0;
    if (isChunked) this.body.startChunked();
    else if (contentLength > 0) this.body.startLength(contentLength);
  }

  /** The request will not be sent again. */
  release(): void {
    if (this.#kept !== null) this.#exchange.parts.keptBodies.give(this.#kept);
    this.#kept = null;
    this.#keptBytes = 0;
  }

  /** Whether so many body bytes are more than allowed. */
  isTooLarge(bytes: number): boolean {
    const { bodyBytesMax } = this.#exchange.parts.settings.sizes;
    return bodyBytesMax > 0 && bytes > bodyBytesMax;
  }

  /** First write on a pooled connection: head and, when it is short, the body at hand. */
  sendFirst(bytes: Buffer, bodyAt: number, end: number): number {
    const { requestSlab, writer } = this.#exchange.parts;
    const { record } = this.#exchange;
    let at = bodyAt;
    if (!this.body.isComplete && end > bodyAt && end - bodyAt <= FIRST_BODY_BYTES_MAX) {
      const stop = this.#take(bytes, bodyAt, end);
      if (stop < 0) return end;
      writer.put(bytes, bodyAt, stop);
      this.bodySent = "kept";
      at = stop;
    }
    record.head = requestSlab.commit(writer.at);
    this.pass(record.head);
    this.setDeadline();
    return at;
  }

  /** Sends what is kept of the request, then what has come of its body. */
  sendAgain(): void {
    const { record, parts, client } = this.#exchange;
    this.#rate.took(0, parts.deadlines.nowMs);
    const isWhole = this.bodySent === "kept";
    this.pass(isWhole ? record.head : record.head.subarray(0, record.headLength));
    // A copy: the block may serve another request before the network has taken it.
    if (this.#kept !== null) this.pass(this.#kept.slice(0, this.#keptBytes));
    this.setDeadline();
    if (!this.body.isComplete) client.flushHeld();
  }

  /** Body bytes from the client while there is an upstream; answers how far they were used up. */
  bytes(bytes: Buffer, start: number, end: number): number {
    const stop = this.#take(bytes, start, end);
    if (stop < 0) return end;
    this.bodySent = this.#keep(bytes, start, stop) ? "kept" : "gone";
    this.passOn(bytes, start, stop);
    this.setDeadline();
    return stop;
  }

  /** More of a long body is to come: it is worth a buffer of its own. */
  get isStreaming(): boolean {
    const { isComplete, kind, left } = this.body;
    return !isComplete && (kind !== BODY.length || left > COPIED_BODY_BYTES_MAX);
  }

  /** Writes bytes as they were read from the client, copied if the next read may change them. */
  passOn(bytes: Buffer, start: number, end: number): void {
    const { client, connection } = this.#exchange;
    const piece = bytes.subarray(start, end);
    if (client.isLent(bytes)) return this.pass(Buffer.from(piece));
    this.pass(piece);
    if (connection?.isCongested === true) client.releaseBytes(bytes);
  }

  /** Writes to the upstream, and stops reading the client while it does not keep up. */
  pass(bytes: Uint8Array): void {
    const { connection, parts, client } = this.#exchange;
    if (connection === null || connection.write(bytes) || this.isPaused) return;
    this.isPaused = true;
    this.#rate.rest(parts.deadlines.nowMs);
    client.setReading(false);
  }

  /** The upstream took what was held back, or there is another one. */
  drained(): void {
    if (!this.isPaused) return;
    this.isPaused = false;
    this.#rate.took(0, this.#exchange.parts.deadlines.nowMs);
    this.#exchange.client.setReading(true);
  }

  /** The deadline while the request is on its way, or the response to it is awaited. */
  setDeadline(): void {
    const { client, parts, phase } = this.#exchange;
    const { times } = parts.settings;
    if (phase !== "sent") return client.setDeadline(times.stalledBodyMs);
    if (this.body.isComplete) {
      return client.setDeadline(this.hasClientEnded ? times.halfClosedMs : times.responseHeadMs);
    }
    const slowMs = this.isPaused ? Infinity : this.#rate.leftMs;
    client.setDeadline(Math.min(times.stalledBodyMs, slowMs));
  }

  /** Keeps body bytes that are about to be sent; false = what was sent cannot be sent again. */
  #keep(bytes: Buffer, start: number, end: number): boolean {
    const { parts, phase, record } = this.#exchange;
    if (this.bodySent === "gone") return false;
    const keptBytes = this.#keptBytes + end - start;
    if (phase === "sent" && isIdempotent(record.methodId)) {
      this.#kept ??= parts.keptBodies.take(keptBytes);
      if (this.#kept !== null && keptBytes <= this.#kept.length) {
        bytes.copy(this.#kept, this.#keptBytes, start, end);
        this.#keptBytes = keptBytes;
        return true;
      }
    }
    this.release();
    return false;
  }

  /** Judges body bytes: where they end, -1 = refused, and the request is over. */
  #take(bytes: Buffer, start: number, end: number): number {
    const exchange = this.#exchange;
    const { parts, record } = exchange;
    const stop = this.body.advance(bytes, start, end);
    if (stop < 0) {
      parts.settings.observer.parseRefused("client", this.body.refusal);
      return this.#refuse(this.body.refusal);
    }
    record.bytesIn += stop - start;
    this.#bodyBytes += stop - start;
    this.#rate.took(stop - start, parts.deadlines.nowMs);
    return this.isTooLarge(this.#bodyBytes) ? this.#refuse("REQUEST_BODY_TOO_LARGE") : stop;
  }

  #refuse(code: Parameters<Exchange["fail"]>[0]): number {
    const exchange = this.#exchange;
    commitRequest(exchange.parts, exchange.record);
    exchange.isClientPersistent = false;
    exchange.abandon("aborted", "aborted");
    exchange.fail(code);
    return -1;
  }
}

/** A body with no more than this to come is copied. */
const COPIED_BODY_BYTES_MAX = 16_384;
