/**
 * When and to whom a replica announces itself without knowing who is there (protocol reference,
 * section 2.8): at start, then ever more slowly, then at a steady pace for ever.
 *
 * It goes on after joining, because two clusters that know nothing of each other (both seeds down
 * at once, a partition longer than the memory of down members) have no other way to meet.
 */
import type { Prng } from "#base/prng.ts";
import type { Address } from "../../types.ts";
import { canonicalAddress } from "./address.ts";
import type { AnnouncerConfig } from "./config.ts";

/** The schedule and targets of announcements. */
export class Announcer {
  readonly #config: AnnouncerConfig;
  readonly #prng: Prng;
  /** Canonical addresses, our own not among them. */
  #bootstrap: readonly Address[] = [];
  /** Rounds done since the start or the last restart of the schedule. */
  #rounds = 0;

  constructor(config: AnnouncerConfig, prng: Prng) {
    this.#config = config;
    this.#prng = prng;
  }

  /**
   * Replaces the bootstrap addresses, our own left out. Answers which of them were not there
   * before, and how many were no addresses.
   */
  setBootstrap(texts: readonly string[], own: Address): { added: Address[]; refused: number } {
    const known = new Set(this.#bootstrap);
    const usable = new Set<Address>();
    let refused = 0;
    for (const text of texts) {
      const address = canonicalAddress(text);
      if (!address.ok) refused += 1;
      else if (address.value !== own) usable.add(address.value);
    }
    this.#bootstrap = [...usable];
    return { added: this.#bootstrap.filter((address) => !known.has(address)), refused };
  }

  /** Begins the schedule anew, fast at first: for a replica that has lost everybody. */
  restart(): void {
    this.#rounds = 0;
  }

  /** Delay until the round after this one, milliseconds. Counts a round. */
  nextDelayMs(): number {
    const { firstDelayMs, maxDelayMs, backoffRounds, steadyDelayMs, jitter } = this.#config;
    const round = this.#rounds;
    this.#rounds += 1;
    if (round >= backoffRounds) return steadyDelayMs;
    const delayMs = Math.min(maxDelayMs, firstDelayMs * 2 ** round);
    return delayMs * (1 + jitter * (2 * this.#prng.next() - 1));
  }

  /** Addresses to announce to in this round; `fallback` stands in where there is no bootstrap. */
  targets(fallback: () => readonly Address[]): Address[] {
    const candidates = this.#bootstrap.length > 0 ? this.#bootstrap : fallback();
    return this.#prng.sample(candidates, this.#config.targetsMax);
  }
}
