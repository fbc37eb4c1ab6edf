/**
 * The facts of one request: what routers choose by and what observers count. One per exchange,
 * filled anew for each request.
 *
 * Texts are decoded from the head as it was composed for the upstream, and only when somebody asks.
 */
import type { ProxyErrorCode } from "../errors.ts";
import type { PickRequest, RequestSummary, Upstream } from "../types.ts";
import { METHOD } from "./core/methods.ts";
import type { RequestHead } from "./core/request-head.ts";
import { HostText } from "./host-text.ts";

/** Facts of the current request. Field meanings: `RequestSummary` and `PickRequest`. */
export class RequestRecord implements PickRequest, RequestSummary {
  clientAddress = "";
  httpMinor = 1;
  status = 0;
  errorCode: ProxyErrorCode | "" = "";
  cause = "";
  upstream: Upstream | null = null;
  pickReason = "";
  attempts = 0;
  retrySkipped = "";
  wasReused = false;
  bytesIn = 0;
  bytesOut = 0;
  durationMs = 0;
  queueMs = 0;
  connectMs = -1;
  firstByteMs = -1;
  excluded: readonly string[] = NOTHING;

  /** Number of the method. */
  methodId: number = METHOD.other;
  startedAtMs = 0;
  /** The head as composed for the upstream, and behind it what else the first write took along. */
  head: Buffer = NO_BYTES;
  /** Length of the head itself in `head`. */
  headLength = 0;
  /** Where the request id stands in `head`. */
  idStart = 0;
  idEnd = 0;

  readonly #host = new HostText();
  #methodLength = 0;
  #targetLength = 0;

  get host(): string {
    return this.#host.text;
  }

  get method(): string {
    return this.head.toString("latin1", 0, this.#methodLength);
  }

  get target(): string {
    const start = this.#methodLength + 1;
    return this.head.toString("latin1", start, start + this.#targetLength);
  }

  get requestId(): string {
    return this.head.toString("latin1", this.idStart, this.idEnd);
  }

  get attempt(): number {
    return this.attempts;
  }

  /** Starts with a parsed head that lies at `base` of `bytes`. */
  start(head: RequestHead, bytes: Buffer, base: number): void {
    const { target } = head;
    this.clear(performance.now());
    this.httpMinor = head.minor;
    this.methodId = head.method;
    this.bytesIn = head.length;
    this.#methodLength = head.methodEnd - head.lineStart;
    this.#targetLength = Math.max(1, target.pathEnd - target.pathStart);
    this.#host.take(bytes, base + target.hostStart, base + target.nameEnd);
  }

  /** Starts without a head: one that was refused, or never came whole. */
  clear(startedAtMs: number): void {
    this.startedAtMs = startedAtMs;
    this.httpMinor = 1;
    this.status = 0;
    this.errorCode = "";
    this.cause = "";
    this.upstream = null;
    this.pickReason = "";
    this.attempts = 0;
    this.retrySkipped = "";
    this.wasReused = false;
    this.bytesIn = 0;
    this.bytesOut = 0;
    this.queueMs = 0;
    this.connectMs = -1;
    this.firstByteMs = -1;
    this.excluded = NOTHING;
    this.methodId = METHOD.other;
    this.head = NO_BYTES;
    this.headLength = 0;
    this.idStart = this.idEnd = 0;
    this.#methodLength = this.#targetLength = 0;
    this.#host.clear();
  }

  /** Lets go of memory that others would have to wait for. */
  release(): void {
    this.head = NO_BYTES;
    this.upstream = null;
  }

  /** Milliseconds since the request began. */
  elapsedMs(): number {
    return performance.now() - this.startedAtMs;
  }
}

const NOTHING: readonly string[] = [];
const NO_BYTES = Buffer.alloc(0);
