/**
 * Bytes of HTTP/1.1 connections from a seed: good, odd and hostile requests and responses.
 *
 * A message is built from a grammar whose alternatives are mostly right and now and then one of
 * those that proxies are known to disagree on (two framing headers, blanks where there may be none,
 * bare line ends, chunk sizes that overflow, folded lines, methods and targets of every form). Then,
 * for some, single bytes are changed anywhere. Texts are Latin-1: one character, one byte.
 */
import { createPrng, type Prng } from "#base/prng.ts";
import * as words from "./message-words.ts";

/** What one upstream sends in answer to one request; it closes behind it. */
export interface ResponseCase {
  readonly method: string;
  /** Minor HTTP version of the client that it is for. */
  readonly clientMinor: 0 | 1;
  readonly wantsUpgrade: boolean;
  readonly text: string;
}

/** What one client sends on one connection. */
export function requestStream(seed: number, index: number): string {
  const grammar = new MessageGrammar(createPrng([seed, index, 1]), ODDNESS);
  let text = "";
  for (let left = 1 + grammar.below(3); left > 0; left -= 1) text += grammar.request();
  return grammar.mutated(text);
}

/** One response with its interim ones and what may follow. */
export function responseCase(seed: number, index: number): ResponseCase {
  const grammar = new MessageGrammar(createPrng([seed, index, 2]), ODDNESS);
  const method = grammar.oneOf(words.RESPONSE_METHODS);
  const wantsUpgrade = method === "GET" && grammar.chance(0.05);
  const text = grammar.mutated(grammar.responses(method));
  const clientMinor = !wantsUpgrade && grammar.chance(0.1) ? 0 : 1;
  return { method, wantsUpgrade, clientMinor, text };
}

/** A request whose every part is as the standards have it, whole. */
export function goodRequest(seed: number, index: number): string {
  return new MessageGrammar(createPrng([seed, index, 3]), 0).request();
}

/** A good response to `method`, interim ones included, whole. */
export function goodResponse(seed: number, index: number, method: string): string {
  return new MessageGrammar(createPrng([seed, index, 4]), 0).responses(method);
}

class MessageGrammar {
  readonly #prng: Prng;
  /** Share of parts that are not as usual. */
  readonly #oddness: number;

  constructor(prng: Prng, oddness: number) {
    this.#prng = prng;
    this.#oddness = oddness;
  }

  below(bound: number): number {
    return this.#prng.below(bound);
  }

  chance(share: number): boolean {
    return this.#prng.next() < share;
  }

  oneOf(items: readonly string[]): string {
    return items[this.#prng.below(items.length)] as string;
  }

  request(): string {
    const method = this.#either(words.METHODS, words.ODD_METHODS);
    const target = this.#either(words.TARGETS, words.ODD_TARGETS);
    const version = this.#either(words.VERSION, words.ODD_VERSIONS);
    const before = this.#either(words.NOTHING, words.BEFORE);
    const gap = this.#either(words.SPACE, words.GAPS);
    const framing = this.#requestFraming(method);
    const lines = [...this.#hostLines(), ...framing.lines, ...this.#others(words.REQUEST_LINES)];
    if (this.chance(0.3)) this.#prng.shuffle(lines);
    const first = `${before}${method}${gap}${target} ${version}${this.#lineEnd()}`;
    return first + this.#section(lines) + framing.body;
  }

  /** Interim responses, the final one, and sometimes something that nobody asked for. */
  responses(method: string): string {
    let text = "";
    while (this.chance(0.15)) text += this.#response(method, true);
    text += this.#response(method, false);
    return this.#isOdd(2) ? text + this.#response(method, false) : text;
  }

  /** Bytes taken out, put in, changed, said twice, or the end cut off. */
  mutated(text: string): string {
    let result = text;
    while (this.chance(0.15)) {
      const at = this.below(result.length + 1);
      const before = result.slice(0, at);
      const change = this.below(5);
      if (change === 0) result = before + result.slice(at + 1);
      else if (change === 1) result = before + this.oneOf(words.BYTES) + result.slice(at);
      else if (change === 2) result = before + this.oneOf(words.BYTES) + result.slice(at + 1);
      else if (change === 3) result = before + result.slice(Math.max(0, at - this.below(24)));
      else result = before;
    }
    return result;
  }

  // ---------------------------------------------------------------- parts

  #hostLines(): string[] {
    const host = `Host: ${this.#either(words.HOSTS, words.ODD_HOSTS)}`;
    if (this.#isOdd(1)) return [];
    return this.#isOdd(1) ? [host, `Host: ${this.oneOf(words.HOSTS)}`] : [host];
  }

  #requestFraming(method: string): Framing {
    const isUsuallyBodiless = method === "GET" || method === "HEAD" || method === "OPTIONS";
    if (this.chance(isUsuallyBodiless ? 0.7 : 0.1)) return NO_FRAMING;
    return this.#isOdd(3) ? this.#oddFraming() : this.#goodFraming();
  }

  #response(method: string, isInterim: boolean): string {
    const usual = isInterim ? words.INTERIM_STATUSES : words.STATUSES;
    const status = this.#either(usual, words.ODD_STATUSES);
    const version = this.#either(words.VERSION, words.ODD_VERSIONS);
    const reason = this.#either(words.REASONS, words.ODD_REASONS);
    const isBodiless = isInterim || status === "204";
    const isHeadOnly = isBodiless || method === "HEAD" || status === "304";
    const framing = this.#responseFraming(isBodiless);
    const lines = [...framing.lines, ...this.#others(words.RESPONSE_LINES)];
    if (this.chance(0.3)) this.#prng.shuffle(lines);
    const body = isHeadOnly && !this.#isOdd(1) ? "" : framing.body;
    return `${version} ${status}${reason}${this.#lineEnd()}${this.#section(lines)}${body}`;
  }

  #responseFraming(isBodiless: boolean): Framing {
    if (isBodiless && !this.#isOdd(3)) return NO_FRAMING;
    if (this.#isOdd(2)) return { lines: [], body: this.oneOf(words.BODIES) };
    return this.#isOdd(2) ? this.#oddFraming() : this.#goodFraming();
  }

  #goodFraming(): Framing {
    if (this.chance(0.5)) {
      const body = this.oneOf(words.BODIES);
      return { lines: [`${this.oneOf(words.LENGTH_NAMES)}: ${body.length}`], body };
    }
    return { lines: [`${this.oneOf(words.CODING_NAMES)}: chunked`], body: this.#chunks() };
  }

  /** Framing headers that two recipients might read in two ways, before a body of either kind. */
  #oddFraming(): Framing {
    const lines: string[] = [];
    for (let left = 1 + this.below(2); left > 0; left -= 1) {
      const isLength = this.chance(0.5);
      const name = this.oneOf(isLength ? words.ODD_LENGTH_NAMES : words.ODD_CODING_NAMES);
      const value = this.oneOf(isLength ? words.ODD_LENGTHS : words.ODD_CODINGS);
      lines.push(name + this.oneOf(words.COLONS) + value);
    }
    return { lines, body: this.chance(0.5) ? this.#chunks() : this.oneOf(words.BODIES) };
  }

  #chunks(): string {
    let text = "";
    for (let left = this.below(4); left > 0; left -= 1) {
      const data = this.oneOf(words.BODIES);
      if (data.length === 0) continue;
      const size = data.length.toString(16);
      const shown = this.#isOdd(1) ? this.oneOf(words.ODD_SIZES).replace("N", size) : size;
      const extension = this.#either(words.EXTENSIONS, words.ODD_EXTENSIONS);
      const shownExtension = this.chance(0.1) ? extension : "";
      text += `${shown}${shownExtension}${this.#lineEnd()}${data}${this.#lineEnd()}`;
    }
    const last = this.#either(words.LAST_SIZES, words.ODD_LAST_SIZES);
    const trailer = this.#either(words.TRAILERS, words.ODD_TRAILERS);
    const trailers = this.chance(0.15) ? [trailer] : [];
    return `${text}${last}${this.#lineEnd()}${this.#section(trailers)}`;
  }

  #others(usual: readonly string[]): string[] {
    const lines: string[] = [];
    for (let left = this.below(4); left > 0; left -= 1) {
      if (this.#isOdd(1)) {
        const name = this.oneOf(words.ODD_NAMES);
        lines.push(name + this.oneOf(words.COLONS) + this.oneOf(words.ODD_VALUES));
      } else lines.push(this.oneOf(usual));
    }
    return lines;
  }

  #section(lines: readonly string[]): string {
    let text = "";
    for (const line of lines) text += line + this.#lineEnd();
    return text + this.#lineEnd();
  }

  #lineEnd(): string {
    return this.#isOdd(0.1) ? this.oneOf(words.LINE_ENDS) : "\r\n";
  }

  #either(usual: readonly string[], odd: readonly string[]): string {
    return this.oneOf(this.#isOdd(1) ? odd : usual);
  }

  #isOdd(times: number): boolean {
    return this.chance(this.#oddness * times);
  }
}

interface Framing {
  readonly lines: readonly string[];
  readonly body: string;
}

const NO_FRAMING: Framing = { lines: [], body: "" };
/** So that about half of all messages are right in every part: a message has some fifteen. */
const ODDNESS = 0.04;
