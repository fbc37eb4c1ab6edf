/**
 * What is asked of every proxy: one kind of traffic per case. Two cases more have a room of their
 * own, because they are no traffic: `idle` (idle-connections.ts) and `threads` (two-threads.ts).
 */

/** One kind of traffic. */
export interface Case {
  readonly name: string;
  /** For the tables. */
  readonly about: string;
  /** `websocket`: a frame of `bodyBytes` and its echo count as one request. */
  readonly kind: "http" | "websocket";
  readonly isTls: boolean;
  /** A connection per request. */
  readonly isFresh: boolean;
  readonly method: "GET" | "POST";
  readonly path: string;
  /** Request headers besides Host, each of about 45 bytes. */
  readonly headers: number;
  /** Request body. */
  readonly bodyBytes: number;
  readonly connections: number;
  /** Bytes of body both ways per request; the throughput is told too where it is the point. */
  readonly movedBytes?: number;
  /** Goals of Patina's figures over nginx's. */
  readonly goals: {
    readonly cpuRatioAtMost?: number;
    readonly throughputRatioAtLeast?: number;
    readonly p99AddedMsAtMost?: number;
  };
}

/** Bodies of GETs, bytes. */
export const BODY_BYTES_BY_PATH: Readonly<Record<string, number>> = {
  "/0": 0,
  "/1k": 1_024,
  "/10k": 10_240,
  "/1m": 1_048_576,
};

/** Host headers: which machine a request goes to. */
export const GET_HOST = "get.bench";
/** The machine that reads bodies and echoes frames. */
export const POST_HOST = "post.bench";

const GET: Omit<Case, "name" | "about"> = {
  kind: "http",
  isTls: false,
  isFresh: false,
  method: "GET",
  path: "/1k",
  headers: 2,
  bodyBytes: 0,
  connections: 32,
  goals: {},
};
const KEEP_ALIVE_GOALS: Case["goals"] = { cpuRatioAtMost: 1.2, p99AddedMsAtMost: 0.1 };
const LARGE: Partial<Case> = {
  connections: 8,
  movedBytes: 1_048_576,
  goals: { throughputRatioAtLeast: 1 },
};

/** In the order in which they are measured and told. */
export const CASES: readonly Case[] = [
  { ...GET, name: "get-0", about: "GET, no body", path: "/0", goals: KEEP_ALIVE_GOALS },
  { ...GET, name: "get-1k", about: "GET, 1 KiB", goals: KEEP_ALIVE_GOALS },
  { ...GET, name: "get-10k", about: "GET, 10 KiB", path: "/10k", goals: KEEP_ALIVE_GOALS },
  { ...GET, name: "headers-20", about: "GET, 1 KiB, 20 request headers", headers: 20 },
  { ...GET, name: "headers-80", about: "GET, 1 KiB, 80 request headers", headers: 80 },
  { ...GET, name: "post-1k", about: "POST, 1 KiB", method: "POST", path: "/", bodyBytes: 1_024 },
  { ...GET, ...LARGE, name: "get-1m", about: "GET, 1 MiB", path: "/1m" },
  {
    ...GET,
    ...LARGE,
    name: "post-1m",
    about: "POST, 1 MiB",
    method: "POST",
    path: "/",
    bodyBytes: 1_048_576,
  },
  {
    ...GET,
    name: "fresh",
    about: "GET, 1 KiB, a connection per request",
    isFresh: true,
    goals: { cpuRatioAtMost: 1.6 },
  },
  {
    ...GET,
    name: "tls",
    about: "GET, 1 KiB, TLS 1.3, keep-alive",
    isTls: true,
    goals: { cpuRatioAtMost: 1.2 },
  },
  {
    ...GET,
    name: "tls-fresh",
    about: "GET, 1 KiB, a full TLS 1.3 handshake per request",
    isTls: true,
    isFresh: true,
  },
  { ...GET, name: "websocket", about: "WebSocket, 64 bytes and their echo", ...websocket() },
];

function websocket(): Partial<Case> {
  return { kind: "websocket", path: "/echo", bodyBytes: 64 };
}

/** The Host header of a case. */
export function hostOf(one: Case): string {
  return one.method === "POST" || one.kind === "websocket" ? POST_HOST : GET_HOST;
}

/** Header lines of a case besides Host, `name: value` each. */
export function headerLinesOf(one: Case): string[] {
  return Array.from({ length: one.headers }, (_, at) =>
    at === 0 ? "accept: */*" : at === 1 ? "user-agent: patina-bench" : filler(at),
  );
}

function filler(at: number): string {
  return `x-bench-${String(at).padStart(2, "0")}: 0123456789abcdef0123456789abcdef`;
}
