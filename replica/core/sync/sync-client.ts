/**
 * Pairwise repair, the side that wants data: learns what others have and asks for what is missing.
 *
 * It works in rounds. A round opens sessions with several servers side by side, compares sync
 * states, shares the needs out so that a version is asked of one server only, and ends when every
 * session has ended and everything received is applied. What a broken session leaves open goes back
 * to the plan for the others, so any cut costs at most the answers under way.
 *
 *     idle --due or hinted--> running --sessions ended, all applied--> idle (back-off)
 *
 * Back-pressure has three steps: what is open (asked, not answered) is limited by a window that
 * doubles as answers come; nothing is asked while too many changes wait for the store; at twice
 * that the driver is told to stop reading. The store is kept busy by batches (`ApplyQueue`).
 *
 * Source: protocol reference, sections 4.2 to 4.5. What arrives here is not passed on.
 */
import type { ActorId, ApplyOutcome, Changeset } from "../../types.ts";
import type { Machine } from "#base/machine.ts";
import type { Prng } from "#base/prng.ts";
import type { Bookkeeping } from "../bookkeeping/bookkeeping.ts";
import { changeWeight, type ApplyQueueStats } from "../replica-stats.ts";
import { ApplyQueue } from "./apply-queue.ts";
import { AskWindow } from "./ask-window.ts";
import { ClientSession } from "./client-session.ts";
import {
  createSyncClientStats,
  type SessionEnd,
  type SyncClientEvent,
  type SyncClientInput,
  type SyncClientOutput,
  type SyncClientStats,
} from "./client-types.ts";
import type { SyncClientConfig, SyncIdentity } from "./config.ts";
import type { SessionMessage } from "./messages.ts";
import {
  type ActorNeeds,
  computeNeeds,
  countNeeds,
  type PlannedRequest,
  type RoundPlan,
} from "./needs.ts";
import { OwnLearning } from "./own-learning.ts";
import { choosePeers, type SyncPeer } from "./peer-choice.ts";
import { createRound, type Round } from "./round.ts";
import { SetAside } from "./set-aside.ts";
import type { SyncAnswer, SyncState } from "../wire/types.ts";
import { OWN_HEAD_BELIEVED_MAX } from "../recovery/recovery.ts";

/** What a sync client is made of. `stamp` draws a stamp from the replica's hybrid clock. */
export interface SyncClientOptions {
  readonly identity: SyncIdentity;
  readonly config: SyncClientConfig;
  /** The replica's books; read only. */
  readonly books: Bookkeeping;
  readonly prng: Prng;
  readonly stamp: (nowMs: number) => bigint;
}

/** The asking side of anti-entropy. */
export class SyncClient implements Machine<SyncClientInput, SyncClientOutput> {
  readonly stats: SyncClientStats = createSyncClientStats();
  readonly setAside: SetAside;
  readonly #identity: SyncIdentity;
  readonly #config: SyncClientConfig;
  readonly #books: Bookkeeping;
  readonly #prng: Prng;
  readonly #stamp: (nowMs: number) => bigint;
  readonly #queue: ApplyQueue;
  readonly #sessions = new Map<number, ClientSession>();
  readonly #lastSyncMs = new Map<ActorId, number>();
  #outbox: SyncClientOutput[] = [];
  #peers: readonly SyncPeer[] = [];
  #nextSessionId = 1;
  /** `null` between rounds. */
  #round: Round | null = null;
  /** When the next round starts, if none is running. */
  #nextRoundMs = 0;
  #backoffMs: number;
  /** The last round found a server, and nothing to ask of it. */
  #isInStep = false;
  /** A hint came during the round. */
  #isHinted = false;
  #lastRoundEndMs = Number.NEGATIVE_INFINITY;
  readonly #window: AskWindow;
  #isReadingPaused = false;
  readonly #learning = new OwnLearning();

  constructor(options: SyncClientOptions) {
    this.#identity = options.identity;
    this.#config = options.config;
    this.#books = options.books;
    this.#prng = options.prng;
    this.#stamp = options.stamp;
    this.#queue = new ApplyQueue(options.config);
    this.#backoffMs = options.config.backoffMinMs;
    this.#window = new AskWindow(options.config, { sessions: this.#sessions, queue: this.#queue });
    this.setAside = new SetAside(options.books);
  }

  /** Whether a round is under way. */
  get isRunning(): boolean {
    return this.#round !== null;
  }

  handle(input: SyncClientInput, nowMs: number): void {
    switch (input.kind) {
      case "candidates":
        return this.#onCandidates(input.peers, nowMs);
      case "hint":
        return this.#onHint(nowMs);
      case "opened":
        return this.#onOpened(input.sessionId, nowMs);
      case "openFailed":
        return this.#onEnd(input.sessionId, "open failed", nowMs);
      case "message":
        return this.#onMessage(input, nowMs);
      case "finished":
        return this.#onFinished(input.sessionId, nowMs);
      case "broken":
        return this.#onEnd(input.sessionId, "broken", nowMs);
      case "applied":
        return this.#onApplied(input, nowMs);
      case "learnOwn":
        return this.#learning.turn(input.isOn);
      case "tick":
        return this.#onTick(nowMs);
    }
  }

  /** What answers brought and the store has not answered for; what it was given. */
  get queueStats(): ApplyQueueStats {
    return this.#queue.stats;
  }

  drain(): SyncClientOutput[] {
    const outputs = this.#outbox;
    this.#outbox = [];
    return outputs;
  }

  deadlineMs(): number {
    if (this.#round === null) {
      return this.#peers.length === 0 ? Number.POSITIVE_INFINITY : this.#nextRoundMs;
    }
    let least = Number.POSITIVE_INFINITY;
    for (const session of this.#sessions.values()) {
      least = Math.min(least, session.deadlineMs(this.#config));
    }
    return least;
  }

  // ---------------------------------------------------------------- rounds

  #onCandidates(peers: readonly SyncPeer[], nowMs: number): void {
    this.#peers = peers;
    const known = new Set(peers.map((peer) => peer.actorId));
    for (const actorId of this.#lastSyncMs.keys()) {
      if (!known.has(actorId)) this.#lastSyncMs.delete(actorId);
    }
    this.#joinMore(nowMs);
  }

  #onHint(nowMs: number): void {
    this.#isHinted = true;
    if (this.#round !== null) return;
    const dueMs = Math.max(nowMs, this.#lastRoundEndMs + this.#config.hintDelayMs);
    this.#nextRoundMs = Math.min(this.#nextRoundMs, dueMs);
  }

  #onTick(nowMs: number): void {
    for (const session of this.#sessions.values()) {
      if (nowMs >= session.deadlineMs(this.#config)) this.#onSilence(session, nowMs);
    }
    if (this.#round === null && this.#peers.length > 0 && nowMs >= this.#nextRoundMs) {
      this.#startRound(nowMs);
    }
  }

  #startRound(nowMs: number): void {
    // Where the last round found nothing and nothing points to a loss, one server is enough to ask.
    const isQuiet = this.#isInStep && !this.#isHinted && !this.#books.isLacking();
    this.#isHinted = false;
    this.stats.rounds += 1;
    this.#round = createRound(nowMs);
    this.#openSessions(this.#round, isQuiet ? 1 : this.#config.serversMin, nowMs);
  }

  /**
   * Adds servers to a round that has more to ask than its sessions are asked already: in place of
   * those that broke, or when members became known after it began (a new replica's first round
   * begins with the first member, and would fetch everything from that one).
   */
  #joinMore(nowMs: number): void {
    const round = this.#round;
    if (round === null) return;
    if (this.#learning.wantsMore(this.#peers, round, nowMs)) {
      return this.#openSessions(round, this.#config.serversMax, nowMs);
    }
    if (this.#sessions.size >= this.#config.serversMin) return;
    for (const session of this.#sessions.values()) {
      if (session.phase !== "asking" || !round.plan.hasNeeds(session.sessionId)) continue;
      return this.#openSessions(round, this.#config.serversMin, nowMs);
    }
  }

  #openSessions(round: Round, serversMin: number, nowMs: number): void {
    const chosen = choosePeers({
      peers: this.#learning.prefer(this.#peers.filter((peer) => !round.asked.has(peer.actorId))),
      serversMin,
      serversMax: this.#config.serversMax,
      needOf: (actorId) => this.#books.missingVersions(actorId),
      lastSyncMs: (actorId) => this.#lastSyncMs.get(actorId) ?? 0,
      prng: this.#prng,
    });
    for (const peer of chosen.slice(0, this.#config.serversMax - this.#sessions.size)) {
      const sessionId = this.#nextSessionId;
      this.#nextSessionId += 1;
      this.#sessions.set(sessionId, new ClientSession({ sessionId, peer, nowMs }));
      this.#lastSyncMs.set(peer.actorId, nowMs);
      round.asked.add(peer.actorId);
      this.stats.sessions += 1;
      this.#outbox.push({ kind: "open", sessionId, peer });
    }
  }

  #endRoundIfDone(nowMs: number): void {
    const round = this.#round;
    if (round === null || this.#sessions.size > 0 || !this.#queue.isEmpty) return;
    const { backoffMinMs, backoffMaxMs, hintDelayMs } = this.#config;
    this.#round = null;
    this.#lastRoundEndMs = nowMs;
    const isFruitful = round.applied > 0;
    this.#isInStep = round.isInStep && round.received === 0;
    this.#backoffMs = isFruitful ? backoffMinMs : Math.min(this.#backoffMs * 2, backoffMaxMs);
    const isMoreLikely = this.#isHinted || (isFruitful && this.#books.isLacking());
    this.#nextRoundMs = nowMs + (isMoreLikely ? hintDelayMs : this.#backoffMs);
    this.#notify({
      kind: "roundFinished",
      servers: round.asked.size,
      receivedVersions: round.received,
      appliedVersions: round.applied,
      refused: round.refused,
      durationMs: nowMs - round.startedMs,
    });
  }

  // ---------------------------------------------------------------- sessions

  #onOpened(sessionId: number, nowMs: number): void {
    const session = this.#sessions.get(sessionId);
    if (session?.phase !== "opening") return;
    session.phase = "greeting";
    session.heardMs = nowMs;
    const { actorId, clusterId } = this.#identity;
    this.#send(sessionId, {
      kind: "start",
      actorId,
      traceparent: null,
      tracestate: null,
      clusterId,
      supportsCompression: false,
    });
    this.#send(sessionId, { kind: "clock", ts: this.#stamp(nowMs) });
  }

  #onMessage(input: { sessionId: number; message: SessionMessage }, nowMs: number): void {
    const session = this.#sessions.get(input.sessionId);
    if (session === undefined) return;
    const { message } = input;
    session.heardMs = nowMs;
    switch (message.kind) {
      case "rejection":
        return this.#give({ session, end: `rejected: ${message.reason}`, nowMs });
      case "clock":
        this.#outbox.push({ kind: "clock", ts: message.ts });
        session.hasClock = true;
        return this.#onGreeting(session, nowMs);
      case "state":
        session.serverState = message.state;
        return this.#onGreeting(session, nowMs);
      case "changesets":
        this.#onAnswers(session, message.changesets);
        return this.#pump(nowMs);
      case "unreadable":
        this.#onUnreadable(session, message, nowMs);
        return this.#pump(nowMs);
      case "start":
      case "request":
        return this.#give({ session, end: "protocol violated", nowMs });
    }
  }

  #onGreeting(session: ClientSession, nowMs: number): void {
    const { serverState } = session;
    if (session.phase !== "greeting" || serverState === null || !session.hasClock) return;
    const round = this.#round;
    if (round === null) return;
    this.stats.serversCompared += 1;
    const needs = this.#needsFrom(session, serverState);
    this.setAside.withhold(needs, nowMs);
    session.serverState = null;
    const isInStep = countNeeds(needs) === 0;
    round.isInStep ||= isInStep;
    if (isInStep) return this.#give({ session, end: "nothing needed", nowMs });
    session.phase = "asking";
    round.plan.addServer(session.sessionId, needs);
    this.#pump(nowMs);
    this.#joinMore(nowMs);
  }

  #needsFrom(session: ClientSession, theirs: SyncState): Map<ActorId, ActorNeeds> {
    const { actorId } = this.#identity;
    const ours = this.#books.syncState(actorId);
    const ownHead = theirs.heads.get(actorId) ?? 0;
    if (!this.#learning.isOn) {
      const head = this.#books.head(actorId);
      if (this.#learning.isUnheardOf(ownHead, head)) {
        this.#notify({ kind: "ownVersionsUnknown", peer: session.peer, ownHead, head });
      }
      return computeNeeds(ours, theirs);
    }
    this.#learning.compared(session.peer.actorId);
    this.#outbox.push({ kind: "compared", peer: session.peer.actorId, ownHead });
    return computeNeeds(ours, theirs, OWN_HEAD_BELIEVED_MAX);
  }

  #onAnswers(session: ClientSession, changesets: readonly Changeset[]): void {
    for (const changeset of changesets) {
      const { taken, closed } = session.answer(changeset);
      const news = taken.filter((each) => this.#isNews(each));
      if (news.length === 0) this.stats.changesetsDropped += 1;
      for (const each of news) this.#queue.add(each, { isPartial: this.#isPartial(each) });
      const changes = changeWeight(changeset);
      this.stats.changesReceived += changes;
      this.stats.versionsReceived += closed;
      if (this.#round !== null) this.#round.received += closed;
      this.#window.answered(changes, closed);
    }
  }

  /** Answered as well as this server can. */
  #onUnreadable(
    session: ClientSession,
    answer: Extract<SyncAnswer, { kind: "unreadable" }>,
    nowMs: number,
  ): void {
    const { taken } = session.answer({ ...answer, kind: "full", changes: [], ts: 0n });
    if (taken.length === 0) return;
    this.stats.changesetsUnreadable += 1;
    this.#onRefused(answer, answer.reason, nowMs);
  }

  #onRefused(
    version: { readonly actorId: ActorId; readonly version: number },
    reason: string,
    nowMs: number,
  ): void {
    const times = this.setAside.failed(version, nowMs);
    if (this.#round !== null) this.#round.refused += 1;
    const { actorId } = version;
    this.#notify({ kind: "refused", actorId, version: version.version, reason, times });
  }

  #isNews(changeset: Changeset): boolean {
    const found = this.#books.classify(changeset);
    return found !== "known" && found !== "invalid";
  }

  #isPartial(changeset: Changeset): boolean {
    if (changeset.kind !== "full") return false;
    return this.#books.partial(changeset.actorId, changeset.version) !== undefined;
  }

  #onFinished(sessionId: number, nowMs: number): void {
    const session = this.#sessions.get(sessionId);
    if (session === undefined) return;
    if (session.phase === "finishing") return this.#remove({ session, end: "done", nowMs });
    // The server ends before we did: it will answer nothing more.
    this.#give({ session, end: "broken", nowMs });
  }

  #onEnd(sessionId: number, end: SessionEnd, nowMs: number): void {
    const session = this.#sessions.get(sessionId);
    if (session !== undefined) this.#remove({ session, end, nowMs });
  }

  #onSilence(session: ClientSession, nowMs: number): void {
    const isTooOld = nowMs >= session.startedMs + this.#config.sessionMaxMs;
    if (!isTooOld && this.#isReadingPaused) {
      // The silence is ours.
      session.heardMs = nowMs;
    } else if (!isTooOld && session.phase === "asking") {
      // It may not have what it promised: go on with the rest, and do not ask it again.
      session.writeOff();
      session.heardMs = nowMs;
      this.#pump(nowMs);
    } else {
      this.#give({ session, end: "timed out", nowMs });
    }
  }

  /** Ends a session from our side. */
  #give(ending: { session: ClientSession; end: SessionEnd; nowMs: number }): void {
    this.#outbox.push({ kind: "abort", sessionId: ending.session.sessionId });
    this.#remove(ending);
  }

  #remove(ending: { session: ClientSession; end: SessionEnd; nowMs: number }): void {
    const { session, end, nowMs } = ending;
    this.#sessions.delete(session.sessionId);
    const plan = this.#round?.plan;
    plan?.removeServer(session.sessionId);
    for (const { actorId, versions } of session.writeOff()) plan?.giveBack(actorId, versions);
    if (end !== "done" && end !== "nothing needed") {
      this.stats.sessionsFailed += 1;
      const isEarly = session.phase === "opening" || session.phase === "greeting";
      if (isEarly) this.stats.handshakesFailed += 1;
    }
    this.#notify({ kind: "sessionEnded", peer: session.peer, reason: end });
    this.#joinMore(nowMs);
    this.#pump(nowMs);
  }

  // ---------------------------------------------------------------- asking and applying

  #onApplied(input: { batchId: number; outcomes: readonly ApplyOutcome[] }, nowMs: number): void {
    if (!this.#queue.finish(input.batchId)) return;
    for (const outcome of input.outcomes) {
      if (outcome.kind === "refused") {
        this.stats.changesetsRefused += 1;
        const { changeset, reason } = outcome;
        if (changeset.kind === "full") this.#onRefused(changeset, reason, nowMs);
      } else if (outcome.kind !== "known" && this.#round !== null) this.#round.applied += 1;
    }
    this.#pump(nowMs);
  }

  /** Does whatever can be done: hands batches to the store, asks, ends sessions and the round. */
  #pump(nowMs: number): void {
    if (this.#sessions.size === 0) this.#queue.flush();
    for (let batch = this.#queue.take(); batch !== null; batch = this.#queue.take()) {
      this.#outbox.push({ kind: "apply", ...batch });
    }
    this.#steerReading();
    const plan = this.#round?.plan;
    if (plan !== undefined) {
      for (const session of this.#sessions.values()) {
        if (session.phase === "asking") this.#askOrFinish({ session, plan, nowMs });
      }
    }
    this.#endRoundIfDone(nowMs);
  }

  #askOrFinish(turn: { session: ClientSession; plan: RoundPlan; nowMs: number }): void {
    const { session, plan, nowMs } = turn;
    const { sessionId } = session;
    const { needsPerTurn, pieceVersionsMax } = this.#config;
    const roomLeft = (): number => this.#window.room(session);
    for (let room = roomLeft(); room > 0; room = roomLeft()) {
      const limits = { needsMax: needsPerTurn, pieceVersions: pieceVersionsMax, versionsMax: room };
      const requests = plan.takeTurn(sessionId, limits);
      if (requests.length === 0) break;
      for (const request of requests) this.#ask(session, request);
      session.heardMs = nowMs;
    }
    if (plan.hasNeeds(sessionId)) return;
    session.phase = "finishing";
    session.heardMs = nowMs;
    this.#outbox.push({ kind: "finish", sessionId });
  }

  #ask(session: ClientSession, request: PlannedRequest): void {
    const before = session.openVersions;
    session.ask(request);
    this.stats.versionsAsked += session.openVersions - before;
    const { actorId, needs } = request;
    this.stats.needsSent += needs.length;
    // One actor per message, as Corrosion does.
    this.#send(session.sessionId, { kind: "request", requests: [{ actorId, needs }] });
  }

  #steerReading(): void {
    const { pendingChangesMax } = this.#config;
    const pending = this.#queue.pendingChanges;
    const isPaused = pending > (this.#isReadingPaused ? 1 : 2) * pendingChangesMax;
    if (isPaused === this.#isReadingPaused) return;
    this.#isReadingPaused = isPaused;
    this.#outbox.push({ kind: "reading", isPaused });
  }

  #send(sessionId: number, message: SessionMessage): void {
    this.#outbox.push({ kind: "send", sessionId, message });
  }

  #notify(event: SyncClientEvent): void {
    this.#outbox.push({ kind: "notify", event });
  }
}
