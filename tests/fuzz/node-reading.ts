/**
 * What Node's own HTTP parser (llhttp, strict) makes of bytes: the judge of everything that Patina
 * passes on. It is driven below `node:http`, so that millions of messages can be read; the rules of
 * Node's server and client that decide about framing are kept (a response to HEAD has no body, a
 * server that does not switch protocols goes on with the next request).
 */

/** One message as Node reads it. */
export interface NodeMessage {
  /** `""` in a response. */
  readonly method: string;
  readonly target: string;
  /** 0 in a request. */
  readonly status: number;
  /** Names and values in turn, as they came; trailers included. */
  readonly headers: readonly string[];
  body: string;
  isComplete: boolean;
}

/** All that was read of one connection. */
export interface NodeReading {
  readonly messages: readonly NodeMessage[];
  /** Code of what Node refused, `""` = nothing. */
  readonly error: string;
}

/** What is read, and what is known beside the bytes. */
export interface NodeSource {
  readonly kind: "requests" | "responses";
  /** Method that the responses answer. */
  readonly method?: string;
  /** The sender closes after the bytes. */
  readonly isEnd?: boolean;
}

/** One parser, used again for each reading. */
export class NodeReader {
  readonly #parser = new HTTPParser();
  #messages: NodeMessage[] = [];
  #headers: string[] = [];
  #target = "";
  #isHead = false;

  constructor() {
    const parser = this.#parser;
    parser[HTTPParser.kOnMessageBegin] = () => {
      this.#headers = [];
      this.#target = "";
    };
    // Header lines beyond the first few, and trailers.
    parser[HTTPParser.kOnHeaders] = (headers: string[], target: string) => {
      this.#headers.push(...headers);
      this.#target += target;
    };
    parser[HTTPParser.kOnHeadersComplete] = this.#onHead;
    parser[HTTPParser.kOnBody] = (bytes: Buffer) => {
      (this.#messages.at(-1) as NodeMessage).body += bytes.toString("latin1", 0, bytes.length);
    };
    parser[HTTPParser.kOnMessageComplete] = () => {
      (this.#messages.at(-1) as NodeMessage).isComplete = true;
    };
  }

  /** Reads `bytes` as everything that came on one connection. */
  read(bytes: Buffer, source: NodeSource): NodeReading {
    const messages: NodeMessage[] = [];
    this.#messages = messages;
    this.#isHead = source.method === "HEAD";
    const kind = source.kind === "requests" ? HTTPParser.REQUEST : HTTPParser.RESPONSE;
    let rest = bytes;
    for (;;) {
      this.#parser.initialize(kind, RESOURCE, HEAD_BYTES_MAX, HTTPParser.kLenientNone);
      const used = this.#parser.execute(rest);
      if (typeof used !== "number") return { messages, error: used.code };
      if (used >= rest.length || used === 0) break;
      if (source.kind === "responses") return { messages, error: "" };
      // With an upgrade asked for, errors in the body have no code.
      if (messages.at(-1)?.isComplete !== true) return { messages, error: "UPGRADE_BODY" };
      // It stopped where another protocol would begin; a server that has none goes on.
      rest = rest.subarray(used);
    }
    if (source.isEnd !== true) return { messages, error: "" };
    const ended = this.#parser.finish();
    return { messages, error: ended === undefined ? "" : ended.code };
  }

  readonly #onHead = (
    _major: number,
    _minor: number,
    headers: string[] | undefined,
    method: number | undefined,
    target: string | undefined,
    status: number | undefined,
  ): number => {
    if (headers !== undefined) this.#headers.push(...headers);
    this.#messages.push({
      method: method === undefined ? "" : methodText(method),
      target: target === undefined || target === "" ? this.#target : target,
      status: status ?? 0,
      headers: this.#headers,
      body: "",
      isComplete: false,
    });
    if (status === undefined) return GO_ON;
    return this.#isHead || (status < 200 && status !== 101) ? NO_BODY : GO_ON;
  };
}

/** Whether Node knows a method at all: others it refuses, whatever follows. */
export function isKnownToNode(method: string): boolean {
  return METHODS.includes(method);
}

/** The parser numbers QUERY behind the methods of another protocol, which the list leaves out. */
function methodText(number: number): string {
  return number === QUERY ? "QUERY" : (METHODS[number] ?? "");
}

type Callback = (...args: never[]) => unknown;
type ParserError = Error & { readonly code: string };

interface Parser {
  [callback: number]: Callback;
  initialize(kind: number, resource: object, headBytesMax: number, lenience: number): void;
  execute(bytes: Buffer): number | ParserError;
  finish(): ParserError | undefined;
}

interface ParserClass {
  new (): Parser;
  readonly REQUEST: number;
  readonly RESPONSE: number;
  readonly kLenientNone: number;
  readonly kOnMessageBegin: number;
  readonly kOnHeaders: number;
  readonly kOnHeadersComplete: number;
  readonly kOnBody: number;
  readonly kOnMessageComplete: number;
}

// No public module has the parser; this one is where `node:http` itself takes it from.
const { HTTPParser, methods: METHODS } = process.getBuiltinModule(
  "_http_common" as "http",
) as unknown as { readonly HTTPParser: ParserClass; readonly methods: readonly string[] };
const QUERY = 46;
const RESOURCE = {};
/** Above our own limit, so that ours decides. */
const HEAD_BYTES_MAX = 65_536;
/** Answers to the parser at the end of a head. */
const GO_ON = 0;
const NO_BODY = 1;
