/**
 * One request and its response: picks an upstream, sends the head, passes bodies both ways, answers
 * errors. A client connection has one exchange and uses it again for each request.
 *
 *   idle ─► connecting ─► sent ─► answering ─► idle
 *             │  ▲          │         │
 *             └──┘ next     └► again  └► tunnel (after 101)
 *
 * It decides with the cores (`core/retry.ts`, `core/body.ts`, the parsers) and acts through two
 * narrow interfaces: `ExchangeClient` towards the client, `UpstreamConnection` towards the machine.
 */
import { errorResponse, statusOf } from "../error-response.ts";
import type { ProxyErrorCode } from "../errors.ts";
import type { AttemptOutcome, AttemptResult, Upstream } from "../types.ts";
import { isAcmeChallenge, redirectResponse, redirectStatus } from "../redirect-response.ts";
import type { UpstreamConnection, UpstreamOwner } from "../upstream/upstream-connection.ts";
import { commitRequest, composeRequest, FIRST_BODY_BYTES_MAX } from "./compose-request.ts";
import { BodyRate } from "./core/body-rate.ts";
import { Body } from "./core/body.ts";
import { hasVia } from "./core/head-writer.ts";
import { isIdempotent, METHOD } from "./core/methods.ts";
import type { RequestHead } from "./core/request-head.ts";
import { decideRetry } from "./core/retry.ts";
import type { EngineParts } from "./engine-parts.ts";
import type { ExchangeClient, Window } from "./exchange-client.ts";
import { RequestRecord } from "./request-record.ts";
import { ResponseRelay } from "./response-relay.ts";

type Phase = "idle" | "connecting" | "sent" | "answering" | "tunnel";

/** One request at a time of one client connection. */
export class Exchange implements UpstreamOwner {
  /** Facts of the request; also the view that routers and observers see. */
  readonly record: RequestRecord;
  readonly parts: EngineParts;
  readonly client: ExchangeClient;
  phase: Phase = "idle";
  connection: UpstreamConnection | null = null;
  readonly requestBody: Body;
  /** The client wants to keep its connection. */
  isClientPersistent = false;
  wantsUpgrade = false;

  readonly #relay: ResponseRelay;
  readonly #bodyRate: BodyRate;
  #bodyBytes = 0;
  #hasBody = false;
  #bodySent: "none" | "kept" | "gone" = "none";
  #wasRepeated = false;
  #wasMoved = false;
  /** An upload waits for the upstream to take more. */
  #isUploadPaused = false;
  /** The client closed its sending side: it may be gone, or wait for the response. */
  #hasClientEnded = false;
  #connectUntilMs = 0;
  /** What the last failed attempt would be answered with. */
  #lastCode: ProxyErrorCode | null = null;

  constructor(parts: EngineParts, client: ExchangeClient) {
    this.parts = parts;
    this.client = client;
    this.record = new RequestRecord(client.address);
    this.requestBody = new Body(parts.settings.sizes.chunkOverheadBytesMax);
    this.#bodyRate = new BodyRate({
      bytesPerSecondMin: parts.settings.sizes.bodyBytesPerSecondMin,
      graceMs: parts.settings.times.bodyGraceMs,
    });
    this.#relay = new ResponseRelay(this);
  }

  /**
   * Starts with a parsed head at `window.start`. Answers how far the window was used up: what
   * follows is body that has to wait, or the next request.
   */
  start(head: RequestHead, window: Window): number {
    const { settings } = this.parts;
    this.#reset(head);
    this.record.start(head, window.bytes, window.start);
    const bodyAt = window.start + head.length;
    settings.observer.turnStarted(window);
    composeRequest(this.parts, this.record, { head, window, peer: this.client.peer });
    let at = bodyAt;
    if (head.hasViaLine && hasVia(this.parts.writer, head.lines, settings.forwarding.viaName)) {
      this.fail("PROXY_LOOP");
    } else if (this.client.redirectPort !== null && !isAcmeChallenge(this.record.target)) {
      this.#redirect(this.client.redirectPort);
    } else if (isOver(head.framing.contentLength, settings.sizes.bodyBytesMax)) {
      this.fail("REQUEST_BODY_TOO_LARGE");
    } else {
      this.#connectUntilMs = this.parts.deadlines.nowMs + settings.times.connectTotalMs;
      if (this.#attempt()) {
        at = this.#sendFirst(window.bytes, bodyAt, window.end);
      }
    }
    settings.observer.turnEnded();
    return at;
  }

  /** A head that was refused, or did not come in time: answered and counted like a request. */
  refuse(code: ProxyErrorCode, startedAtMs: number): void {
    this.#clear();
    this.record.clear(startedAtMs);
    this.record.head = Buffer.from(this.parts.ids.next());
    this.record.idEnd = this.record.head.length;
    this.fail(code);
  }

  /** Body bytes from the client; answers how far they were used up. */
  requestBytes(bytes: Buffer, start: number, end: number): number {
    if (this.phase === "tunnel") {
      this.record.bytesIn += end - start;
      this.#pass(bytes.subarray(start, end));
      this.#relay.tunnel.touch();
      return end;
    }
    const { requestBody } = this;
    if ((this.phase !== "sent" && this.phase !== "answering") || requestBody.isComplete) {
      return start;
    }
    const stop = requestBody.advance(bytes, start, end);
    if (stop < 0) {
      this.parts.settings.observer.parseRefused("client", requestBody.refusal);
      this.abandon("aborted", "aborted");
      this.fail(requestBody.refusal);
      return end;
    }
    if (!this.#countBody(stop - start)) return end;
    this.#bodySent = "gone";
    this.#pass(bytes.subarray(start, stop));
    this.#setSentDeadline();
    return stop;
  }

  /** The client closed its sending side. */
  clientEnded(): void {
    this.#hasClientEnded = true;
    if (this.phase === "tunnel") this.connection?.end();
    else if (!this.requestBody.isComplete) this.client.cut();
    else if (this.phase === "sent") this.#setSentDeadline();
  }

  /** The client's connection is gone. */
  clientClosed(): void {
    if (this.phase === "idle") return;
    const wasTunnel = this.phase === "tunnel";
    if (wasTunnel) this.abandon("answered", "answered");
    else this.abandon("aborted", "aborted");
    if (!wasTunnel && this.record.errorCode === "") this.record.errorCode = "CLIENT_GONE";
    this.#report();
  }

  /** The edge is draining: a tunnel is told so, a request just finishes. */
  drain(): void {
    if (this.phase === "tunnel") this.#relay.tunnel.leave();
  }

  /** The client took everything that was held back. */
  clientDrained(): void {
    this.#relay.clientDrained();
  }

  /** The deadline of the current step has passed. */
  onDeadline(): void {
    switch (this.phase) {
      case "connecting":
        this.#connectFailed("ETIMEDOUT");
        break;
      case "sent":
        if (this.#hasClientEnded) return this.client.cut();
        this.#answerLate();
        break;
      case "answering": {
        const isClients = this.#relay.isPaused;
        this.abandon(isClients ? "aborted" : "failed", isClients ? "aborted" : "timeout");
        this.fail(isClients ? "CLIENT_BODY_STALLED" : "UPSTREAM_STALLED");
        break;
      }
      default:
        this.client.cut();
    }
  }

  /** No response in time: the machine's fault unless we still wait for the client's body. */
  #answerLate(): void {
    const isMachines = this.requestBody.isComplete || this.#isUploadPaused;
    this.abandon(isMachines ? "failed" : "aborted", isMachines ? "timeout" : "aborted");
    this.fail(isMachines ? "UPSTREAM_RESPONSE_TIMEOUT" : "CLIENT_BODY_TIMEOUT");
  }

  // ------------------------------------------------------------ upstream's side

  upstreamConnected(connectMs: number): void {
    this.record.cause = "";
    const { router } = this.parts.settings;
    router.connectRtt(this.record.upstream as Upstream, connectMs);
    this.record.connectMs = this.record.elapsedMs();
    this.phase = "sent";
    this.#sendAgain();
  }

  upstreamBytes(bytes: Buffer, start: number, end: number): void {
    this.parts.settings.observer.progressed(end - start);
    this.#relay.bytes(bytes, start, end);
  }

  upstreamEnded(): void {
    if (this.phase === "answering") this.#relay.ended();
    else if (this.phase === "tunnel") this.client.end();
    else if (this.phase === "sent") this.#lost("");
  }

  upstreamClosed(code: string): void {
    if (this.phase === "connecting") this.#connectFailed(code);
    else if (this.phase === "sent") this.#lost(code);
    else if (this.phase === "answering") {
      if (code === "") this.#relay.ended();
      else this.#relay.broken(code);
    } else if (this.phase === "tunnel") this.client.end();
  }

  upstreamDrained(): void {
    if (!this.#isUploadPaused) return;
    this.#isUploadPaused = false;
    this.#bodyRate.took(0, this.parts.deadlines.nowMs);
    this.client.setReading(true);
  }

  // ------------------------------------------------------------ endings

  /** Lets go of the upstream connection of a failed or abandoned attempt. Idempotent. */
  abandon(outcome: AttemptOutcome, result: AttemptResult): void {
    const connection = this.connection;
    if (connection === null) return;
    this.connection = null;
    connection.destroy();
    this.#countAttempt(outcome, result);
  }

  /** The response is whole: keeps the upstream connection if it can serve another request. */
  complete(isUpstreamReusable: boolean, isPersistent: boolean): void {
    const connection = this.connection;
    this.connection = null;
    if (connection !== null) {
      if (isUpstreamReusable && this.requestBody.isComplete && !connection.isCongested) {
        this.parts.settings.pool.put(connection, this.parts.deadlines.nowMs);
      } else connection.destroy();
      this.#countAttempt("answered", "answered");
    }
    this.#finish(isPersistent);
  }

  /** Ends the request with an error: answered if no response head went out, cut off otherwise. */
  fail(code: ProxyErrorCode): void {
    this.record.errorCode = code;
    const status = statusOf(code);
    if (this.record.status !== 0 || status === 0) {
      this.#report();
      this.client.cut();
      return;
    }
    const facts = this.#answerFacts();
    const addedLines = String.fromCharCode(...this.client.addedLines);
    const isHead = this.record.methodId === METHOD.head;
    this.#answerSelf(status, errorResponse({ code, ...facts, addedLines, isHead }));
  }

  /** Sends the client on to HTTPS. */
  #redirect(port: number): void {
    const { host, target, methodId } = this.record;
    if (host === "") return this.fail("REQUEST_HOST_MISSING");
    const isSafe = methodId === METHOD.get || methodId === METHOD.head;
    const response = redirectResponse({ host, target, port, isSafe, ...this.#answerFacts() });
    this.#answerSelf(redirectStatus(isSafe), response);
  }

  #answerFacts() {
    return {
      requestId: this.record.requestId,
      viaName: this.parts.settings.forwarding.viaName,
      isPersistent: this.#isPersistentNow,
      httpMinor: this.record.httpMinor,
    };
  }

  get #isPersistentNow(): boolean {
    return this.isClientPersistent && this.requestBody.isComplete && !this.parts.isDraining;
  }

  #answerSelf(status: number, response: Buffer): void {
    const isPersistent = this.#isPersistentNow;
    this.record.status = status;
    this.record.bytesOut += response.length;
    this.client.write(response);
    this.#finish(isPersistent);
  }

  // ------------------------------------------------------------ steps

  #reset(head: RequestHead): void {
    this.#clear();
    this.isClientPersistent = head.isPersistent && !this.client.isLastRequest;
    this.wantsUpgrade = head.connection.isUpgrade && head.minor === 1;
    const { isChunked, contentLength } = head.framing;
    this.#hasBody = isChunked || contentLength > 0;
    if (isChunked) this.requestBody.startChunked();
    else if (contentLength > 0) this.requestBody.startLength(contentLength);
    else this.requestBody.startNone();
  }

  #clear(): void {
    this.isClientPersistent = false;
    this.wantsUpgrade = false;
    this.requestBody.startNone();
    this.#bodySent = "none";
    this.#bodyBytes = 0;
    this.#bodyRate.start();
    this.#wasRepeated = false;
    this.#wasMoved = false;
    this.#isUploadPaused = false;
    this.#hasClientEnded = false;
    this.#lastCode = null;
    this.#relay.reset();
  }

  /** Picks and takes or dials a connection; true = it is there and nothing was sent on it yet. */
  #attempt(): boolean {
    const { router, pool, times } = this.parts.settings;
    const pick = router.pick(this.record);
    if (pick.kind === "none") {
      commitRequest(this.parts, this.record);
      this.fail(this.#lastCode ?? pick.code);
      return false;
    }
    const { upstream } = pick;
    this.record.upstream = upstream;
    this.record.pickReason = pick.reason;
    this.record.attempts += 1;
    router.started(upstream);
    const pooled = this.#wasRepeated ? null : pool.take(upstream);
    this.record.wasReused = pooled !== null;
    if (pooled !== null) {
      pooled.owner = this;
      this.connection = pooled;
      this.phase = "sent";
      if (this.record.connectMs < 0) this.record.connectMs = 0;
      return true;
    }
    commitRequest(this.parts, this.record);
    this.phase = "connecting";
    const leftMs = this.#connectUntilMs - this.parts.deadlines.nowMs;
    this.client.setDeadline(Math.min(times.connectMs, leftMs));
    this.connection = pool.dial(upstream);
    this.connection.owner = this;
    return false;
  }

  /** First write on a pooled connection: head and, when it is short, the body at hand. */
  #sendFirst(bytes: Buffer, bodyAt: number, end: number): number {
    const { requestSlab, writer } = this.parts;
    let at = bodyAt;
    if (!this.requestBody.isComplete && end > bodyAt && end - bodyAt <= FIRST_BODY_BYTES_MAX) {
      const stop = this.requestBody.advance(bytes, bodyAt, end);
      if (stop < 0) {
        commitRequest(this.parts, this.record);
        this.parts.settings.observer.parseRefused("client", this.requestBody.refusal);
        this.abandon("aborted", "aborted");
        this.fail(this.requestBody.refusal);
        return end;
      }
      if (!this.#countBody(stop - bodyAt)) return end;
      writer.put(bytes, bodyAt, stop);
      this.#bodySent = "kept";
      at = stop;
    }
    this.record.head = requestSlab.commit(writer.at);
    this.#pass(this.record.head);
    this.#setSentDeadline();
    return at;
  }

  /** Counts body bytes of the client; false = they are too many, and the request is over. */
  #countBody(bytes: number): boolean {
    this.record.bytesIn += bytes;
    this.#bodyBytes += bytes;
    this.#bodyRate.took(bytes, this.parts.deadlines.nowMs);
    if (!isOver(this.#bodyBytes, this.parts.settings.sizes.bodyBytesMax)) return true;
    commitRequest(this.parts, this.record);
    this.isClientPersistent = false;
    this.abandon("aborted", "aborted");
    this.fail("REQUEST_BODY_TOO_LARGE");
    return false;
  }

  #pass(bytes: Uint8Array): void {
    const connection = this.connection;
    if (connection === null || connection.write(bytes) || this.#isUploadPaused) return;
    this.#isUploadPaused = true;
    this.#bodyRate.rest(this.parts.deadlines.nowMs);
    this.client.setReading(false);
  }

  #setSentDeadline(): void {
    const { times } = this.parts.settings;
    if (this.phase !== "sent") return this.client.setDeadline(times.stalledBodyMs);
    if (this.requestBody.isComplete) {
      const { halfClosedMs, responseHeadMs } = times;
      return this.client.setDeadline(this.#hasClientEnded ? halfClosedMs : responseHeadMs);
    }
    const slowMs = this.#isUploadPaused ? Infinity : this.#bodyRate.leftMs;
    this.client.setDeadline(Math.min(times.stalledBodyMs, slowMs));
  }

  #connectFailed(code: string): void {
    const upstream = this.record.upstream as Upstream;
    const isTimeout = code === "ETIMEDOUT";
    this.record.cause = code;
    const connection = this.connection;
    this.connection = null;
    connection?.destroy();
    this.parts.settings.router.connectFailed(upstream, code === "" ? "ECONNRESET" : code);
    this.#countAttempt("failed", isTimeout ? "connect-timeout" : "connect-failed");
    this.#lastCode = isTimeout ? "UPSTREAM_CONNECT_TIMEOUT" : "UPSTREAM_CONNECT";
    this.#retry("connect");
  }

  /** The upstream closed before it answered. */
  #lost(systemCode: string): void {
    this.record.cause = systemCode;
    const stage = this.#relay.hasPartialHead ? "answering" : "sent";
    this.#lastCode = "UPSTREAM_RESET";
    const connection = this.connection;
    this.connection = null;
    connection?.destroy();
    this.#retry(stage);
  }

  #retry(stage: "connect" | "sent" | "answering"): void {
    const decision = decideRetry({
      stage,
      wasReused: this.record.wasReused,
      isIdempotent: isIdempotent(this.record.methodId),
      hasBody: this.#hasBody,
      bodySent: this.#bodySent,
      attempts: this.record.attempts,
      attemptsMax: this.parts.settings.sizes.attemptsMax,
      wasRepeated: this.#wasRepeated,
      wasMoved: this.#wasMoved,
      isOutOfTime: this.parts.deadlines.nowMs >= this.#connectUntilMs,
    });
    if (stage !== "connect") {
      const isAgain = decision.kind === "again";
      this.#countAttempt(isAgain ? "retried" : "failed", "reset-before-response");
    }
    if (decision.kind === "skip") {
      this.record.retrySkipped = decision.reason;
      this.fail(this.#lastCode ?? "UPSTREAM_RESET");
      return;
    }
    this.#wasMoved ||= stage !== "connect" && decision.kind === "exclude";
    if (decision.kind === "again") this.#wasRepeated = true;
    else this.record.excluded = [...this.record.excluded, (this.record.upstream as Upstream).key];
    if (this.#isUploadPaused) this.upstreamDrained();
    if (this.#attempt()) this.#sendAgain();
  }

  /** Sends what is kept of the request, then what comes of its body. */
  #sendAgain(): void {
    this.#bodyRate.took(0, this.parts.deadlines.nowMs);
    this.#pass(
      this.#bodySent === "kept"
        ? this.record.head
        : this.record.head.subarray(0, this.record.headLength),
    );
    this.#setSentDeadline();
    if (!this.requestBody.isComplete) this.client.flushHeld();
  }

  #countAttempt(outcome: AttemptOutcome, result: AttemptResult): void {
    const upstream = this.record.upstream as Upstream;
    this.parts.settings.router.finished(upstream, outcome);
    this.parts.settings.observer.upstreamAttempt(upstream, result);
  }

  #finish(isPersistent: boolean): void {
    this.#report();
    this.client.exchangeDone(isPersistent);
  }

  #report(): void {
    this.phase = "idle";
    this.record.durationMs = this.record.elapsedMs();
    this.parts.settings.observer.requestFinished(this.record);
    this.#relay.reset();
  }
}

function isOver(bytes: number, max: number): boolean {
  return max > 0 && bytes > max;
}
