/**
 * The differential fuzz end to end: the bytes of a case go through a running engine on real sockets,
 * and what arrives behind it is compared with what the pure reading says.
 *
 * Requests arrive at a server of `node:http`, or at nginx, which passes on to such a server what it
 * has read. Responses come from an upstream of bytes, and are read by Node's parser.
 */
import { once } from "node:events";
import type { IncomingMessage } from "node:http";
import { connect, type Socket } from "node:net";

import type { TestProxy } from "../../proxy/testing/test-proxy.ts";
import type { TestStack } from "../../proxy/testing/test-stack.ts";
import { cutsOf, Differential, hasOddExtension } from "./differential.ts";
import { requestStream, responseCase, type ResponseCase } from "./message-grammar.ts";
import { startNginx } from "./nginx.ts";
import { NodeReader, type NodeMessage } from "./node-reading.ts";
import { PatinaReader, type PatinaReading } from "./patina-reading.ts";

/** Who reads what Patina passes on. */
export type Reader = "node" | "nginx";

/** What a live run has seen. */
export interface LiveTally {
  cases: number;
  /** Requests that arrived whole behind the reader. */
  arrived: number;
  /** Passed on whole, and refused by the reader. */
  readerRefused: number;
  /** Final responses that arrived whole at the client, and errors of Patina in their place. */
  answered: number;
  replaced: number;
  /** Responses that were cut off in the middle, so that nobody takes them for whole. */
  cut: number;
}

/** A running engine and what is around it. Starts with `startLive`; ends with its stack. */
export class Live {
  readonly tally: LiveTally = {
    cases: 0,
    arrived: 0,
    readerRefused: 0,
    answered: 0,
    replaced: 0,
    cut: 0,
  };
  readonly #reader: Reader;
  readonly #requests: TestProxy;
  readonly #responses: TestProxy;
  readonly #arrivals: Arrival[];
  readonly #scripts: Script;
  readonly #patina = new PatinaReader();
  readonly #node = new NodeReader();
  readonly #differential = new Differential();

  constructor(parts: LiveParts) {
    this.#reader = parts.reader;
    this.#requests = parts.requests;
    this.#responses = parts.responses;
    this.#arrivals = parts.arrivals;
    this.#scripts = parts.script;
  }

  /** Judges case `index` of `seed`: what is wrong with it, `""` = nothing. */
  async judge(seed: number, index: number): Promise<string> {
    this.tally.cases += 1;
    return index % 2 === 0 ? this.#judgeRequests(seed, index) : this.#judgeResponses(seed, index);
  }

  async #judgeRequests(seed: number, index: number): Promise<string> {
    const text = requestStream(seed, index);
    const bytes = Buffer.from(text, "latin1");
    const expected = this.#expected(this.#patina.requests(bytes));
    this.#arrivals.length = 0;
    await exchangeBytes(this.#requests.port, piecesOf(bytes, cutsOf(seed, index, bytes.length)));
    while (this.#requests.inFlight() > 0) await this.#requests.turn();
    const arrived = this.#arrivals.filter(({ isWhole }) => isWhole).map(({ summary }) => summary);
    this.tally.arrived += arrived.length;
    this.tally.readerRefused += expected.whole.length - arrived.length;
    // After a refusal of the reader's what follows on the connection may be lost with it.
    const isSame = expected.canBeRefused
      ? isSubsequence(arrived, expected.whole)
      : JSON.stringify(arrived) === JSON.stringify(expected.whole);
    if (isSame) return "";
    return [
      `through ${this.#reader}: other requests arrived than were read`,
      `arrived: ${JSON.stringify(arrived)}`,
      `expected: ${JSON.stringify(expected.whole)}`,
      `requests: ${JSON.stringify(text)}`,
    ].join("\n");
  }

  /** Whole requests, as they have to arrive, and whether the reader may refuse one of them. */
  #expected({ messages }: PatinaReading): { whole: string[]; canBeRefused: boolean } {
    const isRefused = messages.some((message) => this.#differential.isRefusedByNode(message));
    return {
      whole: messages
        .filter(({ isComplete }) => isComplete)
        .map(({ method, targetOut, body }) => `${method} ${targetOut} ${body}`),
      canBeRefused: isRefused || this.#reader === "nginx",
    };
  }

  async #judgeResponses(seed: number, index: number): Promise<string> {
    const about = responseCase(seed, index);
    const bytes = Buffer.from(about.text, "latin1");
    const reading = this.#patina.responses(bytes, about);
    this.#scripts.pieces = piecesOf(bytes, cutsOf(seed, index, bytes.length));
    const { received, isReset } = await exchangeBytes(this.#responses.port, [askingFor(about)]);
    const { pool } = this.#responses.engine;
    // The upstream closes; what was kept must be gone before the next case.
    while (this.#responses.inFlight() + pool.idleCount > 0) await this.#responses.turn();
    const source = { kind: "responses", method: about.method, isEnd: !isReset } as const;
    const { messages, error } = this.#node.read(received, source);
    if (error === "HPE_STRICT" && hasOddExtension(received.toString("latin1"))) return "";
    const found = this.#differenceOfResponses(reading, messages, isReset ? "" : error);
    if (found === "") return "";
    return [
      found,
      `received: ${JSON.stringify(received.toString("latin1"))}, ${isReset ? "reset" : "ended"}`,
      `responses: ${JSON.stringify(about)}`,
    ].join("\n");
  }

  #differenceOfResponses(
    reading: PatinaReading,
    messages: readonly NodeMessage[],
    error: string,
  ): string {
    const last = messages.at(-1);
    const expected = reading.messages.map(({ status }) => status);
    const final = reading.messages.at(-1);
    const hasFinal = final !== undefined && (final.status >= 200 || final.status === 101);
    if (error !== "") return `the client cannot read what it got: ${error}`;
    if (reading.ending === "whole") {
      this.tally.answered += 1;
      if (last?.isComplete !== true) return "a whole response arrives in part";
      return last.body === final?.body || last.status === 101
        ? sameStatuses(expected, messages)
        : "a response arrives with another body";
    }
    // In place of what is refused or broken off the client gets an error, as long as it got no head.
    if (last?.status === 502 && last.isComplete) {
      this.tally.replaced += 1;
      return sameStatuses([...(hasFinal ? expected.slice(0, -1) : expected), 502], messages);
    }
    this.tally.cut += 1;
    if (!hasFinal) return "no answer in place of a response that was refused";
    return last?.isComplete === true ? "a response in part looks whole" : "";
  }
}

/** Starts an engine between a client of bytes and `reader`; rejects when nginx does not start. */
export async function startLive(stack: TestStack, reader: Reader): Promise<Live> {
  const arrivals: Arrival[] = [];
  const recorder = await stack.http((request, response) => {
    void record(request, arrivals).then(() => response.end("x"));
  });
  const script: Script = { pieces: [] };
  const raw = await stack.raw((socket) => {
    socket.once("data", () => void writePieces(socket, script.pieces));
  });
  const port = reader === "node" ? recorder : await startNginx(stack, recorder);
  const requests = await stack.proxy({ ports: [port], times: PATIENT });
  const responses = await stack.proxy({ ports: [raw], times: PATIENT });
  return new Live({ reader, requests, responses, arrivals, script });
}

interface LiveParts {
  readonly reader: Reader;
  readonly requests: TestProxy;
  readonly responses: TestProxy;
  readonly arrivals: Arrival[];
  readonly script: Script;
}

interface Script {
  pieces: readonly Buffer[];
}

interface Arrival {
  /** Method, target and body. */
  readonly summary: string;
  readonly isWhole: boolean;
}

async function record(request: IncomingMessage, arrivals: Arrival[]): Promise<void> {
  let body = "";
  request.on("data", (bytes: Buffer) => (body += bytes.toString("latin1")));
  // A request that is cut off has its end as an error.
  request.on("error", () => undefined);
  const { promise, resolve } = Promise.withResolvers<void>();
  request.on("close", resolve);
  request.on("end", resolve);
  await promise;
  const summary = `${request.method} ${request.url} ${body}`;
  arrivals.push({ summary, isWhole: request.complete });
}

/** Writes, ends, and gathers all that comes until the other side has ended or reset. */
async function exchangeBytes(
  port: number,
  pieces: readonly Buffer[],
): Promise<{ received: Buffer; isReset: boolean }> {
  const socket = connect({ port, host: "127.0.0.1", noDelay: true, allowHalfOpen: true });
  const received: Buffer[] = [];
  let isReset = false;
  socket.on("data", (bytes: Buffer) => received.push(bytes));
  socket.on("error", () => (isReset = true));
  const closed = new Promise((resolve) => socket.on("close", resolve));
  await Promise.race([once(socket, "connect"), closed]);
  await writePieces(socket, pieces);
  await closed;
  return { received: Buffer.concat(received), isReset };
}

async function writePieces(socket: Socket, pieces: readonly Buffer[]): Promise<void> {
  for (const piece of pieces) {
    socket.write(piece);
    await new Promise((resolve) => setImmediate(resolve));
  }
  socket.end();
}

function piecesOf(bytes: Buffer, cuts: readonly number[]): Buffer[] {
  const at = [0, ...cuts, bytes.length];
  return at
    .slice(1)
    .map((end, index) => bytes.subarray(at[index], end))
    .filter(({ length }) => length > 0);
}

function askingFor({ method, clientMinor, wantsUpgrade }: ResponseCase): Buffer {
  const upgrade = wantsUpgrade ? "Connection: upgrade\r\nUpgrade: websocket\r\n" : "";
  const length = method === "POST" || method === "PUT" ? "Content-Length: 0\r\n" : "";
  return Buffer.from(`${method} / HTTP/1.${clientMinor}\r\nHost: a\r\n${upgrade}${length}\r\n`);
}

function sameStatuses(expected: readonly number[], messages: readonly NodeMessage[]): string {
  const statuses = messages.map(({ status }) => status);
  return JSON.stringify(statuses) === JSON.stringify(expected)
    ? ""
    : `statuses ${statuses.join()}, not ${expected.join()}`;
}

function isSubsequence(some: readonly string[], all: readonly string[]): boolean {
  let at = 0;
  for (const one of all) if (one === some[at]) at += 1;
  return at === some.length;
}

/** No case waits for a deadline; on a busy machine none may pass. */
const PATIENT = { halfClosedMs: 60_000, connectMs: 60_000, connectTotalMs: 60_000 };
