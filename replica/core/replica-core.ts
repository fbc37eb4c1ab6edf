/**
 * One replica as a machine: membership, broadcast, sync in both roles, books and clock, put
 * together. The driver gives it what sockets and the store say and performs what it asks for; the
 * simulator does the same with virtual ones.
 *
 * ```
 *  packets ----> Swim ----members----> Broadcast, SyncClient
 *                  '--renamed--> forget the old connection, replay the last broadcasts
 *  frames -----> books: news? --yes--> Inbox --apply--> store --applied--> books
 *                  '------> Brakes ---> Broadcast (pass on)
 *  own commits > books, Brakes --------> Broadcast
 *  sync streams <-> SyncClient --apply--> store --applied--> books
 *               <-> SyncServer --read---> store
 *  own versions in doubt --> Recovery --> SyncClient, store
 * ```
 *
 * Not here: bytes (the driver decodes and encodes), names of bootstrap hosts, storage.
 */
import type { Machine } from "#base/machine.ts";
import type { Prng } from "#base/prng.ts";
import type { ActorBook, ActorId, Address, ApplyOutcome, Changeset } from "../types.ts";
import { ACTORS_DEFAULT, Admission } from "./bookkeeping/admission.ts";
import { Bookkeeping } from "./bookkeeping/bookkeeping.ts";
import type { BrakeConfig } from "./brake/brake.ts";
import { Brakes } from "./brake/brakes.ts";
import { createBroadcaster } from "./broadcast/create-broadcaster.ts";
import type { Broadcaster, BroadcastConfig } from "./broadcast/types.ts";
import { hasUrgentChange } from "./broadcast/urgency.ts";
import type { Hlc } from "./hlc.ts";
import { Inbox } from "./inbox.ts";
import { OwnVersions } from "./recovery/own-versions.ts";
import type { RecoveryConfig } from "./recovery/recovery.ts";
import {
  changeWeight,
  createReplicaStats,
  type ApplyQueueStats,
  type ReplicaStats,
} from "./replica-stats.ts";
import type { ReplicaInput, ReplicaOutput } from "./replica-messages.ts";
import { RingTable } from "./ring-table.ts";
import type { Actor } from "./swim/actor.ts";
import type { SwimConfig } from "./swim/config.ts";
import type { SwimEvent } from "./swim/events.ts";
import type { SwimInput } from "./swim/swim-input.ts";
import { packetBytes } from "./swim/codec.ts";
import { Swim } from "./swim/swim.ts";
import type { SyncClientInput } from "./sync/client-types.ts";
import type { SyncClientConfig, SyncServerConfig } from "./sync/config.ts";
import { SyncClient } from "./sync/sync-client.ts";
import { SyncServer } from "./sync/sync-server.ts";
import { Uplink } from "./uplink.ts";

/** Everything a replica is made of. */
export interface ReplicaCoreOptions {
  readonly self: Actor;
  readonly swim: SwimConfig;
  readonly broadcast: BroadcastConfig;
  readonly brake: BrakeConfig;
  readonly syncClient: SyncClientConfig;
  readonly syncServer: SyncServerConfig;
  /** The books as stored. */
  readonly books: ReadonlyMap<ActorId, ActorBook>;
  /** See `Admission`. Default: `ACTORS_DEFAULT`. */
  readonly actorsMax?: number;
  readonly prng: Prng;
  readonly hlc: Hlc;
  /** The wall clock as NTP64 at the machine's monotonic time. */
  readonly wallNtp64: (nowMs: number) => bigint;
  /** Own versions are in doubt: nothing of our own may be committed before `settleOwnVersions`. */
  readonly recovery?: RecoveryConfig;
}

/** One replica. */
export class ReplicaCore implements Machine<ReplicaInput, ReplicaOutput> {
  readonly swim: Swim;
  readonly broadcast: Broadcaster;
  readonly brakes: Brakes;
  readonly uplink: Uplink;
  readonly syncClient: SyncClient;
  readonly syncServer: SyncServer;
  readonly books: Bookkeeping;
  readonly admission: Admission;
  readonly rings = new RingTable();
  readonly stats: ReplicaStats = createReplicaStats();
  readonly #options: ReplicaCoreOptions;
  readonly #inbox = new Inbox({ waitingMax: 20_000, batchMax: 1_000, inFlightMax: 2 });
  readonly #hlc: Hlc;
  readonly #own: OwnVersions;
  #outbox: ReplicaOutput[] = [];
  /** Rings have changed since they were spread; many do at once when a replica joins. */
  #hasNewRings = false;

  constructor(options: ReplicaCoreOptions) {
    const { self, prng } = options;
    this.#options = options;
    this.#hlc = options.hlc;
    this.books = new Bookkeeping(options.books);
    const stamp = (nowMs: number): bigint => this.stamp(nowMs);
    const swim = new Swim({ self, config: options.swim, prng, stampTs: stamp });
    this.swim = swim;
    this.admission = new Admission({
      books: this.books,
      isMember: (id) => id === self.id || (swim.memberById(id)?.state ?? "down") !== "down",
      actorsMax: options.actorsMax ?? ACTORS_DEFAULT,
    });
    this.uplink = new Uplink({
      bytesPerSecond: options.broadcast.budgetBytesPerSecond,
      syncShare: options.syncServer.uplinkShare,
    });
    // The cluster id may change while we run: all parts read it where membership keeps it.
    const identity = {
      actorId: self.id,
      get clusterId() {
        return swim.self.clusterId;
      },
    };
    const broadcast = Object.defineProperty({ ...options.broadcast }, "clusterId", {
      get: () => swim.self.clusterId,
    });
    const { bucket } = this.uplink;
    this.broadcast = createBroadcaster(broadcast, { prng, books: this.books, bucket });
    const { brake: config } = options;
    const { urgentColumns } = broadcast;
    const has = (actorId: ActorId, version: number): boolean =>
      this.books.contains(actorId, { start: version, end: version });
    this.brakes = new Brakes({ actorId: self.id, config, urgentColumns, prng, has });
    this.syncClient = new SyncClient({
      identity,
      config: options.syncClient,
      books: this.books,
      prng,
      stamp,
    });
    this.#own = new OwnVersions({
      actorId: self.id,
      recovery: options.recovery,
      books: this.books,
      members: () => swim.peers.map(({ actor }) => actor.id),
      tellSync: (input, nowMs) => this.syncClient.handle(input, nowMs),
      emit: (output) => this.#outbox.push(output),
    });
    this.syncServer = new SyncServer({
      identity,
      config: options.syncServer,
      books: this.books,
      stamp,
      ownHead: (head, nowMs) => this.brakes.headForSync(head, nowMs),
      uplink: this.uplink,
    });
  }

  /** Draws a stamp of the hybrid clock, for a transaction of our own. */
  stamp(nowMs: number): bigint {
    return this.#hlc.stamp(this.#options.wallNtp64(nowMs));
  }

  /** Changesets received and not applied yet. */
  get inboxSize(): number {
    return this.#inbox.size;
  }

  /** What broadcasts brought and the store has not answered for; what it was given. */
  get inboxStats(): ApplyQueueStats & { readonly dropped: number } {
    return this.#inbox.stats;
  }

  /** Whether own versions are still in doubt. */
  get isRecovering(): boolean {
    return this.#own.areInDoubt;
  }

  handle(input: ReplicaInput, nowMs: number): void {
    // Neither a packet nor a measurement makes anybody choose peers by ring.
    const usesRings = input.kind !== "packet" && input.kind !== "rtt";
    if (this.#hasNewRings && usesRings) this.#spreadMembers(nowMs);
    switch (input.kind) {
      case "start":
        if (input.members.length > 0) {
          this.#runSwim({ kind: "restore", members: input.members }, nowMs);
        }
        this.#runSwim({ kind: "start", bootstrap: input.bootstrap }, nowMs);
        this.#own.start(nowMs);
        break;
      case "packet": {
        const { packet, packetBytes } = input;
        this.#runSwim({ kind: "received", packet, packetBytes }, nowMs);
        break;
      }
      case "broadcast":
        this.#onBroadcast(input, nowMs);
        break;
      case "committed":
        this.#onCommitted(input, nowMs);
        break;
      case "applied":
        this.#onApplied(input.batchId, input.outcomes, nowMs);
        break;
      case "rtt":
        if (this.rings.sample(input.address, input.rttMs)) this.#hasNewRings = true;
        break;
      case "reconnected":
        this.broadcast.handle({ kind: "peerRenewed", address: input.address }, nowMs);
        break;
      case "sent":
        this.broadcast.handle(input, nowMs);
        break;
      case "syncClient":
        this.#onSyncClient(input.input, nowMs);
        break;
      case "syncServer":
        this.syncServer.handle(input.input, nowMs);
        break;
      case "plumtree":
        if (input.clusterId !== this.swim.self.clusterId) this.stats.otherCluster++;
        else this.broadcast.handle({ kind: "plumtree", message: input.message }, nowMs);
        break;
      case "bootstrap":
      case "rejoin":
      case "changeCluster":
      case "leave":
        if (input.kind === "leave") this.#leave(nowMs);
        this.#runSwim(input, nowMs);
        break;
      case "settled":
        this.#own.settled(input.isStored, nowMs);
        break;
      case "durable":
        this.brakes.durable(input.isStored);
        break;
      case "tick":
        this.#runSwim({ kind: "tick" }, nowMs);
        this.#own.tick(nowMs);
        this.brakes.tick(nowMs);
        this.broadcast.handle({ kind: "tick" }, nowMs);
        this.syncClient.handle({ kind: "tick" }, nowMs);
        this.syncServer.handle({ kind: "tick" }, nowMs);
        break;
    }
    this.#collect(nowMs);
  }

  drain(): ReplicaOutput[] {
    const outputs = this.#outbox;
    this.#outbox = [];
    return outputs;
  }

  deadlineMs(): number {
    return Math.min(
      this.swim.deadlineMs(),
      this.broadcast.deadlineMs(),
      this.brakes.deadlineMs(),
      this.syncClient.deadlineMs(),
      this.syncServer.deadlineMs(),
      this.#own.deadlineMs(),
    );
  }

  // ------------------------------------------------------------------ membership

  /** Swim's outputs are taken at once: what they say of members concerns the other machines. */
  #runSwim(input: SwimInput, nowMs: number): void {
    this.swim.handle(input, nowMs);
    let hasChanged = false;
    for (const output of this.swim.drain()) {
      if (output.kind === "send") {
        this.uplink.tookSwim(packetBytes(output.packet));
        this.#outbox.push({ kind: "sendPacket", target: output.target, packet: output.packet });
        continue;
      }
      this.#outbox.push({ kind: "notify", event: output.event });
      hasChanged = this.#onSwimEvent(output.event, nowMs) || hasChanged;
    }
    if (hasChanged) this.#spreadMembers(nowMs);
  }

  /** Returns whether the list of peers may have changed. */
  #onSwimEvent(event: SwimEvent, nowMs: number): boolean {
    switch (event.kind) {
      case "renamed": {
        // Whoever answered at the old address has restarted or moved: what was sent there last may
        // be lost, and a cached connection leads nowhere until it times out.
        const { before, after } = event;
        this.#outbox.push({ kind: "forget", target: before.addr, reason: "newer identity" });
        if (before.addr !== after.addr) this.rings.forget(before.addr);
        this.#spreadMembers(nowMs);
        this.broadcast.handle({ kind: "peerRenewed", address: after.addr }, nowMs);
        return true;
      }
      case "memberDown":
        // Another replica may have taken over the address: a host whose database was wiped.
        if (!this.#isOccupied(event.actor.addr)) this.rings.forget(event.actor.addr);
        return true;
      case "memberUp":
      case "identityRenewed": // Others took us for down and sent us nothing meanwhile.
        if (event.kind === "memberUp") this.#onNeighbourReplaced(event.actor, nowMs);
        this.syncClient.handle({ kind: "hint" }, nowMs);
        return true;
      case "memberSuspect":
      case "memberAlive":
      case "refuted":
      case "identityConflict":
      case "connected":
      case "disconnected":
      case "left":
        return false;
    }
  }

  #isOccupied(address: Address): boolean {
    return this.swim.members.some(({ actor }) => actor.addr === address);
  }

  /** A replica that answers where another one did is not reached over the other's connection. */
  #onNeighbourReplaced(actor: Actor, nowMs: number): void {
    const { members } = this.swim;
    if (!members.some((one) => one.actor.addr === actor.addr && one.actor.id !== actor.id)) return;
    this.#outbox.push({ kind: "forget", target: actor.addr, reason: "another actor id" });
    this.#spreadMembers(nowMs);
    this.broadcast.handle({ kind: "peerRenewed", address: actor.addr }, nowMs);
  }

  #spreadMembers(nowMs: number): void {
    this.#hasNewRings = false;
    const members = this.swim.peers.map(({ actor }) => ({
      actorId: actor.id,
      address: actor.addr,
      clusterId: actor.clusterId,
      ring: this.rings.ring(actor.addr),
      rttMs: this.rings.rttMs(actor.addr),
    }));
    this.broadcast.handle({ kind: "members", members }, nowMs);
    this.syncClient.handle({ kind: "candidates", peers: members }, nowMs);
  }

  // ------------------------------------------------------------------ changes

  #onBroadcast(input: Extract<ReplicaInput, { kind: "broadcast" }>, nowMs: number): void {
    const { changeset, clusterId } = input;
    const { self } = this.swim;
    if (clusterId !== self.clusterId) {
      this.stats.otherCluster++;
      return;
    }
    this.stats.changesReceived += changeWeight(changeset);
    if (changeset.actorId === self.id) {
      this.stats.own++;
      return;
    }
    if (this.broadcast.hasSeen(changeset) || this.#inbox.has(changeset)) {
      this.stats.known++;
      this.stats.knownLately++;
      if (this.brakes.holds(changeset)) return;
      this.broadcast.handle({ ...input, kind: "received", isNews: false }, nowMs);
      return;
    }
    if (changeset.ts !== null) this.#mergeClock(changeset.ts, nowMs);
    const verdict = this.books.classifyBroadcast(changeset);
    if (verdict === "invalid") {
      this.stats.invalid++;
      return;
    }
    const isNews = verdict !== "known";
    if (isNews && !this.#admits(changeset.actorId)) return;
    if (isNews) this.stats.news++;
    else this.stats.known++;
    if (isNews) this.brakes.received(input, nowMs);
    else if (!this.brakes.holds(changeset)) {
      this.broadcast.handle({ ...input, kind: "received", isNews }, nowMs);
    }
    if (!isNews) return;
    const dropped = this.#inbox.add(changeset, this.#isUrgent(changeset));
    if (dropped) this.#missed([dropped], nowMs);
  }

  /** Says so where an actor finds no place. */
  #admits(actorId: ActorId): boolean {
    if (this.admission.admits(actorId)) return true;
    this.#outbox.push({ kind: "strangerRefused", actorId, times: this.admission.refused });
    return false;
  }

  /** Received and given up before it was recorded: another copy is news, and sync asks for it. */
  #missed(changesets: readonly Changeset[], nowMs: number): void {
    for (const changeset of changesets) this.broadcast.forget(changeset);
    this.syncClient.handle({ kind: "hint" }, nowMs);
  }

  #isUrgent(changeset: Changeset): boolean {
    return (
      changeset.kind === "full" &&
      hasUrgentChange(changeset.changes, this.#options.broadcast.urgentColumns)
    );
  }

  #onCommitted(input: Extract<ReplicaInput, { kind: "committed" }>, nowMs: number): void {
    const { commit } = input;
    const { id } = this.swim.self;
    this.books.recordComplete(id, { start: commit.version, end: commit.version });
    this.brakes.committed(commit, input.bodies, nowMs);
  }

  #leave(nowMs: number): void {
    this.brakes.flush();
    for (const input of this.brakes.drain()) this.broadcast.handle(input, nowMs);
    this.broadcast.handle({ kind: "leave" }, nowMs);
  }

  #onApplied(batchId: number, outcomes: readonly ApplyOutcome[], nowMs: number): void {
    const batch = this.#inbox.finish(batchId);
    if (!batch) return;
    if (outcomes.length === 0) return this.#missed(batch.changesets, nowMs);
    for (const outcome of outcomes) {
      this.books.follow(outcome);
      this.admission.decided(outcome.changeset.actorId);
      if (outcome.kind === "refused") {
        this.stats.refused++;
        this.broadcast.forget(outcome.changeset);
      }
    }
    // A version that came before an earlier one: the gap is asked for without waiting for the
    // next round.
    if (this.books.isLacking()) this.syncClient.handle({ kind: "hint" }, nowMs);
  }

  #onSyncClient(input: SyncClientInput, nowMs: number): void {
    if (input.kind === "applied") {
      for (const outcome of input.outcomes) this.books.follow(outcome);
    }
    this.syncClient.handle(this.#withoutStrangers(input), nowMs);
  }

  /** What a server has of actors that find no place is not asked for. */
  #withoutStrangers(input: SyncClientInput): SyncClientInput {
    if (input.kind !== "message" || input.message.kind !== "state") return input;
    const { state } = input.message;
    const heads = new Map([...state.heads].filter(([actorId]) => this.#admits(actorId)));
    if (heads.size === state.heads.size) return input;
    return { ...input, message: { kind: "state", state: { ...state, heads } } };
  }

  #mergeClock(ts: bigint, nowMs: number): void {
    const merged = this.#hlc.merge(ts, this.#options.wallNtp64(nowMs));
    if (!merged.ok) this.stats.clockSkews++;
  }

  // ------------------------------------------------------------------ outputs

  /** Urgent work first: what takes a machine out of service waits for nothing else. */
  #collect(nowMs: number): void {
    for (let batch = this.#inbox.take(); batch !== null; batch = this.#inbox.take()) {
      this.#outbox.push({ kind: "apply", ...batch });
    }
    for (const input of this.brakes.drain()) this.broadcast.handle(input, nowMs);
    const ownHead = this.books.head(this.#options.self.id);
    if (this.brakes.asksDisk(ownHead, nowMs)) this.#outbox.push({ kind: "makeDurable" });
    for (const event of this.brakes.drainEvents()) this.#outbox.push({ kind: "braked", ...event });
    for (const output of this.broadcast.drain()) {
      if (output.kind === "send") this.#outbox.push({ ...output, kind: "sendFrames" });
      else this.#outbox.push({ kind: "dropped", reason: output.reason, count: output.count });
    }
    for (const output of this.syncClient.drain()) {
      if (output.kind === "clock") this.#mergeClock(output.ts, nowMs);
      else if (output.kind === "compared") this.#own.compared(output, nowMs);
      else {
        if (output.kind === "send") this.uplink.tookSync(output.message);
        this.#outbox.push({ kind: "syncClient", output });
        const isRoundOver = output.kind === "notify" && output.event.kind === "roundFinished";
        if (isRoundOver) this.admission.forget();
        if (isRoundOver) this.#own.roundFinished(nowMs);
      }
    }
    for (const output of this.syncServer.drain()) {
      if (output.kind === "clock") this.#mergeClock(output.ts, nowMs);
      else {
        if (output.kind === "send") this.uplink.tookSync(output.message);
        this.#outbox.push({ kind: "syncServer", output });
      }
    }
  }
}
