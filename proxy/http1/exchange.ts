/**
 * One request and its response: picks an upstream, sends the head, passes bodies both ways, answers
 * errors. An exchange is used again for request after request, of any connection.
 *
 *   idle ─► connecting ─► sent ─► answering ─► idle
 *    │        ▲ │  ▲        │       │
 *    └► queued┘ └──┘ next   └► again└► tunnel (after 101)
 *
 * It decides with the cores (`core/retry.ts`, `core/body.ts`, the parsers) and acts through two
 * narrow interfaces: `ExchangeClient` towards the client, `UpstreamConnection` towards the machine.
 */
import { errorResponse, statusOf } from "../error-response.ts";
import type { ProxyErrorCode } from "../errors.ts";
import type { AttemptOutcome, AttemptResult, NoPickCode, Pick, Upstream } from "../types.ts";
import { isAcmeChallenge, redirectResponse, redirectStatus } from "../redirect-response.ts";
import type { UpstreamConnection, UpstreamOwner } from "../upstream/upstream-connection.ts";
import { commitRequest, composeRequest } from "./compose-request.ts";
import { hasVia } from "./core/head-writer.ts";
import { isIdempotent, METHOD } from "./core/methods.ts";
import type { RequestHead } from "./core/request-head.ts";
import { decideRetry } from "./core/retry.ts";
import type { EngineParts } from "./engine-parts.ts";
import type { ExchangeClient, Window } from "./exchange-client.ts";
import { RequestUpload } from "./request-upload.ts";
import { RequestRecord } from "./request-record.ts";
import { ResponseRelay } from "./response-relay.ts";
import type { Waiting } from "./waiting-room.ts";

type Phase = "idle" | "queued" | "connecting" | "sent" | "answering" | "tunnel";

/** One request at a time; lent to the client connection that it came on. */
export class Exchange implements UpstreamOwner, Waiting {
  /** Facts of the request; also the view that routers and observers see. */
  readonly record = new RequestRecord();
  readonly parts: EngineParts;
  /** Where the head and what follows it were received; filled in for `start`. */
  readonly window: Window = { bytes: NO_BYTES, start: 0, end: 0 };
  phase: Phase = "idle";
  connection: UpstreamConnection | null = null;
  /** The request's way to the upstream. */
  readonly upload: RequestUpload;
  /** The client wants to keep its connection. */
  isClientPersistent = false;
  wantsUpgrade = false;

  readonly #relay: ResponseRelay;
  #client: ExchangeClient | null = null;
  #wasRepeated = false;
  #wasMoved = false;
  #connectUntilMs = 0;
  #queuedAtMs = 0;
  /** What the last failed attempt would be answered with. */
  #lastCode: ProxyErrorCode | null = null;

  constructor(parts: EngineParts) {
    this.parts = parts;
    this.upload = new RequestUpload(this);
    this.#relay = new ResponseRelay(this);
  }

  get client(): ExchangeClient {
    if (this.#client === null) throw new Error("an exchange works for a client");
    return this.#client;
  }

  /** Works for this client until `reset`. */
  serve(client: ExchangeClient): void {
    this.#client = client;
    this.record.clientAddress = client.address;
  }

  /** Works for nobody, and holds on to nothing: who waits for a next request has no exchange. */
  reset(): void {
    this.#client = null;
    this.record.release();
    this.upload.release();
  }

  /**
   * Starts with a parsed head at `window.start`. Answers how far the window was used up: what
   * follows is body that has to wait, or the next request.
   */
  start(head: RequestHead): number {
    const { window } = this;
    const { settings } = this.parts;
    this.#begin(head);
    this.record.start(head, window.bytes, window.start);
    const bodyAt = window.start + head.length;
    settings.observer.turnStarted(window);
    composeRequest(this.parts, this.record, { head, window, peer: this.client.peer });
    let at = bodyAt;
    if (head.hasViaLine && hasVia(this.parts.writer, head.lines, settings.forwarding.viaName)) {
      this.fail("PROXY_LOOP");
    } else if (this.client.redirectPort !== null && !isAcmeChallenge(this.record.target)) {
      this.#redirect(this.client.redirectPort);
    } else if (this.upload.isTooLarge(head.framing.contentLength)) {
      this.fail("REQUEST_BODY_TOO_LARGE");
    } else {
      this.#connectUntilMs = this.parts.deadlines.nowMs + settings.times.connectTotalMs;
      this.parts.retryBudget.earn();
      if (this.#attempt()) at = this.upload.sendFirst(window.bytes, bodyAt, window.end);
    }
    window.bytes = NO_BYTES;
    settings.observer.turnEnded();
    return at;
  }

  /** A head that was refused, or did not come in time: answered and counted like a request. */
  refuse(code: ProxyErrorCode, startedAtMs: number): void {
    this.#clear(null);
    this.record.clear(startedAtMs);
    this.record.head = Buffer.from(this.parts.ids.next());
    this.record.idEnd = this.record.head.length;
    this.fail(code);
  }

  /** Body bytes from the client; answers how far they were used up. */
  requestBytes(bytes: Buffer, start: number, end: number): number {
    if (this.phase === "tunnel") {
      this.record.bytesIn += end - start;
      this.upload.passOn(bytes, start, end);
      this.#relay.tunnel.touch();
      return end;
    }
    const hasUpstream = this.phase === "sent" || this.phase === "answering";
    if (!hasUpstream || this.upload.body.isComplete) return start;
    return this.upload.bytes(bytes, start, end);
  }

  /** The client closed its sending side; said again when bytes held until then have been taken. */
  clientEnded(): void {
    this.upload.hasClientEnded = true;
    if (this.phase === "tunnel") this.connection?.end();
    else if (!this.upload.body.isComplete) {
      // The rest of the body may be here, waiting for an upstream.
      if (!this.client.hasHeld) this.client.cut();
    } else if (this.phase === "sent") this.upload.setDeadline();
  }

  /** The client's connection is gone. */
  clientClosed(): void {
    if (this.phase === "idle") return;
    const wasTunnel = this.phase === "tunnel";
    if (this.phase === "queued") this.parts.waiting.leave(this.record.host, this);
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
      case "queued":
        this.#leaveQueue();
        this.fail(this.#lastCode ?? "ROUTE_QUEUE_TIMEOUT");
        break;
      case "connecting":
        this.#connectFailed("ETIMEDOUT");
        break;
      case "sent":
        if (this.upload.hasClientEnded) return this.client.cut();
        this.#answerLate();
        break;
      case "answering": {
        if (!this.#relay.isLate()) return;
        const isClients = this.#relay.isClientBehind;
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
    const isMachines = this.upload.body.isComplete || this.upload.isPaused;
    if (isMachines) this.record.retrySkipped = "response-late";
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
    this.upload.sendAgain();
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
    this.upload.drained();
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
      if (isUpstreamReusable && this.upload.body.isComplete && !connection.isCongested) {
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
    return this.isClientPersistent && this.upload.body.isComplete && !this.parts.isDraining;
  }

  #answerSelf(status: number, response: Buffer): void {
    const isPersistent = this.#isPersistentNow;
    this.record.status = status;
    this.record.bytesOut += response.length;
    this.client.write(response);
    this.#finish(isPersistent);
  }

  // ------------------------------------------------------------ steps

  #begin(head: RequestHead): void {
    this.#clear(head);
    this.isClientPersistent = head.isPersistent && !this.client.isLastRequest;
    this.wantsUpgrade = head.connection.isUpgrade && head.minor === 1;
  }

  #clear(head: RequestHead | null): void {
    this.isClientPersistent = false;
    this.wantsUpgrade = false;
    this.upload.reset(head);
    this.#wasRepeated = false;
    this.#wasMoved = false;
    this.#lastCode = null;
    this.#relay.reset();
  }

  /** Picks and takes or dials a connection; true = it is there and nothing was sent on it yet. */
  #attempt(): boolean {
    const { waiting, settings } = this.parts;
    const isBehind = waiting.has(this.record.host);
    const pick = isBehind ? ALL_FULL : this.#pick();
    if (pick.kind === "upstream") return this.#use(pick);
    commitRequest(this.parts, this.record);
    if (pick.code === "ROUTE_ALL_FULL" && waiting.enter(this.record.host, this)) {
      this.phase = "queued";
      this.#queuedAtMs = this.record.elapsedMs();
      this.client.setDeadline(settings.times.queueMs);
    } else this.#failWithout(pick.code);
    return false;
  }

  /** A machine may have room for one more. */
  tryAgain(): boolean {
    const pick = this.#pick();
    if (pick.kind === "none" && pick.code === "ROUTE_ALL_FULL") return false;
    this.#leaveQueue();
    this.#connectUntilMs = this.parts.deadlines.nowMs + this.parts.settings.times.connectTotalMs;
    if (pick.kind === "none") this.#failWithout(pick.code);
    else if (this.#use(pick)) this.upload.sendAgain();
    return true;
  }

  /**
   * The router's choice, counted as started, passing over machines that have as many connections as
   * they may.
   */
  #pick(): Pick {
    const { record } = this;
    const { router, pool } = this.parts.settings;
    const failedBefore = record.excluded;
    for (;;) {
      const pick = router.pick(record);
      const isFull = pick.kind === "upstream" && !pool.reserve(pick.upstream.key);
      if (isFull) record.excluded = [...record.excluded, pick.upstream.key];
      // Another thread may have taken the last place since the router looked.
      else if (pick.kind === "none" || router.started(pick.upstream)) {
        const hasPassedOver = record.excluded !== failedBefore;
        record.excluded = failedBefore;
        return pick.kind === "none" && hasPassedOver ? ALL_FULL : pick;
      } else pool.unreserve();
    }
  }

  #leaveQueue(): void {
    this.parts.waiting.leave(this.record.host, this);
    this.record.queueMs += this.record.elapsedMs() - this.#queuedAtMs;
  }

  /** No machine is left to try. */
  #failWithout(code: NoPickCode): void {
    if (this.#lastCode !== null) this.record.retrySkipped = "no-other-machine";
    this.fail(this.#lastCode ?? code);
  }

  #use(pick: Extract<Pick, { kind: "upstream" }>): boolean {
    const { pool, times } = this.parts.settings;
    const { upstream } = pick;
    this.record.upstream = upstream;
    this.record.pickReason = pick.reason;
    this.record.attempts += 1;
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
      hasBody: this.upload.hasBody,
      bodySent: this.upload.bodySent,
      attempts: this.record.attempts,
      attemptsMax: this.parts.settings.sizes.attemptsMax,
      wasRepeated: this.#wasRepeated,
      wasMoved: this.#wasMoved,
      isBudgetSpent: this.parts.retryBudget.isSpent,
      isOutOfTime: this.parts.deadlines.nowMs >= this.#connectUntilMs,
    });
    if (stage !== "connect") {
      const isAgain = decision.kind === "again";
      this.#countAttempt(isAgain ? "retried" : "failed", "reset-before-response");
    }
    const isMoved = stage !== "connect" && decision.kind === "exclude";
    // Another thread may have had the last of the budget since it was looked at.
    if (decision.kind === "skip" || (isMoved && !this.parts.retryBudget.spend())) {
      this.record.retrySkipped = decision.kind === "skip" ? decision.reason : "budget-spent";
      this.fail(this.#lastCode ?? "UPSTREAM_RESET");
      return;
    }
    if (isMoved) this.#wasMoved = true;
    if (decision.kind === "again") this.#wasRepeated = true;
    else this.record.excluded = [...this.record.excluded, (this.record.upstream as Upstream).key];
    // Body bytes wait for the next connection, also those that were held back.
    this.phase = "connecting";
    this.upload.drained();
    if (this.#attempt()) this.upload.sendAgain();
  }

  #countAttempt(outcome: AttemptOutcome, result: AttemptResult): void {
    const upstream = this.record.upstream as Upstream;
    this.parts.settings.router.finished(upstream, outcome);
    this.parts.waiting.freed();
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

/** Whoever comes while others wait for the same host goes behind them. */
const ALL_FULL: Pick = { kind: "none", code: "ROUTE_ALL_FULL" };
const NO_BYTES = Buffer.alloc(0);
