/**
 * How many versions may be asked and not answered: a window over all sessions that doubles as answers
 * come, and shrinks where versions are large, so that what is open finds room once it is here.
 */
import type { ClientSession } from "./client-session.ts";
import type { SyncClientConfig } from "./config.ts";

/** What a window is a limit for. */
export interface Asked {
  /** Every session, of any phase. */
  readonly sessions: ReadonlyMap<number, ClientSession>;
  /** What came and waits for the store. */
  readonly queue: { readonly pendingChanges: number };
}

/** The window of one sync client. */
export class AskWindow {
  readonly #config: SyncClientConfig;
  readonly #asked: Asked;
  #versions: number;
  /** Smoothed column changes per version. */
  #changesPerVersion = 1;

  constructor(config: SyncClientConfig, asked: Asked) {
    this.#config = config;
    this.#asked = asked;
    this.#versions = config.openVersionsStart;
  }

  /** An answer of so many column changes came, which closed so many versions. */
  answered(changes: number, closed: number): void {
    const weight = changes / Math.max(1, closed);
    this.#changesPerVersion += (weight - this.#changesPerVersion) * SMOOTHING;
    this.#versions = Math.min(this.#versions + closed, this.#config.openVersionsMax);
  }

  /** Versions that `session` may be asked; 0 rather than a crumb. */
  room(session: ClientSession): number {
    const { pendingChangesMax, pieceVersionsMax } = this.#config;
    const freeChanges = pendingChangesMax - this.#asked.queue.pendingChanges;
    if (freeChanges <= 0) return 0;
    let open = 0;
    let asking = 0;
    for (const each of this.#asked.sessions.values()) {
      open += each.openVersions;
      if (each.phase === "asking") asking += 1;
    }
    const bySize = Math.floor(freeChanges / Math.max(1, this.#changesPerVersion));
    const window = Math.max(1, Math.min(this.#versions, bySize));
    const share = Math.ceil(window / Math.max(1, asking));
    const room = Math.min(window - open, share - session.openVersions);
    const crumb = Math.min(pieceVersionsMax, Math.ceil(share / 2));
    return room >= crumb ? room : 0;
  }
}

/** Weight of the newest answer in the mean size. Arbitrary; follows within 20 answers. */
const SMOOTHING = 0.05;
