/**
 * Pairwise repair, the side that answers: tells its sync state, and reads from the store what
 * clients ask, newest versions first.
 *
 * Nothing is sent that the store did not say, so a version in a gap or above our head earns no
 * answer, never a false Empty. Work is bounded per session: reads under way, frames that the stream
 * has not taken, needs waiting. A client that does not read is given up; one that reads slowly gets
 * smaller chunks.
 *
 * Source: protocol reference, sections 4.2 and 4.4. Deviation: Corrosion serves six jobs of a
 * session in parallel; here reads keep their order, because the store has one thread.
 */
import type { ActorId, Changeset, ReadVersionsRequest } from "../../types.ts";
import type { Machine } from "#base/machine.ts";
import type { Bookkeeping } from "../bookkeeping/bookkeeping.ts";
import { changeWeight } from "../replica-stats.ts";
import type { SyncRejection, SyncRequest, SyncState } from "../wire/types.ts";
import type { SyncIdentity, SyncServerConfig } from "./config.ts";
import type { SessionMessage } from "./messages.ts";
import { ServerSession } from "./server-session.ts";
import type { Uplink } from "../uplink.ts";

/** What happens to a sync server. Session ids are the driver's; unknown ones are ignored. */
export type SyncServerInput =
  /** A peer opened a stream; `sessionId` was never used before. */
  | { readonly kind: "accepted"; readonly sessionId: number }
  | { readonly kind: "message"; readonly sessionId: number; readonly message: SessionMessage }
  /** The client's FIN, after all of its messages. */
  | { readonly kind: "finished"; readonly sessionId: number }
  /** The stream or its connection broke, or said something undecodable. */
  | { readonly kind: "broken"; readonly sessionId: number }
  /** The answer to `read`. */
  | {
      readonly kind: "versions";
      readonly requestId: number;
      readonly changesets: readonly Changeset[];
    }
  /** The stream took `frames` of what was sent as `changesets`; due for all of them. */
  | {
      readonly kind: "sent";
      readonly sessionId: number;
      readonly frames: number;
      readonly tookMs: number;
    }
  | { readonly kind: "tick" };

/** What a sync server wants done. */
export type SyncServerOutput =
  /** `changesets` are one frame each, and acknowledged by `sent`. */
  | { readonly kind: "send"; readonly sessionId: number; readonly message: SessionMessage }
  /** End our direction after what was sent; nothing more is said of the session. */
  | { readonly kind: "finish"; readonly sessionId: number }
  /** Give up both directions; nothing more is said of the session. */
  | { readonly kind: "abort"; readonly sessionId: number }
  /** Read from the store; answer with `versions`, also when the store failed (then none). */
  | {
      readonly kind: "read";
      readonly sessionId: number;
      readonly requestId: number;
      readonly request: ReadVersionsRequest;
    }
  /** A client's hybrid clock, for the merge. */
  | { readonly kind: "clock"; readonly ts: bigint }
  | { readonly kind: "notify"; readonly event: SyncServerEvent };

/** Facts for log and metrics. */
export type SyncServerEvent = {
  readonly kind: "sessionEnded";
  readonly peer: ActorId | null;
  readonly reason: ServerSessionEnd;
};

/** Why a session ended. */
export type ServerSessionEnd =
  | "done"
  /** The client found that it lacks nothing, and went. */
  | "nothing asked"
  | "broken"
  | "timed out"
  /** It was silent, and another client needed its place. */
  | "gave way"
  | "too many streams"
  | "too many needs"
  | "protocol violated"
  | `rejected: ${SyncRejection}`;

/** Plain counters since the start. */
export interface SyncServerStats {
  sessions: number;
  sessionsRejected: number;
  sessionsFailed: number;
  /** Needs in requests received: a range of versions, or a version in part. */
  needsReceived: number;
  changesetsSent: number;
  /** Their column changes; an Empty counts as one. */
  changesSent: number;
  reads: number;
}

/** What a sync server is made of. `stamp` draws a stamp from the replica's hybrid clock. */
export interface SyncServerOptions {
  readonly identity: SyncIdentity;
  readonly config: SyncServerConfig;
  /** The replica's books; read only. */
  readonly books: Bookkeeping;
  readonly stamp: (nowMs: number) => bigint;
  /** What clients are told of our own head, which is `head`. Default: the truth. */
  readonly ownHead?: (head: number, nowMs: number) => number;
  /** Whose budget answers wait for. Default: nobody's. */
  readonly uplink?: Pick<Uplink, "isOpenForSync" | "opensForSyncAtMs">;
}

/** The answering side of anti-entropy. */
export class SyncServer implements Machine<SyncServerInput, SyncServerOutput> {
  readonly stats: SyncServerStats = {
    sessions: 0,
    sessionsRejected: 0,
    sessionsFailed: 0,
    needsReceived: 0,
    changesetsSent: 0,
    changesSent: 0,
    reads: 0,
  };
  readonly #identity: SyncIdentity;
  readonly #config: SyncServerConfig;
  readonly #books: Bookkeeping;
  readonly #stamp: (nowMs: number) => bigint;
  readonly #ownHead: (head: number, nowMs: number) => number;
  readonly #uplink: SyncServerOptions["uplink"];
  /** Sessions with something to read, for which the uplink has no room. */
  readonly #heldBack = new Set<ServerSession>();
  readonly #sessions = new Map<number, ServerSession>();
  /** Which session a read is for. */
  readonly #sessionByRead = new Map<number, number>();
  #outbox: SyncServerOutput[] = [];
  #nextRequestId = 1;

  constructor(options: SyncServerOptions) {
    this.#identity = options.identity;
    this.#config = options.config;
    this.#books = options.books;
    this.#stamp = options.stamp;
    this.#ownHead = options.ownHead ?? ((head) => head);
    this.#uplink = options.uplink;
  }

  /** Sessions that were let in and have not ended. */
  get servingCount(): number {
    return this.#countIn("serving");
  }

  handle(input: SyncServerInput, nowMs: number): void {
    switch (input.kind) {
      case "accepted":
        return this.#onAccepted(input.sessionId, nowMs);
      case "message":
        return this.#onMessage(input, nowMs);
      case "finished":
        return this.#onFinished(input.sessionId, nowMs);
      case "broken":
        return this.#onBroken(input.sessionId);
      case "versions":
        return this.#onVersions(input, nowMs);
      case "sent":
        return this.#onSent(input, nowMs);
      case "tick":
        return this.#onTick(nowMs);
    }
  }

  drain(): SyncServerOutput[] {
    const outputs = this.#outbox;
    this.#outbox = [];
    return outputs;
  }

  deadlineMs(): number {
    let least = Number.POSITIVE_INFINITY;
    for (const session of this.#sessions.values()) {
      least = Math.min(least, session.deadlineMs(this.#config));
    }
    if (this.#heldBack.size > 0) least = Math.min(least, this.#uplink?.opensForSyncAtMs() ?? least);
    return least;
  }

  #onAccepted(sessionId: number, nowMs: number): void {
    const greeting = this.#countIn("greeting") + this.#countIn("clocking");
    const chunkBytes = this.#config.chunkBytesMax;
    this.#sessions.set(sessionId, new ServerSession({ sessionId, nowMs, chunkBytes }));
    this.stats.sessions += 1;
    if (greeting >= this.#config.handshakesMax) this.#abort(sessionId, "too many streams");
  }

  #onMessage(input: { sessionId: number; message: SessionMessage }, nowMs: number): void {
    const session = this.#sessions.get(input.sessionId);
    if (session === undefined) return;
    const { message } = input;
    const step = `${session.phase} ${message.kind}` as const;
    if (session.unsentFrames === 0) session.heardMs = nowMs;
    if (step === "greeting start" && message.kind === "start") {
      session.peerActorId = message.actorId;
      session.phase = "clocking";
      if (message.clusterId !== this.#identity.clusterId) this.#reject(session, "differentCluster");
    } else if (step === "clocking clock" && message.kind === "clock") {
      this.#outbox.push({ kind: "clock", ts: message.ts });
      this.#welcome(session, nowMs);
    } else if (step === "serving request" && message.kind === "request") {
      this.#onRequests(session, message.requests, nowMs);
    } else {
      this.#abort(session.sessionId, "protocol violated");
    }
  }

  #welcome(session: ServerSession, nowMs: number): void {
    if (this.servingCount >= this.#config.sessionsMax && !this.#makeRoom(nowMs)) {
      return this.#reject(session, "maxConcurrencyReached");
    }
    session.phase = "serving";
    this.#send(session.sessionId, { kind: "state", state: this.#state(nowMs) });
    this.#send(session.sessionId, { kind: "clock", ts: this.#stamp(nowMs) });
    this.#pump(session, nowMs);
  }

  /** Gives up the session that has been silent for longest, if any has been for long enough. */
  #makeRoom(nowMs: number): boolean {
    let longest: ServerSession | null = null;
    for (const session of this.#sessions.values()) {
      if (session.phase !== "serving" || !session.isIdle) continue;
      if (nowMs < session.heardMs + this.#config.idleGivesWayMs) continue;
      if (longest === null || session.heardMs < longest.heardMs) longest = session;
    }
    if (longest !== null) this.#abort(longest.sessionId, "gave way");
    return longest !== null;
  }

  #state(nowMs: number): SyncState {
    const { actorId } = this.#identity;
    const state = this.#books.syncState(actorId);
    const head = state.heads.get(actorId);
    const told = head === undefined ? 0 : this.#ownHead(head, nowMs);
    if (head === undefined || told === head) return state;
    const heads = new Map(state.heads);
    if (told > 0) heads.set(actorId, told);
    else heads.delete(actorId);
    return { ...state, heads };
  }

  #onRequests(session: ServerSession, requests: readonly SyncRequest[], nowMs: number): void {
    for (const { actorId, needs } of requests) {
      for (const need of needs) {
        if (session.waitingNeeds >= this.#config.needsMax) {
          return this.#abort(session.sessionId, "too many needs");
        }
        session.queue(actorId, need);
        this.stats.needsReceived += 1;
      }
    }
    this.#pump(session, nowMs);
  }

  #onFinished(sessionId: number, nowMs: number): void {
    const session = this.#sessions.get(sessionId);
    if (session === undefined) return;
    if (session.phase !== "serving") return this.#abort(sessionId, "broken");
    session.isClientFinished = true;
    if (session.unsentFrames === 0) session.heardMs = nowMs;
    this.#pump(session, nowMs);
  }

  #onBroken(sessionId: number): void {
    const session = this.#sessions.get(sessionId);
    const hasLeft = session?.phase === "serving" && !session.hasAsked;
    this.#remove(sessionId, hasLeft ? "nothing asked" : "broken");
  }

  #onVersions(input: { requestId: number; changesets: readonly Changeset[] }, nowMs: number): void {
    const sessionId = this.#sessionByRead.get(input.requestId);
    if (sessionId === undefined) return;
    this.#sessionByRead.delete(input.requestId);
    const session = this.#sessions.get(sessionId);
    if (session === undefined) return;
    const request = session.reads.get(input.requestId);
    session.reads.delete(input.requestId);
    const { changesets } = input;
    if (request !== undefined) session.resume(request, changesets);
    if (changesets.length > 0) {
      if (session.unsentFrames === 0) session.heardMs = nowMs;
      session.unsentFrames += changesets.length;
      this.stats.changesetsSent += changesets.length;
      for (const changeset of changesets) this.stats.changesSent += changeWeight(changeset);
      this.#send(sessionId, { kind: "changesets", changesets });
    }
    this.#pump(session, nowMs);
  }

  #onSent(input: { sessionId: number; frames: number; tookMs: number }, nowMs: number): void {
    const session = this.#sessions.get(input.sessionId);
    if (session === undefined) return;
    session.unsentFrames = Math.max(0, session.unsentFrames - input.frames);
    session.heardMs = nowMs;
    const { slowSendMs, chunkBytesMin } = this.#config;
    if (input.tookMs > slowSendMs) session.shrinkChunks(chunkBytesMin);
    this.#pump(session, nowMs);
  }

  #onTick(nowMs: number): void {
    // Whoever comes first may use the room up; the others keep their order behind it.
    for (const session of this.#heldBack) {
      if (this.#uplink?.isOpenForSync(nowMs) === false) break;
      this.#heldBack.delete(session);
      this.#pump(session, nowMs);
    }
    for (const session of this.#sessions.values()) {
      if (nowMs >= session.deadlineMs(this.#config)) this.#abort(session.sessionId, "timed out");
    }
  }

  /** Reads what may be read, or ends the session when all is answered. */
  #pump(session: ServerSession, nowMs: number): void {
    const { readsMax, readVersionsMax, unsentMax } = this.#config;
    const headOf = (actorId: ActorId): number => this.#books.head(actorId);
    while (session.reads.size < readsMax && session.unsentFrames < unsentMax) {
      if (session.waitingNeeds > 0 && this.#uplink?.isOpenForSync(nowMs) === false) {
        this.#heldBack.add(session);
        break;
      }
      const request = session.takeRead(readVersionsMax, headOf);
      if (request === null) break;
      const requestId = this.#nextRequestId;
      this.#nextRequestId += 1;
      this.#sessionByRead.set(requestId, session.sessionId);
      session.reads.set(requestId, request);
      this.stats.reads += 1;
      this.#outbox.push({ kind: "read", sessionId: session.sessionId, requestId, request });
    }
    if (!session.isClientFinished || !session.isIdle) return;
    this.#outbox.push({ kind: "finish", sessionId: session.sessionId });
    this.#remove(session.sessionId, "done");
  }

  #reject(session: ServerSession, reason: SyncRejection): void {
    this.stats.sessionsRejected += 1;
    this.#send(session.sessionId, { kind: "rejection", reason });
    this.#outbox.push({ kind: "finish", sessionId: session.sessionId });
    this.#remove(session.sessionId, `rejected: ${reason}`);
  }

  #abort(sessionId: number, reason: ServerSessionEnd): void {
    this.#outbox.push({ kind: "abort", sessionId });
    this.#remove(sessionId, reason);
  }

  #remove(sessionId: number, reason: ServerSessionEnd): void {
    const session = this.#sessions.get(sessionId);
    if (session === undefined) return;
    this.#sessions.delete(sessionId);
    this.#heldBack.delete(session);
    const isUsual = reason === "done" || reason === "nothing asked";
    if (!isUsual && !reason.startsWith("rejected")) this.stats.sessionsFailed += 1;
    const peer = session.peerActorId;
    this.#outbox.push({ kind: "notify", event: { kind: "sessionEnded", peer, reason } });
  }

  #countIn(phase: ServerSession["phase"]): number {
    let count = 0;
    for (const session of this.#sessions.values()) if (session.phase === phase) count += 1;
    return count;
  }

  #send(sessionId: number, message: SessionMessage): void {
    this.#outbox.push({ kind: "send", sessionId, message });
  }
}
