/**
 * One reader of lines: what it has credit for is sent, the rest waits, and a reader for which too
 * much waits is dropped with a last line that says so.
 *
 * Rows of a large result are not put in line: they are read as the reader takes them, and the
 * changes that come meanwhile wait behind them.
 */
import { errorText } from "#base/errors.ts";

/** What a reader is made with. */
export interface ReaderOptions {
  readonly id: number;
  readonly send: (text: string) => void;
  /** Called once: after the last text, or when the reader left. */
  readonly onEnd: (reader: Reader) => void;
  /** Characters that may be on their way. */
  readonly credit: number;
  /** Characters that may wait. */
  readonly waitingMax: number;
}

/** A reader of one stream. */
export class Reader {
  readonly id: number;
  readonly #options: ReaderOptions;
  readonly #waiting: string[] = [];
  #waitingSize = 0;
  #credit: number;
  #source: Iterator<string> | null = null;
  #isOver = false;

  constructor(options: ReaderOptions) {
    this.id = options.id;
    this.#options = options;
    this.#credit = options.credit;
  }

  /** Sends a text of whole lines, or puts it in line. */
  offer(text: string): void {
    if (this.#isOver || text === "") return;
    if (this.#source === null && this.#waiting.length === 0 && this.#credit > 0) {
      return this.#send(text);
    }
    this.#waiting.push(text);
    this.#waitingSize += text.length;
    if (this.#waitingSize > this.#options.waitingMax) {
      this.fail(`the reader is too slow: ${this.#waitingSize} characters wait for it`);
    }
  }

  /** Gives it texts to read before whatever is offered from here on. Once. */
  readFrom(source: Iterator<string>): void {
    this.#source = source;
    this.#pump();
  }

  /** So many characters were taken. */
  grant(size: number): void {
    this.#credit += size;
    this.#pump();
  }

  /** Ends it with an error as its last line; what waits is left out. */
  fail(error: string): void {
    if (this.#isOver) return;
    this.#options.send(`${JSON.stringify({ error })}\n`);
    this.end();
  }

  /** Ends it. */
  end(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#waiting.length = 0;
    this.#source?.return?.();
    this.#source = null;
    this.#options.onEnd(this);
  }

  #pump(): void {
    while (!this.#isOver && this.#credit > 0) {
      const text = this.#source === null ? this.#shift() : this.#read(this.#source);
      if (text === null) return;
      this.#send(text);
    }
  }

  #shift(): string | null {
    const text = this.#waiting.shift() ?? null;
    this.#waitingSize -= text?.length ?? 0;
    return text;
  }

  /** Empty when the source is at its end. */
  #read(source: Iterator<string>): string | null {
    try {
      const next = source.next();
      if (next.done !== true) return next.value;
      this.#source = null;
      return "";
    } catch (thrown) {
      this.#source = null;
      this.fail(errorText(thrown));
      return null;
    }
  }

  #send(text: string): void {
    if (text === "") return;
    this.#credit -= text.length;
    this.#options.send(text);
  }
}
