/**
 * A replica in a simulated world: the production core with a virtual driver, and a disk (rows,
 * books, members) that outlives its crashes.
 *
 * The driver's rules are the production driver's: frames of a stream are handled newest first, a
 * connection that comes up after it was lost has what was sent last repeated, members are saved
 * now and then and restored at the start.
 */
import { assert } from "#base/errors.ts";
import { createPrng } from "#base/prng.ts";
import { BROADCAST_DEFAULTS } from "../core/broadcast/types.ts";
import { RECOVERY_DEFAULTS } from "../core/recovery/recovery.ts";
import { Hlc, unixMsToNtp64 } from "../core/hlc.ts";
import { ReplicaCore } from "../core/replica-core.ts";
import type { ReplicaInput, ReplicaOutput } from "../core/replica-messages.ts";
import { lanPreset } from "../core/swim/config.ts";
import type { MemberUpdate, SwimPacket } from "../core/swim/packet.ts";
import { packetBytes } from "../core/swim/codec.ts";
import type { SyncClientOutput } from "../core/sync/client-types.ts";
import { SYNC_CLIENT_LAN, SYNC_SERVER_DEFAULTS } from "../core/sync/config.ts";
import type { SessionMessage } from "../core/sync/messages.ts";
import { versionsOf } from "../core/sync/needs.ts";
import type { SyncServerOutput } from "../core/sync/sync-server.ts";
import type { BroadcastBody, UniPayload } from "../core/wire/types.ts";
import type { ActorId, Address } from "../types.ts";
import { ModelStore, type ModelWrite } from "./model-store.ts";
import { recodePacket } from "./sim-codec.ts";
import type { NetworkEndpoint } from "./sim-network.ts";
import { SimSessions } from "./sim-sessions.ts";
import { SimReader } from "./sim-reader.ts";
import { SimStoreWorker } from "./sim-store-worker.ts";
import type { StreamEnd } from "./sim-stream.ts";
import { describeInput } from "./describe-input.ts";
import type { SimReplicaOptions } from "./sim-replica-options.ts";

/** A broadcast but for its change. */
type FrameOrigin = Omit<Extract<ReplicaInput, { kind: "broadcast" }>, "kind" | "changeset">;

/** What runs from a start to the next crash. */
interface Life {
  readonly core: ReplicaCore;
  readonly worker: SimStoreWorker;
  readonly sessions: SimSessions;
  /** Targets whose connection was lost and is not up again. */
  readonly lostTargets: Set<Address>;
  wakeMs: number;
}

/** One replica, running or crashed. */
export class SimReplica implements NetworkEndpoint<SwimPacket, SessionMessage> {
  #store: ModelStore;
  readonly #options: SimReplicaOptions;
  #address: Address;
  /** `null` while crashed. */
  #life: Life | null = null;
  #lives = 0;
  #pausedUntilMs = 0;
  /** The members as saved last. */
  #savedMembers: readonly MemberUpdate[] = [];
  /** Folds this replica's change stream; it lives elsewhere. */
  readonly reader: SimReader;

  constructor(options: SimReplicaOptions) {
    const { queue } = options;
    this.#options = options;
    this.#address = options.address;
    this.reader = new SimReader({
      queue,
      prng: options.readerPrng,
      mark: (mark) => this.#mark(mark),
    });
    this.#store = new ModelStore(options.actorId, options.traits.chunkBytes);
  }

  /** What is on its disk. */
  get store(): ModelStore {
    return this.#store;
  }

  get actorId(): ActorId {
    return this.#store.actorId;
  }

  /** Where it lives, or lived last. */
  get address(): Address {
    return this.#address;
  }

  /** Whether it was ever started. */
  get hasStarted(): boolean {
    return this.#lives > 0;
  }

  /** Whether it knows of others, to be asked after a loss. */
  get expectsOthers(): boolean {
    return this.#options.bootstrap.length > 0 || this.#savedMembers.length > 0;
  }

  /** The running core; `null` while crashed. */
  get core(): ReplicaCore | null {
    return this.#life?.core ?? null;
  }

  /** When the last pause ends, or ended. */
  get pausedUntilMs(): number {
    return this.#pausedUntilMs;
  }

  /** Whether the store has nothing to do and nothing to answer. */
  get isStoreIdle(): boolean {
    return this.#life?.worker.isIdle ?? true;
  }

  /** Starts with what is on the disk, at the same address or at another. */
  start(address: Address = this.#address): void {
    const { queue, network, trace, traits, observer, prng } = this.#options;
    this.#address = address;
    this.#lives += 1;
    this.#pausedUntilMs = 0;
    // The mark that a run leaves at its start is synced.
    this.#store.sync();
    const mark = (text: string): void => this.#mark(text);
    const life: Life = {
      core: this.#createCore(),
      worker: new SimStoreWorker({
        store: this.store,
        queue,
        prng,
        storeMs: traits.storeMs,
        changesetMs: traits.changesetMs,
        mark,
        onApplied: (outcomes) => {
          for (const { kind } of outcomes) trace.sometimes(`outcome: ${kind}`);
          this.reader.committed();
          observer.onApplied(outcomes);
        },
      }),
      sessions: new SimSessions({
        address,
        network,
        queue,
        isEncoding: traits.isEncoding,
        client: (input) => this.#put(life, { kind: "syncClient", input }),
        server: (input) => this.#put(life, { kind: "syncServer", input }),
        mark,
      }),
      lostTargets: new Set(),
      wakeMs: Number.POSITIVE_INFINITY,
    };
    this.#life = life;
    this.reader.storeStarted(this.store);
    network.attach(this);
    const members = this.#savedMembers;
    if (members.length > 0) this.#mark("members restored");
    this.#put(life, { kind: "start", bootstrap: this.#options.bootstrap, members });
    this.#saveMembersLater(life);
  }

  /** Ends at once: nothing that was planned happens, nothing of memory is kept. */
  crash(): void {
    this.#end(false);
  }

  /** Ends at once, and the disk loses the last `lost` transactions of those that may be lost. */
  losePower(lost: number): void {
    this.#end(false);
    this.#store = this.#store.afterPowerLoss(lost);
  }

  /** Leaves the cluster, saves the members, closes its connections and ends. */
  leave(): void {
    if (this.#life === null) return;
    this.#savedMembers = this.#life.core.swim.records.slice();
    this.#pausedUntilMs = 0;
    this.#put(this.#life, { kind: "leave" });
    this.#end(true);
  }

  /** Stops handling anything for a while; what comes meanwhile is handled afterwards. */
  pause(forMs: number): void {
    this.#pausedUntilMs = this.#options.queue.nowMs + forMs;
  }

  /** A transaction of a user of this replica; lost when it crashes before it is on the disk. */
  write(writes: readonly ModelWrite[]): void {
    const life = this.#life;
    if (life === null) return;
    life.worker.write(
      () => {
        if (this.store.isInDoubt) {
          this.#mark("write refused in doubt");
          return null;
        }
        const commit = this.store.transact(writes, life.core.stamp(this.#options.queue.nowMs));
        if (commit === null) return null;
        this.reader.committed();
        this.#options.observer.onCommit(commit);
        return commit;
      },
      (commit) => {
        if (commit !== null) this.#put(life, { kind: "committed", commit });
      },
    );
  }

  // ---------------------------------------------------------------- the network's side

  onPacket(packet: SwimPacket): void {
    this.#hear({ kind: "packet", packet, packetBytes: packetBytes(packet) });
  }

  onFrames(frames: readonly Uint8Array[]): void {
    for (const payload of frames.toReversed()) {
      const decoded = this.#options.frames.decode(payload);
      if (decoded.ok) this.#onPayload(decoded.value.payload, payload, decoded.value.body);
    }
  }

  #onPayload(payload: UniPayload, frame: Uint8Array, body: Uint8Array | null): void {
    const { clusterId } = payload;
    if (payload.kind !== "plumtree") {
      return this.#onBody(payload, { payload: frame, body, gossip: null, clusterId });
    }
    const { message } = payload;
    if (message.kind !== "gossip") return this.#hear({ kind: "plumtree", message, clusterId });
    this.#onBody(message.body, { payload: null, body, gossip: message, clusterId });
  }

  #onBody(change: BroadcastBody, from: FrameOrigin): void {
    if (change.kind !== "change") return;
    for (const changeset of change.changesets) {
      this.#hear({ kind: "broadcast", changeset, ...from });
    }
  }

  onStream(stream: StreamEnd<SessionMessage>): boolean {
    return this.#life?.sessions.accept(stream) ?? false;
  }

  onConnection(target: Address, state: "up" | "down"): void {
    if (state === "down") {
      this.#life?.lostTargets.add(target);
    } else if (this.#life?.lostTargets.delete(target) === true) {
      this.#mark("reconnected");
      this.#hear({ kind: "reconnected", address: target });
    }
  }

  onRtt(target: Address, rttMs: number): void {
    this.#hear({ kind: "rtt", address: target, rttMs });
  }

  // ---------------------------------------------------------------- running the core

  #createCore(): ReplicaCore {
    const { queue, prng, traits } = this.#options;
    const { actorId } = this;
    const hlc = new Hlc();
    const ts = hlc.stamp(this.#wall(queue.nowMs));
    return new ReplicaCore({
      self: { id: actorId, addr: this.#address, ts, clusterId: 0, memberId: null },
      swim: lanPreset,
      broadcast: { ...BROADCAST_DEFAULTS, ...traits.broadcast, actorId, clusterId: 0 },
      brake: traits.brake,
      syncClient: {
        ...SYNC_CLIENT_LAN,
        pieceVersionsMax: traits.pieceVersions,
        openVersionsStart: 10 * traits.pieceVersions,
        pendingChangesMax: traits.pendingChangesMax,
      },
      syncServer: SYNC_SERVER_DEFAULTS,
      books: this.store.loadBooks(),
      prng: createPrng([prng.below(2 ** 32), this.#lives]),
      hlc,
      wallNtp64: (nowMs) => this.#wall(nowMs),
      ...(this.store.isInDoubt ? { recovery: RECOVERY_DEFAULTS } : {}),
    });
  }

  #end(isGraceful: boolean): void {
    const life = this.#life;
    if (life === null) return;
    this.#life = null;
    life.worker.stop();
    life.sessions.stop();
    this.reader.storeEnded();
    this.#options.network.detach(this.#address, isGraceful);
  }

  #saveMembersLater(life: Life): void {
    this.#options.queue.after(MEMBERS_PERIOD_MS, () => {
      if (this.#life !== life) return;
      this.#savedMembers = life.core.swim.records.slice();
      this.#saveMembersLater(life);
    });
  }

  #hear(input: ReplicaInput): void {
    if (this.#life !== null) this.#put(this.#life, input);
  }

  /** Gives an input to the core of one life, if it still lives. */
  #put(life: Life, input: ReplicaInput): void {
    const { queue, trace } = this.#options;
    if (this.#life !== life) return;
    if (queue.nowMs < this.#pausedUntilMs) {
      queue.at(this.#pausedUntilMs, () => this.#put(life, input));
      return;
    }
    trace.note(queue.nowMs, this.#address, describeInput(input));
    life.core.handle(input, queue.nowMs);
    // Outputs may lead to further inputs only through the queue, so this cannot recurse.
    for (const output of life.core.drain()) this.#perform(life, output);
    this.#planWake(life);
  }

  #planWake(life: Life): void {
    const { queue } = this.#options;
    const deadlineMs = life.core.deadlineMs();
    if (deadlineMs >= life.wakeMs && life.wakeMs > queue.nowMs) return;
    if (deadlineMs === Number.POSITIVE_INFINITY) return;
    const wakeMs = Math.max(deadlineMs, queue.nowMs + LEAST_TICK_MS);
    life.wakeMs = wakeMs;
    queue.at(wakeMs, () => {
      // An earlier wake was planned meanwhile: it plans the next by itself.
      if (life.wakeMs !== wakeMs) return;
      life.wakeMs = Number.POSITIVE_INFINITY;
      this.#put(life, { kind: "tick" });
    });
  }

  #perform(life: Life, output: ReplicaOutput): void {
    const { network, trace, queue, traits } = this.#options;
    trace.note(queue.nowMs, output.kind, "");
    switch (output.kind) {
      case "sendPacket": {
        const { target, packet } = output;
        const link = { source: this.#address, target };
        return network.sendPacket(link, traits.isEncoding ? recodePacket(packet) : packet);
      }
      case "sendFrames": {
        const { id, target, frames } = output;
        return network.sendFrames({ source: this.#address, target }, frames, (ok) =>
          this.#put(life, { kind: "sent", id, ok }),
        );
      }
      case "apply": {
        const { batchId } = output;
        return life.worker.apply(output, (outcomes) =>
          this.#put(life, { kind: "applied", batchId, outcomes }),
        );
      }
      case "syncClient":
        return this.#performClient(life, output.output);
      case "syncServer":
        return this.#performServer(life, output.output);
      case "forget":
        return network.forget({ source: this.#address, target: output.target });
      case "notify":
        return this.#mark(output.event.kind);
      case "braked":
        return this.#mark(output.isOn ? "braked" : "brake off");
      case "dropped":
      case "strangerRefused":
        return this.#mark("broadcast dropped");
      case "makeDurable": {
        const durable = (): void => this.#put(life, { kind: "durable", isStored: true });
        return life.worker.write(() => this.#store.sync(), durable);
      }
      case "settleOwnVersions":
        return this.#settleOwnVersions(life, output.head);
      case "renewIdentity":
        return this.#renew(life);
    }
  }

  /** Ends, and starts as another actor with the same rows. */
  #renew({ core }: Life): void {
    const { queue, observer } = this.#options;
    const former = this.actorId;
    const { store, commit } = this.#store.renewed(greaterId(former), core.stamp(queue.nowMs));
    this.crash();
    this.#store = store;
    this.#mark("identity renewed");
    observer.onRenewed(former, commit);
    queue.after(RENEWED_AFTER_MS, () => this.start());
  }

  #settleOwnVersions(life: Life, head: number): void {
    life.worker.write(
      () => {
        this.store.settleOwnVersions(head);
        this.#mark("own versions settled");
        this.#options.observer.onSettled(head);
      },
      () => this.#put(life, { kind: "settled", isStored: true }),
    );
  }

  #performClient(life: Life, output: SyncClientOutput): void {
    switch (output.kind) {
      case "apply": {
        const { batchId, changesets } = output;
        return life.worker.apply({ changesets, isUrgent: false }, (outcomes) =>
          this.#put(life, { kind: "syncClient", input: { kind: "applied", batchId, outcomes } }),
        );
      }
      case "notify":
        if (output.event.kind === "sessionEnded") this.#mark(`client: ${output.event.reason}`);
        return;
      case "clock":
      case "compared":
        return;
      case "open":
      case "send":
      case "finish":
      case "abort":
      case "reading":
        return life.sessions.performClient(output);
    }
  }

  #performServer(life: Life, output: SyncServerOutput): void {
    switch (output.kind) {
      case "read": {
        const { request, requestId } = output;
        if (request.need.kind === "partial") this.#mark("partial asked");
        const { start, end } = versionsOf(request.need);
        return life.worker.read(
          end - start + 1,
          () => this.store.readVersions(request),
          (changesets) => {
            const input = { kind: "versions", requestId, changesets } as const;
            this.#put(life, { kind: "syncServer", input });
          },
        );
      }
      case "notify":
        return this.#mark(`server: ${output.event.reason}`);
      case "clock":
        return;
      case "send":
      case "finish":
      case "abort":
        return life.sessions.performServer(output);
    }
  }

  #wall(nowMs: number): bigint {
    return unixMsToNtp64(EPOCH_UNIX_MS + nowMs + this.#options.skewMs);
  }

  #mark(mark: string): void {
    this.#options.trace.sometimes(mark);
  }
}

/** That of a replica which has none of its own any more; once in its life. */
function greaterId(former: ActorId): ActorId {
  assert(former.startsWith("0"), "actor ids of a world are small numbers");
  return `e${former.slice(1)}`;
}

/** Time zero of every world: a date after that of the protocol's captures. */
const EPOCH_UNIX_MS = 1_770_000_000_000;
/** A machine that is due at once is run again after this; keeps virtual time moving. */
const LEAST_TICK_MS = 0.01;
/** From the end of a life to the next, under another actor id. */
const RENEWED_AFTER_MS = 500;
/** How often members are saved, as in production. */
const MEMBERS_PERIOD_MS = 10_000;
