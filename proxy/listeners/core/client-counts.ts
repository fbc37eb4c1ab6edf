/**
 * Connections by client, so that one client cannot have them all. A client is an IPv4 address, or
 * the first 64 bits of an IPv6 address: whoever has one address of such a network has all of them.
 */

/** Counts of one data-plane thread. */
export class ClientCounts {
  readonly #max: number;
  readonly #countByClient = new Map<string, number>();

  /** `max`: connections per client; 0 = any number. */
  constructor(max: number) {
    this.#max = max;
  }

  /** Clients with at least one connection. */
  get clientCount(): number {
    return this.#countByClient.size;
  }

  /** Counts one more; false = it has as many as it may, and nothing was counted. */
  take(address: string): boolean {
    const client = clientOf(address);
    const count = this.#countByClient.get(client) ?? 0;
    if (this.#max > 0 && count >= this.#max) return false;
    this.#countByClient.set(client, count + 1);
    return true;
  }

  /** One of them is closed; pair with a `take` that said true. */
  give(address: string): void {
    const client = clientOf(address);
    const count = this.#countByClient.get(client) ?? 0;
    if (count > 1) this.#countByClient.set(client, count - 1);
    else this.#countByClient.delete(client);
  }
}

/** What stands for a client: the address, or four groups of an IPv6 one. */
export function clientOf(address: string): string {
  if (address.startsWith("::ffff:") && address.includes(".")) return address.slice(7);
  if (!address.includes(":")) return address;
  const [head = "", tail] = address.split("::");
  const groups = head === "" ? [] : head.split(":");
  const after = tail === undefined || tail === "" ? 0 : tail.split(":").length;
  const missing = tail === undefined ? 0 : Math.max(0, 8 - groups.length - after);
  const all = [
    ...groups,
    ...Array.from({ length: missing }, () => "0"),
    ...(tail ?? "").split(":"),
  ];
  return `${all.slice(0, 4).join(":")}::/64`;
}
