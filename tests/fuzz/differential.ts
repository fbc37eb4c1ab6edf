/**
 * The rule of the differential fuzz, judged on one case: whatever Patina passes on is read by Node
 * as the same single message, and no bytes are one message for one of them and two for the other.
 *
 * Each case is read three times by Patina (whole; in pieces, which may change nothing) and Node
 * (the bytes as they came; what Patina would pass on, with a sentinel message behind it). Either may
 * refuse where the other does not, with one limit: what Patina passes on Node may refuse only for
 * reasons that have nothing to do with where a message ends (`STRICTER_OF_NODE`).
 */
import { createPrng } from "#base/prng.ts";
import { requestStream, responseCase, type ResponseCase } from "./message-grammar.ts";
import { isKnownToNode, NodeReader, type NodeMessage, type NodeReading } from "./node-reading.ts";
import { PatinaReader, type PassedMessage, type PatinaReading } from "./patina-reading.ts";

/** What a sweep has seen: each must be far from zero, or the comparison says nothing. */
export interface FuzzTally {
  cases: number;
  /** Messages that Patina passed on whole, or in part (the rest did not come, or was refused). */
  passedWhole: number;
  passedInPart: number;
  /** Cases that ended with a refusal of Patina. */
  refused: number;
  /** Of what was passed on: refused by Node for a reason of its own. */
  nodeRefused: number;
  /** Codes of Patina's refusals. */
  readonly refusals: Map<string, number>;
}

/** An empty tally. */
export function createTally(): FuzzTally {
  return {
    cases: 0,
    passedWhole: 0,
    passedInPart: 0,
    refused: 0,
    nodeRefused: 0,
    refusals: new Map(),
  };
}

/** Adds what another process has seen. */
export function addTally(sum: FuzzTally, other: FuzzTally): void {
  sum.cases += other.cases;
  sum.passedWhole += other.passedWhole;
  sum.passedInPart += other.passedInPart;
  sum.refused += other.refused;
  sum.nodeRefused += other.nodeRefused;
  for (const [code, count] of other.refusals) countRefusal(sum, code, count);
}

/** Judges cases; one object for many. */
export class Differential {
  readonly tally = createTally();
  readonly #patina: Pick<PatinaReader, "requests" | "responses">;
  readonly #node = new NodeReader();

  /** Another reader than Patina's is for trying whether the judge finds what is wrong. */
  constructor(patina: Pick<PatinaReader, "requests" | "responses"> = new PatinaReader()) {
    this.#patina = patina;
  }

  /**
   * Judges case `index` of `seed`: what is wrong with it, `""` = nothing. Even ones are what a client
   * sends, odd ones what an upstream answers.
   */
  judge(seed: number, index: number): string {
    if (index % 2 === 1) return this.#judgeResponses(seed, index);
    const text = requestStream(seed, index);
    return this.judgeRequests(text, cutsOf(seed, index, text.length));
  }

  /** Judges what a client sends on one connection. */
  judgeRequests(text: string, cuts: readonly number[]): string {
    const bytes = Buffer.from(text, "latin1");
    const reading = this.#patina.requests(bytes);
    this.#count(reading);
    const pieces = this.#patina.requests(bytes, cuts);
    const found =
      differenceInPieces(reading, pieces) ||
      this.#rawRequests(reading, bytes) ||
      firstOf(reading.messages, (message) => this.#passedRequest(message));
    return found === "" ? "" : `${found}\nrequests: ${JSON.stringify(text)}`;
  }

  #judgeResponses(seed: number, index: number): string {
    const about = responseCase(seed, index);
    const bytes = Buffer.from(about.text, "latin1");
    const reading = this.#patina.responses(bytes, about);
    this.#count(reading);
    const pieces = this.#patina.responses(bytes, about, cutsOf(seed, index, bytes.length));
    const found =
      differenceInPieces(reading, pieces) ||
      this.#rawResponses(reading, bytes, about) ||
      this.#passedResponses(reading, about);
    return found === "" ? "" : `${found}\nresponses: ${JSON.stringify(about)}`;
  }

  /** The bytes as they came: as far as both read on, they read the same. */
  #rawRequests(reading: PatinaReading, bytes: Buffer): string {
    const { messages, error } = this.#node.read(bytes, { kind: "requests" });
    return firstOf(reading.messages, (message, at) => {
      const other = messages[at];
      const isLast = at === messages.length - 1;
      const what = `request ${at} as received`;
      return (
        (other && message.target !== other.target ? `${what}: another target` : "") ||
        sameMessage(what, message, { other, isCutShort: isLast && error !== "" })
      );
    });
  }

  /** Whether Node refuses, for a reason of its own, what is passed on. */
  isRefusedByNode(message: PassedMessage): boolean {
    const { error } = this.#node.read(message.out, { kind: "requests" });
    return error !== "" && this.#isNodesOwn(error, message);
  }

  /** What goes to an upstream: this request, and behind it whatever comes next. */
  #passedRequest(message: PassedMessage): string {
    const reading = this.#readPassed(message.out, message.isComplete ? NEXT_REQUEST : NOTHING, {
      kind: "requests",
    });
    const { messages, error } = reading;
    if (error !== "" && this.#isNodesOwn(error, message)) return "";
    if (error !== "") return `Node refuses what is passed on: ${error}`;
    const [first, next] = messages;
    const hosts = valuesOf(first, "host");
    return (
      sameMessage("request as passed on", message, { other: first, isCutShort: false }) ||
      (first?.target === message.targetOut ? "" : "passed on with another target") ||
      (hosts.length === 1 && hosts[0] === message.host
        ? ""
        : `passed on with hosts ${hosts.join()}`) ||
      countWrong(messages, message.isComplete ? 2 : 1) ||
      (next === undefined || next.target === "/next" ? "" : "the next request is not the next")
    );
  }

  #rawResponses(reading: PatinaReading, bytes: Buffer, about: ResponseCase): string {
    const source = { kind: "responses", method: about.method, isEnd: true } as const;
    const { messages, error } = this.#node.read(bytes, source);
    // An HTTP/1.0 client gets no interim responses: the last one is the one to compare.
    const others = about.clientMinor === 0 ? messages.filter(isFinal) : messages;
    return firstOf(reading.messages, (message, at) => {
      const isLast = at === others.length - 1;
      const verdict = { other: others[at], isCutShort: isLast && error !== "" };
      return sameMessage(`response ${at} as received`, message, verdict);
    });
  }

  /** What goes to a client: interim responses, this one, and behind it whatever comes next. */
  #passedResponses({ messages: passed }: PatinaReading, about: ResponseCase): string {
    const last = passed.at(-1);
    if (last === undefined) return "";
    const hasNext = last.isComplete && last.isPersistent && last.status >= 200;
    const out = Buffer.concat(passed.map((message) => message.out));
    // A response that was cut short is followed by a reset, not by an end.
    const isEnd = last.isComplete && !hasNext && last.status !== 101;
    const { messages, error } = this.#readPassed(out, hasNext ? NEXT_RESPONSE : NOTHING, {
      kind: "responses",
      method: about.method,
      isEnd,
    });
    if (error !== "" && this.#isNodesOwn(error, last)) return "";
    if (error !== "") return `Node refuses what is passed on: ${error}`;
    return (
      firstOf(passed, (message, at) =>
        sameMessage(`response ${at} as passed on`, message, {
          other: messages[at],
          isCutShort: false,
        }),
      ) ||
      countWrong(messages, passed.length + (hasNext ? 1 : 0)) ||
      (!hasNext || messages.at(-1)?.status === 299 ? "" : "the next response is not the next")
    );
  }

  #readPassed(out: Buffer, next: Buffer, source: Parameters<NodeReader["read"]>[1]): NodeReading {
    return this.#node.read(next.length === 0 ? out : Buffer.concat([out, next]), source);
  }

  #isNodesOwn(error: string, message: PassedMessage): boolean {
    const isOwn =
      (error === "HPE_INVALID_METHOD" && !isKnownToNode(message.method)) ||
      (STRICTER_OF_NODE.get(error)?.(message) ?? false);
    if (isOwn) this.tally.nodeRefused += 1;
    return isOwn;
  }

  #count({ messages, ending }: PatinaReading): void {
    const { tally } = this;
    tally.cases += 1;
    for (const { isComplete } of messages) {
      if (isComplete) tally.passedWhole += 1;
      else tally.passedInPart += 1;
    }
    if (typeof ending === "string") return;
    tally.refused += 1;
    countRefusal(tally, ending.refused, 1);
  }
}

interface OtherReading {
  /** `undefined` = the other refused before it. */
  readonly other: NodeMessage | undefined;
  /** The other refused in the middle of it. */
  readonly isCutShort: boolean;
}

/** Whether two readings of one message agree as far as both go. */
function sameMessage(what: string, message: PassedMessage, { other, isCutShort }: OtherReading) {
  if (other === undefined) return "";
  if (message.method !== other.method) return `${what}: another method`;
  if (message.status !== other.status) return `${what}: another status`;
  if (message.isComplete && other.isComplete) {
    return message.body === other.body ? "" : `${what}: another body`;
  }
  // One refused its rest: what was read before that is the same.
  if (message.isComplete && !isCutShort) return `${what}: whole for Patina, not for Node`;
  if (other.isComplete && !message.isRefused) return `${what}: whole for Node, not for Patina`;
  const [short, long] = [message.body, other.body].toSorted((a, b) => a.length - b.length);
  return long?.startsWith(short ?? "") ? "" : `${what}: another start of the body`;
}

/** Cutting the bytes into pieces changes neither what is passed on nor what is refused. */
function differenceInPieces(whole: PatinaReading, pieces: PatinaReading): string {
  if (JSON.stringify(whole.ending) !== JSON.stringify(pieces.ending)) {
    return `in pieces: ${JSON.stringify(pieces.ending)} for ${JSON.stringify(whole.ending)}`;
  }
  if (whole.messages.length !== pieces.messages.length) return "in pieces: not as many messages";
  return firstOf(whole.messages, (message, at) => {
    const other = pieces.messages[at] as PassedMessage;
    const isSame = message.out.equals(other.out) && message.end === other.end;
    return isSame ? "" : `in pieces: message ${at} is another`;
  });
}

/** Where a case is cut into pieces, ascending. */
export function cutsOf(seed: number, index: number, length: number): number[] {
  const prng = createPrng([seed, index, 5]);
  return [prng.below(length), prng.below(length), prng.below(length)].sort((a, b) => a - b);
}

function firstOf<Item>(items: readonly Item[], judge: (item: Item, at: number) => string): string {
  for (let at = 0; at < items.length; at += 1) {
    const found = judge(items[at] as Item, at);
    if (found !== "") return found;
  }
  return "";
}

function countWrong(messages: readonly NodeMessage[], expected: number): string {
  return messages.length === expected ? "" : `${messages.length} messages, not ${expected}`;
}

function valuesOf(message: NodeMessage | undefined, name: string): string[] {
  const headers = message?.headers ?? [];
  return headers.filter((_, at) => at % 2 === 1 && headers[at - 1]?.toLowerCase() === name);
}

function isFinal({ status }: NodeMessage): boolean {
  return status >= 200;
}

/** Whether chunk extensions are there that RFC 9112 knows only as bad ones, and Node not at all. */
export function hasOddExtension(text: string): boolean {
  const lines = text.match(/^[0-9a-f]+;[^\r]*/gim) ?? [];
  return lines.some((line) => !GOOD_EXTENSIONS.test(line));
}

function countRefusal({ refusals }: FuzzTally, code: string, count: number): void {
  refusals.set(code, (refusals.get(code) ?? 0) + count);
}

/** What Node refuses and we pass on, and when: each is no matter of where a message ends. */
const STRICTER_OF_NODE: ReadonlyMap<string, (message: PassedMessage) => boolean> = new Map([
  // The method of HTTP/2's preface.
  ["HPE_INVALID_VERSION", ({ method }) => method === "PRI"],
  // Blanks, or no name, in a chunk extension.
  ["HPE_STRICT", ({ out }) => hasOddExtension(out.toString("latin1"))],
  ["UPGRADE_BODY", ({ out }) => hasOddExtension(out.toString("latin1"))],
]);

const GOOD_EXTENSIONS =
  /^[0-9a-f]+(?:;[\w!#$%&'*+.^`|~-]+(?:=(?:[\w!#$%&'*+.^`|~-]+|"(?:[^"\\]|\\.)*"))?)+$/i;
const NOTHING = Buffer.alloc(0);
const NEXT_REQUEST = Buffer.from("GET /next HTTP/1.1\r\nHost: next\r\n\r\n");
const NEXT_RESPONSE = Buffer.from("HTTP/1.1 299 Next\r\nContent-Length: 0\r\n\r\n");
