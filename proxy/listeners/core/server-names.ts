/**
 * Which certificate a client gets: by the name that it asks for (SNI), the exact name first, then a
 * wildcard of its parent (RFC 9110 section 4.3.4: `*` stands for one label).
 */

/** Something that serves names: `a.example`, or `*.example` for every name one label below. */
export interface NamedValue<Value> {
  readonly names: readonly string[];
  readonly value: Value;
}

/** A look-up by name; of several that serve one name the first is taken. */
export class ServerNames<Value> {
  readonly #valueByName = new Map<string, Value>();

  constructor(entries: readonly NamedValue<Value>[]) {
    for (const { names, value } of entries) {
      for (const name of names) {
        const key = plain(name);
        if (!this.#valueByName.has(key)) this.#valueByName.set(key, value);
      }
    }
  }

  /** The value for a name as a client sends it, or `null`: then the caller has a default. */
  find(name: string): Value | null {
    const key = plain(name);
    const exact = this.#valueByName.get(key);
    if (exact !== undefined) return exact;
    const dot = key.indexOf(".");
    if (dot <= 0) return null;
    return this.#valueByName.get(`*${key.slice(dot)}`) ?? null;
  }
}

/**
 * The DNS names in a certificate's `subjectAltName` as Node writes it: `DNS:a.example, IP Address:
 * ...`. Names that need quoting there are none that a client can ask for.
 */
export function dnsNamesOf(subjectAltName: string): string[] {
  return subjectAltName
    .split(", ")
    .filter((entry) => entry.startsWith("DNS:"))
    .map((entry) => entry.slice(4));
}

function plain(name: string): string {
  const lower = name.toLowerCase();
  return lower.endsWith(".") ? lower.slice(0, -1) : lower;
}
