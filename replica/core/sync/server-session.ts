/**
 * One session of a sync server: what its client asked and has not been read, what is being read,
 * and what is handed out but not taken by the stream.
 *
 *     greeting --start--> clocking --clock--> serving --client's FIN and all answered--> gone
 */
import type { ActorId, Changeset, ReadVersionsRequest, SyncNeed } from "../../types.ts";
import type { SyncServerConfig } from "./config.ts";

/** How far a session is. */
export type ServerPhase = "greeting" | "clocking" | "serving";

/** A session as its server sees it. */
export class ServerSession {
  readonly sessionId: number;
  readonly startedMs: number;
  phase: ServerPhase = "greeting";
  /** Last time that the client said something, took something, or was owed something. */
  heardMs: number;
  peerActorId: ActorId | null = null;
  isClientFinished = false;
  hasAsked = false;
  /** Frames handed out and not taken. */
  unsentFrames = 0;
  /** Reads of the store without an answer. */
  readonly reads = new Map<number, ReadVersionsRequest>();
  #chunkBytes: number;
  /** Waiting needs, in the order asked, from `#next` on. */
  #needs: { readonly actorId: ActorId; readonly need: SyncNeed }[] = [];
  #next = 0;

  constructor(options: { sessionId: number; nowMs: number; chunkBytes: number }) {
    this.sessionId = options.sessionId;
    this.startedMs = options.nowMs;
    this.heardMs = options.nowMs;
    this.#chunkBytes = options.chunkBytes;
  }

  /** Needs not begun, or begun and not read to their end. */
  get waitingNeeds(): number {
    return this.#needs.length - this.#next;
  }

  /** Whether everything asked has been read and taken by the stream. */
  get isIdle(): boolean {
    return this.waitingNeeds === 0 && this.reads.size === 0 && this.unsentFrames === 0;
  }

  /** When the session is given up, monotonic milliseconds. */
  deadlineMs(config: SyncServerConfig): number {
    const oldestMs = this.startedMs + config.sessionMaxMs;
    if (this.phase === "greeting") return this.startedMs + config.startTimeoutMs;
    if (this.phase === "clocking") return this.heardMs + config.clockTimeoutMs;
    if (this.unsentFrames > 0) return Math.min(oldestMs, this.heardMs + config.sendTimeoutMs);
    // While the store reads, the wait is ours.
    return this.isIdle ? Math.min(oldestMs, this.heardMs + config.idleMs) : oldestMs;
  }

  queue(actorId: ActorId, need: SyncNeed): void {
    this.hasAsked = true;
    this.#needs.push({ actorId, need });
  }

  /**
   * The next read, at most `readVersionsMax` versions from the newest down; `null` = none left.
   * `headOf` bounds what a client can make us walk through; needs above the head are skipped.
   */
  takeRead(
    readVersionsMax: number,
    headOf: (actorId: ActorId) => number,
  ): ReadVersionsRequest | null {
    for (let asked = this.#needs[this.#next]; asked; asked = this.#needs[this.#next]) {
      const { actorId, need } = asked;
      const head = headOf(actorId);
      if (need.kind === "partial") {
        this.#advance();
        if (need.version > head) continue;
        return { actorId, need, chunkBytes: this.#chunkBytes };
      }
      const end = Math.min(need.versions.end, head);
      const least = Math.max(1, need.versions.start);
      const start = Math.max(least, end - readVersionsMax + 1);
      if (start <= least) this.#advance();
      else {
        const rest = { start: least, end: start - 1 };
        this.#needs[this.#next] = { actorId, need: { kind: "full", versions: rest } };
      }
      if (end < start) continue;
      const piece = { kind: "full", versions: { start, end } } as const;
      return { actorId, need: piece, chunkBytes: this.#chunkBytes };
    }
    return null;
  }

  /**
   * Puts back what a read did not come to: the store answers newest first and stops when the answer
   * is large, so everything below the least version answered is still to be read. An answer that says
   * nothing ends the need: what is left are gaps of ours.
   */
  resume(request: ReadVersionsRequest, changesets: readonly Changeset[]): void {
    const { actorId, need } = request;
    if (need.kind !== "full" || changesets.length === 0) return;
    let least = Number.POSITIVE_INFINITY;
    for (const one of changesets) {
      least = Math.min(least, one.kind === "full" ? one.version : one.versions.start);
    }
    if (least <= need.versions.start) return;
    const versions = { start: need.versions.start, end: least - 1 };
    this.#putFirst({ actorId, need: { kind: "full", versions } });
  }

  /** Smaller chunks for a slow peer, so that each send stays short. */
  shrinkChunks(chunkBytesMin: number): void {
    this.#chunkBytes = Math.max(chunkBytesMin, Math.floor(this.#chunkBytes / 2));
  }

  #putFirst(asked: { readonly actorId: ActorId; readonly need: SyncNeed }): void {
    if (this.#next === 0) {
      this.#needs.unshift(asked);
      return;
    }
    this.#next -= 1;
    this.#needs[this.#next] = asked;
  }

  #advance(): void {
    this.#next += 1;
    if (this.#next < COMPACT_AT) return;
    this.#needs = this.#needs.slice(this.#next);
    this.#next = 0;
  }
}

/** Needs done with before the list is cut; arbitrary, keeps each cut's cost spread. */
const COMPACT_AT = 1024;
