/**
 * A replica in a simulated world: the production core with a virtual driver, and a disk that
 * outlives its crashes.
 *
 * Store operations run one at a time and take virtual time: each is performed at one moment and
 * answered at a later one, and a crash may fall before, between or after.
 */
import { createPrng, type Prng } from "#base/prng.ts";
import { BROADCAST_DEFAULTS } from "../core/broadcast/types.ts";
import { Hlc, unixMsToNtp64 } from "../core/hlc.ts";
import { ReplicaCore, type ReplicaInput, type ReplicaOutput } from "../core/replica-core.ts";
import { lanPreset } from "../core/swim/config.ts";
import type { SwimPacket } from "../core/swim/packet.ts";
import { packetBytes } from "../core/swim/codec.ts";
import type { SyncClientOutput } from "../core/sync/client-types.ts";
import { SYNC_CLIENT_LAN, SYNC_SERVER_DEFAULTS } from "../core/sync/config.ts";
import type { SessionMessage } from "../core/sync/messages.ts";
import type { SyncServerOutput } from "../core/sync/sync-server.ts";
import { decodeUniPayload } from "../core/wire/uni-payload.ts";
import type { ActorId, Address, ApplyOutcome, LocalCommit, SyncNeed } from "../types.ts";
import type { EventQueue } from "./event-queue.ts";
import { ModelStore, type ModelWrite } from "./model-store.ts";
import { recodeMessage, recodePacket } from "./sim-codec.ts";
import type { NetworkEndpoint, SimNetwork, StreamEnd } from "./sim-network.ts";
import type { Trace } from "./trace.ts";

/** Where and how a replica lives. */
export interface SimReplicaOptions {
  readonly actorId: ActorId;
  readonly address: Address;
  readonly bootstrap: readonly Address[];
  readonly queue: EventQueue;
  readonly network: SimNetwork;
  readonly trace: Trace;
  readonly prng: Prng;
  /** Greatest virtual time of one store operation. */
  readonly storeMs: number;
  /** And of each changeset applied or read, on top of that. */
  readonly storeChangeMs: number;
  /** Greatest width of a sync need. */
  readonly pieceVersions: number;
  /** How far the wall clock is ahead of the world's. */
  readonly skewMs: number;
  /** Send messages through their bytes. */
  readonly isEncoding: boolean;
  /** Chunk size of own transactions. */
  readonly chunkBytes: number;
  /** Hears of each transaction when it is on the disk. */
  readonly onCommit: (commit: LocalCommit) => void;
}

/** One replica, running or crashed. */
export class SimReplica implements NetworkEndpoint {
  readonly address: Address;
  readonly store: ModelStore;
  readonly #options: SimReplicaOptions;
  /** `null` while crashed. */
  #core: ReplicaCore | null = null;
  /** Number of the present life; what was planned in an earlier one does not happen. */
  #life = 0;
  #clientStreams = new Map<number, StreamEnd>();
  #serverStreams = new Map<number, StreamEnd>();
  #nextServerSession = 1;
  #storeFreeMs = 0;
  #pausedUntilMs = 0;
  #wakeMs = Number.POSITIVE_INFINITY;
  readonly #measured = new Set<Address>();
  /** Changesets refused by the store, in all lives. */
  refused = 0;

  constructor(options: SimReplicaOptions) {
    this.#options = options;
    this.address = options.address;
    this.store = new ModelStore(options.actorId, options.chunkBytes);
  }

  get actorId(): ActorId {
    return this.#options.actorId;
  }

  /** The running core; `null` while crashed. */
  get core(): ReplicaCore | null {
    return this.#core;
  }

  /** Starts with what is on the disk. */
  start(): void {
    const { queue, actorId, address, bootstrap, prng, network, pieceVersions } = this.#options;
    this.#life += 1;
    this.#clientStreams = new Map();
    this.#serverStreams = new Map();
    this.#storeFreeMs = queue.nowMs;
    const hlc = new Hlc();
    const ts = hlc.stamp(this.#wall(queue.nowMs));
    this.#core = new ReplicaCore({
      self: { id: actorId, addr: address, ts, clusterId: 0, memberId: null },
      swim: lanPreset,
      broadcast: { ...BROADCAST_DEFAULTS, actorId, clusterId: 0 },
      syncClient: {
        ...SYNC_CLIENT_LAN,
        pieceVersionsMax: pieceVersions,
        openVersionsStart: 10 * pieceVersions,
      },
      syncServer: SYNC_SERVER_DEFAULTS,
      books: this.store.loadBooks(),
      prng: createPrng([prng.below(2 ** 32), this.#life]),
      hlc,
      wallNtp64: (nowMs) => this.#wall(nowMs),
    });
    network.attach(this);
    this.#put({ kind: "start", bootstrap, members: [] });
  }

  /** Ends at once: nothing that was planned happens, nothing of memory is kept. */
  crash(): void {
    if (this.#core === null) return;
    if (this.#storeFreeMs > this.#options.queue.nowMs) this.#mark("crashed with store work open");
    this.#life += 1;
    this.#core = null;
    this.#options.network.detach(this.address);
  }

  /** Stops handling anything for a while; what comes meanwhile is handled afterwards. */
  pause(forMs: number): void {
    this.#pausedUntilMs = this.#options.queue.nowMs + forMs;
  }

  /** A transaction of a user of this replica; lost when it crashes before it is on the disk. */
  write(writes: readonly ModelWrite[]): void {
    const core = this.#core;
    if (core === null) return;
    this.#inStore(
      () => {
        const commit = this.store.transact(writes, core.stamp(this.#options.queue.nowMs));
        if (commit !== null) this.#options.onCommit(commit);
        return commit;
      },
      (commit) => (commit === null ? [] : [{ kind: "committed", commit }]),
    );
  }

  // ---------------------------------------------------------------- the network's side

  onPacket(packet: SwimPacket): void {
    this.#put({ kind: "packet", packet, packetBytes: packetBytes(packet) });
  }

  onFrames(frames: readonly Uint8Array[]): void {
    // Newest first, as the protocol has it.
    for (const payload of frames.toReversed()) {
      const decoded = decodeUniPayload(payload);
      if (!decoded.ok || decoded.value.kind !== "change") continue;
      const { changesets, clusterId } = decoded.value;
      for (const changeset of changesets) {
        this.#put({ kind: "broadcast", changeset, payload, clusterId });
      }
    }
  }

  onStream(stream: StreamEnd): boolean {
    if (this.#core === null) return false;
    const sessionId = this.#nextServerSession;
    this.#nextServerSession += 1;
    this.#serverStreams.set(sessionId, stream);
    this.#listen(stream, (input) => {
      this.#put({ kind: "syncServer", input: { ...input, sessionId } });
    });
    this.#put({ kind: "syncServer", input: { kind: "accepted", sessionId } });
    return true;
  }

  #listen(stream: StreamEnd, put: (input: StreamNews) => void): void {
    const inThisLife = this.#inThisLife();
    stream.onMessage = (message) => inThisLife(() => put({ kind: "message", message }));
    stream.onFinished = () => inThisLife(() => put({ kind: "finished" }));
    stream.onBroken = () =>
      inThisLife(() => {
        this.#mark("stream broken");
        put({ kind: "broken" });
      });
  }

  // ---------------------------------------------------------------- running the core

  #put(input: ReplicaInput): void {
    const { queue, trace } = this.#options;
    const core = this.#core;
    if (core === null) return;
    if (queue.nowMs < this.#pausedUntilMs) {
      const inThisLife = this.#inThisLife();
      queue.at(this.#pausedUntilMs, () => inThisLife(() => this.#put(input)));
      return;
    }
    trace.note(queue.nowMs, `${this.address} ${describe(input)}`);
    core.handle(input, queue.nowMs);
    // Outputs may lead to further inputs only through the queue, so this cannot recurse.
    for (const output of core.drain()) this.#perform(output);
    this.#planWake(core.deadlineMs());
  }

  #planWake(deadlineMs: number): void {
    const { queue } = this.#options;
    if (deadlineMs >= this.#wakeMs && this.#wakeMs > queue.nowMs) return;
    if (deadlineMs === Number.POSITIVE_INFINITY) return;
    const wakeMs = Math.max(deadlineMs, queue.nowMs + LEAST_TICK_MS);
    this.#wakeMs = wakeMs;
    const inThisLife = this.#inThisLife();
    queue.at(wakeMs, () =>
      inThisLife(() => {
        if (this.#wakeMs === wakeMs) this.#wakeMs = Number.POSITIVE_INFINITY;
        this.#put({ kind: "tick" });
      }),
    );
  }

  #perform(output: ReplicaOutput): void {
    const { network, trace, queue } = this.#options;
    trace.note(queue.nowMs, output.kind);
    switch (output.kind) {
      case "sendPacket": {
        const { target, packet } = output;
        const link = { source: this.address, target };
        network.sendPacket(link, this.#options.isEncoding ? recodePacket(packet) : packet);
        return this.#measure(target);
      }
      case "sendFrames": {
        const { id, target, frames } = output;
        const inThisLife = this.#inThisLife();
        return network.sendFrames({ source: this.address, target }, frames, (ok) =>
          inThisLife(() => this.#put({ kind: "sent", id, ok })),
        );
      }
      case "apply": {
        const { batchId, changesets } = output;
        return this.#inStore(
          () => this.#noted(this.store.apply(changesets)),
          (outcomes) => [{ kind: "applied", batchId, outcomes }],
          changesets.length,
        );
      }
      case "syncClient":
        return this.#performClient(output.output);
      case "syncServer":
        return this.#performServer(output.output);
      case "forget":
        return network.forget({ source: this.address, target: output.target });
      case "notify":
        return this.#mark(output.event.kind);
      case "dropped":
        return this.#mark("broadcast dropped");
    }
  }

  #performClient(output: SyncClientOutput): void {
    switch (output.kind) {
      case "open":
        return this.#open(output.sessionId, output.peer.address);
      case "send":
        return this.#clientStreams.get(output.sessionId)?.send(this.#recoded(output.message));
      case "finish":
        return this.#clientStreams.get(output.sessionId)?.finish();
      case "abort":
        this.#clientStreams.get(output.sessionId)?.abort();
        this.#clientStreams.delete(output.sessionId);
        return;
      case "apply": {
        const { batchId, changesets } = output;
        return this.#inStore(
          () => this.#noted(this.store.apply(changesets)),
          (outcomes) => [{ kind: "syncClient", input: { kind: "applied", batchId, outcomes } }],
          changesets.length,
        );
      }
      case "notify":
        if (output.event.kind === "sessionEnded") this.#mark(`client: ${output.event.reason}`);
        return;
      case "clock":
      case "reading":
        return;
    }
  }

  #performServer(output: SyncServerOutput): void {
    switch (output.kind) {
      case "send":
        return this.#answer(output.sessionId, output.message);
      case "finish":
        this.#serverStreams.get(output.sessionId)?.finish();
        this.#serverStreams.delete(output.sessionId);
        return;
      case "abort":
        this.#serverStreams.get(output.sessionId)?.abort();
        this.#serverStreams.delete(output.sessionId);
        return;
      case "read": {
        const { request, requestId } = output;
        if (request.need.kind === "partial") this.#mark("partial asked");
        return this.#inStore(
          () => this.store.readVersions(request),
          (changesets) => [
            { kind: "syncServer", input: { kind: "versions", requestId, changesets } },
          ],
          versionsIn(request.need),
        );
      }
      case "notify":
        return this.#mark(`server: ${output.event.reason}`);
      case "clock":
        return;
    }
  }

  #open(sessionId: number, target: Address): void {
    const inThisLife = this.#inThisLife();
    this.#options.network.open({ source: this.address, target }, (stream) => {
      inThisLife(() => {
        if (stream === null) {
          return this.#put({ kind: "syncClient", input: { kind: "openFailed", sessionId } });
        }
        this.#clientStreams.set(sessionId, stream);
        this.#listen(stream, (input) => {
          this.#put({ kind: "syncClient", input: { ...input, sessionId } });
        });
        this.#put({ kind: "syncClient", input: { kind: "opened", sessionId } });
      });
      // Opened for a life that is over: the peer hears of it.
      if (this.#core === null) stream?.abort();
    });
  }

  #answer(sessionId: number, message: SessionMessage): void {
    this.#serverStreams.get(sessionId)?.send(this.#recoded(message));
    if (message.kind !== "changesets") return;
    const frames = message.changesets.length;
    if (message.changesets.some((changeset) => changeset.kind === "empty")) {
      this.#mark("empty served");
    }
    const tookMs = this.#options.prng.next() * 20;
    const inThisLife = this.#inThisLife();
    this.#options.queue.after(tookMs, () =>
      inThisLife(() => {
        this.#put({ kind: "syncServer", input: { kind: "sent", sessionId, frames, tookMs } });
      }),
    );
  }

  /** Performs an operation after those before it, and answers it later still. */
  #inStore<Answer>(
    perform: () => Answer,
    toInputs: (answer: Answer) => ReplicaInput[],
    changesets = 1,
  ): void {
    const { queue, prng, storeMs, storeChangeMs } = this.#options;
    const workMs = prng.next() * storeMs + changesets * storeChangeMs;
    const performedMs = Math.max(queue.nowMs, this.#storeFreeMs) + workMs;
    const answeredMs = performedMs + prng.next() * storeMs;
    this.#storeFreeMs = performedMs;
    const inThisLife = this.#inThisLife();
    queue.at(performedMs, () =>
      inThisLife(() => {
        const answer = perform();
        const life = this.#life;
        queue.at(answeredMs, () => {
          if (this.#life !== life) this.#mark("crashed between effect and answer");
          inThisLife(() => {
            for (const input of toInputs(answer)) this.#put(input);
          });
        });
      }),
    );
  }

  #noted(outcomes: ApplyOutcome[]): ApplyOutcome[] {
    for (const outcome of outcomes) {
      if (outcome.kind === "refused") this.refused += 1;
      this.#mark(`outcome: ${outcome.kind}`);
    }
    return outcomes;
  }

  /** The transport measures each path that is used, once. */
  #measure(target: Address): void {
    if (this.#measured.has(target)) return;
    this.#measured.add(target);
    const rttMs = 2 * this.#options.network.baseLatencyMs({ source: this.address, target });
    const inThisLife = this.#inThisLife();
    this.#options.queue.after(rttMs, () =>
      inThisLife(() => this.#put({ kind: "rtt", address: target, rttMs })),
    );
  }

  #recoded(message: SessionMessage): SessionMessage {
    return this.#options.isEncoding ? recodeMessage(message) : message;
  }

  #wall(nowMs: number): bigint {
    return unixMsToNtp64(EPOCH_UNIX_MS + nowMs + this.#options.skewMs);
  }

  #mark(mark: string): void {
    this.#options.trace.sometimes(mark);
  }

  /** Runs what is given to it only while the present life lasts. */
  #inThisLife(): (run: () => void) => void {
    const life = this.#life;
    return (run) => {
      if (this.#life === life && this.#core !== null) run();
    };
  }
}

type StreamNews =
  | { readonly kind: "message"; readonly message: SessionMessage }
  | { readonly kind: "finished" }
  | { readonly kind: "broken" };

function versionsIn(need: SyncNeed): number {
  return need.kind === "full" ? need.versions.end - need.versions.start + 1 : 1;
}

/** What identifies an input in the trace. */
function describe(input: ReplicaInput): string {
  switch (input.kind) {
    case "packet":
      return `packet ${input.packet.message.kind}`;
    case "broadcast":
      return `broadcast ${nameOf(input.changeset)}`;
    case "committed":
      return `committed ${input.commit.version}`;
    case "applied":
      return `applied ${input.outcomes.map((outcome) => outcome.kind).join()}`;
    case "syncClient":
    case "syncServer": {
      const what = input.input.kind === "message" ? input.input.message.kind : input.input.kind;
      return `${input.kind} ${what}`;
    }
    default:
      return input.kind;
  }
}

function nameOf(changeset: Parameters<ModelStore["apply"]>[0][number]): string {
  if (changeset.kind === "empty") return `${changeset.actorId} empty ${changeset.versions.start}`;
  return `${changeset.actorId} ${changeset.version} ${changeset.seqs.start}`;
}

/** Time zero of every world: a date after that of the protocol's captures. */
const EPOCH_UNIX_MS = 1_770_000_000_000;
/** A machine that is due at once is run again after this; keeps virtual time moving. */
const LEAST_TICK_MS = 0.01;
