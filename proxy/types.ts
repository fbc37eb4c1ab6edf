/**
 * The data plane's ports: what the HTTP engine asks of whoever chooses upstreams, and what it tells
 * whoever counts, logs and watches.
 *
 * All of them are called on the hot path, once or a few times per request, from the data-plane
 * thread. Implementations must not throw, await or block, and should not allocate: the engine
 * passes views that it reuses, valid only during the call. `routing/` implements `Router`
 * structurally (it may not import this file); `proxy/app.ts` puts the two together and checks the
 * fit.
 */

import type { Socket } from "node:net";

// ---------------------------------------------------------------- Router port

/**
 * One machine service that can take requests. The engine compares by `key` and keeps the object for
 * as long as the request runs; a router hands out the same object for the same service each time.
 */
export interface Upstream {
  /** Unique and stable per (machine, service, address): the connection pool's key. */
  readonly key: string;
  /** IPv4 or IPv6 literal without brackets; a name would cost a lookup per connection. */
  readonly host: string;
  /** TCP port, 1-65535. */
  readonly port: number;
  /** It speaks HTTPS: the connection is TLS, and verified. */
  readonly isTls: boolean;
  readonly machineId: string;
  /** App of the machine; for the log. */
  readonly appId: string;
  readonly serviceName: string;
  /** Region of the machine's host; for the log. */
  readonly region: string;
  /** Round trip to the machine's host in ms as known; for the log. */
  readonly rttMs: number;
}

/** What is known of a request when its upstream is chosen. A reused view: do not keep it. */
export interface PickRequest {
  /** Host without port, lower case, no trailing dot; `""` for an HTTP/1.0 request without one. */
  readonly host: string;
  /** Method as received, case kept. */
  readonly method: string;
  /** Origin-form target with its query. Decoded when first read, so unread it costs nothing. */
  readonly target: string;
  /** 0 for the first pick of a request, then 1, 2, ... */
  readonly attempt: number;
  /** Keys of upstreams that failed for this request; the shared empty array on the first pick. */
  readonly excluded: readonly string[];
}

/** Why no upstream could be picked. */
export type NoPickCode = "ROUTE_NO_APP" | "ROUTE_NO_MACHINE" | "ROUTE_ALL_FULL" | "ROUTE_NOT_READY";

/**
 * A routing decision and its reason. Prepare these objects when the table changes, one per
 * (upstream, reason), so that a pick returns one without allocating.
 */
export type Pick =
  | { readonly kind: "upstream"; readonly upstream: Upstream; readonly reason: string }
  | { readonly kind: "none"; readonly code: NoPickCode };

/**
 * How an attempt on an upstream ended, as far as the upstream is concerned: `answered` = a whole
 * response was received (any status); `aborted` = the client gave up; `failed` = reset, timeout or
 * an invalid response; `retried` = given up for another attempt (a stale reused connection).
 */
export type AttemptOutcome = "answered" | "aborted" | "failed" | "retried";

/**
 * Chooses upstreams. Calls for one attempt come in this order: `pick`, `started`, both again while
 * that says false, then optionally `connectRtt` or `connectFailed`, and `finished` exactly once for
 * each `started` that said true.
 */
export interface Router {
  /** Picks the upstream for one attempt. Never returns one whose key is in `excluded`. */
  pick(request: PickRequest): Pick;
  /**
   * An attempt on `upstream` begins (before it is connected): one more in flight. False = others have
   * filled it up since the pick, nothing was counted, and a pick knows it now.
   */
  started(upstream: Upstream): boolean;
  /** That attempt is over: one fewer in flight. */
  finished(upstream: Upstream, outcome: AttemptOutcome): void;
  /**
   * A TCP connect failed before a byte was sent; `code` is the system's (`ECONNREFUSED`) or
   * `ETIMEDOUT`. The machine should leave this edge's picks at once. `finished` follows.
   */
  connectFailed(upstream: Upstream, code: string): void;
  /** A TCP connect succeeded: an RTT sample in milliseconds (fractional). */
  connectRtt(upstream: Upstream, ms: number): void;
}

// ---------------------------------------------------------------- Observer port

/** How one attempt went, for metrics. Bounded set: usable as a label. */
export type AttemptResult =
  | "answered"
  | "aborted"
  | "connect-failed"
  | "connect-timeout"
  | "reset-before-response"
  | "reset-mid-response"
  | "bad-response"
  | "timeout";

/** A finished request. A reused view: read it during the call, strings are decoded when read. */
export interface RequestSummary {
  readonly method: string;
  /** As in `PickRequest`. */
  readonly host: string;
  readonly target: string;
  /** Minor HTTP version of the client: 0 or 1. */
  readonly httpMinor: number;
  /** Address of the client as text. */
  readonly clientAddress: string;
  readonly requestId: string;
  /** Final status sent to the client; 0 = none was sent (the client went away first). */
  readonly status: number;
  /** Stable error code (`proxy/errors.ts`) or `""`; also set when a response was cut short. */
  readonly errorCode: string;
  /**
   * What lies behind the error: the system's code of a failed connection (`ECONNREFUSED`), or the
   * refusal of what the upstream sent (`FRAMING_BOTH`); `""` when the code says it all.
   */
  readonly cause: string;
  /** Last upstream tried; `null` when none was picked. */
  readonly upstream: Upstream | null;
  /** Reason of the last pick; `""` when there was none. */
  readonly pickReason: string;
  /** Upstream attempts made, 0 when none was picked. */
  readonly attempts: number;
  /** Why a failed attempt was not repeated (`core/retry.ts`); `""` when it did not come up. */
  readonly retrySkipped: string;
  /** Whether the last attempt used a pooled connection. */
  readonly wasReused: boolean;
  /** Request bytes read from the client, head included; response bytes written, head included. */
  readonly bytesIn: number;
  readonly bytesOut: number;
  /**
   * Monotonic milliseconds (fractional): first byte of the head parsed to the end of the answer.
   */
  readonly durationMs: number;
  /** Waiting until a machine was below its hard limit; 0 = did not come up. */
  readonly queueMs: number;
  /** From the request's start to a usable upstream connection; -1 = never had one. */
  readonly connectMs: number;
  /** From the request's start to the first byte of the final response head; -1 = none came. */
  readonly firstByteMs: number;
}

/** Raw bytes of a request head for the breadcrumb: valid only during the call. */
export interface TurnBytes {
  readonly bytes: Uint8Array;
  /** First byte of the request line. */
  readonly start: number;
  /** One after the last byte at hand: the head, and maybe body bytes that came with it. */
  readonly end: number;
}

/** Counts, logs and watches. Every method is a cheap synchronous store. */
export interface EngineObserver {
  /** A request's turn starts: its head is parsed and it is about to be routed. For breadcrumbs. */
  turnStarted(turn: TurnBytes): void;
  /** The turn's synchronous work is over. */
  turnEnded(): void;
  /** Exactly once per request whose head was parsed or refused. Access log and histograms. */
  requestFinished(summary: RequestSummary): void;
  /** Once per upstream attempt, before `requestFinished`. */
  upstreamAttempt(upstream: Upstream, result: AttemptResult): void;
  /** Bytes that are no valid HTTP; `code` from `proxy/errors.ts`. */
  parseRefused(side: "client" | "upstream", code: string): void;
  /** A client connection was accepted / closed. */
  connectionOpened(): void;
  connectionClosed(): void;
  /** So many requests wait for a machine below its hard limit. */
  queueChanged(count: number): void;
  /** Bytes moved in either direction: the watchdog's sign that requests still progress. */
  progressed(bytes: number): void;
}

// ---------------------------------------------------------------- Engine options

/** How forwarding headers are written. */
export interface ForwardingOptions {
  /** Our name in Via; a request whose Via already has it is a loop (508). A token. */
  readonly viaName: string;
  /**
   * Whether X-Forwarded-* and X-Request-Id sent by this peer are kept and appended to (`true`) or
   * replaced (`false`). Asked once per connection. Default: never trusted, but see `keepRequestId`.
   */
  readonly isTrusted: (peerAddress: string) => boolean;
  /** Keep a well-formed X-Request-Id of any peer. Default true. */
  readonly keepRequestId: boolean;
  /** Write Forwarded (RFC 7239) beside X-Forwarded-*. Default false. */
  readonly writesForwarded: boolean;
  /** Start a trace for requests that carry no valid `traceparent`. Default false: headers pass. */
  readonly startsTraces: boolean;
}

/** Time limits in milliseconds, judged every 100 ms by one shared sweep. */
export interface TimeLimits {
  /** First byte of a head (or accept) to its end. Default 10,000. */
  readonly requestHeadMs: number;
  /** Idle client connection between requests. Default 75,000. */
  readonly clientIdleMs: number;
  /**
   * No byte of a request body arrives, or of a response is taken, for this long. Default 60,000.
   */
  readonly stalledBodyMs: number;
  /**
   * For this long a request body may come more slowly than `bodyBytesPerSecondMin`, and a client take
   * a response more slowly than `responseBytesPerSecondMin`. Default 30,000.
   */
  readonly bodyGraceMs: number;
  /** Wait for a machine below its hard limit. Default 5,000. */
  readonly queueMs: number;
  /** One TCP connect to an upstream. Default 1,000. */
  readonly connectMs: number;
  /** All connect attempts of one request together. Default 5,000. */
  readonly connectTotalMs: number;
  /** Request sent whole to final response head. Default 60,000. */
  readonly responseHeadMs: number;
  /** Idle pooled upstream connection; keep it below the upstreams' own limit. Default 50,000. */
  readonly upstreamIdleMs: number;
  /** Tunnel without a byte in either direction. Default 600,000. */
  readonly tunnelIdleMs: number;
  /** From the close frame that tells a WebSocket to go away to its end. Default 5,000. */
  readonly tunnelCloseMs: number;
  /**
   * A client that closed its sending side after its request is given this long for the response to
   * start, because one that is gone looks the same. Default 5,000.
   */
  readonly halfClosedMs: number;
  /** Between our last byte and the client's FIN, while what it still sends is discarded. 2,000. */
  readonly lingerMs: number;
}

/** Size limits in bytes unless said. */
export interface SizeLimits {
  /** Request or response head with its final CRLF. Default 32,768. */
  readonly headBytesMax: number;
  /** Request target. Default 8,192. */
  readonly targetBytesMax: number;
  /** Header lines of one head, a count. Default 100. */
  readonly headerLinesMax: number;
  /** Bytes of pipelined requests held while one is answered; then the socket is paused. 65,536. */
  readonly pipelinedBytesMax: number;
  /** Request body as it comes, chunk framing included; 0 = any. Default 1 GiB. */
  readonly bodyBytesMax: number;
  /** Slowest request body, bytes per second; 0 = any. Default 240. */
  readonly bodyBytesPerSecondMin: number;
  /** Slowest client that a response waits for, bytes per second; 0 = any. Default 240. */
  readonly responseBytesPerSecondMin: number;
  /**
   * Request body of an idempotent method that is kept until the response begins, so that it can be
   * sent again; 0 = none. Default 16,384.
   */
  readonly keptBodyBytesMax: number;
  /** Bodies kept at one time, a count. Default 1,000. */
  readonly keptBodiesMax: number;
  /** Requests of one client connection, a count. Default 100,000. */
  readonly requestsPerConnectionMax: number;
  /** Chunk extensions and trailers of one body, together. Default 16,384. */
  readonly chunkOverheadBytesMax: number;
  /** Requests that wait for a machine below its hard limit, a count; 0 = none may. Default 1,000. */
  readonly queuedMax: number;
  /** Repeats of requests that a machine may have acted on, per request: 0 to 1. Default 0.2. */
  readonly retryShare: number;
  /** Such repeats per second that there are anyway. Default 10. */
  readonly retriesPerSecond: number;
  /** Upstream attempts of one request, a count. Default 4. */
  readonly attemptsMax: number;
  /** Idle pooled connections per upstream, a count. Default 128. */
  readonly idlePerUpstreamMax: number;
  /** Connections per upstream, idle and in use, a count; then it counts as full. 10,000. */
  readonly openPerUpstreamMax: number;
  /** Data-plane threads that share a budget of repeats. */
  readonly threads: number;
}

/**
 * Fault injection for the demo: the network between this edge and an upstream is emulated to be
 * farther away. Absent in production, where no code of it is on any path.
 */
export interface DelayEmulation {
  /** One-way delay in ms added to connects and to bytes in each direction; 0 = none. */
  readonly oneWayDelayMs: (upstream: Upstream) => number;
}

// ---------------------------------------------------------------- Connections to machines

/** Connections per upstream, counted in all data-plane threads: slots of shared memory. */
export interface ConnectionCounts {
  /** The slot of a key until `letGo`; 0 = there is none left, and nothing is counted. */
  hold(key: string): number;
  letGo(slot: number): void;
  /** Counts one more unless there are `max`, 0 = any number; false = there are. */
  take(slot: number, max: number): boolean;
  give(slot: number): void;
  /** How many there are; 0 for slot 0. */
  count(slot: number): number;
  /** Somebody was refused one, here or in another thread: a number that is another each time. */
  readonly refusals: number;
  refused(): void;
}

// ---------------------------------------------------------------- Client sockets

/** How a socket reads into memory of ours: Node's `onread`, which the types leave out. */
export interface ReadInto {
  /** The buffer of the next read; `undefined` = as before. Asked at the start and after each read. */
  readonly buffer: () => Uint8Array | undefined;
  /** Bytes have come; called with the socket as `this`. */
  readonly callback: (this: Socket, length: number, bytes: Uint8Array) => boolean;
}
