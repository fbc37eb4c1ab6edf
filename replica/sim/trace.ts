/**
 * A running hash of everything that happens in a world, for the determinism test, and marks of
 * situations that a sweep of seeds must reach.
 */

/** Hash and marks of one run. */
export class Trace {
  #high = 0x811c9dc5;
  #low = 0x01000193;
  /** Situations that happened at least once. */
  readonly marks = new Set<string>();
  events = 0;

  /** Mixes one event into the hash (FNV-1a with two bases). */
  note(atMs: number, who: string, what: string): void {
    this.events += 1;
    this.#mix(Math.round(atMs * 1000) | 0);
    for (let at = 0; at < who.length; at += 1) this.#mix(who.charCodeAt(at));
    for (let at = 0; at < what.length; at += 1) this.#mix(what.charCodeAt(at));
  }

  /** Says that a situation worth testing has been reached. */
  sometimes(mark: string): void {
    this.marks.add(mark);
  }

  /** The hash so far, 16 hexadecimal digits. */
  get hash(): string {
    const hex = (half: number): string => (half >>> 0).toString(16).padStart(8, "0");
    return hex(this.#high) + hex(this.#low);
  }

  #mix(value: number): void {
    this.#high = Math.imul(this.#high ^ value, 0x01000193);
    this.#low = Math.imul(this.#low ^ value ^ (this.#high >>> 15), 0x85ebca6b);
  }
}
