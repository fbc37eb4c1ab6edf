/**
 * Runs a replica's machine on real parts: performs its effects on the transport and the store, and
 * keeps the one timer that its deadline asks for.
 *
 * Bytes become messages here and messages bytes. Bad ones are counted and dropped.
 */
import { errorText, PatinaError } from "#base/errors.ts";
import type { Logger } from "#base/logger.ts";
import type { BrakeEvent } from "../core/brake/brakes.ts";
import type { ReplicaCore } from "../core/replica-core.ts";
import type { ReplicaInput, ReplicaOutput } from "../core/replica-messages.ts";
import type { EncodedBodies, GossipOrigin } from "../core/broadcast/types.ts";
import { hasUrgentChange } from "../core/broadcast/urgency.ts";
import { decodePacket, encodePacket } from "../core/swim/codec.ts";
import type { SwimEvent } from "../core/swim/events.ts";
import type { BroadcastBody } from "../core/wire/types.ts";
import { decodeUniFrame } from "../core/wire/uni-payload.ts";
import type {
  ActorId,
  Address,
  ApplyOutcome,
  BiStream,
  Changeset,
  LocalCommit,
  Transport,
  TransportEvents,
} from "../types.ts";
import { ApplyWatch } from "./apply-watch.ts";
import { lagMsOf, LagWindow } from "./lag-window.ts";
import { storeError } from "./store/errors.ts";
import type { Zstd } from "./compression/zstd.ts";
import type { StoreClient } from "./store/store-client.ts";
import { SyncLog } from "./sync/sync-log.ts";
import { SyncStreams, type SyncStreamEvents, type SyncStreamStats } from "./sync/sync-streams.ts";

/** What a driver is made of; the transport follows with `attach`. */
export interface ReplicaDriverOptions {
  readonly core: ReplicaCore;
  readonly store: StoreClient;
  readonly log: Logger;
  readonly zstd: Zstd;
  /** Columns whose changes leave as they are at once. */
  readonly urgentColumns: Readonly<Record<string, readonly string[]>>;
  readonly onSwimEvent: (event: SwimEvent) => void;
  readonly onRtt: (address: Address, rttMs: number) => void;
  /** A sync round in which at least one server said what it has is over; what it applied. */
  readonly onSyncFinished: (appliedVersions: number) => void;
  /** Own versions were in doubt and are no longer; writes go on above `head`. */
  readonly onSettled: (head: number) => void;
  /** A change from elsewhere was committed here, so long after its commit there. */
  readonly onCommitLag: (seconds: number) => void;
  /** How long changes may wait for the store before somebody is to look. */
  readonly applyLimitMs: number;
  /** The store is gone: nothing can be applied any more. */
  readonly onStoreFailure: (error: Error) => void;
}

/** Plain counters since the start. */
export interface DriverStats {
  /** Column changes of own transactions. */
  localChanges: number;
  /** What SWIM told. */
  readonly swim: SwimCounts;
  /** What was received and could not be read, by where. */
  badPackets: number;
  badFrames: number;
  /** Calls that the store was too busy for. */
  storeBusy: number;
  /** Requests that the store could not perform: a full disk, a damaged file. */
  storeFailed: number;
}

/** Events of SWIM that are counted. */
export interface SwimCounts {
  memberUp: number;
  memberDown: number;
  /** The first other member was there, or none any more. */
  connected: number;
  disconnected: number;
  /** New identities because others took us for down. */
  rejoined: number;
}

/** Drives one replica. */
export class ReplicaDriver {
  readonly stats: DriverStats = {
    localChanges: 0,
    swim: { memberUp: 0, memberDown: 0, connected: 0, disconnected: 0, rejoined: 0 },
    badPackets: 0,
    badFrames: 0,
    storeBusy: 0,
    storeFailed: 0,
  };
  /** Of changes that were broadcast; what is repaired by sync is late by its nature. */
  readonly lags = new LagWindow();
  readonly #core: ReplicaCore;
  readonly #options: ReplicaDriverOptions;
  #transport: Transport | null = null;
  #streams: SyncStreams | null = null;
  #timer: NodeJS.Timeout | null = null;
  #timerAtMs = Infinity;
  #isRunning = false;
  #isStopped = false;
  readonly #queued: ReplicaInput[] = [];
  readonly #applies: ApplyWatch;
  /** Targets whose connection was lost and is not up again. */
  readonly #lostConnections = new Set<Address>();
  readonly #syncLog: SyncLog;

  constructor(options: ReplicaDriverOptions) {
    this.#options = options;
    this.#core = options.core;
    this.#syncLog = new SyncLog(options);
    this.#applies = new ApplyWatch({ log: options.log, limitMs: options.applyLimitMs });
  }

  /** For `QuicTransport.open`: what the transport says goes into the machine. */
  readonly transportEvents: TransportEvents = {
    datagram: (bytes, _remote, actorId = null) => this.#onDatagram(bytes, actorId),
    uniFrames: (frames) => this.#onFrames(frames),
    biStream: (stream: BiStream) => {
      if (this.#streams) this.#streams.accept(stream);
      else stream.abort();
    },
    rtt: (address, rttMs) => {
      this.#options.onRtt(address, rttMs);
      this.run({ kind: "rtt", address, rttMs });
    },
    connection: (address, state, reason) => {
      this.#options.log.debug?.("connection", `${address} ${state}: ${reason}`, { address, state });
      if (state === "down") this.#noteLost(address);
      else if (this.#lostConnections.delete(address)) this.run({ kind: "reconnected", address });
    },
  };

  /** Gives the driver its transport; before the first `run`. */
  attach(transport: Transport): void {
    this.#transport = transport;
    const events: SyncStreamEvents = {
      client: (input) => this.run({ kind: "syncClient", input }),
      server: (input) => this.run({ kind: "syncServer", input }),
    };
    this.#streams = new SyncStreams(transport, events, this.#options.zstd);
  }

  /** Sync streams that are open. */
  get syncStreams(): number {
    return this.#streams?.openCount ?? 0;
  }

  /** Bytes and bad frames of sync streams; zeros before there is a transport. */
  get syncStats(): SyncStreamStats {
    return this.#streams?.stats ?? NO_STREAMS;
  }

  /** What is compressed, and with what. */
  get zstd(): Zstd {
    return this.#options.zstd;
  }

  /** Tells the machine of a transaction of our own, right after its commit. */
  committed(commit: LocalCommit): void {
    for (const { changes } of commit.changesets) this.stats.localChanges += changes.length;
    const bodies = this.#compress(commit);
    this.run({ kind: "committed", commit, ...(bodies === null ? {} : { bodies }) });
  }

  /** Null when the transaction leaves as it is: compression is off, or it is urgent. */
  #compress({ changesets }: LocalCommit): EncodedBodies | null {
    const { zstd, urgentColumns } = this.#options;
    if (!zstd.isEnabled) return null;
    if (changesets.some(({ changes }) => hasUrgentChange(changes, urgentColumns))) return null;
    return changesets.map((changeset, at) =>
      at < COMPRESSED_CHUNKS_MAX ? zstd.compressBody(changeset) : null,
    );
  }

  /** Gives the machine an input and performs what it wants done. */
  run(input: ReplicaInput): void {
    if (this.#isStopped) return;
    this.#queued.push(input);
    // An effect may answer at once; its input waits until the effects before it are performed.
    if (this.#isRunning) return;
    this.#isRunning = true;
    try {
      for (let next = this.#queued.shift(); next !== undefined; next = this.#queued.shift()) {
        this.#core.handle(next, performance.now());
        for (const output of this.#core.drain()) this.#perform(output);
      }
    } finally {
      this.#isRunning = false;
    }
    this.#setTimer();
  }

  /** Leaves the cluster if asked to, and performs nothing more. */
  stop(options: { leave: boolean }): void {
    if (options.leave) this.run({ kind: "leave" });
    this.#isStopped = true;
    this.#applies.close();
    if (this.#timer) clearTimeout(this.#timer);
    this.#timer = null;
  }

  #noteLost(address: Address): void {
    // Peers come and go; the ones lost first are the least likely to come back.
    if (this.#lostConnections.size >= LOST_MAX) {
      const [oldest] = this.#lostConnections;
      if (oldest !== undefined) this.#lostConnections.delete(oldest);
    }
    this.#lostConnections.add(address);
  }

  /** A timer that is set too early stays: to fire once for nothing costs less than to set it anew. */
  #setTimer(): void {
    const deadlineMs = this.#core.deadlineMs();
    if (deadlineMs >= this.#timerAtMs || this.#isStopped) return;
    if (this.#timer) clearTimeout(this.#timer);
    this.#timerAtMs = deadlineMs;
    const waitMs = Math.min(TIMER_MAX_MS, Math.max(0, Math.ceil(deadlineMs - performance.now())));
    this.#timer = setTimeout(() => this.#onTimer(), waitMs);
  }

  #onTimer(): void {
    this.#timer = null;
    this.#timerAtMs = Infinity;
    if (performance.now() >= this.#core.deadlineMs()) this.run({ kind: "tick" });
    else this.#setTimer();
  }

  #perform(output: ReplicaOutput): void {
    switch (output.kind) {
      case "sendPacket":
        return this.#transport?.sendDatagram(output.target, encodePacket(output.packet));
      case "sendFrames":
        return void this.#sendFrames(output);
      case "apply":
        return void this.#apply(output);
      case "syncClient":
        return this.#performClient(output.output);
      case "syncServer":
        return this.#performServer(output.output);
      case "settleOwnVersions":
        return void this.#settleOwnVersions(output.head);
      case "renewIdentity":
        return void this.#renewIdentity();
      case "makeDurable":
        return void this.#makeDurable();
      case "forget":
        return this.#transport?.forget(output.target, output.reason);
      case "notify":
        this.#countSwim(output.event);
        return this.#options.onSwimEvent(output.event);
      case "braked":
        return this.#logBrake(output);
      case "strangerRefused":
        return this.#logStranger(output);
      case "dropped":
        return this.#options.log.debug?.("broadcast-dropped", output.reason, {
          count: output.count,
        });
    }
  }

  #countSwim(event: SwimEvent): void {
    const counts = this.stats.swim;
    if (event.kind === "identityRenewed") {
      if (event.reason === "declaredDown") counts.rejoined++;
    } else if (event.kind in counts) {
      counts[event.kind as keyof SwimCounts]++;
    }
  }

  async #sendFrames(output: Extract<ReplicaOutput, { kind: "sendFrames" }>): Promise<void> {
    const { id, target, frames, isUrgent } = output;
    const ok = (await this.#transport?.sendUni(target, frames, { urgent: isUrgent })) ?? false;
    this.run({ kind: "sent", id, ok });
  }

  async #apply(output: Extract<ReplicaOutput, { kind: "apply" }>): Promise<void> {
    const { batchId, changesets, isUrgent } = output;
    const answer = this.#ask(this.#options.store.apply(changesets, { isUrgent }));
    const outcomes = await this.#applies.watch(changesets, answer);
    this.lags.note(this.#tellLags(outcomes), Date.now());
    this.run({ kind: "applied", batchId, outcomes });
  }

  /** The changesets that were applied, once their lags are told. */
  #tellLags(outcomes: readonly ApplyOutcome[]): Changeset[] {
    const applied = outcomes.filter(({ kind }) => kind === "applied");
    const nowMs = Date.now();
    for (const { changeset } of applied) {
      const lagMs = lagMsOf(changeset, nowMs);
      if (lagMs !== null) this.#options.onCommitLag(lagMs / 1000);
    }
    return applied.map(({ changeset }) => changeset);
  }

  async #settleOwnVersions(head: number): Promise<void> {
    const { store, onSettled } = this.#options;
    const stored = await this.#ask(store.settleOwnVersions(head).then(() => [head]));
    this.run({ kind: "settled", isStored: stored.length > 0 });
    if (stored.length > 0) onSettled(head);
  }

  async #makeDurable(): Promise<void> {
    const stored = await this.#ask(this.#options.store.makeDurable().then(() => [true]));
    this.run({ kind: "durable", isStored: stored.length > 0 });
  }

  /** Where the store cannot keep the request, the next start waits for others again. */
  async #renewIdentity(): Promise<void> {
    const { store, onStoreFailure } = this.#options;
    await this.#ask(store.requestNewIdentity().then(() => [true]));
    if (this.#isStopped) return;
    onStoreFailure(
      storeError(
        "STORE_RENEWED",
        "versions of our own may be lost and no replica answers: starting again as a new actor",
      ),
    );
  }

  #performClient(output: Extract<ReplicaOutput, { kind: "syncClient" }>["output"]): void {
    switch (output.kind) {
      case "apply":
        return void this.#applySynced(output.batchId, output.changesets);
      case "notify":
        return this.#syncLog.take(output.event);
      case "clock":
        return;
      case "open":
      case "send":
      case "finish":
      case "abort":
      case "reading":
        return this.#streams?.performClient(output);
    }
  }

  async #applySynced(batchId: number, changesets: readonly Changeset[]): Promise<void> {
    const answer = this.#ask(this.#options.store.apply(changesets));
    const outcomes = await this.#applies.watch(changesets, answer);
    this.#tellLags(outcomes);
    this.run({ kind: "syncClient", input: { kind: "applied", batchId, outcomes } });
  }

  #performServer(output: Extract<ReplicaOutput, { kind: "syncServer" }>["output"]): void {
    switch (output.kind) {
      case "read":
        return void this.#readVersions(output);
      case "notify":
        return this.#options.log.debug?.("sync-served", output.event.reason, {
          peer: output.event.peer,
        });
      case "clock":
        return;
      case "send":
      case "finish":
      case "abort":
        return this.#streams?.performServer(output);
    }
  }

  async #readVersions(
    output: Extract<Extract<ReplicaOutput, { kind: "syncServer" }>["output"], { kind: "read" }>,
  ): Promise<void> {
    const { requestId, request } = output;
    const changesets = await this.#ask(
      this.#options.store.readVersions(request, { isEncoded: true }),
    );
    this.run({ kind: "syncServer", input: { kind: "versions", requestId, changesets } });
  }

  /**
   * The store's answer, or none: the machine gets on all the same, and what was not applied stays
   * needed. A store that is busy (a queue is full, somebody holds SQLite's lock) may do better at
   * the next try. One that fails (the disk is full, the file is damaged) must not take the data
   * plane down, which serves what it knows: it is said loudly and asked again after a pause, so
   * that peers are not asked in a loop for what cannot be kept. Only a store that is gone ends the
   * process.
   */
  async #ask<Answer>(answer: Promise<readonly Answer[]>): Promise<readonly Answer[]> {
    try {
      return await answer;
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      if (this.#isStopped) return [];
      const code = error instanceof PatinaError ? error.code : "";
      if (code === "STORE_CLOSED") {
        this.#options.onStoreFailure(error);
        return [];
      }
      const isBusy = code === "STORE_BUSY";
      const times = isBusy ? ++this.stats.storeBusy : ++this.stats.storeFailed;
      // Once, then at powers of ten: it may be so for every batch of a minute.
      if (/^10*$/.test(String(times))) {
        const { log } = this.#options;
        const write = isBusy ? log.warn : log.error;
        write?.(isBusy ? "store-busy" : "store-failed", errorText(error), { times, code });
      }
      if (!isBusy) await new Promise((resolve) => setTimeout(resolve, FAILED_PAUSE_MS));
      return [];
    }
  }

  /** Names the origin: there is one line when it begins and one when it is over. */
  #logBrake({ actorId, isOn, rowsPerSecond }: BrakeEvent): void {
    const { log, store } = this.#options;
    const rate = Number(rowsPerSecond.toFixed(1));
    const fields = { origin: actorId, rowsPerSecond: rate };
    const who = actorId === store.actorId ? "this replica" : `replica ${actorId}`;
    if (!isOn) return log.info?.("brake-off", `${who} writes no more than it may`, fields);
    log.warn?.(
      "brake-on",
      `${who} writes more than ${rate} rows a second: of each row only the newest value is` +
        " broadcast, at that pace. Find what writes in a loop there",
      fields,
    );
  }

  #logStranger({ actorId, times }: Extract<ReplicaOutput, { kind: "strangerRefused" }>): void {
    // Once, then at powers of ten: whoever invents one invents thousands.
    if (!/^10*$/.test(String(times))) return;
    this.#options.log.warn?.(
      "actor-refused",
      `changes of ${actorId}, which is no member, are not taken: changes of as many actors are known` +
        " as there are places. Find who invents actors, or raise replica.actors_max",
      { actorId, times, actors: this.#core.books.actorCount },
    );
  }

  #onDatagram(bytes: Uint8Array, actorId: ActorId | null): void {
    const packet = decodePacket(bytes);
    // Nobody speaks as another, where certificates tell.
    if (!packet.ok || (actorId !== null && packet.value.source.id !== actorId)) {
      this.stats.badPackets++;
      return;
    }
    this.run({ kind: "packet", packet: packet.value, packetBytes: bytes.length });
  }

  /** Newest first, as Corrosion handles the frames of one stream. */
  #onFrames(frames: readonly Uint8Array[]): void {
    for (const frame of frames.toReversed()) this.#onFrame(frame);
  }

  #onFrame(frame: Uint8Array): void {
    const decoded = decodeUniFrame(frame);
    if (!decoded.ok) {
      this.stats.badFrames++;
      return;
    }
    const { payload, body } = decoded.value;
    const { clusterId } = payload;
    if (payload.kind !== "plumtree") {
      return this.#onBody(payload, { payload: frame, body, gossip: null, clusterId });
    }
    const { message } = payload;
    if (message.kind !== "gossip") return this.run({ kind: "plumtree", message, clusterId });
    this.#onBody(message.body, { payload: null, body, gossip: message, clusterId });
  }

  #onBody(change: BroadcastBody, from: FrameOrigin): void {
    if (change.kind === "change") return this.#onChangesets(change.changesets, from);
    const changesets = this.#options.zstd.decompress(change.compressed);
    if (changesets.ok) this.#onChangesets(changesets.value, from);
    else this.stats.badFrames++;
  }

  #onChangesets(changesets: readonly Changeset[], from: FrameOrigin): void {
    const { clusterId, gossip } = from;
    // The frame of several (the legacy EmptySet) stands for all of them: each is encoded afresh.
    const isOne = changesets.length === 1;
    const [payload, body] = isOne ? [from.payload, from.body] : [null, null];
    for (const changeset of changesets) {
      this.run({ kind: "broadcast", changeset, payload, body, gossip, clusterId });
    }
  }
}

/** What is known of a change beside itself. */
interface FrameOrigin {
  readonly payload: Uint8Array | null;
  readonly body: Uint8Array | null;
  readonly gossip: GossipOrigin | null;
  readonly clusterId: number;
}

const NO_STREAMS: SyncStreamStats = { badFrames: 0, sentBytes: 0, receivedBytes: 0 };
/** A mebibyte: what is beyond would hold the loop up for longer than its bytes are worth. */
const COMPRESSED_CHUNKS_MAX = 128;
/** As many as the transport has targets. */
const LOST_MAX = 1_024;
/** Long enough to spare disk and peers, short beside any repair. */
const FAILED_PAUSE_MS = 1_000;
/** Timers longer than 2^31 ms fire at once; a day is as good as never. */
const TIMER_MAX_MS = 86_400_000;
