/**
 * The load generator, a process of its own: a closed loop (each connection asks again when it is
 * answered), or an open one at a constant rate.
 *
 * In the open loop request n is due at `n / rate`, whatever became of those before; its clock starts
 * then, and not when a connection was free for it, so a proxy that stalls is charged for all that
 * should have been sent meanwhile (coordinated omission). To be on time, the loop never sleeps: it
 * is started with the lowest priority, so that the upstream on the same core does not wait for it.
 * What was not answered when the time is over counts as failed, with the time it had waited by then.
 *
 * Its argument is a `GeneratorSpec` as JSON; it prints a `LoadResult` as JSON.
 */
import { connect as connectPlain, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import { percentile } from "../measure.ts";
import { headerLinesOf, hostOf, type Case } from "./cases.ts";

/** What to ask, of whom, for how long. */
export interface GeneratorSpec {
  readonly case: Case;
  readonly port: number;
  readonly seconds: number;
  /** Requests per second of the open loop; null = closed loop. */
  readonly rate: number | null;
}

/** What came of it. Latencies are NaN, `null` in JSON, in a closed loop. */
export interface LoadResult {
  readonly requests: number;
  readonly failures: number;
  readonly seconds: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly p999Ms: number;
  /** How late requests were sent although a connection was free: the generator's own fault. */
  readonly sentLateP99Ms: number;
}

const spec = JSON.parse(process.argv[2] ?? "{}") as GeneratorSpec;
const { kind, isTls, isFresh, bodyBytes } = spec.case;
const HEAD_END = Buffer.from("\r\n\r\n");
const GRACE_MS = 1_000;
const latenciesMs: number[] = [];
const sentLateMs: number[] = [];
const counts = { requests: 0, failures: 0 };

/** A connection, or the place of one where each request has its own. */
class Client {
  readonly #onFree: (client: Client) => void;
  #socket: Socket | null = null;
  #dueMs = 0;
  #isBusy = false;
  #rest: Buffer | null = null;
  /** Bytes of the answer that are still to come; -1 = its head is. */
  #left = -1;
  #isClosing = false;
  isOpen = false;

  constructor(onFree: (client: Client) => void) {
    this.#onFree = onFree;
  }

  get isBusy(): boolean {
    return this.#isBusy;
  }

  get dueMs(): number {
    return this.#dueMs;
  }

  /** Connects; free when that is done, and upgraded where that is needed. */
  open(): void {
    const options = { port: spec.port, host: "127.0.0.1", noDelay: true };
    const socket = isTls
      ? connectTls({ ...options, rejectUnauthorized: false, servername: hostOf(spec.case) })
      : connectPlain(options);
    this.#socket = socket;
    this.#rest = null;
    this.#left = -1;
    this.isOpen = false;
    socket.once(isTls ? "secureConnect" : "connect", () => {
      if (kind === "websocket") socket.write(HANDSHAKE);
      else this.#opened();
    });
    socket.on("data", (bytes: Buffer) => this.#onData(bytes));
    socket.on("error", () => socket.destroy());
    socket.once("close", () => this.#onClose(socket));
  }

  /** Only while free. */
  send(dueMs: number): void {
    this.#dueMs = dueMs;
    this.#isBusy = true;
    if (isFresh) this.open();
    else this.#socket?.write(REQUEST);
  }

  end(): void {
    this.#isClosing = true;
    this.#socket?.destroy();
  }

  #opened(): void {
    this.isOpen = true;
    if (isFresh) this.#socket?.write(REQUEST);
    else this.#onFree(this);
  }

  #onData(bytes: Buffer): void {
    if (this.#left === -1) {
      const data = this.#rest === null ? bytes : Buffer.concat([this.#rest, bytes]);
      const start = this.#onHead(data);
      this.#rest = start === -1 ? data : null;
      if (start === -1) return;
      this.#left -= data.length - start;
    } else this.#left -= bytes.length;
    if (this.#left > 0) return;
    this.#left = kind === "websocket" ? FRAME_BYTES : -1;
    if (!this.isOpen) this.#opened();
    else this.#answered();
  }

  /** Where the body begins; -1 = the head is not there yet. */
  #onHead(data: Buffer): number {
    const end = data.indexOf(HEAD_END);
    if (end === -1) return -1;
    const status = data.toString("latin1", 9, 12);
    if (status === "101" && kind === "websocket") this.#left = 0;
    else {
      const head = data.toString("latin1", 0, end);
      const length = /\r\ncontent-length: *(\d+)/i.exec(head)?.[1];
      if (status !== "200" || length === undefined) {
        throw new Error(`an answer that is not 200 with a Content-Length: ${head}`);
      }
      this.#left = Number(length);
    }
    return end + HEAD_END.length;
  }

  #answered(): void {
    counts.requests++;
    if (spec.rate !== null) latenciesMs.push(performance.now() - this.#dueMs);
    this.#isBusy = false;
    if (isFresh) {
      const socket = this.#socket;
      this.#socket = null;
      socket?.destroy();
    }
    this.#onFree(this);
  }

  #onClose(socket: Socket): void {
    if (this.#socket !== socket || this.#isClosing) return;
    if (this.#isBusy) counts.failures++;
    this.#isBusy = false;
    this.#socket = null;
    if (isFresh) this.#onFree(this);
    else this.open();
  }
}

/** Each client asks again at once. */
async function closedLoop(): Promise<number> {
  const startMs = performance.now();
  const endMs = startMs + spec.seconds * 1_000;
  await new Promise<void>((resolve) => {
    const clients = Array.from(
      { length: spec.case.connections },
      () =>
        new Client((client) => {
          if (performance.now() < endMs) client.send(0);
        }),
    );
    startAll(clients);
    setTimeout(() => {
      for (const client of clients) client.end();
      resolve();
    }, spec.seconds * 1_000);
  });
  return performance.now() - startMs;
}

/** Requests are sent when they are due, or as soon as a client is free. */
async function openLoop(rate: number): Promise<number> {
  const free: Client[] = [];
  const clients = Array.from(
    { length: spec.case.connections * OPEN_LOOP_FACTOR },
    () => new Client((client) => free.push(client)),
  );
  startAll(clients);
  if (isFresh) free.push(...clients);
  else await untilOpen(clients);
  const intervalMs = 1_000 / rate;
  const total = Math.floor(rate * spec.seconds);
  const startMs = performance.now() + 10;
  let next = 0;
  let starvedMs = startMs;
  const send = (nowMs: number): void => {
    while (next < total && startMs + next * intervalMs <= nowMs) {
      const client = free.pop();
      if (client === undefined) {
        starvedMs = nowMs;
        return;
      }
      const dueMs = startMs + next * intervalMs;
      if (dueMs > starvedMs) sentLateMs.push(nowMs - dueMs);
      client.send(dueMs);
      next++;
    }
  };
  const deadlineMs = startMs + spec.seconds * 1_000 + GRACE_MS;
  await new Promise<void>((resolve) => {
    const spin = (): void => {
      const nowMs = performance.now();
      send(nowMs);
      const isDone = next === total && counts.requests + counts.failures >= total;
      if (isDone || nowMs > deadlineMs) resolve();
      else setImmediate(spin);
    };
    spin();
  });
  const endMs = performance.now();
  // What nobody answered had waited at least this long.
  for (const client of clients) if (client.isBusy) latenciesMs.push(endMs - client.dueMs);
  for (let at = next; at < total; at++) latenciesMs.push(endMs - (startMs + at * intervalMs));
  counts.failures = total - counts.requests;
  for (const client of clients) client.end();
  return endMs - startMs;
}

/** Where each request has a connection of its own, a closed loop starts with requests. */
function startAll(clients: readonly Client[]): void {
  for (const client of clients) {
    if (!isFresh) client.open();
    else if (spec.rate === null) client.send(0);
  }
}

async function untilOpen(clients: readonly Client[]): Promise<void> {
  const deadlineMs = performance.now() + OPEN_LIMIT_MS;
  while (!clients.every((client) => client.isOpen)) {
    if (performance.now() > deadlineMs) throw new Error("not all connections could be opened");
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

function requestBytes(): Buffer {
  const { method, path } = spec.case;
  const lines = [`${method} ${path} HTTP/1.1`, `Host: ${hostOf(spec.case)}`];
  lines.push(...headerLinesOf(spec.case));
  if (bodyBytes > 0) lines.push(`Content-Length: ${bodyBytes}`);
  if (isFresh) lines.push("Connection: close");
  const head = Buffer.from(`${lines.join("\r\n")}\r\n\r\n`);
  return Buffer.concat([head, Buffer.alloc(bodyBytes, "x")]);
}

/** A text frame with a mask, RFC 6455, section 5.2. */
function frameBytes(): Buffer {
  const frame = Buffer.alloc(6 + bodyBytes, "x");
  frame.set([0x81, 0x80 | bodyBytes, 1, 2, 3, 4]);
  for (let at = 6; at < frame.length; at++) {
    frame[at] = (frame[at] as number) ^ (frame[2 + ((at - 6) & 3)] as number);
  }
  return frame;
}

/** More than the closed loop's, so that one slow answer holds up no others. */
const OPEN_LOOP_FACTOR = 2;
const OPEN_LIMIT_MS = 5_000;
const FRAME_BYTES = 2 + bodyBytes;
const REQUEST = kind === "websocket" ? frameBytes() : requestBytes();
const HANDSHAKE =
  `GET ${spec.case.path} HTTP/1.1\r\nHost: ${hostOf(spec.case)}\r\nConnection: Upgrade\r\n` +
  "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

const tookMs = spec.rate === null ? await closedLoop() : await openLoop(spec.rate);
const result: LoadResult = {
  ...counts,
  seconds: tookMs / 1_000,
  p50Ms: percentile(latenciesMs, 0.5),
  p99Ms: percentile(latenciesMs, 0.99),
  p999Ms: percentile(latenciesMs, 0.999),
  sentLateP99Ms: percentile(sentLateMs, 0.99),
};
process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit(0));
