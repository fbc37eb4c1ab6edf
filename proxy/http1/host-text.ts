/**
 * The host of a request as text: lower case, no port, no trailing dot.
 *
 * Requests on one connection nearly always name the same host, so the text is made when the bytes
 * differ from those before.
 */

/** Remembers the last host of one connection. */
export class HostText {
  text = "";
  #bytes: Buffer = Buffer.alloc(0);
  #lastText = "";

  /** Takes the host without its port at `bytes[start..end)`; `text` is it. */
  take(bytes: Buffer, start: number, end: number): void {
    if (this.#isSame(bytes, start, end)) {
      this.text = this.#lastText;
      return;
    }
    this.#bytes = Buffer.from(bytes.subarray(start, end));
    const text = this.#bytes.toString("latin1").toLowerCase();
    this.#lastText = text.endsWith(".") ? text.slice(0, -1) : text;
    this.text = this.#lastText;
  }

  /** No host; the next `take` of the same bytes costs no more than before. */
  clear(): void {
    this.text = "";
  }

  #isSame(bytes: Buffer, start: number, end: number): boolean {
    const length = end - start;
    if (this.#bytes.length !== length) return false;
    for (let index = 0; index < length; index += 1) {
      if (this.#bytes[index] !== bytes[start + index]) return false;
    }
    return true;
  }
}
